"""Exact nearest neighbours: fast products propose candidates, direct differences settle them.

A lost neighbour would be invented novelty in an audit, so every answer is certified: products in
float32 rank all pairs, the best few more than `k` of each query are measured again by direct
differences in float64, and a query counts as settled only if its k-th distance lies below what
rounding could have hidden among the pairs that were left out. The rest is done again in float64
with more candidates, and what even that cannot certify by differences with every point.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError

NUMBERS, PAIRS = 2**24, 2**32  # numbers of queries, and pairs, at a time: they bound the memory
SHORT, LONG = (64, 20_480), (512, 10_240)  # queries and points of a block
SHORT_COLUMNS = 128
TILE, GROUP = 5120, 64  # a tile of scores is read while still in the cache
POINT_BLOCK = 2**14  # where points are only passed through
AGAIN = ((torch.float64, 16), (torch.float64, 256))  # precision, and candidates beyond k
BUDGET = 2**17  # numbers held at once when candidates are measured
BACKENDS = ("own", "faiss")
GPU_MOST = 2048  # neighbours that faiss finds on a GPU


def nearest(
    queries: np.ndarray,
    points: np.ndarray,
    k: int = 1,
    *,
    skip_self: bool = False,
    backend: str = "own",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (Q, k) and indices (Q, k) of the k nearest `points` (N, d) of each query (Q, d).

    skip_self: queries are the points, and a point is not its own neighbour. backend: what proposes
    the candidates, "own" or "faiss" (its exact flat index); the answer is the same. progress:
    called with the queries done and their number. Memory beyond the input and the answer is
    bounded ("faiss" also holds the points in float32). k is cut to the number of points there are;
    ties go to the lower index. Raises InputError for a backend that is unknown or not installed.

    >>> import numpy as np
    >>> from reverie.auditing import nearest
    >>> points = np.array([[0.0], [1.0], [5.0]])
    >>> distance, index = nearest(np.array([[4.0]]), points, k=2)
    >>> distance, index
    (array([[1., 3.]]), array([[2, 1]]))
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}; it is one of {', '.join(BACKENDS)}")
    available = len(points) - int(skip_self)
    k = max(min(k, available), 0)
    distance, index = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    if k == 0:
        return distance, index
    centre = points.mean(0, dtype=np.float64)
    first = _products if backend == "own" else _faiss(points, centre)
    # rounding grows with the columns, and spare candidates keep float64 from being needed
    stages = ((torch.float32, 2 if points.shape[1] <= SHORT_COLUMNS else 4), *AGAIN)
    size = max(min(NUMBERS // points.shape[1], PAIRS // len(points)), 256)
    for start in range(0, len(queries), size):
        left = np.arange(start, min(start + size, len(queries)))
        for dtype, spare in stages:
            width = min(k + spare, available)
            propose = first if dtype == torch.float32 else _products
            proposal = propose(queries, points, centre, left, width, dtype, skip_self)
            near, place = _settle(queries, points, left, proposal, k)
            distance[left], index[left] = near, place
            sure = near[:, -1] ** 2 <= proposal.least[:, -1]
            left = left[~sure] if width < available else left[:0]
            if len(left) == 0:
                break
        for row in left:  # neighbours within the last digits of float64
            own = int(row) if skip_self else None
            distance[row], index[row] = _direct(queries[row], points, k, own)
        if progress is not None:
            progress(min(start + size, len(queries)), len(queries))
    return distance, index


@dataclass(frozen=True)
class _Proposal:
    """Indices (B, width) of the likely nearest points, and what their distances cannot be below.

    least: (B, width) of squared distance, ascending; no point left out lies below the last.
    slack: (B,), so that a squared distance lies within `least` and `least` + 2 `slack`.
    """

    found: np.ndarray
    least: np.ndarray
    slack: np.ndarray


def _products(
    queries: np.ndarray, points: np.ndarray, centre: np.ndarray, rows: np.ndarray, width: int,
    dtype: torch.dtype, skip_self: bool,
) -> _Proposal:  # fmt: skip
    """The nearest of `queries[rows]` by |x|^2 - 2 xq, with products in `dtype`."""
    left, norm = _augmented_queries(queries, centre, rows, dtype)
    best = torch.full((len(rows), width), torch.inf, dtype=dtype)
    found = torch.zeros((len(rows), width), dtype=torch.int64)
    # few rows stay in the cache; long products repay more rows at once
    height, most = SHORT if points.shape[1] <= SHORT_COLUMNS else LONG
    blocks = -(-len(points) // most)
    size = -(-len(points) // (blocks * GROUP)) * GROUP
    # one buffer: fresh pages for every block cost more than the products
    buffer = torch.empty(height, size, dtype=dtype)
    radius = 0.0
    for start in range(0, len(points), size):
        right, farthest = _augmented(points[start : start + size], centre, dtype)
        radius = max(radius, farthest)
        for top in range(0, len(rows), height):
            block = slice(top, top + height)
            score = buffer[: len(left[block]), : right.shape[1]]
            minima = _scores(left[block], right, score)
            if skip_self:
                minima = _without_self(score, minima, rows[block] - start)
            _merge(best[block], found[block], score, minima, start)
    slack = _slack(norm, radius, points.shape[1], dtype)
    least = best.double().numpy() + (norm**2 - slack)[:, None]
    return _Proposal(found.numpy(), least, slack)


def _augmented_queries(
    queries: np.ndarray, centre: np.ndarray, rows: np.ndarray, dtype: torch.dtype
) -> tuple[Tensor, np.ndarray]:
    """-2 times the centred queries and a one that takes |x|^2 along, (B, d + 1); norms (B,)."""
    left = torch.empty(len(rows), queries.shape[1] + 1, dtype=dtype)
    left[:, -1] = 1
    norm = np.empty(len(rows))
    for start in range(0, len(rows), LONG[0]):
        block = slice(start, start + LONG[0])
        base = torch.from_numpy(queries[rows[block]] - centre).to(dtype)
        norm[block] = torch.linalg.vector_norm(base, dim=1, dtype=torch.float64).numpy()
        left[block, :-1] = base.mul_(-2)
    return left, norm


def _augmented(points: np.ndarray, centre: np.ndarray, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Centred points over their squared norms, (d + 1, P) filled up to groups; largest norm."""
    filled = -(-len(points) // GROUP) * GROUP
    right = torch.empty(filled, points.shape[1] + 1, dtype=dtype)
    base = right[: len(points), :-1]
    base.copy_(torch.from_numpy(points - centre))
    norms = torch.linalg.vector_norm(base, dim=1).square()
    right[: len(points), -1] = norms
    right[len(points) :, :-1], right[len(points) :, -1] = 0, torch.inf  # never the nearest
    return right.T, float(norms.max().double().sqrt())


def _scores(left: Tensor, right: Tensor, score: Tensor) -> Tensor:
    """Fill `score` (B, P) with the products, and return the least of each group, (B, groups)."""
    minima = torch.empty(len(score), score.shape[1] // GROUP, dtype=score.dtype)
    for start in range(0, score.shape[1], TILE):
        tile = score[:, start : start + TILE]
        torch.mm(left, right[:, start : start + TILE], out=tile)
        groups = slice(start // GROUP, start // GROUP + tile.shape[1] // GROUP)
        torch.amin(tile.unflatten(1, (-1, GROUP)), 2, out=minima[:, groups])
    return minima


def _without_self(score: Tensor, minima: Tensor, place: np.ndarray) -> Tensor:
    """Take each query out of its own scores; place: (B,) its column, if it lies in this block."""
    inside = np.flatnonzero((place >= 0) & (place < score.shape[1]))
    if len(inside) == 0:
        return minima
    score[inside, place[inside]] = torch.inf
    return score.unflatten(1, (-1, GROUP)).amin(2)


def _slack(norm: np.ndarray, radius: float, dim: int, dtype: torch.dtype) -> np.ndarray:
    """What rounding can do to a score, (B,): products in `dtype`, then the float64 differences."""
    unit = (dim + 8) * (torch.finfo(dtype).eps + torch.finfo(torch.float64).eps)
    return unit * (norm + radius) ** 2


def _merge(best: Tensor, found: Tensor, score: Tensor, minima: Tensor, start: int) -> None:
    """Put the smallest of `score` (B, P), points from `start` on, into `best`, `found` (B, width).

    The smallest lie in the groups of least minima, and a row whose minima are no better than what
    it has is left alone.
    """
    width, groups = best.shape[1], minima.shape[1]
    rows = (minima.amin(1) < best[:, -1]).nonzero()[:, 0]
    if groups <= width:  # every group may hold one of the smallest
        near = score if len(rows) == len(score) else score[rows]
        value, place = near.topk(min(width, near.shape[1]), dim=1, largest=False)
        place = start + place
    else:
        chosen = minima[rows].topk(width, dim=1, largest=False, sorted=False).indices
        near = score.unflatten(1, (-1, GROUP))[rows[:, None], chosen].flatten(1)
        value, place = near.topk(min(width, near.shape[1]), dim=1, largest=False)
        place = start + chosen.gather(1, place // GROUP) * GROUP + place % GROUP
    if start == 0 and value.shape[1] == width:  # nothing was found before
        best[rows], found[rows] = value, place
        return
    value, keep = torch.cat([best[rows], value], 1).topk(width, dim=1, largest=False)
    best[rows], found[rows] = value, torch.cat([found[rows], place], 1).gather(1, keep)


def _faiss(points: np.ndarray, centre: np.ndarray) -> Callable:
    """`_products` by the exact flat index of faiss."""
    try:
        import faiss
    except ImportError:
        raise InputError(
            "backend 'faiss' needs faiss-cpu: pip install 'reverie[scale]', or use backend 'own'"
        ) from None
    flat, radius = faiss.IndexFlatL2(points.shape[1]), 0.0
    for start in range(0, len(points), POINT_BLOCK):
        block = (points[start : start + POINT_BLOCK] - centre).astype(np.float32)
        flat.add(block)  # pyright: ignore[reportCallIssue]
        radius = max(radius, float(np.linalg.norm(block.astype(np.float64), axis=1).max()))
    on_gpus = _on_gpus(faiss, flat)

    def propose(
        queries: np.ndarray, points: np.ndarray, centre: np.ndarray, rows: np.ndarray, width: int,
        dtype: torch.dtype, skip_self: bool,
    ) -> _Proposal:  # fmt: skip
        near = (queries[rows] - centre).astype(np.float32)
        index = flat if width + int(skip_self) > GPU_MOST else on_gpus
        score, found = index.search(near, width + int(skip_self))  # pyright: ignore
        if skip_self:  # itself to the end, or the farthest where duplicates crowded it out
            last = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :width]
            score, found = (np.take_along_axis(a, last, 1) for a in (score, found))
        norm = np.linalg.norm(near.astype(np.float64), axis=1)
        slack = _slack(norm, radius, points.shape[1], dtype)
        return _Proposal(found, score.astype(np.float64) - slack[:, None], slack)

    return propose


def _on_gpus(faiss: Any, flat: Any) -> Any:
    """The exact index on all GPUs that this faiss sees, a copy on each; as it is without any.

    Products must be in float32 for the slack to hold, which the driver can be told to give up.
    """
    if getattr(faiss, "get_num_gpus", int)() == 0 or os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        return flat
    return faiss.index_cpu_to_all_gpus(flat)


def _settle(
    queries: np.ndarray, points: np.ndarray, rows: np.ndarray, proposal: _Proposal, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Order the candidates of `queries[rows]` by float64 distance and keep the k best.

    Ties go to the lower index. Only as many as could be among the k best, given the slack, are
    measured.
    """
    reach = proposal.least[:, k - 1] + 2 * proposal.slack
    needed = int((proposal.least <= reach[:, None]).sum(1).max(initial=k))
    candidates = np.sort(proposal.found[:, :needed], axis=1)
    square = np.empty(candidates.shape)
    size = max(1, BUDGET // (needed * points.shape[1]))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        gap = points[candidates[block]].astype(np.float64, copy=False)
        gap -= queries[rows[block], None]
        square[block] = np.einsum("qkd,qkd->qk", gap, gap)
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
