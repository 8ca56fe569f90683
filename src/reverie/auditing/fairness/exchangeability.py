"""Are training and held-out rows alike? Tests that are valid for any law with any ties.

    columns     does a column lie higher, or spread wider, on one side? The largest of the
                standardised differences of mean ranks, folded ranks and shares of categories.
    classifier  can boosted trees tell the sides on rows they were not fitted on? Cross-fitted: on
                each half by trees of the other, p of the two halves combined by twice the lesser.
    neighbours  do nearest neighbours share a side more, or less, often than by chance
                (Schilling 1986)? Sees rows repeated or augmented on one side.
    order       trees learn from half of the training rows how far down the file a row stands; do
                they place held-out rows later, or earlier, than the other half? A drift along the
                file is no difference: where a split drew rows at random, both sides drift alike.
    swapped     are the samples nearer to held-out rows than to training rows (the share and the
                tail test of an audit, with the sides exchanged)?

The null of each exchanges the labels of rows, or of groups (see `relabelling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata

from reverie.auditing.facts.closeness import Closeness
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.fairness.relabelling import (
    Relabellings,
    adjusted_p,
    p_of,
    p_of_weights,
    p_two_sided,
    standardised,
)
from reverie.auditing.fairness.views import SHOWN, Columns
from reverie.auditing.metrics.fidelity import sorter
from reverie.auditing.nulls.rank_tests import tail_test

NEIGHBOURS = 3
TREES = {"max_iter": 50, "max_leaf_nodes": 8, "early_stopping": False}
DRIFT = 1e-3  # level at which rows count as ordered along their file: it words a reason only
LEAST_UNITS = 10  # on each side, of a test that fits on half of them


@dataclass(frozen=True, eq=False)
class Pool:
    """Chosen rows (K) of both sides, in an order that does not depend on the sides.

    points: (K, q) coordinates. columns: of the same rows. is_held, unit: (K,). place: (K,) where
    the row stands in its own file, from 0.
    """

    points: np.ndarray
    columns: Columns
    is_held: np.ndarray
    unit: np.ndarray
    place: np.ndarray

    @property
    def by_row(self) -> bool:
        return len(np.unique(self.unit)) == len(self.unit)


@dataclass(frozen=True)
class ColumnShift:
    """How a column differs: p corrected over all columns; above: P(held-out > training)."""

    name: str
    p_value: float
    above: float
    is_time: bool
    is_number: bool
    derived: bool = False

    @property
    def apart(self) -> bool:
        """Whether hardly any held-out value lies among the training values."""
        return self.is_number and not self.derived and abs(self.above - 0.5) > 0.49


def column_shifts(pool: Pool, labels: Relabellings) -> list[ColumnShift]:
    """Every column with its p-value; the least of them is that of the whole test."""
    scores, owner = _column_scores(pool.columns)
    z = np.abs(standardised(labels.differences(scores)))
    each = adjusted_p(z)
    found = []
    for j, name in enumerate(pool.columns.names):
        above = _above(pool.columns.values[:, j], pool.is_held)
        p_value = float(each[owner == j].min(initial=1.0))
        found.append(
            ColumnShift(
                name, p_value, above,
                bool(pool.columns.is_time[j]), bool(pool.columns.is_number[j]),
                pool.columns.derived,
            )
        )  # fmt: skip
    return found


def _column_scores(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Scores (K, s) whose mean over a side is compared, and the column (s,) that each is of."""
    scores, owner = [], []
    for j, values in enumerate(columns.values.T):
        absent = np.isnan(values)
        filled = np.where(absent, 0.0, values)
        if columns.is_number[j]:
            own = [filled, np.where(absent, 0.0, np.abs(filled))]
        else:
            known, counts = np.unique(values[~absent], return_counts=True)
            own = [values == v for v in known[np.lexsort((known, -counts))][:SHOWN]]
        own += [absent] if absent.any() else []
        scores += [np.asarray(score, dtype=np.float64) for score in own]
        owner += [j] * len(own)
    return np.stack(scores, 1), np.array(owner)


def _above(values: np.ndarray, is_held: np.ndarray) -> float:
    """Chance that a held-out value lies above a training value, ties half."""
    here = ~np.isnan(values)
    held, count = is_held[here], int(here.sum())
    n = int(held.sum())
    if n in (0, count):
        return 0.5
    ranks = rankdata(values[here])
    return float((ranks[held].sum() - n * (n + 1) / 2) / (n * (count - n)))


