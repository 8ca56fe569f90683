"""Exact nearest neighbours: blocked float32 products find candidates, float64 settles them.

A lost neighbour would be invented novelty in an audit, so nothing here is approximate: a block of
products ranks all pairs, and the best `k` + SPARE of each query are measured again by direct
differences in float64, which the cancellation in |x|^2 - 2xy + |y|^2 cannot touch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SPARE = 6
QUERY_BLOCK, POINT_BLOCK = 2048, 8192


def nearest(
    queries: np.ndarray, points: np.ndarray, k: int = 1, *, skip_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (Q, k) and indices (Q, k) of the k nearest `points` (N, d) of each query (Q, d).

    skip_self: queries are the points, and a point is not its own neighbour. Memory is bounded by
    the blocks. k is cut to the number of points there are; ties go to the lower index.
    """
    available = len(points) - int(skip_self)
    k = max(min(k, available), 0)
    centre = points.mean(0, dtype=np.float64)
    base = torch.from_numpy(np.ascontiguousarray(points - centre, dtype=np.float32))
    norms = base.square().sum(1)
    distance, index = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        rows = slice(start, min(start + QUERY_BLOCK, len(queries)))
        block = np.asarray(queries[rows], dtype=np.float64)
        near = torch.from_numpy((block - centre).astype(np.float32))
        own = torch.arange(rows.start, rows.stop) if skip_self else None
        candidates = _candidates(near, base, norms, min(k + SPARE, available), own)
        distance[rows], index[rows] = _settle(block, points, candidates.numpy(), k)
    return distance, index


def _candidates(near: Tensor, base: Tensor, norms: Tensor, k: int, own: Tensor | None) -> Tensor:
    """Indices (Q, k) of the likely nearest points, merged over blocks of points."""
    best = torch.full((len(near), 0), torch.inf)
    found = torch.zeros((len(near), 0), dtype=torch.int64)
    for start in range(0, len(base), POINT_BLOCK):
        points = base[start : start + POINT_BLOCK]
        score = torch.addmm(norms[start : start + POINT_BLOCK], near, points.T, alpha=-2)
        if own is not None:
            inside = (own >= start) & (own < start + len(points))
            score[inside.nonzero()[:, 0], own[inside] - start] = torch.inf
        value, place = score.topk(min(k, len(points)), dim=1, largest=False)
        best, found = torch.cat([best, value], 1), torch.cat([found, place + start], 1)
        if best.shape[1] > k:
            best, keep = best.topk(k, dim=1, largest=False)
            found = found.gather(1, keep)
    return found


def _settle(
    block: np.ndarray, points: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by float64 distance and keep the k best."""
    candidates = np.sort(candidates, axis=1)
    gap = points[candidates].astype(np.float64) - block[:, None]
    square = np.einsum("qkd,qkd->qk", gap, gap)
    order = np.argsort(square, axis=1, kind="stable")[:, :k]
    return (
        np.sqrt(np.take_along_axis(square, order, 1)),
        np.take_along_axis(candidates, order, 1),
    )
