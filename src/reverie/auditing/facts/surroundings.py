"""How densely the pool lies around each of very many wide rows, without measuring all pairs.

Any yardstick will do for the ranks, as long as it does not know the sides: here the distance to
the 5th of a reference, rows of the pool chosen by a hash of their content. Whether a sample lies
within a third of the way to the nearest other row is a fact, though, and is measured among all:
a reference only overstates that distance, so only rows that pass it need a second look.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import THIRD

ALL_PAIRS = 5e11  # multiplications up to which all pairs are measured (about 15 s of a processor)
WORK = 4e10  # multiplications of the reference, and again of the second look
LEAST = 512  # rows of the reference
EQUALS = 8  # equal rows of the pool that the second look can pass over


def is_long_work(pool: np.ndarray) -> bool:
    """Would all pairs of the rows (N, d) take long?"""
    return float(len(pool)) ** 2 * pool.shape[1] > ALL_PAIRS


def reference_rows(pool: np.ndarray) -> np.ndarray:
    """Indices (R,) of distinct pool rows, chosen by what they hold, not by where they stand."""
    hashes = (crc32(np.ascontiguousarray(row).data) for row in pool)
    code = np.fromiter(hashes, np.int64, len(pool))
    _, rows = np.unique(code, return_index=True)  # in the order of the hash
    return rows[: max(LEAST, int(WORK / pool.size))]


def around(
    pool: np.ndarray, unit: np.ndarray, to_samples: np.ndarray, places: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (N, places) and indices of the nearest reference rows that differ and are of other
    units; the first is the nearest of the whole pool where a sample comes near.

    unit: (N,) of each row; to_samples: (N,) distances to the nearest sample.
    """
    chosen = reference_rows(pool)
    own = int(np.bincount(unit[chosen]).max()) - 1
    spacing, index = nearest(pool, pool[chosen], places + 1 + own)
    spacing, index = _others(spacing, chosen[index], unit, np.arange(len(pool)), places)
    near = np.flatnonzero(to_samples < THIRD * spacing[:, 0])
    order = np.argsort(to_samples[near] / np.maximum(spacing[near, 0], 1e-300), kind="stable")
    near = near[order[: max(LEAST, int(WORK / pool.size))]]
    if len(near):
        size = int(np.bincount(unit).max()) - 1
        closest, which = nearest(pool[near], pool, EQUALS + size)
        closest, which = _others(closest, which, unit, near, 1)
        nearer = (closest[:, 0] > 0) & (closest[:, 0] < spacing[near, 0])
        spacing[near[nearer], 0], index[near[nearer], 0] = closest[nearer, 0], which[nearer, 0]
    return spacing, index


def _others(
    distance: np.ndarray, index: np.ndarray, unit: np.ndarray, rows: np.ndarray, places: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `places` neighbours that differ from the row and are of another unit."""
    own = (distance == 0) | (unit[index] == unit[rows][:, None])
    order = np.argsort(own, axis=1, kind="stable")[:, :places]
    return np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1)
