"""Columns of numbers as coordinates: scaled, ranked where tails are heavy, gaps filled.

A column that is constant among real rows is 0 for every row, whatever the samples hold there: it
is as far from each real row, so it could only blur how near they come. No-data values (-9999,
-3.4e38 and the like), where they lie apart from everything else, are missing cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

HEAVY = 1 / 3  # share of the variance
FAR = 0.01  # of the rows
CHUNK = 2**22  # numbers of the pool looked at together


@dataclass
class Told:
    """Names of columns about which the reader is told something."""

    constant: list[str] = field(default_factory=list)
    heavy: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    no_data: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def scaled(
    names: list[str], pool: np.ndarray, sets: list[np.ndarray], told: Told
) -> list[np.ndarray]:
    """Complete columns (n, c) of each set over their pooled deviations, or as normal scores."""
    scale, result = np.ones(pool.shape[1]), [rows.copy() for rows in sets]
    size = max(1, CHUNK // len(pool))
    for start in range(0, pool.shape[1], size):
        part = slice(start, min(start + size, pool.shape[1]))
        block = pool[:, part]
        here = block.std(0)
        constant = here <= 1e-12 * np.abs(block).max(0)
        heavy = are_heavy(block) & ~constant
        for j in np.flatnonzero(heavy):
            told.heavy.append(names[start + j])
            scores = normal_scores(block[:, j], [rows[:, start + j] for rows in sets])
            for rows, values in zip(result, scores, strict=True):
                rows[:, start + j] = values
        for j in np.flatnonzero(constant):
            told.constant.append(names[start + j])
            for rows in result:
                rows[:, start + j] = 0.0
        scale[part] = np.where(heavy | constant, 1.0, here)
    for rows in result:
        rows /= scale
    return result


def with_gaps(name: str, pool: np.ndarray, sets: list[np.ndarray], told: Told) -> list[np.ndarray]:
    """A column with missing cells (n, 2): the pooled median there, and a mark that tells them."""
    here = pool[~np.isnan(pool)]
    absent = [np.isnan(values) for values in sets]
    if len(here) == 0:
        here = np.zeros(1)
    filled = [np.where(mask, np.median(here), v) for mask, v in zip(absent, sets, strict=True)]
    lone = Told()
    columns = scaled([name], here[:, None], [values[:, None] for values in filled], lone)
    told.missing.append(name)
    told.heavy.extend(lone.heavy)
    if lone.constant and len({bool(v) for v in np.isnan(pool)}) == 1:
        told.constant.append(name)
    return [np.column_stack([c, mask]) for c, mask in zip(columns, absent, strict=True)]


def are_heavy(values: np.ndarray) -> np.ndarray:
    """(c,) of bool: do the few rows of (n, c) far from the mean carry much of the variance?"""
    square = (values - values.mean(0)) ** 2
    few = max(1, round(FAR * len(square)))
    return np.partition(square, -few, axis=0)[-few:].sum(0) > HEAVY * square.sum(0)


def normal_scores(pool: np.ndarray, sets: list[np.ndarray]) -> list[np.ndarray]:
    """Normal quantiles of pooled mid-ranks, linear in between; beyond the ends, along the secant
    from the median."""
    values, counts = np.unique(pool, return_counts=True)
    scores = ndtri((np.cumsum(counts) - counts / 2) / len(pool))
    middle = int(np.searchsorted(np.cumsum(counts), len(pool) / 2))
    whole = (scores[-1] - scores[0]) / (values[-1] - values[0])

    def slope(end: int) -> float:
        gap = values[end] - values[middle]
        return float((scores[end] - scores[middle]) / gap) if gap else float(whole)

    below, above = slope(0), slope(-1)
    return [
        np.interp(x, values, scores)
        + below * np.minimum(x - values[0], 0)
        + above * np.maximum(x - values[-1], 0)
        for x in sets
    ]
