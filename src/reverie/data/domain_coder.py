"""Mixed tables whose numbers have ends, in model space: see `domain_columns`.

A row in model space is a point of `spaces.Bounded`: scaled numbers, and then a site for every
column that has symbols. `to_user` ends inside, whatever the point is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from reverie.data.coders import DOMAIN, KINDS, NAMED, coder_on, space_word
from reverie.data.dataset import Dataset
from reverie.data.domain_columns import DomainColumn, Ends, domain_column, ends_said
from reverie.data.scaler import Scaler
from reverie.data.table_coder import TableCoder, coder_of_rows, fields_of, form_of_table
from reverie.errors import InputError
from reverie.spaces import Bounded, FiniteSet, Intervals, Space


@dataclass(frozen=True, kw_only=True)
class DomainCoder(TableCoder):
    """Rows of numbers with ends, categories, dates and missing cells as points (n, D).

    plans: the fields of a `DomainColumn` for each column. bounds: the ends that were said. `fit`
    raises InputError on data that are no table or do not vary and on cells outside the bounds,
    `to_model` on a cell that the run does not know or that lies outside.

    >>> import numpy as np
    >>> from reverie.data import DomainCoder, load
    >>> rows = np.random.default_rng(0).exponential(size=(50, 2))
    >>> coder = DomainCoder.fit(load(rows), bounds="1=0:9")
    >>> coder.space.parts[0].shape, bool(coder.to_user(coder.to_model(rows) - 9).min() == 0)
    ((2,), True)
    """

    bounds: str = ""

    @classmethod
    def fit(
        cls, data: Dataset, train: Dataset | None = None, *, bounds: str | None = None
    ) -> DomainCoder:
        """Read symbols off all rows, and the scale of numbers off `train`, by default all too.

        bounds: ends of columns, as `age=0:120,income=0:`; a column without a negative number is
        [0, inf) where nothing is said.
        """
        if data.values.ndim != 2 or data.kind not in ("table", "vectors"):
            raise InputError(f"{data.source} is no table: its rows have shape {data.shape}")
        scale = (train or data).values.astype(np.float64)
        said, fields = ends_said(bounds or ""), fields_of(data)
        unknown = sorted(set(said) - {field.name for field in fields})
        if unknown:
            names = ", ".join(field.name for field in fields[:20])
            raise InputError(f"bounds: {data.source} has no column {unknown[0]!r}, only {names}")
        plans = [
            domain_column(
                field, data.values[:, j].astype(np.float64), scale[:, j], data.source,
                said.get(field.name),
            )
            for j, field in enumerate(fields)
        ]  # fmt: skip
        if not any(plan.is_number or plan.sites for plan in plans):
            raise InputError(f"{data.source}: every column is constant")
        form: dict[str, Any] = form_of_table(data)
        form["fields"] = [asdict(field) for field in fields]
        return cls(**form, plans=[_for_json(plan) for plan in plans], bounds=bounds or "")

    @cached_property
    def columns_read(self) -> list[DomainColumn]:  # type: ignore[override]
        return [_from_json(plan) for plan in self.plans]

    @property
    def space(self) -> Space:
        sizes = [self.columns_read[j].sites for j in self._sites]
        ends: list[Ends] = [self.columns_read[j].model_ends for j in self._numbers]
        parts: list[Space] = [Intervals(*map(list, zip(*ends, strict=True)))] if ends else []
        parts += [FiniteSet(max(sizes), len(sizes), sizes)] if sizes else []
        return Bounded(*parts)

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        self._check_shape(values, source)
        for j in self._numbers:
            column, plan = values[:, j].astype(np.float64), self.columns_read[j]
            outside = (column < plan.low) | (column > plan.high)
            if outside.any():
                row = int(outside.argmax())
                raise InputError(
                    f"{source}: row {row} holds {column[row]:g} in column "
                    f"{self.written[j].name!r}, outside {plan.low:g}:{plan.high:g}"
                )
        points = super().to_model(values, source)
        if self._numbers:  # rounding to float32 may pass an end
            numbers = points[:, : len(self._numbers)]
            points[:, : len(self._numbers)] = self.space.parts[0].project(numbers)  # type: ignore[attr-defined]
        return points

    def given(self, known: Mapping[str, Any]) -> dict[int, int]:
        """No cells can be given: symbols enter a bridge as corners, not as themselves."""
        raise InputError("cells are given to runs of masking: fit the table with process product")

    def _rounded(self, j: int, values: np.ndarray) -> np.ndarray:
        return self.columns_read[j].inside(super()._rounded(j, values))


def _for_json(plan: DomainColumn) -> dict[str, Any]:
    """A plan's fields; JSON has no infinity."""
    fields = asdict(plan)
    return fields | {k: None for k in ("low", "high") if np.isinf(fields[k])}


def _from_json(fields: dict[str, Any]) -> DomainColumn:
    ends: dict[str, Any] = {"low": -np.inf, "high": np.inf}
    return DomainColumn(**fields | {k: v for k, v in ends.items() if fields[k] is None})


NAMED[DOMAIN] = DomainCoder.fit
KINDS["bounds"] = DomainCoder
space_word.register(Bounded, lambda space: DOMAIN)


@coder_on.register(Bounded)
def _on_bounded(space: Bounded, data: Dataset, train: Dataset) -> Scaler:
    return coder_of_rows(DomainCoder, space, data, train)


def table_coder(space: str, data: Dataset, train: Dataset, bounds: str | None) -> TableCoder:
    """The coder of a table by the word of its space; InputError where its numbers have no ends."""
    if space == DOMAIN:
        return DomainCoder.fit(data, train, bounds=bounds)
    if bounds:
        raise InputError("bounds are of bridges into a domain: add process bridge")
    return TableCoder.fit(data, train)
