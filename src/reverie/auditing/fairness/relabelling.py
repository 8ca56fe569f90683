"""Exchange of labels: the null under which training and held-out rows are alike.

A unit (a row, or all rows of a group) changes sides as a whole. A statistic of the labels is
compared with what it is under random relabellings of the units, the observed one among them:
p = #{relabelled >= observed} / (R + 1) is valid for any law, any ties and any statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

KEYS = 2**20  # random numbers at a time
TIE = 1e-6  # statistics that agree so closely are equal; labels are summed in float32


@dataclass(frozen=True, eq=False)
class Relabellings:
    """held: float32 (R + 1, N), 1 where a row is held out; the observed labels stand first."""

    held: np.ndarray

    @classmethod
    def draw(cls, is_held: np.ndarray, unit: np.ndarray, draws: int, seed: int) -> Relabellings:
        """R = `draws` relabellings of rows whose labels are is_held (N,), in units unit (N,)."""
        _, first, row = np.unique(unit, return_index=True, return_inverse=True)
        by_row = len(first) == len(unit)
        own = is_held if by_row else is_held[first]
        labels = np.empty((draws + 1, len(own)), np.float32)
        labels[0] = own
        rng, count = np.random.default_rng(seed), int(own.sum())
        size = max(KEYS // len(own), 1)
        for start in range(1, draws + 1, size):
            block = labels[start : start + size]
            block[:] = _random_subsets(rng, block.shape, count)
        return cls(labels if by_row else labels[:, row])

    def differences(self, scores: np.ndarray) -> np.ndarray:
        """Mean of scores (N, p) over the held-out rows less that over the others, (R + 1, p)."""
        scores = (scores - scores.mean(0)).astype(np.float32)
        sums, count = self.held @ scores, self.held.sum(1)[:, None]
        return sums / count + sums / (self.held.shape[1] - count)

    def pairs(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Number of pairs (E,) of rows that are both held out, and both training, (R + 1, 2)."""
        rows = self.held.shape[1]
        graph = csr_array((np.ones(len(first), np.float32), (first, second)), (rows, rows))
        held = np.ascontiguousarray(self.held.T)
        one, other = graph.sum(1) @ held, graph.sum(0) @ held
        both = np.einsum("nr,nr->r", held, graph @ held)
        return np.stack([both, len(first) - one - other + both], 1).astype(np.float64)


def _random_subsets(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    """Masks (R, U) of `count` units each, drawn without replacement: those of the least keys."""
    if count == 0:
        return np.zeros(shape, bool)
    keys = rng.integers(2**64, size=shape, dtype=np.uint64)  # equal ones are not to be met
    return keys <= np.partition(keys, count - 1, axis=1)[:, count - 1 : count]


def standardised(values: np.ndarray) -> np.ndarray:
    """Each column (R + 1, p) less its mean, over its deviation; 0 where it never changes."""
    spread = values.std(0)
    moves = spread > 1e-9 * (np.abs(values).max(0) + 1e-300)
    return np.where(moves, (values - values.mean(0)) / np.where(moves, spread, 1), 0.0)


def p_of(statistic: np.ndarray) -> float:
    """One-sided p-value of the first of (R + 1,) values among all of them."""
    return float((statistic >= statistic[0] - TIE * (1 + abs(statistic[0]))).mean())


def p_two_sided(statistic: np.ndarray) -> float:
    """Twice the smaller of the two one-sided p-values."""
    return min(1.0, 2 * min(p_of(statistic), p_of(-statistic)))


def adjusted_p(statistics: np.ndarray) -> np.ndarray:
    """p-values (p,) of columns (R + 1, p) of |z|, corrected for all of them by their maximum."""
    largest = statistics.max(1)
    observed = statistics[0] - TIE * (1 + np.abs(statistics[0]))
    return (largest[:, None] >= observed).mean(0)


def p_of_weights(weights: np.ndarray, is_held: np.ndarray, draws: int, seed: int) -> float:
    """p-value of a large sum of weights (U,) over the held-out units, for any number of units.

    Relabelled by the number of held-out units among those of equal weight, which is
    hypergeometric: exact for a few heavy units, where a normal limit is not.
    """
    value, place, size = np.unique(weights, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    held = rng.multivariate_hypergeometric(
        size, int(is_held.sum()), size=draws, method="marginals"
    )
    observed = float(np.bincount(place, is_held, minlength=len(value)) @ value)
    sums = np.concatenate([[observed], held @ value])
    return p_of(sums / max(weights.sum(), 1e-300))
