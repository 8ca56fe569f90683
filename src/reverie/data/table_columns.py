"""How one column of a table enters a model: as a number, as symbols, or as both.

    categories      symbols, in the order of the reader; a missing cell is one more
    few values      numbers with at most FEW different values are symbols too, in order
    numbers         a normal score, and where cells are missing or one value is as common as an
                    atom (over ATOM of the cells: zeros, caps) a site "kind" in {number, atom, ...,
                    missing}; the score is 0 where the kind is not number. Where all that is no
                    atom are few values that repeat and stand far apart, as amounts that a rule
                    sets, each value is an atom: what goes with 7,298 tells nothing of 7,430, and
                    a score, which a network reads to within its noise, would blur the two
    constant        nothing: it is written back

The score of a number is the normal quantile of its rank. Where values repeat, as whole numbers do,
a value owns an interval of ranks and takes a place in it that depends on the row alone: scores are
standard normal, and the way back, which value owns the rank, is exact and keeps the column's law.
Elsewhere ranks are interpolated between at most KNOTS values. Both ways end in the observed range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from reverie.data.dataset import Column
from reverie.errors import InputError

FEW = 20  # different numbers, up to which they are symbols
ATOM, ATOMS = 0.05, 8  # share of the cells that an atom holds, and how many a column may have
STANDS_OUT = 3.0  # times as common as the values next to it: else it is part of a smooth law
FEW_APART, EACH = 128, 10  # values that are atoms where they stand apart, and cells of each, mean
APART = 4  # places of the finest grid that all lie on, for each of them
LEAST_CELLS = 3  # of an atom
KNOTS = 1024
REPEATS = 3  # cells per different value from which on a value owns an interval
MOST_SYMBOLS = 256
LEAST_SHARE = 0.5  # of one row's weight: where the outermost ranks lie


@dataclass(frozen=True)
class ColumnPlan:
    """What is read off one column; see the module.

    symbols: values that are symbols of the column's site, in order: all of a category's, or the
    atoms of a number. missing: whether its site has a last symbol for missing cells. values,
    ranks: of the numbers, those of the knots; with `owned` a value's ranks end at its own, else
    they are its place.
    """

    name: str
    kind: str  # "constant", "category" or "number"
    symbols: list[float] = field(default_factory=list)
    missing: bool = False
    values: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    owned: bool = False

    @property
    def sites(self) -> int:
        """Symbols of the column's site; 0 where it has none."""
        if self.kind == "constant":
            return 2 if self.missing else 0
        size = len(self.symbols) + self.missing + (self.kind == "number")
        return size if size > 1 else 0

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    # --- into the model ------------------------------------------------------------------------

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Symbols (n,) of the site of values (n,); -1 where a value is none of the column's.

        Symbol 0 of a number is "number"; atoms follow.
        """
        absent, first = np.isnan(values), int(self.is_number)
        known = np.asarray(self.symbols)
        if len(known):
            place = np.searchsorted(known, values).clip(max=len(known) - 1)
            equal = known[place] == values
        else:
            place, equal = np.zeros(len(values), int), np.zeros(len(values), bool)
        odd = 0 if self.is_number else -1
        codes = np.where(equal, place + first, odd)
        return np.where(absent, len(known) + first if self.missing else -1, codes)

    def scores(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Normal scores (n,) of numbers (n,); places (n,) in (0, 1) within an owned interval."""
        knots, ranks = np.asarray(self.values), np.asarray(self.ranks)
        if not self.owned:
            inside = ndtri(np.interp(values, knots, ranks))
            slope = (ndtri(ranks[-1]) - ndtri(ranks[0])) / (knots[-1] - knots[0])
            return inside + slope * (values - np.clip(values, knots[0], knots[-1]))
        above = np.searchsorted(knots, values).clip(max=len(knots) - 1)
        ends = np.concatenate([[0.0], ranks])
        found = knots[above] == values
        rank = np.where(found, ends[above] + places * (ends[above + 1] - ends[above]), ends[above])
        edge = LEAST_SHARE * min(ranks[0], 1 - ends[-2])
        return ndtri(np.clip(rank, edge, 1 - edge))

    # --- and back ------------------------------------------------------------------------------

    def numbers(self, scores: np.ndarray) -> np.ndarray:
        """Numbers (n,) of the observed range with these scores."""
        knots, ranks = np.asarray(self.values), np.asarray(self.ranks)
        rank = ndtr(scores)
        if not self.owned:
            return np.interp(rank, ranks, knots)
        return knots[np.searchsorted(ranks, rank).clip(max=len(knots) - 1)]

    def cells(self, codes: np.ndarray | None, scores: np.ndarray | None) -> np.ndarray:
        """Values (n,) of symbols (n,) and scores (n,), each where the column has them."""
        if self.kind == "constant":
            only = self.symbols[0] if self.symbols else np.nan
            value = np.full(len(codes) if codes is not None else 1, only)
            return value if codes is None else np.where(codes == 1, np.nan, value)
        table = np.array([*self.symbols, np.nan] if self.missing else self.symbols)
        if not self.is_number:
            return np.full(1, table[0]) if codes is None else table[codes]
        assert scores is not None
        numbers = self.numbers(scores)
        if codes is None:
            return numbers
        special = table[(codes - 1).clip(min=0)]
        return np.where(codes == 0, numbers, special)


