"""One-dimensional searches: a positive minimiser, and the last crossing of a budget in N."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

ZOOMS = 4
FEWEST, MOST = 2, 10**9
COUNTS = 160

Cost = Callable[[np.ndarray], np.ndarray]


def least(cost: Cost, low: float, high: float, scan: int = 65) -> float:
    """Where a cost (vectorised) is least between two positive ends: log scan, then zooms."""
    for _ in range(ZOOMS):
        places = np.geomspace(low, high, scan)
        values = cost(places)
        best = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
        low, high = places[max(best - 1, 0)], places[min(best + 1, scan - 1)]
    return math.sqrt(low * high)


def last_crossing(cost: Cost, budget: float) -> float:
    """Least whole N from which on cost(N) stays within the budget; inf where it never does.

    Scanned on a geometric grid up to 10^9, so that a cost that rises and falls is handled.
    """
    grid = np.unique(np.geomspace(FEWEST, MOST, COUNTS).astype(np.int64))
    outside = np.flatnonzero(~(cost(grid) <= budget))
    if len(outside) == 0:
        return float(FEWEST)
    if outside[-1] == len(grid) - 1:
        return math.inf
    low, high = int(grid[outside[-1]]), int(grid[outside[-1] + 1])
    while high - low > 1:
        middle = (low + high) // 2
        within = cost(np.array([middle]))[0] <= budget
        low, high = (low, middle) if within else (middle, high)
    return float(high)
