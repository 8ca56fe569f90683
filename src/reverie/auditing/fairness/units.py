"""Sets in other units: samples in [0, 1] or standardised beside raw rows, bytes beside floats.

Between such sets every distance is an artefact, so they are refused in one sentence, with their
ranges. Refused is only what no bad generator makes: values that fill a conventional range ([0, 1],
[-1, 1], mean 0 and deviation 1) in all columns beside rows far from it, or quantiles that are
those of train times one factor. Heavy tails, few rows, a generator that gives one row only,
constant columns, and samples that are merely wrong pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.fairness.alignment import names_of
from reverie.data import Dataset
from reverie.data.dates import days_of
from reverie.errors import InputError

WIDE = 256  # columns, from which a table is looked at as a whole
LOOKED = 2**21  # numbers of a set that are looked at
QUANTILES = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
FACTOR = 8.0  # between two units; less may be a bad generator
LEVELS = 8  # whole numbers from 0 to at least this are bytes or grey levels
LEAST = 20  # rows whose quantiles say something
RATIO = 3.0  # of spreads, in half of the columns, beside a conventional range


def check_units(sets: list[Dataset]) -> None:
    """InputError where held-out rows or samples are in other units than train (the module)."""
    for name, other in zip(("holdout", "samples"), sets[1:], strict=False):
        real = name == "holdout"
        train, other = _shared(sets[0], other)
        if train.kind == "text" or train.shape != other.shape:
            continue
        if train.kind == "images" or train.values.ndim != 2 or train.shape[0] > WIDE:
            _check_whole(train, other, name, real)
        else:
            _check_texts(train, other, name)
            _check_columns(train, other, name, real)


def _shared(train: Dataset, other: Dataset) -> tuple[Dataset, Dataset]:
    """Both sets with the columns that they share by name, in one order; arrays as they are."""
    if train.columns is None or other.columns is None or train.columns == other.columns:
        return train, other
    names = [name for name in train.columns if name in other.columns]
    if not names or len(set(train.columns)) < len(train.columns):
        return train, other
    first, second = (data.with_columns([data.columns.index(n) for n in names])
                     for data in (train, other) if data.columns)  # fmt: skip
    return first, second


@dataclass(frozen=True)
class _Extent:
    """What a set of pictures holds: its range, and whether only whole numbers."""

    low: float
    high: float
    whole: bool
    mean: float
    deviation: float
    negative: float  # share of values below -0.05

    @classmethod
    def of(cls, data: Dataset) -> _Extent:
        rows = max(2, LOOKED // max(1, data.values[0].size))
        step = max(1, len(data) // rows)
        values = data.values[::step][: 2 * rows].astype(np.float64).ravel()
        values = values[np.isfinite(values)]
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if len(values):
            low, high = float(values.min()), float(values.max())
        return cls(
            low, high, bool((values == np.round(values)).all()),
            float(values.mean()) if len(values) else 0.0,
            float(values.std()) if len(values) else 0.0,
            float((values < -0.05).mean()) if len(values) else 0.0,
        )  # fmt: skip

    @property
    def levels(self) -> bool:
        """Bytes, or grey levels: whole numbers from 0 up."""
        return self.whole and self.low >= 0 and self.high >= LEVELS

    @property
    def unit(self) -> bool:
        """Within [-1, 1] with some overshoot, and not constant."""
        inside = self.low >= -1.5 and self.high <= 1.5 and self.high - self.low > 0.2
        return inside and (not self.whole or self.high - self.low <= 2)

    @property
    def standard(self) -> bool:
        """Mean 0 and deviation 1, on both sides of 0."""
        return abs(self.mean) < 0.5 and 0.5 < self.deviation < 2 and self.low < -0.3


def _check_whole(train: Dataset, other: Dataset, name: str, real: bool) -> None:
    """One scale for all values: pictures, and rows of very many numbers."""
    a, b = _Extent.of(train), _Extent.of(other)
    pairs = ((a, b), (b, a))
    differ = any(x.levels and not y.levels and (y.unit or _is_standard(y, x)) for x, y in pairs)
    differ |= _zero_to_one(a) and _both_signs(b)
    # the same pictures in [0, 1]: those that are merely bright have another mean
    same = abs(b.mean - (a.mean + 1) / 2) < 0.1 and 0.7 * a.deviation < 2 * b.deviation
    differ |= _zero_to_one(b) and _both_signs(a) and same
    differ |= _zero_to_one(a) and b.low >= -0.5 and b.high <= 256 and b.high > 100
    if real and a.levels and b.levels:
        differ |= max(a.high, b.high) > FACTOR * min(a.high, b.high)
    if differ:
        raise InputError(
            f"{name} and train are in different units: {name} holds values from {_span(b)}, train "
            f"from {_span(a)}; save both in the same units"
        )


def _is_standard(rows: _Extent, raw: _Extent) -> bool:
    return rows.standard and not rows.whole and raw.deviation > RATIO * rows.deviation


def _zero_to_one(rows: _Extent) -> bool:
    inside = rows.low >= -1e-3 and 0.5 < rows.high <= 1.001
    return inside and rows.deviation > 0.02


def _both_signs(rows: _Extent) -> bool:
    return -1.1 <= rows.low < -0.9 and rows.high <= 1.1 and rows.negative >= 0.1


def _span(rows: _Extent) -> str:
    kind = ", whole numbers" if rows.whole else ""
    return f"{rows.low:.4g} to {rows.high:.4g} (mean {rows.mean:.3g}{kind})"


@dataclass(frozen=True, eq=False)
class _Column:
    """Quantiles and range of one column of numbers of one set."""

    quantiles: np.ndarray
    low: float
    high: float
    mean: float
    deviation: float
    whole: bool
    count: int
    values: int  # how many different ones

    @classmethod
    def of(cls, values: np.ndarray) -> _Column:
        here = values[np.isfinite(values)].astype(np.float64)
        if len(here) == 0:
            return cls(np.zeros(len(QUANTILES)), 0.0, 0.0, 0.0, 0.0, True, 0, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(
                np.quantile(here, QUANTILES), float(here.min()), float(here.max()),
                float(here.mean()), float(here.std()), bool((here == np.round(here)).all()),
                len(here), len(np.unique(here)),
            )  # fmt: skip

    @property
    def spread(self) -> float:
        """Between the outer tenths; 0 for a column that hardly moves."""
        return float(self.quantiles[5] - self.quantiles[1])

    @property
    def standard(self) -> bool:
        """About mean 0 and deviation 1."""
        return abs(self.mean) < 0.3 and 0.65 < self.deviation < 1.5

    def within(self, low: float, high: float) -> bool:
        slack = 0.01 * (high - low)
        return low - slack <= self.low and self.high <= high + slack


def _check_columns(train: Dataset, other: Dataset, name: str, real: bool) -> None:
    places = [
        j
        for j in range(train.shape[0])
        if not any(d.fields and d.fields[j].kind == "categorical" for d in (train, other))
    ]
    first, second = ({j: _Column.of(d.values[:, j]) for j in places} for d in (train, other))
    used = [
        j for j in places
        if min(first[j].count, second[j].count) >= LEAST and first[j].values > 2
        and first[j].spread > 0 and second[j].spread > 0
    ]  # fmt: skip
    scaled = [j for j in used if _one_factor(first[j], second[j])]
    pairs = [(first[j], second[j]) for j in used]
    if not scaled and pairs and (_rescaled(pairs) or _rescaled_train(pairs, real)):
        scaled = [j for j in used if _far(first[j], second[j])]
    if scaled:
        names = names_of(train)
        told = "; ".join(
            f"column {names[j]!r} is {second[j].low:.4g} to {second[j].high:.4g}, in train "
            f"{first[j].low:.4g} to {first[j].high:.4g}"
            for j in scaled[:3]
        )
        more = f" (and {len(scaled) - 3} more columns)" if len(scaled) > 3 else ""
        raise InputError(
            f"{name} and train are in different units: {told}{more}; save both in the same units"
        )


def _one_factor(a: _Column, b: _Column) -> bool:
    """Whether all quantiles of b are those of a times one factor of at least FACTOR."""
    both = np.concatenate([a.quantiles, b.quantiles])
    if not (np.all(both > 0) or np.all(both < 0)):
        return False
    ratio = np.log(np.abs(b.quantiles) / np.abs(a.quantiles))
    middle, spread = float(np.median(ratio)), np.log(b.spread / a.spread)
    own = max(abs(float(np.log(c.quantiles[5] / c.quantiles[1]))) / 2.56 for c in (a, b))
    error = 1.25 * own / np.sqrt(min(a.count, b.count))
    return (
        abs(middle) > max(np.log(FACTOR), 8 * error)
        and bool(np.abs(ratio - middle).max() < 0.3)
        and abs(spread - middle) < 0.35
    )


def _far(a: _Column, b: _Column) -> bool:
    """Spreads that differ by RATIO at least."""
    return max(a.spread, b.spread) > RATIO * min(a.spread, b.spread)


def _elsewhere(a: _Column, b: _Column) -> bool:
    """Medians that lie twice the wider spread apart (5 deviations of a Gaussian)."""
    return abs(a.quantiles[3] - b.quantiles[3]) > 2 * max(a.spread, b.spread)


def _rescaled(pairs: list[tuple[_Column, _Column]]) -> bool:
    """Whether all columns of the second set fill a conventional range, half far from the first."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    if any(b.whole and not a.whole for a, b in pairs) or all(b.whole for b in second):
        return False
    other_spread = sum(_far(a, b) for a, b in pairs)
    other = sum(_far(a, b) or _elsewhere(a, b) for a, b in pairs)
    if 2 * other < len(pairs) or 4 * other_spread < len(pairs):
        return False
    signs = 2 * sum(b.low < -0.3 for b in second) >= len(second)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        filled = 2 * sum(_fills(b, low, high) for b in second) >= len(second)
        if filled and all(b.within(low, high) for b in second) and (low == 0 or signs):
            return 2 * sum(_fills(a, low, high) for a in first) < len(first)
    standard = 5 * sum(b.standard for b in second) >= 4 * len(second)
    return standard and 2 * sum(a.standard for a in first) < len(first)


