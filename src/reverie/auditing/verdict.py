"""The verdict: what was found, with its null, its power and what it cannot see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reverie.auditing.facts.counted import Facts
from reverie.auditing.facts.named import Record
from reverie.auditing.fairness.comparison import Fairness
from reverie.auditing.finding import exposures, legacy
from reverie.auditing.judging import Judging
from reverie.auditing.model.cyclic import CyclicProbe
from reverie.auditing.model.risk import RowRisk
from reverie.auditing.nulls.rank_tests import Effect
from reverie.auditing.planting import Power
from reverie.auditing.row import Row as Row
from reverie.auditing.wording import (
    BLIND_SPOTS,
    CITATIONS,
    SECTIONS,
    TOLD,
    headline,
    lines_below,
    p_text,
    sentences,
)
from reverie.curve import Leak
from reverie.templates import Card, Shown, render


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Shown):
    """Outcome of an audit; see `reverie.audit`.

    finding: one of `finding.FINDINGS`. fairness: may training and held-out rows be compared.
    facts: what is plainly there, beside the same for held-out rows. effect: how much. table: every
    statistic with its null. power: copies that were planted, by kind. p_value: the tail test's,
    corrected over its K; `p_joint` decides.

    >>> import numpy as np
    >>> from reverie import Verdict, audit
    >>> train, holdout, samples = np.random.default_rng(0).normal(size=(3, 200, 4))
    >>> verdict = audit(train, holdout, samples, metrics=False)
    >>> isinstance(verdict, Verdict), verdict.row("tail").statistic, verdict.p_joint > 0.05
    (True, 'tail', True)
    """

    finding: str
    fairness: Fairness
    facts: Facts
    p_value: float
    table: list[Row]
    records: list[Record]  # the named ones and the closest, closest first
    power: list[Power]
    fewest: int
    sizes: dict[str, int]  # train, holdout, samples; train_groups, holdout_groups with groups
    effect: Effect
    judging: Judging
    flagged_samples: list[int] = field(default_factory=list)
    leak: Leak | None = None
    fidelity: str | None = None  # does it resemble held-out data? a statement of its own
    notes: list[str] = field(default_factory=list)
    cyclic: CyclicProbe | None = None  # what going round the model brought out
    risk: RowRisk | None = None  # of the training rows, from the data alone

    @property
    def alpha(self) -> float:
        return self.judging.alpha

    @property
    def planted_noise(self) -> float:
        """Noise of the planted copies, in deviations a column."""
        return max((power.noise for power in self.power), default=0.0)

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        return headline(self)

    @property
    def exposures(self) -> list[str]:
        """What tells who was in the training set."""
        return exposures(self.table, self.effect, self.leak, self.judging)

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
        return [*sentences(self), *self.notes, *self._probed()]

    def _probed(self) -> list[str]:
        return [] if self.cyclic is None else self.cyclic.sentences()

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

    def card(self) -> Card:
        """The finding, what was counted beside held-out rows, size and chance."""
        effect, facts = self.effect, [f for f in self.facts.facts if f.samples or f.held_rows]
        rows = [
            (f.change or f.kind, f"{f.samples:,} of {f.sample_total:,} samples",
             f"{f.rows:,} training, {f.held_rows:,} held-out rows")
            for f in facts
        ]  # fmt: skip
        rows.append((
            "nearer to training rows", f"{100 * effect.excess:.1f} points beyond chance",
            f"95%: {100 * effect.low:.1f} to {100 * effect.high:.1f}",
        ))  # fmt: skip
        if self.leak is not None:
            rows.append(("leak of the model", f"{self.leak.nats:.3g} nats",
                         f"95%: {self.leak.low:.3g} to {self.leak.high:.3g}"))  # fmt: skip
        rows.append(("least p-value, corrected", p_text(self.p_joint), "of no dependence"))
        return Card(f"{self.finding}: {self.headline}", ("what", "samples", "beside"), rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values, every statistic with its null, interval and p-values."""
        return {
            "finding": self.finding,
            "finding_v1": legacy(self.finding, self.p_joint <= self.alpha),
            "headline": self.headline,
            "fair": self.fairness.fair,
            "fairness": self.fairness.to_json(),
            "facts": self.facts.to_json(),
            "exposures": self.exposures,
            "judging": self.judging.to_json(),
            "p_value": self.p_value,
            "p_joint": self.p_joint,
            "alpha": self.alpha,
            "sentences": self.sentences(),
            "fidelity": self.fidelity,
            "effect": {**asdict(self.effect), "place": self.effect.place},
            "copied": [
                {"risk_rank": rank, **asdict(match)}
                for rank, match in enumerate(self.facts.records, 1)
            ],
            "table": [asdict(row) for row in self.table],
            "records": [record.to_json() for record in self.records],
            "flagged_samples": self.flagged_samples,
            "power": [asdict(power) for power in self.power],
            "planted_noise": self.planted_noise,
            "fewest_copies_visible": self.fewest,
            "sizes": self.sizes,
            "leak": None if self.leak is None else asdict(self.leak),
            "cyclic_probe": None if self.cyclic is None else self.cyclic.to_json(),
            "risk": None if self.risk is None else self.risk.to_json(),
            "cannot_see": list(BLIND_SPOTS),
            "cite": list(CITATIONS),
        }

    def to_html(self, picture: str = "") -> str:
        """The verdict as an HTML fragment, everything in it escaped but `picture`, which is HTML.

        Finding, picture and counts first; tests, metrics and their nulls folded below.
        """
        lines = self.sentences()
        count = len(lines_below(self))
        return render(
            Path(__file__).parent / "verdict.html", verdict=self, p_text=p_text, picture=picture,
            why=lines[1 : len(lines) - count], rest=lines[len(lines) - count :],
            blind_spots=BLIND_SPOTS, citations=CITATIONS, titles=SECTIONS, told=TOLD,
        )  # fmt: skip
