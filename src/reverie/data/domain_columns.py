"""How one column of a table enters a bridge into a domain: scaled, with its ends.

    categories, few values, atoms, missing cells      symbols, as in `table_columns`
    numbers        an interval: the ends that the user says, else [0, inf) where no cell is
                   negative, else the whole line. They are scaled to mean 0 and deviation 1, and
                   first bent where they are skewed and an end is open, by log(1 + x / m) from an
                   end on and by asinh(x / m) on the line, which keep the ends

Unlike normal scores, a scaled number is not held to the observed range: a sample may be larger
than all rows, but never outside its ends.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from reverie.data.dataset import Column
from reverie.data.table_columns import ColumnPlan, plan_of
from reverie.errors import InputError

SKEWED = 2.0  # third standardised moment beyond which numbers with an end are bent
HEAVY = 10.0  # fourth, beyond which numbers on the line are
Ends = tuple[float, float]


@dataclass(frozen=True)
class DomainColumn(ColumnPlan):
    """What is read off one column: ends (infinite where open), bend and scale of its numbers."""

    low: float = -np.inf
    high: float = np.inf
    bend: str = "none"  # or "up" from the low end, "down" from the high end, "both"
    unit: float = 1.0
    centre: float = 0.0
    scale: float = 1.0

    @property
    def model_ends(self) -> Ends:
        """The ends in model space."""
        low, high = self.scores(np.array([self.low, self.high]), np.zeros(2))
        return float(low), float(high)

    def scores(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Scaled numbers (n,) of numbers (n,)."""
        return (self._bent(values) - self.centre) / self.scale

    def numbers(self, scores: np.ndarray) -> np.ndarray:
        """Numbers (n,) within the ends of scaled ones (n,)."""
        bent = np.clip(scores * self.scale + self.centre, -700, 700) if self._curved else (
            scores * self.scale + self.centre
        )  # fmt: skip
        if self.bend == "up":
            bent = self.low + self.unit * np.expm1(bent)
        elif self.bend == "down":
            bent = self.high - self.unit * np.expm1(-bent)
        elif self.bend == "both":
            bent = self.unit * np.sinh(bent)
        return np.clip(bent, self.low, self.high)

    def inside(self, values: np.ndarray) -> np.ndarray:
        """Values (n,), rounded as they are written, within the ends."""
        return np.clip(values, self.low, self.high) if self.is_number else values

    @property
    def _curved(self) -> bool:
        return self.bend != "none"

    def _bent(self, values: np.ndarray) -> np.ndarray:
        if self.bend == "up":
            return np.log1p((values - self.low) / self.unit)
        if self.bend == "down":
            return -np.log1p((self.high - values) / self.unit)
        return np.arcsinh(values / self.unit) if self.bend == "both" else values


def domain_column(
    column: Column, values: np.ndarray, train: np.ndarray, source: str, said: Ends | None
) -> DomainColumn:
    """Read one column off all of its values (n,), and the scale of numbers off `train` (m,).

    said: its ends, where the user gives them. InputError on ends of a column that has none, and
    on a cell outside them.
    """
    plan = plan_of(column, values, train, source)
    fields: dict[str, Any] = asdict(plan) | {"values": [], "ranks": [], "owned": False}
    found = DomainColumn(**fields)
    present = values[~np.isnan(values)]
    if said is not None:
        _check(column, present, said, source)
    if not found.is_number:
        return found
    least = float(present.min())
    low, high = said or ((0.0, np.inf) if least >= 0 and not column.is_time else (-np.inf, np.inf))
    seen = train[~np.isnan(train)]
    rest = seen[~np.isin(seen, plan.symbols)]
    if len(np.unique(rest)) < 2:  # of the training rows: the others are held out
        rest = present[~np.isin(present, plan.symbols)]
    bent = _bend(replace(found, low=low, high=high), rest)
    raw = bent._bent(rest)
    return replace(bent, centre=float(raw.mean()), scale=float(raw.std()) or 1.0)


def _bend(found: DomainColumn, rest: np.ndarray) -> DomainColumn:
    """The column with the bend that its numbers ask for."""
    standard = (rest - rest.mean()) / (rest.std() or 1.0)
    skew, heavy = float((standard**3).mean()), float((standard**4).mean())
    has_low, has_high = np.isfinite(found.low), np.isfinite(found.high)
    bend, away = "none", np.abs(rest)
    if has_low and not has_high and skew > SKEWED:
        bend, away = "up", rest - found.low
    elif has_high and not has_low and skew < -SKEWED:
        bend, away = "down", found.high - rest
    elif not has_low and not has_high and heavy > HEAVY:
        bend = "both"
    unit = float(np.median(away[away > 0])) if (away > 0).any() else 1.0
    return replace(found, bend=bend, unit=unit)


def _check(column: Column, present: np.ndarray, said: Ends, source: str) -> None:
    if column.kind == "categorical":
        raise InputError(f"column {column.name!r} holds categories: it has no bounds")
    outside = (present < said[0]) | (present > said[1])
    if outside.any():
        raise InputError(
            f"{source}: {int(outside.sum())} cells of column {column.name!r} lie outside its "
            f"bounds {said[0]:g}:{said[1]:g}, the first {column.text(present[outside][0])}"
        )


def ends_said(text: str) -> dict[str, Ends]:
    """Bounds by column, of `age=0:120,income=0:`; an end that is not said is open.

    InputError on text of another form, and on a low end that is not below the high one.

    >>> from reverie.data.domain_columns import ends_said
    >>> ends_said("age=0:120,income=0:")
    {'age': (0.0, 120.0), 'income': (0.0, inf)}
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, ends = part.rpartition("=")
        low, colon, high = ends.partition(":")
        try:
            pair = (float(low or "-inf"), float(high or "inf"))
        except ValueError:
            pair = (np.nan, np.nan)
        if not (name and equals and colon and pair[0] < pair[1]):
            raise InputError(f"bounds {part!r}: write COLUMN=LOW:HIGH, as age=0:120 or income=0:")
        found[name.strip()] = pair
    return found
