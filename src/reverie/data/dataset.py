"""What is loaded: rows in the user's units, and for tables a record of every column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reverie.data.date_forms import date_text
from reverie.errors import InputError


@dataclass(frozen=True)
class Column:
    """One column of a table, with what is needed to write it back as it came.

    Values are float64: numbers, or indices into `categories`; NaN where the cell is missing.
    """

    name: str
    kind: str = "numeric"  # or "categorical"
    categories: tuple[str, ...] = ()
    dtype: str = "double"  # as Arrow names it: double, int64, bool, string, dictionary
    decimals: int | None = None  # digits after the point in a CSV; None: as many as it takes
    least_decimals: int | None = None  # fewer where zeros at the end are dropped, down to so many
    missing: str | None = None  # the text of a missing cell; None: there is none
    pattern: str | None = None  # of dates: values are seconds, written so (see `date_forms`)

    @property
    def has_missing(self) -> bool:
        return self.missing is not None

    def text(self, value: float) -> str:
        """One cell as it stands in a CSV."""
        if np.isnan(value):
            return self.missing or ""
        if self.pattern is not None:
            return date_text(value, self.pattern)
        if self.kind == "categorical":
            return self.categories[int(value)]
        if self.dtype == "bool":
            return "true" if value else "false"
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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows as the user has them: `values` (n, *shape), images as (n, channels, height, width).

    fields: the columns of a table that came from a file, also where the file names none.
    conditions: what a model is told about each row, labels (n,) or values (n, ...).
    """

    values: np.ndarray
    kind: str  # "images", "table", "text" or "vectors"
    source: str
    layout: str = "as-is"  # how the user's image axes lie: "hw", "hwc", "chw"
    columns: tuple[str, ...] | None = None
    fields: tuple[Column, ...] = ()
    conditions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def sha256(self) -> str:
        """Hash of shape, type and every value: names the data in a run."""
        head = f"{self.values.shape}{self.values.dtype.str}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def check(self, rows: int = 2, *, constants: bool = False) -> Dataset:
        """Return self, or raise InputError: too few rows, not finite, or a constant column.

        constants: a constant column is no mistake, as the corner of a picture.
        """
        self.check_rows(rows)
        flat = self.values.reshape(len(self), -1)
        if not np.isfinite(flat).all():
            row, column = np.argwhere(~np.isfinite(flat))[0]
            raise InputError(
                f"{self.source}: row {row}, {self.name(column)} is not a finite number; "
                "drop or fill missing values first"
            )
        constant = (flat == flat[0]).all(0)
        rows_of_numbers = self.values.ndim == 2 and not constants
        if constant.all() or (rows_of_numbers and constant.any()):
            column = int(np.argmax(constant))
            raise InputError(
                f"{self.source}: {self.name(column)} is constant ({flat[0, column]:g}) "
                "over all rows; drop it"
            )
        return self

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
        return replace(self, values=self.values[rows], conditions=told)

    def told(self, conditions: Any) -> Dataset:
        """The same rows with what a model is told about each; InputError on another number."""
        values = np.asarray(conditions)
        if values.dtype.kind not in "fiu" or len(values) != len(self):
            raise InputError(
                f"conditions are {values.dtype} of shape {values.shape}; they must be numbers, "
                f"one row for each of the {len(self)} of {self.source}"
            )
        kind = np.float32 if values.dtype.kind == "f" else np.int64
        return replace(self, conditions=values.astype(kind))

    def with_values(self, values: np.ndarray, source: str) -> Dataset:
        """Other rows of the same kind, layout and columns."""
        return replace(self, values=values, source=source, conditions=None)

    def with_columns(self, order: Sequence[int]) -> Dataset:
        """A table with these columns only, in this order."""
        return replace(
            self,
            values=self.values[:, order],
            columns=None if self.columns is None else tuple(self.columns[j] for j in order),
            fields=tuple(self.fields[j] for j in order) if self.fields else (),
        )
