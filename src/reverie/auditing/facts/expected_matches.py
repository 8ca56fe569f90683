"""How many rows agree by chance: the entropy rule for equal, and almost equal, rows.

Let c_j be the rate at which pairs of a training row and a row of no copy agree in column j: the
larger of held-out rows and of samples that match nothing. (Fresh floats never agree, c_j = 1 / all
pairs; a generator that draws its cells from the training column agrees at 1 / n; categories agree
often.) Over S samples and n training rows, then,

    expected matches = S n b prod_j c_j

where b makes up for dependence: the rate at which pairs of pool rows agree in all columns, cut
into eight parts each, over the product of the single rates, as far as the pairs reach. A column
that is a monotone function of an earlier one counts once. Leaving out any k columns multiplies by
the k-th elementary symmetric polynomial of 1 / c_j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

ROWS = 4000  # rows of each set that are looked at
COLUMNS = 128  # columns that are looked at: more only lower the expectation
PARTS = 8
PAIRS = 20  # pairs that must agree so far for a conditional rate to be read
TWIN = 0.98  # rank correlation at which a column is another's twin


@dataclass(frozen=True, eq=False)
class Expected:
    """Log of the expected matches in all columns, and the log rate (d,) of each column."""

    whole: float
    rate: np.ndarray

    def without(self, sets: list[tuple[int, ...]]) -> np.ndarray:
        """Expected matches in all columns but those of each set."""
        left_out = np.array([self.rate[list(columns)].sum() for columns in sets])
        return np.exp(np.minimum(self.whole - left_out, 700.0))


def expected_matches(
    train: np.ndarray, held: np.ndarray, fresh: np.ndarray, samples: int
) -> Expected:
    """How many of `samples` samples agree with a training row by chance; see the module.

    train (n, d), held (m, d): raw values. fresh (s, d): samples that match no training row.
    """
    rng = np.random.default_rng(0)
    width = train.shape[1]
    columns = np.sort(rng.permutation(width)[:COLUMNS])
    some = [_some(rows, rng)[:, columns].astype(np.float64) for rows in (train, held, fresh)]
    twin = _twins(np.concatenate(some[:2]))
    rate = np.ones(width)
    for j in np.flatnonzero(~twin):
        rate[columns[j]] = max(_agreement(some[0][:, j], other[:, j]) for other in some[1:])
    whole = np.log(samples) + np.log(len(train)) + np.log(rate).sum()
    whole += _dependence(np.concatenate(some[:2])[:, ~twin])
    return Expected(float(whole), np.log(rate))


def _some(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= ROWS:
        return rows
    return rows[np.sort(rng.choice(len(rows), ROWS, replace=False))]


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Rate of equal pairs, one pair added; 0 without rows."""
    if len(second) == 0:
        return 0.0
    values, counts = np.unique(first, return_counts=True)
    place = np.minimum(np.searchsorted(values, second), len(values) - 1)
    same = (values[place] == second) | (np.isnan(values[place]) & np.isnan(second))
    return float(min((counts[place][same].sum() + 1) / (len(first) * len(second)), 1.0))


def _twins(pool: np.ndarray) -> np.ndarray:
    """Columns (d,) that are constant or a twin of an earlier column."""
    pool = pool[:1000]
    rank = stats.rankdata(np.nan_to_num(pool), axis=0)
    rank -= rank.mean(0)
    size = np.linalg.norm(rank, axis=0)
    twin = size == 0
    rank /= np.where(twin, 1, size)
    alike = np.abs(rank.T @ rank) > TWIN
    for j in range(1, len(twin)):
        twin[j] |= bool((alike[j, :j] & ~twin[:j]).any())
    return twin


def _dependence(pool: np.ndarray) -> float:
    """Log of the pairs that agree in all columns, in parts, over those of independent ones."""
    parts = [_parts(column) for column in pool.T]
    single = [_pairs(codes) for codes in parts]
    everything = len(pool) * (len(pool) - 1) / 2
    joint, left, log = np.zeros(len(pool), np.int64), everything, 0.0
    for j in np.argsort(single)[::-1]:  # the least telling first, so that pairs last
        joint = np.unique(joint * (parts[j].max() + 1) + parts[j], return_inverse=True)[1]
        agree = _pairs(joint)
        if agree < PAIRS:
            break
        log += max(np.log(agree / left) - np.log(single[j] / everything), 0.0)
        left = agree
    return log


def _parts(column: np.ndarray) -> np.ndarray:
    values, codes = np.unique(column, return_inverse=True)
    if len(values) <= PARTS:
        return codes
    edges = np.quantile(codes, np.linspace(0, 1, PARTS + 1)[1:-1])
    return np.searchsorted(np.unique(edges), codes, "right")


def _pairs(codes: np.ndarray) -> float:
    counts = np.bincount(codes).astype(float)
    return float((counts * (counts - 1)).sum() / 2)
