"""The rows that equality is asked of: as the user gave them, before any scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.row_keys import Keys, comparable, row_keys

TRIED = 5000  # recombined rows that are tried at once
STEPS = (1, -2, 3, -4, 5, -1)  # places by which a column moves along its sorted values


@dataclass(frozen=True, eq=False)
class Recombined:
    """Rows (R, d), the training row (R,) that each was made from, and the column that moved."""

    rows: np.ndarray
    base: np.ndarray
    column: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Training (n, d), held-out (m, d) and sampled (s, d) rows of one type."""

    train: np.ndarray
    held: np.ndarray
    drawn: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, space: CommonSpace) -> Rows:
        """From the data themselves; from the common space where it holds none."""
        sets = [data.values for data in space.sets] or [space.members, space.held, space.drawn]
        if len(sets) == 2:
            sets.append(sets[0][:0])
        rows = comparable(sets)
        fields = space.sets[0].fields if space.sets else ()
        names = tuple(column.name for column in fields) or _names(space, rows[0].shape[1])
        if sets[0].ndim == 2:  # noise on a column that no real row varies makes no other row
            vary = _varying(rows[0], rows[1])
            if not vary.all() and vary.any():
                rows = [part[:, vary] for part in rows]
                names = tuple(name for name, keep in zip(names, vary, strict=True) if keep)
        return cls(rows[0], rows[1], rows[2], names)

    @cached_property
    def pool(self) -> np.ndarray:
        """(n + m, d): training rows first."""
        return np.concatenate([self.train, self.held])

    @cached_property
    def keys(self) -> Keys:
        """Of the pool, whole rows only."""
        keys = Keys.of(self.pool, parts=False)
        return replace(keys, record=self._records(keys.total))

    def _records(self, keys: np.ndarray) -> np.ndarray:
        """The first row (n + m,) of a row's own side that is equal to it."""
        n = len(self.train)
        own = []
        for side in (keys[:n], keys[n:]):
            first, place = np.unique(side, return_index=True, return_inverse=True)[1:]
            own.append(first[place])
        return np.concatenate([own[0], n + own[1]])

    @cached_property
    def unique(self) -> np.ndarray:
        """Mask (n + m,) of the pool rows whose value occurs on their own side only: the first.

        A training row that stands twice is one record, held twice.
        """
        _, place = np.unique(self.keys.total, return_inverse=True)
        sides = np.zeros((2, int(place.max(initial=0)) + 1), bool)
        sides[0, place[: len(self.train)]] = True
        sides[1, place[len(self.train) :]] = True
        first = self.keys.record == np.arange(len(self.keys.total))
        return ~(sides[0] & sides[1])[place] & first

    @cached_property
    def train_keys(self) -> np.ndarray:
        """Keys (n,) of the training rows."""
        return self.keys.total[: len(self.train)]

    @cached_property
    def drawn_keys(self) -> np.ndarray:
        """Keys (s,) of the samples."""
        return row_keys(self.drawn)

    @cached_property
    def entropy(self) -> np.ndarray:
        """Weight (d,) of each column when one is moved: log of its distinct values."""
        distinct = [len(np.unique(column)) for column in self.train.T]
        log = np.log(np.array(distinct, float))
        return log / log.sum() if log.sum() > 0 else np.full(len(log), 1 / len(log))

    @cached_property
    def recombined(self) -> list[Recombined]:
        """Rows that nobody owns: unique training rows with one cell moved a little.

        In each set one column, drawn by `entropy`, is moved as a whole by a few places along
        its sorted distinct values: dependence is kept, and no value stands oftener than before.
        Rows of the pool are left out.
        """
        rng = np.random.default_rng(1)
        unique = np.flatnonzero(self.unique[: len(self.train)])
        sets = []
        for step in STEPS if len(unique) else ():
            base = rng.permutation(unique)[:TRIED]
            rows, j = self.train[base], int(rng.choice(self.train.shape[1], p=self.entropy))
            values = np.unique(self.train[:, j])
            place = np.searchsorted(values, rows[:, j]) + step
            rows[:, j] = values[np.clip(place, 0, len(values) - 1)]
            key, first = np.unique(row_keys(rows), return_index=True)
            first = first[~np.isin(key, self.keys.total)]
            sets.append(Recombined(rows[first], base[first], j))
        return sets


def _varying(train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Columns (d,) of two values or more among training and held-out rows."""
    first = train[0]
    if first.dtype.kind != "f":
        return (train != first).any(0) | (held != first).any(0)
    other = [(part != first) & ~(np.isnan(part) & np.isnan(first)) for part in (train, held)]
    return other[0].any(0) | other[1].any(0)


def _names(space: CommonSpace, width: int) -> tuple[str, ...]:
    columns = space.sets[0].columns if space.sets else None
    return columns or tuple(str(j) for j in range(width))
