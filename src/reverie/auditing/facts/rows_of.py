"""The rows that equality is asked of: as the user gave them, before any scaling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.row_keys import Keys, comparable, row_keys

TRIED = 10_000  # recombined rows that are tried
OFFSETS = 5  # places by which a cell is moved along the sorted values of its column


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
        train, held, drawn = comparable(sets)
        fields = space.sets[0].fields if space.sets else ()
        names = tuple(column.name for column in fields) or _names(space, train.shape[1])
        return cls(train, held, drawn, names)

    @cached_property
    def pool(self) -> np.ndarray:
        """(n + m, d): training rows first."""
        return np.concatenate([self.train, self.held])

    @cached_property
    def keys(self) -> Keys:
        """Of the pool, whole rows only."""
        return Keys.of(self.pool, parts=False)

    @cached_property
    def unique(self) -> np.ndarray:
        """Mask (n + m,) of the pool rows whose value occurs once."""
        _, place, count = np.unique(self.keys.total, return_inverse=True, return_counts=True)
        return count[place] == 1

    @cached_property
    def train_keys(self) -> np.ndarray:
        """Keys (n,) of the training rows."""
        return self.keys.total[: len(self.train)]

    @cached_property
    def drawn_keys(self) -> np.ndarray:
        """Keys (s,) of the samples."""
        return row_keys(self.drawn)

    @cached_property
    def recombined(self) -> np.ndarray:
        """(R, d) rows that nobody owns: unique training rows with one cell moved a little.

        A random column takes a value up to OFFSETS places along the sorted distinct values of the
        training column, so dependence between columns is kept; rows of the pool are left out.
        """
        rng = np.random.default_rng(1)
        base = np.flatnonzero(self.unique[: len(self.train)])
        if len(base) == 0:
            return self.train[:0]
        chosen = rng.choice(base, min(4 * len(base), TRIED))
        rows, column = self.train[chosen], rng.integers(self.train.shape[1], size=len(chosen))
        step = rng.integers(1, OFFSETS + 1, len(chosen)) * rng.choice([-1, 1], len(chosen))
        for j in np.unique(column):
            here = np.flatnonzero(column == j)
            values = np.unique(self.train[:, j])
            place = np.searchsorted(values, rows[here, j]) + step[here]
            rows[here, j] = values[np.clip(place, 0, len(values) - 1)]
        key, first = np.unique(Keys.of(rows, parts=False).total, return_index=True)
        return rows[first[~np.isin(key, self.keys.total)]]


def _names(space: CommonSpace, width: int) -> tuple[str, ...]:
    columns = space.sets[0].columns if space.sets else None
    return columns or tuple(str(j) for j in range(width))
