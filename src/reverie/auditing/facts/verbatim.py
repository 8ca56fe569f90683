"""Samples that are equal to a training row.

A row counts whose value occurs on one side only, once or oftener. Whether equality is then a
copy is a question of entropy (`expected_matches`): where a generator that knows the law but no row
would make less than one such match in a million audits, and no real row repeats another, one is
sure. Where real rows repeat one another, as tables hold records twice, or might (`Repeated`), the
count has to be too high for that too. Where chance would make more (few columns of few values, or
columns recombined), the count is compared with its yardsticks, and on a
table of few cells equality tells nothing: there the count test of the cells speaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from reverie.auditing.facts.crowds import AGAIN
from reverie.auditing.facts.expected_matches import expected_matches
from reverie.auditing.facts.fact import (
    RARE,
    Fact,
    Match,
    Repeated,
    beyond_chance,
    beyond_held,
    beyond_recombined,
)
from reverie.auditing.facts.row_keys import Keys, agreeing, repeated, row_keys
from reverie.auditing.facts.rows_of import Rows

NEVER = 1e-9  # expected matches below which no columns need be recombined


@dataclass(frozen=True)
class Repeats:
    """Samples that repeat one another: distinct ones, and how often the commonest stands."""

    samples: int
    distinct: int
    most: int


@dataclass(frozen=True, eq=False)
class Agreement:
    """Which pool row each sample (S,) agrees with, if exactly one does; else -1. `met`: any."""

    row: np.ndarray
    met: np.ndarray
    skipped: np.ndarray


def agreement(pool: Keys, queries: np.ndarray, k: int) -> Agreement:
    """Pool rows that agree with each query in all but k columns, and alone do."""
    found, alone, skipped = agreeing(pool, queries, k)
    return Agreement(np.where(alone, found, -1), found >= 0, skipped)


def verbatim(rows: Rows, equal: Agreement, total: int) -> list[Fact]:
    """Equal rows: of unique values, and of values that rows share (never a copy by itself).

    equal: `agreement` of the samples at k = 0. total: samples that were drawn, equal ones
    as one.
    """
    unique = _unique_fact(rows, equal, total)
    shared = equal.met & (equal.row < 0)
    return [unique, _shared_fact(rows, shared)] if shared.any() else [unique]


def repeats(rows: Rows) -> Repeats:
    """Samples that stand several times: a collapsed generator."""
    count = np.unique(rows.drawn_keys, return_counts=True)[1]
    return Repeats(len(rows.drawn), len(count), int(count.max(initial=0)))


def distinct_share(rows: Rows) -> float:
    """Share of the samples that differ from one another."""
    return len(np.unique(rows.drawn_keys)) / len(rows.drawn)


def _unique_fact(rows: Rows, equal: Agreement, total: int) -> Fact:
    fresh = (equal.row < 0) | (equal.row >= len(rows.train))
    expected, hits, tried = 0.0, 0, 0
    if not fresh.all():
        parts = rows.train, rows.held, rows.drawn[fresh]
        expected = float(expected_matches(*parts, total).without([()])[0])
    if expected > NEVER:
        nobody = np.concatenate([row_keys(part.rows) for part in rows.recombined])
        hits, tried = int(np.isin(nobody, rows.drawn_keys).sum()), len(nobody)
    return judged(
        rows, "verbatim", None, equal.row, hits, tried, expected,
        [
            Match(int(s), int(equal.row[s]), None, 0.0)
            for s in np.flatnonzero((equal.row >= 0) & (equal.row < len(rows.train)))
        ],
        probes=int(np.isin(rows.keys.total[len(rows.train) :], rows.train_keys).sum()),
        probe_total=len(rows.held), repeats=partial(_repeats, rows), total=total,
    )  # fmt: skip


def judged(
    rows: Rows, kind: str, change: str | None, row: np.ndarray, hits: int, tried: float,
    expected: float, records: list[Match],
    probes: int | None = None, probe_total: int | None = None,
    repeats: Callable[[], Repeated] | None = None, total: int = 0, least: int = 1,
) -> Fact:  # fmt: skip
    """The fact of samples that give away pool row `row` (S,), -1 for none, beside its yardsticks.

    hits, tried: recombined rows that samples give away, and how many could have been. repeats:
    the real rows that agree so, asked for where they decide. total: samples, equal ones as one.
    least: rows that suffice where chance makes none and no real rows agree so.
    """
    n = len(rows.train)
    owners, held_total = int(rows.unique[:n].sum()), int(rows.unique[n:].sum())
    sample = np.flatnonzero((row >= 0) & (row < n))
    given = np.unique(row[sample])
    held = len(np.unique(row[row >= n]))
    owned = beyond_recombined(len(given), owners, hits, tried)
    # held-out rows that are given away as often speak for chance, whatever the expectation
    sure = (
        owned and beyond_chance(len(given), expected) and len(given) * held_total > held * owners
    )
    again = repeats() if sure and repeats is not None else None
    if again is not None:
        often = _often(rows, row)
        sure = not again.explains(len(given), held, total, least, expected < RARE) or (
            often[0] > 0 and not again.explains(often[0], held, often[1])
        )
    return Fact(
        kind, change, len(sample), len(row), len(given), owners, held, held_total,
        sure=sure,
        beyond=sure or (owned and beyond_held(len(given), owners, held, held_total)),
        train_rows=given, sample_rows=sample, records=records,
        expected=expected if len(sample) else None,
        recombined=hits * owners / tried if tried else None,
        probes=probes, probe_total=probe_total,
        repeats=None if again is None else again.train + again.held,
    )  # fmt: skip


def _often(rows: Rows, row: np.ndarray) -> tuple[int, int]:
    """Training rows given away by a value that AGAIN samples have, and how many such values.

    A generator that repeats itself has as many chances to meet a row as it has such values.
    """
    _, value, count = np.unique(rows.drawn_keys, return_inverse=True, return_counts=True)
    ours = (row >= 0) & (row < len(rows.train)) & (count[value] >= AGAIN)
    return len(np.unique(row[ours])), int((count >= AGAIN).sum())


def _repeats(rows: Rows) -> Repeated:
    """Pool rows that equal one other pool row, and no more."""
    met = repeated(rows.keys, [()])[1]
    n = len(rows.train)
    return Repeated(int(met[:n].sum()), int(met[n:].sum()), n, len(rows.held))


def _shared_fact(rows: Rows, shared: np.ndarray) -> Fact:
    """Samples equal to a value that several rows of the pool share: how many, and which."""
    n = len(rows.train)
    sample = np.flatnonzero(shared)
    values = np.unique(row_keys(rows.drawn[sample]))
    common = np.isin(rows.keys.total, values) & ~rows.unique
    return Fact(
        "shared value", None, len(sample), len(shared), int(common[:n].sum()),
        int((~rows.unique[:n]).sum()), int(common[n:].sum()), int((~rows.unique[n:]).sum()),
        sure=False, beyond=False, train_rows=np.flatnonzero(common[:n]), sample_rows=sample,
    )  # fmt: skip
