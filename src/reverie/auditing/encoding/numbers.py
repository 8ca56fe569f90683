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
NO_DATA = (-9999.0, -999.0, -99999.0, -999999.0, -9999999.0, -99999999.0, 9999.0, 99999.0,
           999999.0, 9999999.0, 99999999.0, -9999.9, -999.9, -999.99, -9999.99, -32768.0, 32767.0,
           -2147483648.0, 2147483647.0, 1e20, -1e20)  # fmt: skip
HUGE = 1e30  # no measurement: the ends of single and double precision, 1e200
APART, FAR_ABOVE = 1.0, 3.0  # ranges of the other values by which a no-data value lies away
CODES = 4  # no-data values of a column, at most


@dataclass
class Told:
    """Names of columns about which the reader is told something."""

    constant: list[str] = field(default_factory=list)
    heavy: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    no_data: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def without_no_data(sets: list[np.ndarray], columns: np.ndarray) -> dict[int, list[float]]:
    """Set no-data values in these columns of the sets (n, d) to NaN, in place; those found.

    A value is no datum if it is the least or the greatest of its column, one of NO_DATA or beyond
    HUGE, and lies apart: by the range of all other values (3 times that above them, where sums of
    money are cut), or below 0 where none of the others is.
    """
    found: dict[int, list[float]] = {}
    size = max(1, CHUNK // max(sum(map(len, sets)), 1))
    for start in range(0, len(columns), size):
        part = columns[start : start + size]
        low = np.min([np.fmin.reduce(rows[:, part], 0) for rows in sets], 0)
        high = np.max([np.fmax.reduce(rows[:, part], 0) for rows in sets], 0)
        low, high = np.nan_to_num(low), np.nan_to_num(high)  # NaN: every cell is missing
        odd = np.maximum(np.abs(low), np.abs(high)) >= HUGE
        odd |= np.isin(low, NO_DATA) | np.isin(high, NO_DATA)
        for j in part[odd]:
            codes = _no_data(np.concatenate([rows[:, j] for rows in sets]))
            if codes:
                found[int(j)] = codes
                for rows in sets:
                    rows[np.isin(rows[:, j], codes), j] = np.nan
    return found


def _no_data(values: np.ndarray) -> list[float]:
    values = np.unique(values[~np.isnan(values)])
    codes: list[float] = []
    while len(values) > 1 and len(codes) < CODES:
        for end, rest in ((values[0], values[1:]), (values[-1], values[:-1])):
            if _lies_apart(float(end), rest):
                codes.append(float(end))
                values = rest
                break
        else:
            break
    return codes


def _lies_apart(value: float, rest: np.ndarray) -> bool:
    size = max(abs(float(rest[0])), abs(float(rest[-1])))
    if abs(value) >= HUGE:
        return size < abs(value) / 1e6 or (size == abs(value) and len(rest) > 1)
    if value not in NO_DATA or size >= HUGE:
        return False
    gap = min(abs(value - rest[0]), abs(value - rest[-1]))
    away = APART if value < 0 else FAR_ABOVE
    return bool(gap > away * (rest[-1] - rest[0]) or (value < 0 <= rest[0]))


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
