"""Exact nearest neighbours: fast products propose candidates, direct differences settle them.

A lost neighbour would be invented novelty in an audit, so every answer is certified: products in
float32 rank all pairs (`proposals`), the best few more than `k` of each query are measured again
by direct differences in float64, and a query counts as settled only if its k-th distance lies
below what rounding could have hidden among the pairs that were left out. The rest is done again in
float64 with more candidates, and what even that cannot certify by differences with every point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reverie.auditing.facts.proposals import (
    ROWS,
    SHORT_COLUMNS,
    Asked,
    Points,
    Proposal,
    by_products,
    centre_of,
    flat_index,
    release,
)
from reverie.errors import InputError

NUMBERS = 2**24  # numbers of queries at a time: they bound the memory
AGAIN = ((np.float64, 16), (np.float64, 256))  # precision, and candidates beyond k
BUDGET = 2**17  # numbers held at once when candidates are measured
BACKENDS = ("own", "faiss")
NONE = np.iinfo(np.int64).max


def nearest(
    queries: np.ndarray,
    points: Points,
    k: int = 1,
    *,
    skip_self: bool = False,
    backend: str = "own",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (Q, k) and indices (Q, k) of the k nearest `points` (N, d) of each query (Q, d).

    points: an array, one that is mapped from a file, or rows on disk (`reverie.data.StoredRows`);
    they are read block by block and never copied as a whole. skip_self: queries are the points,
    and a point is not its own neighbour. backend: what proposes
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
    centre = centre_of(points)
    first = by_products if backend == "own" else flat_index(points, centre)
    # rounding grows with the columns, and spare candidates keep float64 from being needed
    stages = ((np.float32, 2 if points.shape[1] <= SHORT_COLUMNS else 4), *AGAIN)
    size = max(NUMBERS // points.shape[1], 256)
    for start in range(0, len(queries), size):
        left = np.arange(start, min(start + size, len(queries)))
        tell = _teller(progress, start, len(left), len(queries))
        for dtype, spare in stages:
            width = min(k + spare, available)
            propose = first if dtype == np.float32 else by_products
            asked = Asked(queries, left, width, centre, skip_self)
            proposal = propose(points, asked, dtype, tell)
            near, place = _settle(queries, points, left, proposal, k)
            distance[left], index[left] = near, place
            sure = near[:, -1] ** 2 <= proposal.least[:, -1]
            left = left[~sure] if width < available else left[:0]
            if len(left) == 0:
                break
            tell = _silent
        for row in left:  # neighbours within the last digits of float64
            own = int(row) if skip_self else None
            distance[row], index[row] = _direct(queries[row], points, k, own)
    return distance, index


def _silent(share: float) -> None:
    """Queries that are asked again are few."""


def _teller(
    progress: Callable[[int, int], None] | None, start: int, count: int, total: int
) -> Callable[[float], None]:
    """Queries `start` to `start` + `count` of `total`, by the share of the points they met."""
    if progress is None:
        return _silent
    return lambda share: progress(start + round(share * count), total)


def _settle(
    queries: np.ndarray, points: Points, rows: np.ndarray, proposal: Proposal, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Order the candidates of `queries[rows]` by float64 distance and keep the k best.

    Ties go to the lower index. Only those that could be among the k best, given the slack, are
    measured.
    """
    reach = proposal.least[:, k - 1] + 2 * proposal.slack
    needed = proposal.least <= reach[:, None]
    needed[:, :k] = True
    most = int(needed.sum(1).max())
    candidates = np.where(needed, proposal.found, NONE)[:, :most]  # `least` ascends
    candidates.sort(axis=1)
    square = np.full(candidates.shape, np.inf)
    asked, place = np.nonzero(candidates != NONE)
    size = max(1, BUDGET // points.shape[1])
    for start in range(0, len(asked), size):
        pair = asked[start : start + size], place[start : start + size]
        gap = points[candidates[pair]].astype(np.float64, copy=False)
        gap -= queries[rows[pair[0]]]
        square[pair] = np.einsum("pd,pd->p", gap, gap)
    release(points)
    order = np.argsort(square, axis=1, kind="stable")[:, :k]
    return (
        np.sqrt(np.take_along_axis(square, order, 1)),
        np.take_along_axis(candidates, order, 1),
    )


def _direct(
    query: np.ndarray, points: Points, k: int, own: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query by differences with every point, in blocks."""
    square = np.empty(len(points))
    for start in range(0, len(points), ROWS):
        gap = points[start : start + ROWS] - np.asarray(query, dtype=np.float64)
        square[start : start + ROWS] = np.einsum("nd,nd->n", gap, gap)
        release(points)
    if own is not None:
        square[own] = np.inf
    order = np.argsort(square, kind="stable")[:k]
    return np.sqrt(square[order]), order
