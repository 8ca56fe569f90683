"""Parquet and Feather tables, read and written with the type of every column (extra `tables`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.frames import arrow_array, from_arrow
from reverie.data.options import Reading
from reverie.errors import InputError
from reverie.files import write_bytes

ENDINGS = (".parquet", ".feather", ".arrow")


def read_parquet(path: Path, mixed: bool = False, reading: Reading | None = None) -> Dataset:
    """Read a `.parquet` or `.feather` file: numbers, truths, times, texts, categories and nulls.

    mixed: take text and missing cells; otherwise the first such column is an InputError.
    """
    pyarrow, parquet, feather = _arrow("reading", path)
    of_parquet = path.suffix.lower() == ".parquet"
    try:
        table = parquet.read_table(path) if of_parquet else feather.read_table(path)
        table.validate(full=True)  # a damaged file may point outside of its own memory
        data = from_arrow(table, str(path), reading or Reading())
    except (pyarrow.ArrowException, OSError) as error:
        kind = "parquet" if of_parquet else "feather"
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a {kind} file ({line})") from error
    if not mixed:
        only_numbers(data)
    return data


def only_numbers(data: Dataset) -> Dataset:
    """The data, or InputError that names its first column of text."""
    for field in data.fields if data.kind == "table" else ():
        if field.kind == "categorical":
            raise InputError(
                f"{data.source}: column {field.name!r} holds {field.dtype}, not numbers; only "
                "audits and --space table or symbols take categories"
            )
    return data


def write_parquet(path: Path, values: np.ndarray, fields: Sequence[Column]) -> Path:
    """Write rows (n, d), each column with the type it came with, atomically."""
    pyarrow, parquet, feather = _arrow("writing", path)
    columns = [arrow_array(field, values[:, j]) for j, field in enumerate(fields)]
    table = pyarrow.table(columns, names=[field.name for field in fields])
    if path.suffix.lower() == ".parquet":
        return write_bytes(path, lambda file: parquet.write_table(table, file))
    return write_bytes(path, lambda file: feather.write_feather(table, file))


def _arrow(doing: str, path: Path) -> tuple[Any, Any, Any]:
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError as error:
        raise InputError(
            f"{doing} {path.suffix} needs the extra: pip install 'reverie[tables]'"
        ) from error
    return pyarrow, parquet, feather
