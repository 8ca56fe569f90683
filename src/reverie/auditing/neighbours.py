"""Exact nearest neighbours: fast products propose candidates, direct differences settle them.

A lost neighbour would be invented novelty in an audit, so every answer is certified: a block of
float32 products ranks all pairs, the best `k` + SPARE of each query are measured again by direct
differences in float64, and a query counts as settled only if its k-th distance lies below what
rounding could have hidden among the pairs that were left out. The rest is done again in float64,
and what even that cannot certify by direct differences with every point.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SPARE = 6
QUERY_BLOCK, POINT_BLOCK = 1024, 4096
GROUP = 64
BUDGET = 2**25  # numbers held at once when candidates are measured


def nearest(
    queries: np.ndarray, points: np.ndarray, k: int = 1, *, skip_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (Q, k) and indices (Q, k) of the k nearest `points` (N, d) of each query (Q, d).

    skip_self: queries are the points, and a point is not its own neighbour. Memory is bounded by
    the blocks. k is cut to the number of points there are; ties go to the lower index.
    """
    available = len(points) - int(skip_self)
    k = max(min(k, available), 0)
    distance, index = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    if k == 0:
        return distance, index
    left = np.arange(len(queries))
    for dtype in (torch.float32, torch.float64):
        finder = _Finder(points, k, dtype, skip_self)
        failed = []
        size = max(1, min(QUERY_BLOCK, BUDGET // (points.shape[1] * (k + SPARE))))
        for start in range(0, len(left), size):
            rows = left[start : start + size]
            distance[rows], index[rows], sure = finder(queries[rows], rows)
            failed.append(rows[~sure])
        left = np.concatenate(failed) if failed else left
        if len(left) == 0:
            break
    for row in left:  # neighbours within the last digits of float64
        distance[row], index[row] = _direct(
            queries[row], points, k, int(row) if skip_self else None
        )
    return distance, index


class _Finder:
    """The k nearest points by products in one precision, with a certificate per query."""

    def __init__(self, points: np.ndarray, k: int, dtype: torch.dtype, skip_self: bool) -> None:
        self.points, self.k, self.dtype, self.skip_self = points, k, dtype, skip_self
        self.centre = points.mean(0, dtype=np.float64)
        base = torch.from_numpy(points - self.centre).to(dtype)
        norms = base.square().sum(1)
        self.radius = float(norms.max().sqrt())
        fill = -len(points) % GROUP  # so that blocks divide into groups; never the nearest
        self.base = torch.nn.functional.pad(base, (0, 0, 0, fill))
        self.norms = torch.nn.functional.pad(norms, (0, fill), value=torch.inf)
        self.buffer = torch.empty(QUERY_BLOCK * min(POINT_BLOCK, len(self.base)), dtype=dtype)
        self.unit = (points.shape[1] + 8) * torch.finfo(dtype).eps

    def __call__(
        self, queries: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distances (B, k), indices (B, k), and whether each query (B,) is certain."""
        block = np.asarray(queries, dtype=np.float64)
        near = torch.from_numpy(block - self.centre).to(self.dtype)
        own = torch.as_tensor(rows) if self.skip_self else None
        width = min(self.k + SPARE, len(self.points) - int(self.skip_self))
        score, found = self._candidates(near, width, own)
        distance, index = _settle(block, self.points, found.numpy(), self.k)
        if width == len(self.points) - int(self.skip_self):
            return distance, index, np.ones(len(block), bool)
        norm = near.double().norm(dim=1).numpy()
        slack = self.unit * (norm + self.radius) ** 2
        hidden = score.max(1).values.double().numpy() + norm**2 - slack
        return distance, index, distance[:, -1] ** 2 <= hidden

    def _candidates(self, near: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores |x|^2 - 2 xq and indices (B, k) of the likely nearest points."""
        best = torch.full((len(near), 0), torch.inf, dtype=self.dtype)
        found = torch.zeros((len(near), 0), dtype=torch.int64)
        for start in range(0, len(self.base), POINT_BLOCK):
            points = self.base[start : start + POINT_BLOCK]
            norms = self.norms[start : start + POINT_BLOCK]
            # into one buffer: fresh pages for every block cost more than the products
            score = self.buffer[: len(near) * len(points)].view(len(near), len(points))
            torch.addmm(norms, near, points.T, alpha=-2, out=score)
            if own is not None:
                inside = (own >= start) & (own < start + len(points))
                score[inside.nonzero()[:, 0], own[inside] - start] = torch.inf
            value, place = _smallest(score, min(k, len(points)))
            best, found = torch.cat([best, value], 1), torch.cat([found, place + start], 1)
            if best.shape[1] > k:
                best, keep = best.topk(k, dim=1, largest=False)
                found = found.gather(1, keep)
        return best, found


def _smallest(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row (B, P), with places: they lie in the k groups of least minima."""
    groups = score.shape[1] // GROUP
    if groups <= 2 * k:
        value, place = score.topk(k, dim=1, largest=False)
        return value, place
    grouped = score.view(len(score), groups, GROUP)
    chosen = grouped.amin(2).topk(k, dim=1, largest=False).indices
    near = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    value, place = near.topk(k, dim=1, largest=False)
    return value, chosen.gather(1, place // GROUP) * GROUP + place % GROUP


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


def _direct(
    query: np.ndarray, points: np.ndarray, k: int, own: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query by differences with every point, in blocks."""
    square = np.empty(len(points))
    for start in range(0, len(points), POINT_BLOCK):
        gap = points[start : start + POINT_BLOCK] - np.asarray(query, dtype=np.float64)
        square[start : start + POINT_BLOCK] = np.einsum("nd,nd->n", gap, gap)
    if own is not None:
        square[own] = np.inf
    order = np.argsort(square, kind="stable")[:k]
    return np.sqrt(square[order]), order
