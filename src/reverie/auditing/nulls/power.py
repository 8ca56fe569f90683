"""What the audit would have caught: copies of training rows planted among the samples.

Each planting draws the labels of the pool anew, so that what the samples themselves hold does not
count as caught, copies rows that are members under these labels, and asks whether the verdict
would be `copies`. A planting only changes distances near the copied rows, so only the rows that
could come first are looked at: the cost of a planting does not grow with the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reverie.auditing.facts.closeness import Closeness
from reverie.auditing.nulls.cell_test import CellTable, repeated_part, repeats
from reverie.auditing.nulls.rank_tests import THIRD, ladder, near_null, ratios, tail_null
from reverie.auditing.nulls.saddlepoint import permutation_z

SHARES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05)
CELL_SHARES = (0.005, 0.01, 0.05, 0.25, 0.5, 1.0)  # few cells hide single copies
HOPELESS = 40  # plantings without a catch after which a share is given up
PLANTED_NOISE = 0.05  # deviation of a planted copy, in units of each (scaled) column
PLANTED_SPACING = 1 / 6  # and at most this part of the typical distance to the nearest row


@dataclass(frozen=True)
class Power:
    """Share of plantings of `copies` near-copies (`share` of the samples) called copies."""

    share: float
    copies: int
    caught: float
    stderr: float


def planted_noise(close: Closeness, table: CellTable | None) -> float:
    """Deviation of a planted copy per scaled column; 0 on a discrete table, which has no room.

    In few dimensions PLANTED_NOISE exceeds the distance between records: what is so far away is no
    copy, and the noise is cut to PLANTED_SPACING of it.
    """
    if table is not None:
        return 0.0
    gap = float(np.median(close.spacing[:, 0]))
    local = PLANTED_SPACING * gap / np.sqrt(max(close.smooth.sum(), 1))
    return min(PLANTED_NOISE, local) if gap > 0 else PLANTED_NOISE


def planted_power(
    close: Closeness,
    samples: int,
    table: CellTable | None = None,
    *,
    tests: int,
    alpha: float = 0.05,
    repeats: int = 200,
    seed: int = 0,
) -> list[Power]:
    """How often planted copies would have been called copies, at each share of the samples.

    Exchangeability is tested at `alpha` / `tests`: the verdict's Holm correction is never
    stricter, so the rate is a lower bound. Shares above the first that is always caught are left
    out.
    """
    planting = _Planting(close, samples, table, alpha, tests, np.random.default_rng(seed))
    result: list[Power] = []
    for share in SHARES if table is None else CELL_SHARES:
        copies = round(share * samples)
        if copies < 1 or (result and copies == result[-1].copies):
            continue
        if table is None and copies > planting.members:
            break
        hits = done = 0
        while done < repeats and (hits or done < HOPELESS):
            hits += planting.is_caught(copies)
            done += 1
        result.append(Power(copies / samples, copies, hits / done, _error(hits, done)))
        if hits == repeats:
            break
    return result


def _error(hits: int, count: int) -> float:
    """Standard error of a rate, with two hits and two misses added: never 0 (Agresti, Coull)."""
    rate = (hits + 2) / (count + 4)
    return math.sqrt(rate * (1 - rate) / (count + 4))


class _Planting:
    """Everything that plantings share: the base order and who neighbours whom."""

    def __init__(
        self, close: Closeness, samples: int, table: CellTable | None, alpha: float, tests: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.close, self.samples, self.table, self.rng = close, samples, table, rng
        self.alpha, self.level = alpha, alpha / tests
        self.units = len(close.is_member)
        self.members = int(close.is_member.sum())
        self.noise = planted_noise(close, table)
        ks = ladder(self.members, self.units - self.members, alpha)
        self.tail = tail_null(self.members, self.units - self.members, ks)
        self.critical = self.tail.critical(self.level)
        tail, own = close.unit_ratio(-1), close.unit_ratio(0)
        self.tail_ratio, self.own_ratio = tail, own
        shuffled = rng.permutation(self.units)  # ties at random
        self.first = shuffled[np.argsort(tail[shuffled], kind="stable")[: ks[-1]]]
        self.near = np.flatnonzero(own < THIRD)
        source, near_to = np.arange(len(close.pool)), close.neighbours.ravel()
        if table is None:
            owner = np.repeat(source, close.neighbours.shape[1])
            self.affected = _Lists(near_to, owner, len(close.pool))
        else:
            self.affected = _Lists(table.cell, source, len(table.pool))

    def is_caught(self, copies: int) -> bool:
        """One planting."""
        if self.table is not None and self._cells_catch(self.table, copies):
            return True
        chosen = self.rng.choice(len(self.close.pool), copies, replace=self.table is not None)
        copied_units = np.unique(self.close.unit[chosen])
        if len(copied_units) > self.members:
            return False
        rows, distance = self._changed(chosen)
        tail, own = self._lowered(rows, distance)
        units = np.unique(np.concatenate([self.first, self.near, self.close.unit[rows]]))
        labels = self._labels(units, copied_units)
        order = np.lexsort((self.rng.random(len(units)), tail[units]))
        if self.tail.least_p(labels[order]) > self.critical:
            return False
        near = own[units] < THIRD
        null = near_null(self.members, self.units - self.members, int(near.sum()))
        if null is None:
            return False
        order = np.lexsort((self.rng.random(int(near.sum())), own[units][near]))
        return null.least_p(labels[near][order]) <= null.critical(self.alpha)

    def _changed(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pool rows near the copies, and their distances to them (a row may come repeatedly)."""
        if self.table is not None:
            rows = self.affected(np.unique(self.table.cell[chosen]))[0]
            return rows, np.zeros(len(rows))
        pool = self.close.pool
        noise = self.noise * self.rng.standard_normal((len(chosen), pool.shape[1]))
        planted = pool[chosen] + noise * self.close.smooth  # a category is copied or not
        around, which = self.affected(chosen)
        rows = np.concatenate([chosen, around])
        gap = pool[rows] - planted[np.concatenate([np.arange(len(chosen)), which])]
        return rows, np.sqrt(np.einsum("nd,nd->n", gap, gap))

    def _lowered(self, rows: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both ratios of all units after the planting."""
        near = np.minimum(self.close.to_samples[rows], distance)
        tail, own = self.tail_ratio.copy(), self.own_ratio.copy()
        unit = self.close.unit[rows]
        np.minimum.at(tail, unit, ratios(near, self.close.spacing[rows, -1]))
        np.minimum.at(own, unit, ratios(near, self.close.spacing[rows, 0]))
        return tail, own

    def _labels(self, units: np.ndarray, copied: np.ndarray) -> np.ndarray:
        """Labels of `units` when the copied units are members and the others are drawn anew."""
        is_copied = np.isin(units, copied)
        labels = is_copied.copy()
        open_units = np.flatnonzero(~is_copied)
        left = self.members - len(copied)
        others = self.units - self.members
        count = self.rng.hypergeometric(left, others, len(open_units)) if len(open_units) else 0
        labels[self.rng.choice(open_units, count, replace=False)] = True
        return labels

    def _cells_catch(self, table: CellTable, copies: int) -> bool:
        """The cell test's part of the verdict, for `copies` of the samples drawn from members."""
        labels = self.rng.permutation(self.close.is_member)[self.close.unit]
        members = np.bincount(table.cell[labels], minlength=len(table.pool))
        on_pool = int(table.samples.sum())
        kept = self.rng.hypergeometric(on_pool, self.samples - on_pool, self.samples - copies)
        samples = self.rng.multivariate_hypergeometric(table.samples, kept, method="marginals")
        samples = samples + self.rng.multinomial(copies, members / members.sum())
        if not repeats(*repeated_part(samples, table.pool, members)):
            return False
        scores = np.bincount(self.close.unit, (samples / table.pool)[table.cell], self.units)
        row_member = np.zeros(self.units, bool)
        row_member[self.close.unit[labels]] = True
        return bool(stats.norm.sf(permutation_z(scores, row_member)[0]) <= self.level)


class _Lists:
    """values grouped by key: `lists(keys)` gives all values of the keys, and the place of each."""

    def __init__(self, keys: np.ndarray, values: np.ndarray, count: int) -> None:
        order = np.argsort(keys, kind="stable")
        self.values = values[order]
        self.start = np.searchsorted(keys[order], np.arange(count + 1))

    def __call__(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length = self.start[keys + 1] - self.start[keys]
        place = np.repeat(np.arange(len(keys)), length)
        offset = np.arange(length.sum()) - np.repeat(length.cumsum() - length, length)
        return self.values[self.start[keys][place] + offset], place
