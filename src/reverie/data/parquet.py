"""Parquet tables, read and written with the type of every column (extra `tables`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.errors import InputError
from reverie.files import write_bytes

TEXT = ("string", "large_string", "string_view")


def read_parquet(path: Path, mixed: bool = False) -> Dataset:
    """Read numbers, booleans, texts, dictionaries and nulls; InputError names any other column.

    mixed: take text and missing cells; otherwise the first such column is an InputError.
    """
    pyarrow, parquet = _arrow("reading")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a parquet file ({str(error).splitlines()[0]})") from error
    if table.num_columns == 0 or table.num_rows == 0:
        raise InputError(f"{path} has no rows")
    parts = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        field, values = _column(pyarrow, name, column.combine_chunks(), path)
        if not mixed and field.kind == "categorical":
            raise InputError(
                f"{path}: column {name!r} holds {column.type}, not numbers; only audits "
                "and --space table or symbols take categories"
            )
        parts.append((field, values))
    fields = tuple(field for field, _ in parts)
    stack = np.stack([values for _, values in parts], 1)
    return Dataset(stack, "table", str(path), columns=tuple(table.column_names), fields=fields)


def write_parquet(path: Path, values: np.ndarray, fields: Sequence[Column]) -> Path:
    """Write rows (n, d), each column with the type it came with, atomically."""
    pyarrow, parquet = _arrow("writing")
    columns = [_array(pyarrow, field, values[:, j]) for j, field in enumerate(fields)]
    table = pyarrow.table(columns, names=[field.name for field in fields])
    return write_bytes(path, lambda file: parquet.write_table(table, file))


def _arrow(doing: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"{doing} .parquet needs the extra: pip install 'reverie[tables]'"
        ) from error
    return pyarrow, parquet


def _column(pyarrow: Any, name: str, cells: Any, path: Path) -> tuple[Column, np.ndarray]:
    kinds, kind = pyarrow.types, cells.type
    if kinds.is_dictionary(kind) or str(kind) in TEXT:
        coded = cells if kinds.is_dictionary(kind) else cells.dictionary_encode()
        values = coded.indices.cast("double").to_numpy(zero_copy_only=False)
        categories = tuple(str(v) for v in coded.dictionary.to_pylist())
        dtype = f"dictionary<{kind.value_type}>" if kinds.is_dictionary(kind) else str(kind)
        missing = "" if np.isnan(values).any() else None
        return Column(name, "categorical", categories, dtype, missing=missing), values
    if not (
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_boolean(kind)
        or kinds.is_null(kind)
    ):
        raise InputError(f"{path}: column {name!r} holds {kind}, neither numbers nor categories")
    try:
        values = cells.cast("double").to_numpy(zero_copy_only=False)
    except pyarrow.ArrowInvalid as error:
        raise InputError(
            f"{path}: column {name!r} holds whole numbers beyond 2^53; store them as text"
        ) from error
    decimals = None if kinds.is_floating(kind) else 0
    missing = "" if np.isnan(values).any() else None
    return Column(name, dtype=str(kind), decimals=decimals, missing=missing), values


def _array(pyarrow: Any, field: Column, values: np.ndarray) -> Any:
    absent = np.isnan(values)
    if field.kind == "categorical":
        codes = pyarrow.array(np.where(absent, 0, values).astype(np.int32), mask=absent)
        categories = pyarrow.array(list(field.categories), pyarrow.string())
        if field.dtype.startswith("dictionary"):
            inner = pyarrow.type_for_alias(field.dtype[len("dictionary<") : -1])
            return pyarrow.DictionaryArray.from_arrays(codes, categories.cast(inner))
        return categories.take(codes).cast(pyarrow.type_for_alias(field.dtype))
    kind = pyarrow.type_for_alias(field.dtype)
    if field.pattern is not None:
        return pyarrow.array([None if np.isnan(v) else field.text(v) for v in values], kind)
    if pyarrow.types.is_integer(kind):
        values = np.round(np.where(absent, 0, values)).astype(np.int64)
    return pyarrow.array(values, mask=absent).cast(kind)
