"""What is loaded: rows in the user's units, and for tables a record of every column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from reverie.data.no_data import HUGE
from reverie.data.options import Reading
from reverie.data.stamps import ISO_DAY, ISO_TIME, write_times
from reverie.errors import InputError

FEW = 2**24  # numbers of rows that are enough for moments, and for readings of rows on disk
LARGE = 2**22  # numbers of a table whose rows are slow to put together


@dataclass(frozen=True)
class TableForm:
    """How a table of text is written: what its file is read by, and written back in."""

    sep: str = ","  # " " for any run of blanks
    decimal: str = "."
    encoding: str = "utf-8"  # utf-8-sig keeps its byte order mark
    above: int = 0  # lines on top that are no part of it
    header: bool = True
    why_header: str = ""  # where the decision could have been another
    quoted: bool = False  # some cell stands in quotes


@dataclass(frozen=True)
class Column:
    """One column of a table, with what is needed to write it back as it came.

    Values are float64: numbers, seconds since 1970 of times (of durations, seconds), or indices
    into `categories`; NaN where the cell is missing.

    >>> from reverie.data import Column
    >>> column = Column("group", "categorical", categories=("a", "b"))
    >>> column.text(1.0)
    'b'
    """

    name: str
    kind: str = "numeric"  # or "categorical"
    categories: tuple[str, ...] = ()
    dtype: str = "double"  # as Arrow names it: double, int64, bool, string, dictionary
    decimals: int | None = None  # digits after the point in a CSV; None: as many as it takes
    least_decimals: int | None = None  # fewer where zeros at the end are dropped, down to so many
    missing: str | None = None  # the text of a missing cell; None: there is none
    words: tuple[str, ...] = ()  # how false and true are written
    form: str = ""  # how a time is written, as `data.stamps` has it
    decimal: str = "."
    thousands: str = ""  # between groups of three digits
    filled: int = 0  # digits up to which zeros stand in front
    role: str = ""  # what the user or the header says: identifier, time, category, ordered
    note: str = ""  # a sentence on how it was read, where it could have been read otherwise

    @property
    def has_missing(self) -> bool:
        return self.missing is not None

    @property
    def is_time(self) -> bool:
        """Whether numbers are seconds of a date, a time or a duration."""
        return self.kind == "numeric" and self.dtype.startswith(TIMES)

    def text(self, value: float) -> str:
        """One cell as it stands in a CSV."""
        if np.isnan(value):
            return self.missing or ""
        if self.kind == "categorical":
            return self.categories[int(value)]
        if self.is_time:
            form = self.form or (ISO_DAY if self.dtype.startswith("date") else ISO_TIME)
            return write_times([value], form)[0]
        if self.dtype == "bool":
            return (self.words or ("false", "true"))[bool(value)]
        text = self._number(value)
        if self.thousands:
            sign, digits, rest = _parts(text)
            groups = f"{int(digits):,}".replace(",", self.thousands)
            text = f"{sign}{groups}{rest}"
        text = text.zfill(self.filled)
        if self.decimal == ".":
            return text
        head, point, tail = text.rpartition(".")
        return f"{head}{self.decimal}{tail}" if point else text

    def texts(self, values: np.ndarray) -> list[str]:
        """The cells (n,) as they stand in a CSV."""
        distinct, place = np.unique(values, return_inverse=True)
        known = np.array([self.text(v) for v in distinct], dtype=object)
        return known[place.reshape(-1)].tolist() if len(values) else []

    def _number(self, value: float) -> str:
        if not np.isfinite(value):
            return repr(float(value))
        if self.decimals == 0:
            return str(round(value))
        if self.decimals is None:
            return repr(float(value))
        text = f"{value:.{self.decimals}f}"
        if self.least_decimals is None:
            return text
        whole, _, digits = text.partition(".")
        digits = digits[: self.least_decimals] + digits[self.least_decimals :].rstrip("0")
        return f"{whole}.{digits}" if digits else whole


def side_by_side(columns: Sequence[np.ndarray], room: np.ndarray | None = None) -> np.ndarray:
    """Columns (n,) as rows (n, d): new ones, or `room`, in which some of them stand already."""
    rows = empty_rows(len(columns[0]), len(columns)) if room is None else room
    for j, column in enumerate(columns):
        if room is None or column.base is not room:
            rows[:, j] = column
    return rows


def empty_rows(count: int, width: int) -> np.ndarray:
    """Room for rows (n, d); a large table keeps a column's numbers together in memory."""
    return np.empty((count, width), order="F" if count * width > LARGE else "C")


