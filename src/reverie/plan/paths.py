"""The cheapest path of K steps through N nodes, for costs of any kind."""

from __future__ import annotations

import numpy as np


def cheapest_path(cost: np.ndarray, steps: int, later: float = 1.0) -> np.ndarray:
    """Nodes (K + 1,) of the cheapest path of K jumps from the first to the last of N nodes.

    cost: (N, N), of the jump j -> i, read where i > j; each jump counts `later` times the one
    before it.
    """
    upper = np.where(np.tri(len(cost), dtype=bool), np.inf, cost)
    value, choices = upper[:, -1], []
    for _ in range(steps - 1):
        table = upper + later * value
        choices.append(table.argmin(1))
        value = table.min(1)
    path = [0]
    for best in reversed(choices):
        path.append(int(best[path[-1]]))
    return np.array([*path, len(cost) - 1])
