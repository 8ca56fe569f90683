"""The verdict: what was found, with its null, its power and what it cannot see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reverie.auditing.power import Power
from reverie.curve import Leak

FINDINGS = ("copies", "dependence", "none", "inconclusive")
HEADLINES = {
    "copies": "The samples contain near-copies of training records.",
    "dependence": "The model depends on its training set more than chance allows, without "
    "near-copies in these samples.",
    "none": "No evidence of copying, and copies would have been seen.",
    "inconclusive": "No evidence of copying, but too little data to tell.",
}
BLIND_SPOTS = (
    "The null is that training and held-out rows are exchangeable: a random split, without "
    "duplicates or shared persons across it.",
    "The tests look at distances between whole records in the scaled columns or pixels: a copy of "
    "part of a record, or one moved, mirrored or recoloured, is not seen.",
    "It is no differential-privacy guarantee, and it says nothing about what honest "
    "generalisation discloses.",
)


@dataclass(frozen=True)
class Row:
    """One line of the table; p_joint is Holm-corrected over all lines with a p-value."""

    statistic: str
    value: float
    null: str
    interval: tuple[float, float] | None
    p_value: float | None
    p_joint: float | None
    n: int
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """A training row and the sample nearest to it; indices count from 0 in the files given."""

    train_row: int
    sample: int
    distance: float
    ratio: float  # distance over the row's spacing (its 5th pool neighbour)
    share_of_holdout: float  # share of held-out rows that have as small a ratio (+1 smoothing)
    near_copy: bool
    source_row: int | None = None  # the row in the data file, where the split is known


@dataclass(frozen=True, eq=False)
class Verdict:
    """Outcome of an audit; see `reverie.audit`."""

    finding: str
    p_value: float
    table: list[Row]
    records: list[Record]
    power: list[Power]
    fewest: int
    alpha: float
    sizes: dict[str, int]
    leak: Leak | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        return HEADLINES[self.finding]

    def sentences(self) -> list[str]:
        """The verdict in words: finding, p-value, power, limits."""
        sizes = self.sizes
        lines = [
            self.headline,
            f"If training and held-out rows had been swapped at random, a result this extreme "
            f"would occur with probability {_p(self.p_value)} (tail test, exact).",
        ]
        if self.finding == "copies":
            close = next(int(r.value) for r in self.table if r.statistic == "close pairs")
            listed = sum(r.near_copy for r in self.records)
            lines.append(
                f"{close} training records have a sample within a third of the way to their "
                f"nearest record; the closest {listed} are listed with it."
            )
        lines.append(self.power_sentence())
        lines.append(
            f"With {sizes['train']} training and {sizes['holdout']} held-out rows, no rank test "
            f"at {self.alpha:.0%} can see fewer than {self.fewest} copied records."
        )
        if self.leak is not None:
            lines.append(
                f"The model's curve knows a training record {self.leak.nats:.3g} nats better than "
                f"a fresh one (95%: {self.leak.low:.3g} to {self.leak.high:.3g}), counted up to a "
                f"signal-to-noise ratio of {self.leak.level:.3g}."
            )
        return lines + self.notes

    def power_sentence(self) -> str:
        seen = [p for p in self.power if p.caught >= 0.8]
        if not seen:
            return "Planted copies were not called copies four times in five at any share tried."
        best = seen[0]
        return (
            f"Copies planted as {best.share:.2%} of the samples ({best.copies}) would have been "
            f"caught (called copies) at least {best.caught:.0%} of the time "
            f"(\u00b1 {1.96 * best.stderr:.0%})."
        )

    def summary(self) -> str:
        """A few lines for a terminal."""
        lines = [f"finding   {self.finding}", f"p-value   {_p(self.p_value)}"]
        if self.leak is not None:
            lines.append(f"leak      {self.leak}")
        width = max(len(r.statistic) for r in self.table)
        table = [f"  {'':<{width}}  {'value':>9}   {'p joint':>8}   null"]
        table += [
            f"  {r.statistic:<{width}}  {r.value:>9.4g}   {_p(r.p_joint):>8}   {r.null}"
            for r in self.table
        ]
        return "\n".join([*lines, "", *self.sentences(), "", *table])

    def to_json(self) -> dict[str, Any]:
        """Plain values, every statistic with its null, interval and p-values."""
        return {
            "finding": self.finding,
            "p_value": self.p_value,
            "alpha": self.alpha,
            "sentences": self.sentences(),
            "table": [asdict(row) for row in self.table],
            "records": [asdict(record) for record in self.records],
            "power": [asdict(power) for power in self.power],
            "fewest_copies_visible": self.fewest,
            "sizes": self.sizes,
            "leak": None if self.leak is None else asdict(self.leak),
            "cannot_see": list(BLIND_SPOTS),
        }

    def to_html(self) -> str:
        """The verdict as an HTML fragment, everything in it escaped."""
        from jinja2 import Environment

        source = (Path(__file__).parent / "verdict.html").read_text()
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["p"] = _p
        return environment.from_string(source).render(verdict=self, blind_spots=BLIND_SPOTS)


def _p(value: float | None) -> str:
    if value is None:
        return ""
    if value < 1e-300:
        return "< 1e-300"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