def column_from_json(values: dict[str, Any]) -> Column:
    """The column that `asdict` made; fields of a later release are left out."""
    known = {f.name for f in fields(Column)}
    given: dict[str, Any] = {k: v for k, v in values.items() if k in known}
    given |= {k: tuple(given[k]) for k in ("categories", "words") if k in given}
    return Column(**given)


def few_places(shape: tuple[int, ...]) -> np.ndarray:
    """Places of rows (n, *shape) of at most FEW numbers in all, at random."""
    most = max(FEW // max(int(np.prod(shape[1:], dtype=np.int64)), 1), 2)
    if shape[0] <= most:
        return np.arange(shape[0])
    return np.sort(np.random.default_rng(0).choice(shape[0], most, replace=False))


def _never_changes(rows: np.ndarray) -> np.ndarray:
    """Mask (d,) of the columns of rows (n, d) that have one value in all of them."""
    return (rows == rows[0]).all(0)


TIMES = ("timestamp", "date", "duration", "time")


def _parts(number: str) -> tuple[str, str, str]:
    """Sign, whole digits, and the rest of a number as text."""
    sign = "-" if number.startswith("-") else ""
    digits, point, rest = number.removeprefix("-").partition(".")
    return sign, digits, point + rest


@dataclass(frozen=True)
class TakenColumn:
    """A column that was taken out of a table, and the names of those that stood before it."""

    column: Column
    after: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TakenColumn:
        """The column that `asdict` made."""
        return cls(column_from_json(values["column"]), tuple(values["after"]))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows as the user has them: `values` (n, *shape), images as (n, channels, height, width).

    fields: the columns of a table that came from a file, also where the file names none.
    conditions: what a model is told about each row, labels (n,) or values (n, ...). labels: the
    names of the labels, where they have some. condition: what the whole is called. taken: the
    column that conditions were taken out of, and where it stood. notes: what a reader decided,
    changed or skipped, a sentence each. form: of a table of text. reading: what the user said
    about the file, so that it can be read again. folder_of, folders: of pictures in folders of
    classes, the place (n,) of each one's folder among these.

    >>> import numpy as np
    >>> from reverie.data import Dataset
    >>> data = Dataset(np.arange(6.0).reshape(3, 2), kind="vectors", source="mine")
    >>> len(data), data.shape, data.take(np.array([2, 0])).values.tolist()
    (3, (2,), [[4.0, 5.0], [0.0, 1.0]])
    """

    values: np.ndarray
    kind: str  # "images", "table", "text" or "vectors"
    source: str
    layout: str = "as-is"  # how the user's image axes lie: "hw", "hwc", "chw"
    columns: tuple[str, ...] | None = None
    fields: tuple[Column, ...] = ()
    conditions: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    condition: str = ""
    taken: TakenColumn | None = None
    notes: tuple[str, ...] = ()
    form: TableForm | None = None
    reading: Reading | None = None
    folder_of: np.ndarray | None = None
    folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def in_memory(self) -> bool:
        """Whether there is no file to read the rows from again."""
        return self.source in ("", "the array", "the table")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    @property
    def is_stored(self) -> bool:
        """Whether the rows stay on disk, and are read in pieces."""
        return False

    def loaded(self) -> Dataset:
        """The rows in memory: all of them; of those on disk as many as `few` takes."""
        return self

    def few(self) -> Dataset:
        """At most FEW numbers of rows, at random, in memory."""
        rows = few_places(self.values.shape)
        return self if len(rows) == len(self) else self.take(rows)

    def sha256(self) -> str:
        """Hash of shape, type and every value: names the data in a run."""
        head = f"{self.values.shape}{self.values.dtype.str}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def check(self, rows: int = 2, *, constants: bool = False) -> Dataset:
        """Return self, or raise InputError: too few rows, not finite, or a constant column.

        constants: a constant column is no mistake beside others, as the corner of a picture.
        """
        self.check_rows(rows)
        flat = self.values.reshape(len(self), -1)
        if not np.isfinite(flat).all():
            row, column = np.argwhere(~np.isfinite(flat))[0]
            raise InputError(
                f"{self.source}: row {row}, {self.name(column)} is not a finite number; "
                "drop or fill missing values first"
            )
        if self.kind in ("table", "vectors") and np.abs(flat).max(initial=0) >= HUGE:
            row, column = np.argwhere(np.abs(flat) >= HUGE)[0]
            code = f"{flat[row, column]:.8g}"
            raise InputError(
                f"{self.source}: row {row}, {self.name(column)} is {code}, no measurement but the "
                f"mark of a missing cell; --missing={code} reads it so, then drop or fill it"
            )
        constant = _never_changes(flat)
        rows_of_numbers = self.values.ndim == 2 and not constants
        if constant.all() or (rows_of_numbers and constant.any()):
            column = int(np.argmax(constant))
            raise InputError(
                f"{self.source}: {self.name(column)} is constant ({flat[0, column]:g}) "
                "over all rows; drop it"
            )
        return self

    def still_columns(self) -> np.ndarray:
        """Columns of rows of numbers (n, d) that have one value in all of them."""
        if self.values.ndim != 2 or self.kind not in ("table", "vectors"):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(_never_changes(self.values))

    def moving(self) -> Dataset:
        """The same rows without such columns, unless there are no others."""
        order = np.setdiff1d(np.arange(self.values.shape[1]), self.still_columns())
        whole = self.values.ndim != 2 or len(order) in (0, self.values.shape[1])
        return self if whole else self.with_columns(order.tolist())

    def check_rows(self, least: int) -> Dataset:
        """Return self, or raise InputError on fewer rows; cells may be missing."""
        if len(self) < least:
            raise InputError(f"{self.source} has {len(self)} row(s); at least {least} are needed")
        return self

    def name(self, column: int) -> str:
        """How messages call a column: by its name, or by its place counted from 0."""
        return f"column {self.columns[column]!r}" if self.columns else f"column {column}"

    def text(self, row: np.ndarray) -> list[str]:
        """The cells of one row of values (d,) as a reader knows them; a text is one cell."""
        if self.kind == "text":
            return ["".join(f.text(value) for f, value in zip(self.fields, row, strict=True))]
        if self.fields:
            return [f.text(value) for f, value in zip(self.fields, row, strict=True)]
        return [f"{value:.7g}" for value in row]

    def take(self, rows: np.ndarray) -> Dataset:
        """The same data with only these rows."""
        told = None if self.conditions is None else self.conditions[rows]
        places = None if self.folder_of is None else self.folder_of[rows]
        return replace(self, values=self.values[rows], conditions=told, folder_of=places)

    def told(self, conditions: Any, labels: tuple[str, ...] = (), condition: str = "") -> Dataset:
        """The same rows with what a model is told about each; InputError on another number."""
        values = np.asarray(conditions)
        if values.dtype.kind not in "fiu" or len(values) != len(self):
            raise InputError(
                f"conditions are {values.dtype} of shape {values.shape}; they must be numbers, "
                f"one row for each of the {len(self)} of {self.source}"
            )
        kind = np.float32 if values.dtype.kind == "f" else np.int64
        return replace(self, conditions=values.astype(kind), labels=labels, condition=condition)

    def with_values(self, values: np.ndarray, source: str) -> Dataset:
        """Other rows of the same kind, layout and columns."""
        fresh = replace(self, values=values, source=source, conditions=None, labels=())
        return replace(fresh, notes=(), folder_of=None)

    def with_columns(self, order: Sequence[int]) -> Dataset:
        """A table with these columns only, in this order."""
        return replace(
            self,
            values=self.values[:, order],
            columns=None if self.columns is None else tuple(self.columns[j] for j in order),
            fields=tuple(self.fields[j] for j in order) if self.fields else (),
        )
