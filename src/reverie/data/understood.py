"""What was made of a source: the kind of every column, what is missing, units and ranges."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.dates import UNIX_SECONDS, is_time_name
from reverie.data.identifiers import MOST_COLUMNS, identifier_columns
from reverie.data.no_data import no_data_codes
from reverie.data.options import Reading
from reverie.data.places import place_notes
from reverie.data.reading import load
from reverie.data.stamps import ISO_DAY, ISO_TIME, write_times
from reverie.data.times import dates_as_numbers

KINDS = ("number", "whole number", "category", "ordered", "yes/no", "time", "identifier",
         "constant", "text")  # fmt: skip
YEARS = (1000, 2200)
MANY_LEVELS = 256  # beyond, categories of which most rows have their own are text
OWN = 0.3  # levels per row of text
LONG = 30  # letters, in the mean, of text
UNIT = re.compile(r"[(\[](?P<a>[^()\[\]]{1,12})[)\]]\s*$|[_ ](?P<b>mm|cm|m|km|g|kg|mg|mpg|hp|s|ms|"
                  r"min|h|hours|days|years|usd|eur|pct|percent|deg|degrees|rad|celsius|kelvin)$",
                  re.IGNORECASE)  # fmt: skip
SCALES = (
    "low medium high", "low mid high", "low moderate high", "small medium large",
    "xs s m l xl xxl", "none mild moderate severe", "poor fair good", "poor fair good excellent",
    "bad average good", "fair good very-good premium ideal", "first second third fourth fifth",
    "freshman sophomore junior senior", "never rarely sometimes often always",
    "monday tuesday wednesday thursday friday saturday sunday", "mon tue wed thu fri sat sun",
    "thur fri sat sun", "mon tues weds thurs fri sat sun",
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "january february march april may june july august september october november december",
    "strongly-disagree disagree neutral agree strongly-agree",
    "if vvs1 vvs2 vs1 vs2 si1 si2 i1", "child teen adult senior",
    "primary secondary tertiary", "cold warm hot",
)  # fmt: skip
RANKED = [frozenset(scale.split()) for scale in SCALES]
COUNTED = re.compile(r"\D*(\d+)\D*")  # 1 min, 15 min, 30 min; 20-29, 30-39 are left aside


@dataclass(frozen=True)
class ColumnKind:
    """One column as it was understood; low and high are as its cells are written."""

    name: str
    kind: str
    missing: int = 0
    missing_words: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    levels: int | None = None
    unit: str = ""
    form: str = ""
    note: str = ""

    @property
    def span(self) -> str:
        """Range or number of levels, for a reader."""
        if self.levels is not None:
            return f"{self.levels:,} levels"
        return f"{self.low} to {self.high}" if self.low else ""

    @property
    def gaps(self) -> str:
        """How many cells are missing, and how they are written."""
        words = " ".join(word or "empty" for word in self.missing_words)
        return f"{self.missing} ({words})" if self.missing else ""


@dataclass(frozen=True)
class Understanding:
    """A source as it was understood: `columns`, what was decided of the file, and `notes`.

    >>> from reverie import describe
    >>> from reverie.data import Understanding
    >>> found = describe("wine")
    >>> isinstance(found, Understanding), found.rows, found.columns[0].name
    (True, 178, 'alcohol')
    """

    source: str
    rows: int
    what: str
    columns: tuple[ColumnKind, ...] = ()
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool | None = None
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """All in one line."""
        if not self.columns:
            return "; ".join([f"{self.source}: {self.what}", *self.notes])
        counts = Counter(column.kind for column in self.columns)
        parts = [f"{counts[kind]} {_plural(kind, counts[kind])}" for kind in KINDS if counts[kind]]
        text = f"{self.source}: {self.rows:,} rows of {', '.join(parts)}"
        named = {"identifier": "identifiers", "time": "times", "constant": "constant"}
        for kind, word in named.items():
            names = [column.name for column in self.columns if column.kind == kind]
            text += f"; {word}: {_some(names)}" if names else ""
        gaps = [f"{c.name} ({c.missing})" for c in self.columns if c.missing]
        text += f"; missing cells: {_some(gaps)}" if gaps else ""
        doubts = [f"{c.name}: {c.note}" for c in self.columns if "--missing" in c.note]
        return "; ".join([text, *self._told(), *self.notes, *doubts])

    def table(self) -> str:
        """A line a column, and a sentence on the file."""
        head = ("column", "kind", "range", "unit", "missing")
        rows = [head, *((c.name, c.kind, c.span, c.unit, c.gaps) for c in self.columns)]
        widths = [min(max(len(row[k]) for row in rows), 40) for k in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                 for row in rows] if self.columns else []  # fmt: skip
        told = [f"{c.name}: {c.note}" for c in self.columns if c.note and c.kind == "identifier"]
        return "\n".join([*lines, *([""] if lines else []), self.line(), *told])

    def to_json(self) -> dict[str, Any]:
        """What `Reading.from_json` takes as well."""
        known = asdict(self) | {"columns": [asdict(column) for column in self.columns]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}

    def _told(self) -> list[str]:
        marks = {"\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks"}
        odd = self.sep not in (None, ",")
        told = [f"cells parted by {marks.get(self.sep or '', self.sep)}"] if odd else []
        told += ["decimal commas"] if self.decimal == "," else []
        told += ["no header"] if self.header is False else []
        return told


def describe(source: Any, reading: Reading | None = None) -> Understanding:
    """What is made of whatever `load` takes; InputError where it cannot be read.

    >>> from reverie import describe
    >>> describe("wine").line()
    'wine: 178 rows of 11 numbers, 2 whole numbers'
    """
    return understanding(load(source, mixed=True, reading=reading))


def understanding(data: Dataset) -> Understanding:
    """What was made of data that are loaded.

    >>> import numpy as np
    >>> from reverie.data import load, understanding
    >>> understanding(load(np.zeros((3, 8, 8), dtype=np.uint8) + np.arange(3)[:, None, None])).what
    '3 rows of shape (8, 8)'
    """
    if data.is_stored:
        return Understanding(data.source, len(data), _what(data), notes=data.notes)
    form = data.form
    decided: dict[str, Any] = {} if form is None else dict(
        sep=form.sep, decimal=form.decimal, encoding=form.encoding, header=form.header
    )  # fmt: skip
    tabular = data.kind in ("table", "vectors") and data.values.ndim == 2
    columns, notes = (), data.notes
    if tabular and data.shape[0] <= MOST_COLUMNS:
        names = {column.place: column.why for column in identifier_columns(data)}
        columns = tuple(_kind(data, j, names.get(j)) for j in range(data.shape[0]))
        notes += place_notes(data)
    return Understanding(data.source, len(data), _what(data), columns, **decided, notes=notes)


def _what(data: Dataset) -> str:
    if data.kind == "images":
        channels, height, width = data.shape
        size = f"{height} x {width}, {channels} channel(s)"
        return f"{len(data):,} pictures of {size}, {data.values.dtype}"
    if data.kind == "text":
        return f"{len(data):,} lines of at most {data.shape[0]} letters"
    return f"{len(data):,} rows of shape {data.shape}"


def _kind(data: Dataset, j: int, why: str | None) -> ColumnKind:
    values = data.values[:, j]
    field = data.fields[j] if data.fields else Column(data.columns[j] if data.columns else str(j))
    gone = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    here = values[~gone]
    distinct = np.unique(here)
    known: dict[str, Any] = dict(
        name=field.name, missing=int(gone.sum()), form=field.form, note=field.note,
        missing_words=(field.missing or "",) if gone.any() else (), unit=_unit(field.name),
    )  # fmt: skip
    if field.kind == "numeric" and len(distinct):
        known |= dict(zip(("low", "high"), _ends(field, distinct), strict=True))
    if why is not None:
        known["note"] = field.note or why
        return ColumnKind(kind="identifier", **known)
    if len(distinct) < 2:
        return ColumnKind(kind="constant", **known)
    if field.kind == "categorical":
        return ColumnKind(
            kind=_of_texts(field, distinct, len(here)), levels=len(distinct), **known
        )
    kind = _of_numbers(field, here, distinct)
    codes = no_data_codes(distinct) if kind in ("number", "whole number") else []
    if codes and not field.note:
        shown = ", ".join(f"{code:.8g}" for code in codes)
        known["note"] = f"{shown} lies apart and may stand for a missing cell: --missing={shown}"
    return ColumnKind(kind=kind, **known)


def _ends(field: Column, distinct: np.ndarray) -> tuple[str, str]:
    if field.is_time:
        form = field.form or (ISO_DAY if field.dtype.startswith("date") else ISO_TIME)
        low, high = write_times([float(distinct[0]), float(distinct[-1])], form)
        return low, high
    plain = Column(field.name, decimals=field.decimals, least_decimals=field.least_decimals)
    if field.dtype == "bool" or field.decimals is not None:
        plain = field
    else:
        return f"{distinct[0]:.6g}", f"{distinct[-1]:.6g}"
    return plain.text(distinct[0]), plain.text(distinct[-1])


def _of_numbers(field: Column, here: np.ndarray, distinct: np.ndarray) -> str:
    whole = bool((distinct == np.round(distinct)).all()) if np.isfinite(distinct).all() else False
    if field.is_time or field.role == "time":
        return "time"
    if field.dtype == "bool" or (whole and distinct.tolist() == [0, 1]):
        return "yes/no"
    if not whole:
        return "number"
    low, high = float(distinct[0]), float(distinct[-1])
    years = is_time_name(field.name) and YEARS[0] <= low and high <= YEARS[1]
    unix = any(UNIX_SECONDS[0] * f <= low and high <= UNIX_SECONDS[1] * f for f in (1, 1e3))
    named = unix and is_time_name(field.name)
    if years or named or dates_as_numbers(here.astype(np.float64)):
        return "time"
    return "whole number"


def _of_texts(field: Column, codes: np.ndarray, rows: int) -> str:
    texts = [field.categories[int(code)] for code in codes]
    if field.role in ("ordered", "category"):
        return field.role
    words = {re.sub(r"\s+", "-", text.strip().lower()) for text in texts}
    if any(words <= scale for scale in RANKED) and len(words) > 2:
        return "ordered"
    if len(words) > 2 and all(COUNTED.fullmatch(word) for word in words):
        rests = {re.sub(r"\d+", "#", word) for word in words}
        if len(rests) == 1 and rests != {"#"} and next(iter(rests)).startswith("#"):
            return "ordered"
    if {word.lower() for word in words} in ({"yes", "no"}, {"true", "false"}):
        return "yes/no"
    length = np.mean([len(text) for text in texts])
    own = len(texts) > OWN * rows
    if own and (len(texts) > MANY_LEVELS or length > LONG or len(texts) > 0.9 * rows > 18):
        return "text"
    return "category"


def _unit(name: str) -> str:
    match = UNIT.search(name)
    return "" if match is None else match["a"] or match["b"]


def _plural(kind: str, count: int) -> str:
    plain = {"ordered": "ordered", "yes/no": "yes/no", "constant": "constant", "text": "text"}
    if count == 1 or kind in plain:
        return kind
    return "categories" if kind == "category" else f"{kind}s"


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
