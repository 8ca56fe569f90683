"""The verdict: what was found, with its null, its power and what it cannot see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reverie.auditing.facts.named import Record
from reverie.auditing.nulls.power import Power
from reverie.auditing.nulls.rank_tests import Effect
from reverie.auditing.wording import (
    BLIND_SPOTS,
    CITATIONS,
    HEADLINES,
    SECTIONS,
    headline,
    p_text,
    sentences,
)
from reverie.curve import Leak
from reverie.templates import render

FINDINGS = tuple(HEADLINES)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    p_joint: p_value corrected over all lines that have one (Holm); None where p_value is.
    section: one of `wording.SECTIONS`.
    """

    statistic: str
    value: float
    null: str
    interval: tuple[float, float] | None
    p_value: float | None
    p_joint: float | None
    n: int
    detail: str = ""
    section: str = "tests"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Outcome of an audit; see `reverie.audit`."""

    finding: str
    p_value: float  # the tail test's, corrected over its K
    table: list[Row]
    records: list[Record]  # the named ones and the closest, closest first
    power: list[Power]
    fewest: int
    alpha: float
    sizes: dict[str, int]  # train, holdout, samples; train_groups, holdout_groups with groups
    effect: Effect
    planted_noise: float
    flagged_samples: list[int] = field(default_factory=list)
    leak: Leak | None = None
    fidelity: str | None = None  # does it resemble held-out data? a statement of its own
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        return headline(self)

    def row(self, statistic: str) -> Row | None:
        """The line of the table of that name, if there is one."""
        return next((row for row in self.table if row.statistic == statistic), None)

    @property
    def p_joint(self) -> float:
        """The least p-value of the table, corrected over all of them."""
        return min(row.p_joint for row in self.table if row.p_joint is not None)

    def sections(self) -> dict[str, list[Row]]:
        """The table's lines by section, in the order of the page; empty sections left out."""
        order = [*SECTIONS, *sorted({row.section for row in self.table} - set(SECTIONS))]
        found = {name: [row for row in self.table if row.section == name] for name in order}
        return {name: rows for name, rows in found.items() if rows}

    def sentences(self) -> list[str]:
        """The verdict in words: finding, p-value, size, power, limits."""
        return sentences(self) + self.notes

    def summary(self) -> str:
        """A few lines for a terminal."""
        lines = [f"finding   {self.finding}", f"p-value   {p_text(self.p_joint)} (joint)"]
        if self.leak is not None:
            lines.append(f"leak      {self.leak}")
        width = max(len(r.statistic) for r in self.table)
        table = [f"  {'':<{width}}  {'value':>9}   {'p joint':>8}   null"]
        table += [
            f"  {r.statistic:<{width}}  {r.value:>9.4g}   {p_text(r.p_joint):>8}   {r.null}"
            for r in self.table
        ]
        return "\n".join([*lines, "", *self.sentences(), "", *table])

    def to_json(self) -> dict[str, Any]:
        """Plain values, every statistic with its null, interval and p-values."""
        return {
            "finding": self.finding,
            "p_value": self.p_value,
            "p_joint": self.p_joint,
            "alpha": self.alpha,
            "sentences": self.sentences(),
            "fidelity": self.fidelity,
            "effect": {**asdict(self.effect), "place": self.effect.place},
            "table": [asdict(row) for row in self.table],
            "records": [record.to_json() for record in self.records],
            "flagged_samples": self.flagged_samples,
            "power": [asdict(power) for power in self.power],
            "planted_noise": self.planted_noise,
            "fewest_copies_visible": self.fewest,
            "sizes": self.sizes,
            "leak": None if self.leak is None else asdict(self.leak),
            "cannot_see": list(BLIND_SPOTS),
            "cite": list(CITATIONS),
        }

    def to_html(self) -> str:
        """The verdict as an HTML fragment, everything in it escaped."""
        return render(
            Path(__file__).parent / "verdict.html", verdict=self, p_text=p_text,
            blind_spots=BLIND_SPOTS, citations=CITATIONS, titles=SECTIONS,
        )  # fmt: skip
