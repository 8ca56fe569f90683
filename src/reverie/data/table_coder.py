"""Mixed tables in model space: normal scores of the numbers, then a site for every column that has
symbols, in the order of the columns (see `table_columns`).

A row in model space is one row of numbers, symbols among them: a point of `spaces.Mixed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.coders import KINDS, NAMED, TABLE, coder_on, space_word
from reverie.data.dataset import Column, Dataset, column_from_json
from reverie.data.scaler import Scaler, form_of
from reverie.data.stamps import DAY_SECONDS, unit_of
from reverie.data.table_columns import ColumnPlan, plan_of
from reverie.errors import InputError
from reverie.spaces import Euclidean, FiniteSet, Mixed, Space

SHOWN = 12  # values that a message lists


@dataclass(frozen=True, kw_only=True)
class TableCoder(Scaler):
    r"""Rows of numbers, categories, dates and missing cells as points (n, D) of one product space.

    plans: the fields of a `ColumnPlan` for each column. `fit` raises InputError on data that are
    no table or do not vary, `to_model` on a cell that the run does not know.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from reverie.data import TableCoder, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("size,group\n1.5,a\n2.5,b\n,a\n")
    ...     data = load(path, mixed=True)
    >>> coder = TableCoder.fit(data)
    >>> coder.to_model(data.values).shape, type(coder.space).__name__
    (torch.Size([3, 2]), 'Mixed')
    """

    plans: list[dict[str, Any]]

    @classmethod
    def fit(cls, data: Dataset, train: Dataset | None = None) -> TableCoder:
        """Read symbols off all rows, and the scale of numbers off `train`, by default all too.

        Raises InputError on data that are no table, and on columns that no model takes.
        """
        if data.values.ndim != 2 or data.kind not in ("table", "vectors"):
            raise InputError(f"{data.source} is no table: its rows have shape {data.shape}")
        scale = (train or data).values.astype(np.float64)
        fields = fields_of(data)
        plans = [
            plan_of(field, data.values[:, j].astype(np.float64), scale[:, j], data.source)
            for j, field in enumerate(fields)
        ]
        if not any(plan.is_number or plan.sites for plan in plans):
            raise InputError(f"{data.source}: every column is constant")
        form: dict[str, Any] = form_of_table(data)
        form["fields"] = [asdict(field) for field in fields]
        return cls(**form, plans=[asdict(p) for p in plans])

    @cached_property
    def columns_read(self) -> list[ColumnPlan]:
        return [ColumnPlan(**plan) for plan in self.plans]

    @cached_property
    def written(self) -> list[Column]:
        """The columns as they are written."""
        return [column_from_json(field) for field in self.fields or []]

    @cached_property
    def _numbers(self) -> list[int]:
        return [j for j, plan in enumerate(self.columns_read) if plan.is_number]

    @cached_property
    def _sites(self) -> list[int]:
        return [j for j, plan in enumerate(self.columns_read) if plan.sites]

    @property
    def space(self) -> Space:
        sizes = [self.columns_read[j].sites for j in self._sites]
        parts: list[Space] = [Euclidean((len(self._numbers),))] if self._numbers else []
        parts += [FiniteSet(max(sizes), len(sizes), sizes)] if sizes else []
        return Mixed(*parts)

    @property
    def point_shape(self) -> tuple[int, ...]:
        return (len(self._numbers) + len(self._sites),)

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Points (n, D), float32; InputError names the first cell that the run does not know.

        Where values repeat, the place of a score in its value's interval is drawn from a generator
        of fixed seed: the same rows have the same points.
        """
        self._check_shape(values, source)
        table = values.astype(np.float64)
        points = np.zeros((len(table), *self.point_shape))
        places = np.random.default_rng(0).random((len(table), len(self._numbers)))
        sites = {}
        for j in {*self._numbers, *self._sites}:
            sites[j] = self._codes(j, table[:, j], source)
        for k, j in enumerate(self._numbers):
            here = sites[j] == 0
            points[here, k] = self.columns_read[j].scores(table[here, j], places[here, k])
        for k, j in enumerate(self._sites):
            points[:, len(self._numbers) + k] = sites[j]
        return torch.from_numpy(points.astype(np.float32))

    def _codes(self, j: int, values: np.ndarray, source: str) -> np.ndarray:
        codes = self.columns_read[j].codes(values)
        bad = codes < 0
        if bad.any():
            row, field = int(bad.argmax()), self.written[j]
            if np.isnan(values[row]):
                raise InputError(
                    f"{source}: row {row} lacks {field.name!r}, which no row of this run lacks"
                )
            inside = field.kind != "categorical" or values[row] < len(field.categories)
            cell = field.text(values[row]) if inside else f"category {values[row]:g}"
            raise InputError(
                f"{source}: row {row} holds {cell!r} in column {field.name!r}, which no row of "
                "this run holds"
            )
        return codes

    def to_user(self, points: Tensor) -> np.ndarray:
        """Back to the table's own values (n, d): whole numbers whole, all within their range."""
        rows = points.detach().cpu().double().numpy()
        table = np.empty((len(rows), len(self.plans)))
        number = {j: k for k, j in enumerate(self._numbers)}
        site = {j: len(number) + k for k, j in enumerate(self._sites)}
        for j, plan in enumerate(self.columns_read):
            codes = rows[:, site[j]].astype(np.int64) if j in site else None
            scores = rows[:, number[j]] if j in number else None
            table[:, j] = self._rounded(j, plan.cells(codes, scores))
        return table.astype(np.dtype(self.dtype))

    def given(self, known: Mapping[str, Any]) -> dict[int, int]:
        """The symbols that cells have in model space, by coordinate, as `{"group": "B"}`.

        Of a category its text, of a number one of its few values or atoms; "" is a missing cell.
        Raises InputError on an unknown column, and on a cell that is no symbol of its column.
        """
        names = [field.name for field in self.written]
        found = {}
        for name, cell in known.items():
            if name not in names:
                raise InputError(f"no column is called {name!r}; there are {', '.join(names)}")
            j = names.index(name)
            if j not in self._sites:
                raise InputError(_no_symbol(name, self.columns_read[j].kind))
            found[len(self._numbers) + self._sites.index(j)] = self._symbol(j, str(cell))
        return found

    def _symbol(self, j: int, cell: str) -> int:
        plan, field = self.columns_read[j], self.written[j]
        texts = [field.text(value) for value in plan.symbols]
        first = int(plan.is_number)
        if plan.missing and cell in ("", field.missing):
            return first + len(texts)
        if cell in texts:
            return first + texts.index(cell)
        if field.kind != "categorical" and cell:
            try:
                code = int(plan.codes(np.array([float(cell)]))[0])
            except ValueError:
                code = -1
            if code >= first:
                return code
        known = ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")
        raise InputError(f"{cell!r} is no value of column {field.name!r} to condition on: {known}")

    def _rounded(self, j: int, values: np.ndarray) -> np.ndarray:
        field = self.written[j]
        if field.is_time:
            least = DAY_SECONDS if field.dtype.startswith("date") else 1e-6
            unit = unit_of(field.form) if field.form else least
            return np.round(np.round(values / unit) * unit, 6) + 0.0
        digits = 0 if self.integer[j] else field.decimals
        return values if digits is None else np.round(values, digits) + 0.0  # no negative 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _no_symbol(name: str, kind: str) -> str:
    if kind == "constant":
        return f"column {name!r} is constant"
    return (
        f"column {name!r} holds numbers that vary: conditions are exact on categories, few "
        "values, atoms and missing cells, and are taken on these alone"
    )


