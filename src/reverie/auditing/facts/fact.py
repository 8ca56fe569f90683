"""What one kind of copying counts, and when a count is beyond its yardsticks.

A count of training rows has four yardsticks, none of which is a null hypothesis to be rejected:

    held-out    the same count for held-out rows, which the generator has not seen
    expected    the rows that a generator that knows the law, but no row, would hit
    recombined  the same count for rows that nobody owns: training rows with one cell moved to a
                neighbouring value of its column. Generators that draw columns from the training
                columns (a copula with empirical margins) hit these as often as training rows
    repeats     real rows that agree so with another real row. Tables hold a record twice, or a
                car and the same car a year later, which no law of columns expects. Were samples
                of the same source, given all pairs that agree, those of a sample and a training
                row would be binomial among them

Honest fits lean towards their training rows. Under epsilon-differential privacy a row is hit at
most exp(epsilon) times as often as a row outside (Dwork et al. 2006); so a count is `beyond` only
if its rate is surely over three times (epsilon = 1.1) that of the held-out rows, or if it is too
high for ten times the expected number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

LEANING = 3.0  # times the rate of held-out rows that an honest generator may show
LEVEL = 0.002  # of the exact comparison with held-out rows
SAFETY = 10.0  # times the expected number, for what its estimate does not know
SURE = 0.001  # chance that as many rows are hit, were ten times the expected number true
REPEATS = 0.005  # of each of two exact comparisons with real rows that agree with one another
RARE = 1e-6  # expected matches below which rows are told by a table of which none repeats
LISTED = 200  # records kept in JSON


@dataclass(frozen=True)
class Match:
    """A sample and the training row it gives away; rows count from 0 in the files given."""

    sample: int
    train_row: int
    change: str | None
    distance: float  # 0 verbatim, cells that differ, or deviations (see the fact's kind)


@dataclass(frozen=True, eq=False)
class Fact:
    """One counted kind of copying.

    kind: verbatim, all but k, near, changed picture or spike. change: what was changed, in words.
    samples: how many reproduce a training row. rows, held_rows: distinct training and held-out
    rows so reproduced, of train_total and held_total. repeats: real rows that agree so with
    another (None where not asked). probes: held-out rows that would count, were
    they samples (of probe_total; None where not measured). expected, recombined: see the module,
    both in training rows. sure: no chance explains the count; beyond: sure, or beyond what the
    yardsticks show. train_rows (rows,), sample_rows (samples,): indices.
    """

    kind: str
    change: str | None
    samples: int
    sample_total: int
    rows: int
    train_total: int
    held_rows: int
    held_total: int
    sure: bool
    beyond: bool
    train_rows: np.ndarray
    sample_rows: np.ndarray
    records: list[Match] = field(default_factory=list)
    expected: float | None = None
    recombined: float | None = None
    probes: int | None = None
    probe_total: int | None = None
    repeats: int | None = None

    @property
    def rate(self) -> float:
        """Share of the training rows that are reproduced."""
        return self.rows / max(self.train_total, 1)

    @property
    def held_rate(self) -> float:
        """Share of the held-out rows that are reproduced."""
        return self.held_rows / max(self.held_total, 1)

    @property
    def scaled_held_rows(self) -> float:
        """Training rows that would be reproduced at the rate of the held-out rows."""
        return self.held_rate * self.train_total

    def to_json(self) -> dict[str, Any]:
        """Plain values; at most LISTED records, all indices."""
        told = {
            name: getattr(self, name)
            for name in (
                "kind", "change", "samples", "sample_total", "rows", "train_total", "rate",
                "held_rows", "held_total", "held_rate", "scaled_held_rows", "sure", "beyond",
                "expected", "recombined", "probes", "probe_total",
            )
        }  # fmt: skip
        return {
            **told,
            "train_rows": self.train_rows.tolist(),
            "sample_rows": self.sample_rows.tolist(),
            "records": [vars(record) for record in self.records[:LISTED]],
        }


def beyond_held(
    rows: int, total: int, held_rows: int, held_total: int, level: float = LEVEL
) -> bool:
    """Is the rate of training rows surely over LEANING times that of held-out rows?

    level: of the comparison; LEVEL where several counts of a kind are looked at. Given rows +
    held_rows hits, the training rows among them are binomial at that ratio (Clopper and Pearson's
    bound on the ratio of two rates); without held-out rows nothing is.
    """
    if rows == 0 or held_total == 0:
        return False
    share = LEANING * total / (LEANING * total + held_total)
    return bool(stats.binom.sf(rows - 1, rows + held_rows, share) <= level)


def beyond_chance(rows: int, expected: float, looks: int = 1) -> bool:
    """Are so many rows too many for SAFETY times the expected number (Poisson)?"""
    return rows > 0 and bool(stats.poisson.sf(rows - 1, SAFETY * expected) <= SURE / looks)


def beyond_recombined(rows: int, total: int, hits: int, tried: float) -> bool:
    """Is the rate of training rows over that of recombined rows, by more than half again?

    No hit among the recombined leaves nothing to explain.
    """
    if hits == 0:
        return rows > 0
    share = 1.5 * total / (1.5 * total + tried)
    return bool(stats.binom.sf(rows - 1, rows + hits, share) <= LEVEL)


@dataclass(frozen=True)
class Repeated:
    """Real rows that agree with an earlier one: `train` of n, and `held` of m more, with any."""

    train: int
    held: int
    n: int
    m: int

    def explains(
        self, rows: int, held_rows: int, samples: int, least: int = 1, rare: bool = False
    ) -> bool:
        """May `rows` training rows, met by so many samples, be repeats of the source?

        Compared with the pairs that hold a held-out row, and with all pairs of real rows (training
        rows may be given twice, or repeated on purpose). rare: chance makes no such match; where
        no real row repeats another, `least` rows then suffice.
        """
        others = held_rows + self.held
        if rare and others + self.train == 0 and rows >= least:
            return False
        ours = float(samples) * self.n
        pairs = samples * self.m + self.m * (self.n + (self.m - 1) / 2)
        p = [
            stats.binom.sf(rows - 1, rows + count, ours / (ours + total))
            for count, total in (
                (others, pairs),
                (others + self.train, pairs + self.n * (self.n - 1) / 2),
            )
        ]
        return bool(min(p) > REPEATS)


def listed(names: Sequence[Any], most: int = 8) -> str:
    """1, 2, 3 and 5 more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name) for name in names[:most]) + more
