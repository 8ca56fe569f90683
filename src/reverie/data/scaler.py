"""The map between the user's units and model space: affine on R^d; see `coders` for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Dataset, column_from_json
from reverie.data.statistics import statistics_of
from reverie.errors import InputError
from reverie.spaces import Euclidean, Space


@dataclass(frozen=True)
class Scaler:
    """Affine map between the user's units and model space, with what is needed to write back.

    mean, std: of each column (d,), or of all of an image. still: the columns whose value never
    changes: they are no part of the model's points, and stand in every row that comes back.
    `to_model` raises InputError on rows of another shape, or with another value in such a column.

    >>> import numpy as np
    >>> from reverie.data import Scaler, load
    >>> data = load(np.array([[0.0, 10.0], [2.0, 30.0]]))
    >>> scaler = Scaler.fit(data)
    >>> scaler.to_model(data.values), scaler.to_user(scaler.to_model(data.values))
    (tensor([[-1., -1.],
            [ 1.,  1.]]), array([[ 0., 10.],
           [ 2., 30.]]))
    """

    mean: list[float]
    std: list[float]
    shape: list[int]
    kind: str
    layout: str
    dtype: str
    columns: list[str] | None
    integer: list[bool]
    low: list[float]
    high: list[float]
    decimals: list[int | None] | None = None  # of the columns of a CSV
    types: list[str] | None = None  # of the columns of a table, as Arrow names them
    categories: list[list[str]] | None = None  # of the columns; empty for a column of numbers
    fields: list[dict[str, Any]] | None = None  # the columns of a table in full
    table: dict[str, Any] | None = None  # the form of a table of text
    still: list[int] | None = None

    @classmethod
    def fit(cls, data: Dataset) -> Scaler:
        """Read mean, deviation, range and integer columns off the training rows."""
        return cls(**form_of(data))

    def of_table(self) -> dict[str, Any]:
        """Names and columns of the table that it was fitted on, as a Dataset has them."""
        names = None if self.columns is None else tuple(self.columns)
        return dict(columns=names, fields=tuple(map(column_from_json, self.fields or [])))

    @property
    def space(self) -> Space:
        """Where the model's points lie."""
        return Euclidean(self.point_shape)

    @property
    def point_shape(self) -> tuple[int, ...]:
        """Shape of one point in model space."""
        return (len(self._moving),) if self.still else tuple(self.shape)

    @property
    def scales(self) -> np.ndarray:
        """User units to one of the model's: (d,) of its columns, or (1,) of an image."""
        return np.asarray(self.std)[self._moving] if self.still else np.asarray(self.std)

    def without(self, still: np.ndarray) -> Scaler:
        """The same map with columns of one value set apart, if there are such."""
        return replace(self, still=[int(j) for j in still]) if len(still) else self

    @property
    def _moving(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.shape[0]), self.still or [])

    def _row(self, values: Sequence[float]) -> np.ndarray:
        row = np.asarray(values, dtype=np.float64)
        return row if len(row) == 1 else row.reshape(self.shape)

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Standardise rows (n, *shape); InputError if the shape differs from the fitted one."""
        self._check_shape(values, source)
        scaled = values - self._row(self.mean)
        scaled /= self._row(self.std)
        if self.still:
            self._check_still(values, source)
            scaled = scaled[:, self._moving]
        return torch.from_numpy(scaled.astype(np.float32))

    def to_user(self, points: Tensor) -> np.ndarray:
        """Back to the data's units and type: integer columns are rounded, kept in their range."""
        scaled = points.detach().cpu().double().numpy()
        if self.still:
            moved, scaled = scaled, np.zeros((len(scaled), self.shape[0]))
            scaled[:, self._moving] = moved
        raw = scaled * self._row(self.std) + self._row(self.mean)
        if self.still:
            raw[:, self.still] = np.asarray(self.low)[self.still]
        return self._as_given(raw)

    def _check_still(self, values: np.ndarray, source: str) -> None:
        for j in self.still or []:
            other = values[:, j] != self.low[j]
            if other.any():
                name = repr(self.columns[j]) if self.columns else j
                found = values[other.argmax(), j]
                raise InputError(
                    f"{source}: row {other.argmax()}, column {name} is {found:g}; "
                    f"this run was fitted where it is always {self.low[j]:g}"
                )

    def _check_shape(self, values: np.ndarray, source: str) -> None:
        if list(values.shape[1:]) != self.shape:
            raise InputError(
                f"{source} has points of shape {tuple(values.shape[1:])}; "
                f"this run was fitted on {tuple(self.shape)}"
            )

    def _as_given(self, raw: np.ndarray) -> np.ndarray:
        """Rows (n, *shape) in the data's type, integer columns whole and within their range."""
        whole = np.broadcast_to(self._row(self.integer).astype(bool), raw.shape)
        rounded = np.clip(np.round(raw), self._row(self.low), self._row(self.high))
        return np.where(whole, rounded, raw).astype(np.dtype(self.dtype))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def form_of(data: Dataset) -> dict[str, Any]:
    """How the rows of a dataset look: the arguments of a `Scaler`."""
    images = data.kind == "images" or data.values.ndim == 5  # volumes too
    found = statistics_of(data.values, pooled=images)
    return dict(
        mean=np.atleast_1d(found.mean).tolist(),
        std=np.atleast_1d(np.where(found.std > 0, found.std, 1.0)).tolist(),
        shape=list(data.shape),
        kind=data.kind,
        layout=data.layout,
        dtype=data.values.dtype.str,
        columns=None if data.columns is None else list(data.columns),
        integer=np.atleast_1d(found.whole).tolist(),
        low=np.atleast_1d(found.low).tolist(),
        high=np.atleast_1d(found.high).tolist(),
        decimals=[f.decimals for f in data.fields] or None,
        types=[f.dtype for f in data.fields] or None,
        categories=[list(f.categories) for f in data.fields] or None,
        fields=[asdict(f) for f in data.fields] or None,
        table=None if data.form is None else asdict(data.form),
    )