def fields_of(data: Dataset) -> list[Column]:
    if data.fields:
        return list(data.fields)
    names = data.columns or [str(j) for j in range(data.values.shape[1])]
    return [Column(name, missing="") for name in names]


def form_of_table(data: Dataset) -> dict[str, Any]:
    """`form_of` the present cells; a column without any is 0."""
    values = data.values.astype(np.float64)
    here = ~np.isnan(values)
    mean = np.where(here, values, 0.0).sum(0) / np.maximum(here.sum(0), 1)
    whole = (~here | (values == np.round(values))).all(0)
    filled = np.where(here, values, mean)
    form = form_of(data.with_values(filled, data.source))
    return form | {"integer": whole.tolist(), "dtype": np.dtype(np.float64).str}


NAMED[TABLE] = TableCoder.fit
KINDS["plans"] = TableCoder
space_word.register(Mixed, lambda space: TABLE)


@coder_on.register(Mixed)
def _on_mixed(space: Mixed, data: Dataset, train: Dataset) -> Scaler:
    return coder_of_rows(TableCoder, space, data, train)


def coder_of_rows(kind: type[TableCoder], space: Space, data: Dataset, train: Dataset) -> Scaler:
    """The coder of a table on the space of a process, or of rows that are its points already."""
    if data.kind != "table":  # rows that are the process's points as they stand
        return coder_on.dispatch(object)(space, data, train)
    coder = kind.fit(data, train)
    if repr(coder.space) != repr(space):
        raise InputError(f"{data.source} lies in {coder.space}, the process in {space}")
    return coder