def plan_of(column: Column, values: np.ndarray, train: np.ndarray, source: str) -> ColumnPlan:
    """Read one column off all of its values (n,), and the scale of numbers off `train` (m,).

    Raises InputError on text with too many different values, and on infinite numbers.
    """
    present = values[~np.isnan(values)]
    missing = len(present) < len(values)
    if np.isinf(present).any():
        raise InputError(f"{source}: column {column.name!r} holds an infinite number")
    if len(present) == 0:
        return ColumnPlan(column.name, "constant")
    known = np.unique(present)
    if len(known) == 1:
        return ColumnPlan(column.name, "constant", known.tolist(), missing)
    if column.kind == "categorical":
        if len(known) > MOST_SYMBOLS:
            raise InputError(
                f"{source}: column {column.name!r} holds {len(known):,} different texts, which a "
                f"table's model takes up to {MOST_SYMBOLS} of: leave it out, or join rare ones"
            )
        return ColumnPlan(column.name, "category", known.tolist(), missing)
    if len(known) <= FEW:
        return ColumnPlan(column.name, "category", known.tolist(), missing)
    seen = train[~np.isnan(train)]
    atoms = _atoms(seen)
    rest = seen[~np.isin(seen, atoms)]
    if len(np.unique(rest)) < 2:  # of the training rows: the others are held out
        rest = known
    return ColumnPlan(column.name, "number", atoms, missing, **_ranked(rest))


def _atoms(values: np.ndarray) -> list[float]:
    """Values that are symbols of a number's site, in order: see the module."""
    common = _common(values)
    rest = values[~np.isin(values, common)]
    distinct, counts = np.unique(rest, return_counts=True)
    if not _stand_apart(distinct, len(rest)):
        return common
    return sorted([*common, *distinct[counts >= LEAST_CELLS].tolist()])


def _stand_apart(distinct: np.ndarray, count: int) -> bool:
    """Whether `count` cells of these different values, in order, are few values far apart."""
    if not 2 <= len(distinct) <= min(FEW_APART, count / EACH):
        return False
    places = (distinct[-1] - distinct[0]) / np.diff(distinct).min() + 1
    return bool(places > APART * len(distinct))


def _common(values: np.ndarray) -> list[float]:
    """Values that hold over ATOM of the cells and stand out, the most common ones, in order."""
    distinct, counts = np.unique(values, return_counts=True)
    padded = np.concatenate([[0], counts, [0]])
    beside = np.maximum(padded[:-2], padded[2:])
    is_atom = (counts > ATOM * len(values)) & (counts > STANDS_OUT * beside)
    common = np.argsort(-counts * is_atom, kind="stable")[:ATOMS]
    return sorted(distinct[common][is_atom[common]].tolist())


def _ranked(values: np.ndarray) -> dict[str, Any]:
    """Knots, ranks and `owned` of numbers (n,)."""
    distinct, counts = np.unique(values, return_counts=True)
    total, running = counts.sum(), counts.cumsum()
    if REPEATS * len(distinct) <= total:
        return dict(values=distinct.tolist(), ranks=(running / total).tolist(), owned=True)
    ranks = (running - counts / 2) / total
    if len(distinct) > KNOTS:
        kept = np.unique(np.searchsorted(running, np.linspace(1, total, KNOTS)))
        distinct, ranks = distinct[kept], ranks[kept]
    return dict(values=distinct.tolist(), ranks=ranks.tolist(), owned=False)
