"""Is the comparison fair? Before anything is compared, training and held-out rows must be alike.

All tests together reject at most `alpha` of exchangeable sets: their p-values are corrected by
Holm, with one place kept for the search for twins, which counts and has no p-value (see `twins`).
Subjects whose rows stand on both sides are told by their column (`subjects`), at a level beside
which this one is large.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reverie.auditing.common_space import CommonSpace, common_space, in_common
from reverie.auditing.facts.closeness import Closeness, closeness
from reverie.auditing.fairness.exchangeability import (
    LEAST_UNITS,
    Pool,
    classifier_p,
    column_shifts,
    neighbour_test,
    order_test,
    swapped_test,
)
from reverie.auditing.fairness.reasons import Found, Reason, reasons_of
from reverie.auditing.fairness.relabelling import Relabellings
from reverie.auditing.fairness.subjects import find_subjects
from reverie.auditing.fairness.twins import find_bursts
from reverie.auditing.fairness.units import check_units
from reverie.auditing.fairness.views import NARROW, columns_of, narrow
from reverie.auditing.nulls.rank_tests import holm
from reverie.data import Dataset, Identifier, identifier_sentence, set_apart

ALPHA = 0.005
ROWS = 2000  # rows of a side that the tests look at; twins and samples are looked for in all
MOST_DRAWS = 20_000


@dataclass(frozen=True)
class Fairness:
    """Whether training and held-out rows may be compared; see `fair_comparison`.

    reasons: why not, the strongest evidence first; none if fair. p_values: of every test that ran,
    corrected over all of them. apart: the columns that name rows, which are not compared. notes:
    what was looked at only in part.
    """

    reasons: list[Reason]
    p_values: dict[str, float]
    alpha: float
    apart: list[Identifier] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fair(self) -> bool:
        return not self.reasons

    def sentences(self) -> list[str]:
        """The answer in words, each reason with what to do, then what was set apart."""
        lines = [f"{reason.sentence} {reason.advice}" for reason in self.reasons]
        if not lines:
            lines = ["Training and held-out rows could not be told apart: the comparison is fair."]
        apart = [identifier_sentence(self.apart)] if self.apart else []
        return lines + apart + self.notes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "fair": self.fair,
            "reasons": [asdict(reason) for reason in self.reasons],
            "p_values": self.p_values,
            "alpha": self.alpha,
            "set_apart": [asdict(column) for column in self.apart],
            "sentences": self.sentences(),
        }


def fair_comparison(
    train: Dataset,
    holdout: Dataset,
    samples: Dataset | None = None,
    space: CommonSpace | None = None,
    *,
    close: Closeness | None = None,
    alpha: float = ALPHA,
    units: bool = True,
    seed: int = 0,
) -> Fairness:
    """Can training rows, held-out rows and samples be compared at all?

    space: the common space of the three, if it is known already; it also holds the groups, which
    then change sides as a whole. close: the distances of an audit, if they are known. alpha: share
    of exchangeable sets that all tests together may reject. units: refuse sets in other units.

    Raises InputError where the sets are in different units, and what `common_space` raises. Tests
    of training against held-out rows look at 2,000 random rows a side and, where rows are wider
    than 64 numbers, at random projections of them.
    """
    sets = [train, holdout] + ([] if samples is None else [samples])
    if units:
        check_units(sets)
    if space is None:
        space = common_space(train, holdout, samples)
    compared, apart = set_apart(space.sets)
    if apart and not space.apart:  # a space made of other coordinates
        close = None
        arrays = in_common(compared, space.coder, [])
    else:
        arrays = [space.members, space.held, space.drawn][: len(space.sets)]
    pool, projected = _pool(compared, arrays, space, seed)
    found = _run(pool, _closeness(space, arrays, close), alpha, seed)
    tabular = compared[0].kind != "images"
    bursts = find_bursts(arrays[0], arrays[1], seed, tabular=tabular)
    subjects = find_subjects(*space.sets[:2]) if space.group_ids is None else None
    family = [*found.raw.values(), 1.0]  # the search for twins has its share of alpha too
    p_values = dict(zip(found.raw, holm(family), strict=False))
    return Fairness(
        reasons_of(found, p_values, bursts, compared, alpha, subjects),
        p_values, alpha, apart, _notes(compared, projected),
    )  # fmt: skip


def _run(pool: Pool, close: Closeness | None, alpha: float, seed: int) -> Found:
    draws = int(min(np.ceil(13 / alpha), MOST_DRAWS)) - 1
    labels = Relabellings.draw(pool.is_held, pool.unit, draws, seed)
    columns = column_shifts(pool, labels)
    neighbours = neighbour_test(pool, labels)
    raw = {
        "columns": min(c.p_value for c in columns),
        "neighbours": neighbours.p_value,
    }
    raw["classifier"], area = classifier_p(pool, draws, seed)
    order = order_test(pool, draws, seed)
    raw["order"] = order.p_value
    swapped = None
    if close is not None:
        swapped = swapped_test(close, draws, seed)
        raw["samples"] = swapped.p_value
    return Found(raw, columns, area, neighbours, order, swapped, pool.by_row)


def _pool(
    sets: list[Dataset], arrays: list[np.ndarray], space: CommonSpace, seed: int
) -> tuple[Pool, bool]:
    """At most ROWS rows of each side, whole groups first, in random order."""
    rng = np.random.default_rng((seed, 13))
    n = len(arrays[0])
    unit = np.arange(n + len(arrays[1]))
    if space.group_ids is not None:
        unit = np.concatenate(space.group_ids)
    sides = np.split(np.arange(len(unit)), [n])
    rows = rng.permutation(np.concatenate([_some(side, unit, rng) for side in sides]))
    is_held = rows >= n
    parts, projected = narrow(arrays[:2], seed, [rows[~is_held], rows[is_held] - n])
    points = np.empty((len(rows), parts[0].shape[1]))
    points[~is_held], points[is_held] = parts
    columns = columns_of(sets, points, rows)
    place = np.where(is_held, rows - n, rows)
    return Pool(points, columns, is_held, unit[rows], place), projected


def _some(rows: np.ndarray, unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About ROWS of the rows, of random units, each whole."""
    if len(rows) <= ROWS:
        return rows
    own = np.unique(unit[rows], return_inverse=True)[1]
    order = rng.permutation(own.max() + 1)
    total = np.bincount(own)[order].cumsum()
    kept = order[: max(2 * LEAST_UNITS, int((total <= ROWS).sum()))]
    return rows[np.isin(own, kept)]


def _closeness(
    space: CommonSpace, arrays: list[np.ndarray], close: Closeness | None
) -> Closeness | None:
    if len(arrays) < 3 or close is not None:
        return close
    (members, held, drawn), _ = narrow(arrays)
    cells = space.cells if drawn is space.drawn else None
    return closeness(CommonSpace(members, held, drawn, space.group_ids, cells))


def _notes(sets: list[Dataset], projected: bool) -> list[str]:
    notes = []
    if max(map(len, sets[:2])) > ROWS:
        notes.append(f"Whether the sides are alike was asked of {ROWS:,} random rows of a side.")
    if projected:
        notes.append(f"Rows were projected at random on {NARROW} coordinates for it.")
    return notes
