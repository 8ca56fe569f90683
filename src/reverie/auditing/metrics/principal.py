"""The leading principal coordinates of rows, without a matrix (d, d) where rows are wide."""

from __future__ import annotations

import numpy as np

MOST_ROWS = 4096  # rows that set the directions
SQUARE = 2048  # columns up to which the covariance is formed


def principal(
    sets: list[np.ndarray], columns: int, fitted: int, seed: int = 0
) -> list[np.ndarray]:
    """The sets (n, d) in at most `columns` principal coordinates of the first `fitted` sets.

    Centred on their pool, and otherwise left alone where d <= `columns`. Directions come from at
    most MOST_ROWS random rows: of the covariance, or, if they are fewer than d, of their Gram
    matrix, which has the same leading eigenvalues.
    """
    count = sum(map(len, sets[:fitted]))
    centre = sum(rows.sum(0) for rows in sets[:fitted]) / count
    if sets[0].shape[1] <= columns:
        return [rows - centre for rows in sets]
    chosen = np.random.default_rng(seed).permutation(count)[:MOST_ROWS]
    pool = _rows(sets[:fitted], np.sort(chosen)) - centre
    if min(SQUARE, len(pool)) >= pool.shape[1]:
        vectors = np.linalg.eigh(pool.T @ pool)[1][:, -columns:]
    else:
        value, vectors = np.linalg.eigh(pool @ pool.T)
        used = value > 1e-10 * max(value[-1], 1e-300)
        used[:-columns] = False
        vectors = pool.T @ vectors[:, used] / np.sqrt(value[used])
    shift = centre @ vectors
    return [rows @ vectors - shift for rows in sets]


def _rows(sets: list[np.ndarray], index: np.ndarray) -> np.ndarray:
    """Rows of the stacked sets, without stacking them."""
    ends = np.cumsum([0, *map(len, sets)])
    return np.concatenate(
        [
            rows[index[(index >= a) & (index < b)] - a]
            for rows, a, b in zip(sets, ends[:-1], ends[1:], strict=True)
        ]
    )
