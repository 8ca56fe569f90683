"""Rows as the fairness tests look at them: named columns by rank, and few coordinates.

Nothing here depends on which row is a training row: columns are ranked in the pool, categories
numbered by their spelling, and wide rows projected at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from reverie.data import Dataset
from reverie.data.dates import times_of

NARROW = 64  # coordinates that distances are measured in; wider rows are projected at random
COLUMNS = 64  # columns that are looked at one by one; beyond, principal components of the rows
COMPONENTS = 16
SHOWN = 10  # categories of a column with a share of their own in the rank tests
BLOCK = 2**23  # numbers projected at a time


def narrow(
    parts: list[np.ndarray], seed: int = 0, picks: list[np.ndarray] | None = None
) -> tuple[list[np.ndarray], bool]:
    """Rows (n, d) of all parts in at most NARROW coordinates, and whether they were projected.

    A Gaussian projection on 64 coordinates keeps a distance within about 9% (one deviation of
    sqrt(2 / 64) / 2). picks: the rows of each part that are wanted. Rows are projected in blocks:
    memory grows with the rows alone.
    """
    width = parts[0].shape[1]
    if width <= NARROW:
        if picks is not None:
            parts = [rows[pick] for rows, pick in zip(parts, picks, strict=True)]
        return parts, False
    rng = np.random.default_rng((seed, width))
    matrix = rng.standard_normal((width, NARROW), dtype=np.float32) / np.float32(NARROW**0.5)
    size = max(1, BLOCK // width)

    def project(rows: np.ndarray, pick: np.ndarray | None) -> np.ndarray:
        out = np.empty((len(rows) if pick is None else len(pick), NARROW))
        for start in range(0, len(out), size):
            block = slice(start, start + size)
            chosen = rows[block] if pick is None else rows[pick[block]]
            out[block] = chosen.astype(np.float32) @ matrix
        return out

    wanted = picks or [None] * len(parts)
    return [project(rows, pick) for rows, pick in zip(parts, wanted, strict=True)], True


@dataclass(frozen=True, eq=False)
class Columns:
    """values (N, p): ranks in the pool of named columns, NaN where missing; or components.

    names, is_time, is_number: (p,) of each column; a category is numbered by its spelling.
    derived: the columns are computed from all others, and none was given.
    """

    values: np.ndarray
    names: list[str]
    is_time: np.ndarray
    is_number: np.ndarray
    derived: bool = False


def columns_of(sets: list[Dataset], points: np.ndarray, rows: np.ndarray) -> Columns:
    """The columns of the chosen pool rows (K,) of two aligned sets; points: (K, q) of the same.

    Tables and vectors of at most COLUMNS columns give these, all other rows the principal
    components of their points, and pictures also their brightness and contrast.
    """
    first = sets[0]
    flat = [data.values.reshape(len(data), -1) for data in sets[:2]]
    inside = rows < len(flat[0])
    if first.kind != "images" and first.values.ndim == 2 and first.shape[0] <= COLUMNS:
        parts, names, times, numbers = [], [], [], []
        for j in range(first.shape[0]):
            value, is_time, is_number = _column(sets, j)
            parts.append(_ranks(value[rows]))
            names.append(first.name(j))
            times.append(is_time)
            numbers.append(is_number)
        return Columns(np.stack(parts, 1), names, np.array(times), np.array(numbers))
    centred = points - points.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    found = centred @ axes[:, ::-1][:, :COMPONENTS]
    names = [f"principal component {k + 1}" for k in range(found.shape[1])]
    if first.kind == "images":
        moments = np.empty((len(rows), 2))
        moments[inside] = _moments(flat[0], rows[inside])
        moments[~inside] = _moments(flat[1], rows[~inside] - len(flat[0]))
        found = np.concatenate([found, moments], 1)
        names += ["brightness", "contrast"]
    ranked = np.stack([_ranks(column) for column in found.T], 1)
    return Columns(ranked, names, np.zeros(len(names), bool), np.ones(len(names), bool), True)


def _moments(rows: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """Mean and deviation of each picked row, (k, 2)."""
    out, size = np.empty((len(pick), 2)), max(1, BLOCK // rows.shape[1])
    for start in range(0, len(pick), size):
        block = rows[pick[start : start + size]].astype(np.float32)
        out[start : start + size, 0], out[start : start + size, 1] = block.mean(1), block.std(1)
    return out


def _column(sets: list[Dataset], place: int) -> tuple[np.ndarray, bool, bool]:
    """Values (N,) of one column of the pool, whether it tells a time, and whether it has order."""
    fields = [data.fields[place] if data.fields else None for data in sets[:2]]
    if sets[0].kind == "table":
        times = [times_of(data, place) for data in sets[:2]]
        if times[0] is not None and times[1] is not None:
            return np.concatenate([times[0], times[1]]), True, True
    values = np.concatenate([data.values[:, place] for data in sets[:2]]).astype(np.float64)
    field = fields[0]
    if field is None or field.kind != "categorical":
        return values, False, True
    texts = np.array(field.categories)
    spelt = np.empty(len(texts))
    spelt[np.argsort(texts, kind="stable")] = np.arange(len(texts))
    here = ~np.isnan(values)
    values[here] = spelt[values[here].astype(np.int64)]
    return values, False, False


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mid-ranks over the pool, in [-1/2, 1/2]; NaN where missing."""
    ranks = np.full(len(values), np.nan)
    here = ~np.isnan(values)
    if here.any():
        ranks[here] = (rankdata(values[here]) - (here.sum() + 1) / 2) / here.sum()
    return ranks