def _fills(column: _Column, low: float, high: float) -> bool:
    return column.within(low, high) and column.high - column.low > 0.5 * (high - low)


def _rescaled_train(pairs: list[tuple[_Column, _Column]], real: bool) -> bool:
    """The same where train is the one that was rescaled: then the shapes must agree too."""
    turned = [(b, a) for a, b in pairs]
    if not _rescaled(turned):
        return False
    alike = all(
        np.abs(_shape(a) - _shape(b)).max() < 0.35 + 4 / np.sqrt(min(a.count, b.count))
        for a, b in pairs
    )
    far = any(abs(b.quantiles[3]) > RATIO * b.spread for _, b in pairs)
    uneven = [b.spread for _, b in pairs]
    return alike and (real or far or max(uneven) > RATIO * min(uneven))


def _shape(column: _Column) -> np.ndarray:
    """Quantiles less the median, over the spread."""
    return (column.quantiles - column.quantiles[3]) / column.spread


def _check_texts(train: Dataset, other: Dataset, name: str) -> None:
    """Categories written in another way: numbers for words, or dates in another form."""
    if not (train.fields and other.fields):
        return
    for j, (a, b) in enumerate(zip(train.fields, other.fields, strict=True)):
        if a.kind != "categorical" or b.kind != "categorical":
            continue
        one, two = _used(train, j), _used(other, j)
        if not one or not two or set(one) & set(two):
            continue
        codes = _are_numbers(two) and not any(map(_is_number, one))
        dates = [days_of(tuple(texts)) for texts in (one, two)]
        forms = [{_form(text) for text in texts} for texts in (one, two)]
        if codes or (dates[0] is not None and dates[1] is not None and not forms[0] & forms[1]):
            raise InputError(
                f"{name} and train write column {a.name!r} in different ways: {name} has "
                f"{two[0]!r}, train {one[0]!r}; write both alike"
            )


def _used(data: Dataset, place: int) -> list[str]:
    values = data.values[:, place]
    codes = np.unique(values[~np.isnan(values)]).astype(np.int64)
    return [data.fields[place].categories[code] for code in codes]


def _are_numbers(texts: list[str]) -> bool:
    return all(map(_is_number, texts))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _form(text: str) -> str:
    """How a date is written: its marks, and whether the year stands first."""
    return ("y" if text.strip()[:4].isdigit() else "d") + "".join(c for c in text if c in "-/.")