def classifier_p(pool: Pool, draws: int, seed: int) -> tuple[float, float]:
    """p-value, and the area under the curve of the trees on unseen rows (mean of both halves)."""
    halves = _halves(pool.is_held, pool.unit, seed)
    if halves is None:
        return 1.0, 0.5
    values, p_values, areas = pool.columns.values, [], []
    for k in (0, 1):
        fitted, unseen = halves == 1 - k, halves == k
        leaf = int(np.clip(fitted.sum() // 20, 2, 20))
        trees = sorter(values[fitted], pool.is_held[fitted], seed, min_samples_leaf=leaf, **TREES)
        score = rankdata(trees.predict_proba(values[unseen])[:, 1])
        labels = Relabellings.draw(pool.is_held[unseen], pool.unit[unseen], draws, seed + 1 + k)
        p_values.append(p_of(labels.differences(score[:, None])[:, 0]))
        areas.append(_above(score, pool.is_held[unseen]))
    return min(1.0, 2 * min(p_values)), float(np.mean(areas))


def _halves(is_held: np.ndarray, unit: np.ndarray, seed: int) -> np.ndarray | None:
    """Half 0 or 1 (K,) of each row, units whole and both sides halved; None if there are few."""
    _, first, row = np.unique(unit, return_index=True, return_inverse=True)
    half = np.empty(len(first), dtype=np.int64)
    rng = np.random.default_rng((seed, 7))
    for side in (False, True):
        units = np.flatnonzero(is_held[first] == side)
        if len(units) < LEAST_UNITS:
            return None
        half[rng.permutation(units)] = np.arange(len(units)) % 2
    return half[row]


@dataclass(frozen=True)
class Neighbours:
    """Same-side pairs among `pairs` of nearest neighbours, beside what chance gives them."""

    p_value: float
    pairs: int
    held: tuple[int, float]  # both held out: observed, expected
    train: tuple[int, float]

    @property
    def together(self) -> bool:
        """Neighbours share a side too often (else: too seldom)."""
        return sum(self.held) - 2 * self.held[1] + sum(self.train) - 2 * self.train[1] > 0


def neighbour_test(pool: Pool, labels: Relabellings) -> Neighbours:
    """Two-sided test of the sides of nearest neighbours, those of a row's own unit left out."""
    spare = int(np.bincount(np.unique(pool.unit, return_inverse=True)[1]).max()) - 1
    _, index = nearest(pool.points, pool.points, NEIGHBOURS + spare, skip_self=True)
    if spare:
        order = np.argsort(pool.unit[index] == pool.unit[:, None], 1, kind="stable")
        index = np.take_along_axis(index, order, 1)[:, :NEIGHBOURS]
    first, second = np.repeat(np.arange(len(index)), index.shape[1]), index.ravel()
    counts = labels.pairs(first, second)
    z = np.abs(standardised(counts)).max(1)
    held, train = ((int(c[0]), float(c.mean())) for c in counts.T)
    return Neighbours(p_of(z), len(first), held, train)


@dataclass(frozen=True)
class Order:
    """later: P(a held-out row is placed after a training row). drifts: the trees find an order in
    the training file at all (their places of unseen training rows agree with the true ones)."""

    p_value: float
    later: float
    drifts: bool


def order_test(pool: Pool, draws: int, seed: int) -> Order:
    """Where trees that learned the order of half the training rows place the held-out ones."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import

    halves = _halves(pool.is_held, pool.unit, seed + 3)
    if halves is None:
        return Order(1.0, 0.5, False)
    fitted = (halves == 0) & ~pool.is_held
    rest, leaf = ~fitted, int(np.clip(fitted.sum() // 20, 2, 20))
    trees = HistGradientBoostingRegressor(random_state=seed, min_samples_leaf=leaf, **TREES)
    trees.fit(pool.columns.values[fitted], rankdata(pool.place[fitted]) / fitted.sum())
    score = rankdata(trees.predict(pool.columns.values[rest]))
    held = pool.is_held[rest]
    labels = Relabellings.draw(held, pool.unit[rest], draws, seed + 4)
    difference = labels.differences(score[:, None])[:, 0]
    drift: Any = kendalltau(score[~held], pool.place[rest][~held])
    drifts = bool(drift.statistic > 0 and drift.pvalue < DRIFT)
    return Order(p_two_sided(difference), _above(score, held), drifts)


@dataclass(frozen=True)
class Swapped:
    """Are the samples nearer to held-out rows? share: of samples nearest to one; expected."""

    p_value: float
    share: float
    expected: float
    nearest: str  # "among the 50 rows that samples come closest to, 50 are held out"


def swapped_test(close: Closeness, draws: int, seed: int) -> Swapped:
    """The share and the tail test of an audit with the sides exchanged; twice the lesser p."""
    is_held = ~close.is_member
    share = p_of_weights(np.round(close.counts, 9), is_held, draws, seed)
    ratio = close.unit_ratio(-1)
    tail = tail_test(ratio, is_held, seed)
    few = np.argsort(ratio, kind="stable")[: min(50, int(is_held.sum()))]
    held = float(close.counts[is_held].sum() / close.counts.sum())
    return Swapped(
        min(1.0, 2 * min(share, tail.p_value)), held, float(is_held.mean()),
        f"of the {len(few)} rows that samples come closest to, {is_held[few].sum()} are held out",
    )  # fmt: skip
