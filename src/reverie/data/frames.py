"""DataFrames and Arrow tables: pandas, polars, PyArrow and any with the interchange protocols.

Columns keep the type they came with. Without pyarrow (extra `tables`) a frame that hands out NumPy
arrays, as pandas does, is read through these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from reverie.data.cells import EXACT, Cells, column_of
from reverie.data.dataset import Column, Dataset, side_by_side
from reverie.data.options import Reading
from reverie.data.stamps import DAY_SECONDS
from reverie.errors import InputError

TEXT = ("string", "large_string", "string_view")
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_frame(source: Any) -> bool:
    """Whether an object is a table of the Arrow or of the DataFrame protocol."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__")


def from_frame(source: Any, reading: Reading) -> Dataset:
    """A DataFrame or an Arrow table as a Dataset; InputError on a column of another kind."""
    names = [str(name) for name in getattr(source, "columns", [])]
    if names and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the table has two columns called {twice!r}")
    table = _arrow_table(source)
    if table is None:
        return _from_arrays(source, reading)
    return from_arrow(table, "the table", reading)


def from_arrow(table: Any, source: str, reading: Reading) -> Dataset:
    """A PyArrow table as a Dataset."""
    if table.num_columns == 0 or table.num_rows == 0:
        raise InputError(f"{source} has no rows")
    parts = [
        arrow_column(str(name), column, source, reading)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    fields = tuple(field for field, _ in parts)
    stack = side_by_side([values for _, values in parts])
    notes = tuple(f"column {f.name!r}: {f.note}" for f in fields if f.note)
    names = tuple(field.name for field in fields)
    return Dataset(stack, "table", source, columns=names, fields=fields, notes=notes)


def arrow_column(
    name: str, column: Any, source: str, reading: Reading
) -> tuple[Column, np.ndarray]:
    """One Arrow column and its values (n,); InputError on a type that is neither number, truth,
    text, category, date, time nor duration."""
    import pyarrow

    kinds, kind = pyarrow.types, column.type
    if kinds.is_dictionary(kind) or str(kind) in TEXT:
        return _texts(name, column, reading)
    if kinds.is_temporal(kind):
        return _times(name, column)
    if kinds.is_decimal(kind):
        field, values = Column(name, dtype=str(kind), decimals=max(kind.scale, 0)), column
        return _gaps(field, values.cast("double").to_numpy())
    if not (
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_boolean(kind)
        or kinds.is_null(kind)
    ):
        raise InputError(f"{source}: column {name!r} holds {kind}, neither numbers nor categories")
    try:
        values = column.cast("double").to_numpy()
    except pyarrow.ArrowInvalid:
        return _whole_texts(name, column)
    decimals = None if kinds.is_floating(kind) else 0
    return _gaps(
        Column(name, dtype=str(kind), decimals=decimals, role=_role(name, reading)), values
    )


def _role(name: str, reading: Reading) -> str:
    for role, meaning in (("id", "identifier"), ("time", "time")):
        if name in reading.names(role):
            return meaning
    return ""


def _gaps(field: Column, values: np.ndarray) -> tuple[Column, np.ndarray]:
    missing = "" if np.isnan(values).any() else None
    return replace(field, missing=missing), values


def _whole_texts(name: str, column: Any) -> tuple[Column, np.ndarray]:
    """Whole numbers beyond 2^53, digit by digit."""
    coded = column.combine_chunks().dictionary_encode()
    codes = coded.indices.cast("double").to_numpy(zero_copy_only=False)
    categories = tuple(str(v) for v in coded.dictionary.to_pylist())
    note = "whole numbers beyond 2^53 are kept as text, digit by digit"
    return _gaps(Column(name, "categorical", categories, str(column.type), note=note), codes)


def _texts(name: str, column: Any, reading: Reading) -> tuple[Column, np.ndarray]:
    import pyarrow

    kind = column.type
    is_coded = pyarrow.types.is_dictionary(kind)
    cells = column.combine_chunks()
    cells = cells.combine_chunks() if hasattr(cells, "num_chunks") else cells
    coded = cells if is_coded else cells.dictionary_encode()
    values = coded.indices.cast("double").to_numpy(zero_copy_only=False)
    known = coded.dictionary.to_pylist()
    role = _role(name, reading)
    said = name in reading.names("time") and all(isinstance(text, str) for text in known)
    if said:
        texts = [*known, ""]
        codes = np.where(np.isnan(values), len(known), values).astype(np.int64)
        return column_of(name, Cells(texts, codes), reading)
    ordered = is_coded and kind.ordered
    dtype = f"dictionary<{kind.value_type}>" if is_coded else str(kind)
    role = "ordered" if ordered else role
    return _gaps(Column(name, "categorical", tuple(map(str, known)), dtype, role=role), values)


def _times(name: str, column: Any) -> tuple[Column, np.ndarray]:
    """Seconds of dates, times and durations; as text where a double would lose some."""
    import pyarrow

    kind = column.type
    dtype = str(kind)
    unit = "s" if dtype == "date32[day]" else "ms" if dtype == "date64[ms]" else kind.unit
    per = UNITS[unit] / (DAY_SECONDS if dtype == "date32[day]" else 1)
    width = pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()
    numbers = column.cast(width).cast(pyarrow.int64())
    absent = column.is_null().to_numpy()
    ints = numbers.fill_null(0).to_numpy()
    seconds = ints / per
    if not np.array_equal(np.round(seconds * per).astype(np.int64), ints):
        field, codes = _whole_texts(name, column.cast(pyarrow.string()))
        note = "times to the nanosecond are kept as text"
        return replace(field, dtype=dtype, note=note), codes
    field = Column(name, dtype=dtype, form=_form(dtype, unit), role="time")
    return _gaps(field, np.where(absent, np.nan, seconds))


def _form(dtype: str, unit: str) -> str:
    """How such a type is written as text."""
    if dtype.startswith("date"):
        return "%Y-%m-%d"
    fraction = {"s": "", "ms": ".%3f", "us": ".%6f", "ns": ".%9f"}[unit]
    if dtype.startswith("timestamp"):
        return f"%Y-%m-%dT%H:%M:%S{fraction}{'+00:00' if 'tz=' in dtype else ''}"
    return f"%D days %H:%M:%S{fraction}" if dtype.startswith("dur") else f"%H:%M:%S{fraction}"


def arrow_array(field: Column, values: np.ndarray) -> Any:
    """One column (n,) as an Arrow array of the type that it came with."""
    import pyarrow

    absent = np.isnan(values)
    if field.kind == "categorical":
        codes = pyarrow.array(np.where(absent, 0, values).astype(np.int32), mask=absent)
        categories = pyarrow.array(list(field.categories), pyarrow.string())
        if field.dtype.startswith("dictionary"):
            inner = _arrow_type(pyarrow, field.dtype[len("dictionary<") : -1])
            ordered = field.role == "ordered"
            return pyarrow.DictionaryArray.from_arrays(
                codes, categories.cast(inner), ordered=ordered
            )
        return categories.take(codes).cast(_arrow_type(pyarrow, field.dtype))
    kind = _arrow_type(pyarrow, field.dtype)
    if field.is_time:
        return _time_array(pyarrow, kind, values, absent)
    if pyarrow.types.is_null(kind):
        return pyarrow.nulls(len(values)) if absent.all() else pyarrow.array(values, mask=absent)
    if pyarrow.types.is_integer(kind):
        values = np.round(np.where(absent, 0, values)).astype(np.int64)
    if pyarrow.types.is_decimal(kind):
        import decimal

        digits = decimal.Decimal(1).scaleb(-kind.scale)
        cells = [
            None if gone else decimal.Decimal(repr(float(v))).quantize(digits)
            for v, gone in zip(values, absent, strict=True)
        ]
        return pyarrow.array(cells, kind)
    return pyarrow.array(values, mask=absent).cast(kind)


def _time_array(pyarrow: Any, kind: Any, values: np.ndarray, absent: np.ndarray) -> Any:
    if pyarrow.types.is_date32(kind):
        scale, width = 1 / DAY_SECONDS, np.int32
    elif pyarrow.types.is_date64(kind):
        scale, width = UNITS["ms"], np.int64
    else:
        scale, width = UNITS[kind.unit], np.int32 if kind.bit_width == 32 else np.int64
    steps = np.round(np.where(absent, 0, values) * scale).astype(width)
    return pyarrow.array(steps, mask=absent).cast(kind)


def _arrow_type(pyarrow: Any, name: str) -> Any:
    """The type of a name, as a column of text names it too."""
    plain = {"timestamp": "timestamp[us]", "date": "date32[day]", "duration": "duration[us]"}
    name = plain.get(name, name)
    if name.startswith("timestamp[") and "tz=" in name:
        unit, zone = name[len("timestamp[") : -1].split(", tz=")
        return pyarrow.timestamp(unit, zone)
    if name.startswith("decimal"):
        precision, scale = name[name.index("(") + 1 : -1].split(",")
        return pyarrow.decimal128(int(precision), int(scale))
    return pyarrow.type_for_alias(name)


def _arrow_table(source: Any) -> Any:
    """A PyArrow table of a frame, or None where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import interchange
    except ImportError:
        return None
    try:
        if isinstance(source, pyarrow.Table | pyarrow.RecordBatch):
            return pyarrow.table(source)
        if hasattr(source, "iloc"):  # pandas: its row labels are no column
            return pyarrow.Table.from_pandas(source.rename(columns=str), preserve_index=False)
        if hasattr(source, "__arrow_c_stream__"):
            return pyarrow.table(source)
        return interchange.from_dataframe(source)
    except (pyarrow.ArrowException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"the table cannot be read: {str(error).splitlines()[0].rstrip('.')}"
        ) from error


def _from_arrays(source: Any, reading: Reading) -> Dataset:
    """A frame whose columns are NumPy arrays, without pyarrow."""
    parts = []
    for name in source.columns:
        column = np.asarray(source[name])
        if column.dtype.kind in "fiub":
            dtype = "bool" if column.dtype.kind == "b" else "double"
            dtype = "int64" if column.dtype.kind in "iu" else dtype
            exact = column.dtype.kind not in "iu" or np.abs(column).max(initial=0) <= EXACT
            if exact:
                decimals = None if column.dtype.kind == "f" else 0
                field = Column(str(name), dtype=dtype, decimals=decimals)
                parts.append(_gaps(field, column.astype(np.float64)))
                continue
        texts = ["" if _absent(v) else str(v) for v in column.tolist()]
        parts.append(column_of(str(name), Cells.of(texts), reading))
    if not parts or not len(parts[0][1]):
        raise InputError("the table has no rows")
    fields = tuple(field for field, _ in parts)
    stack = np.stack([values for _, values in parts], 1)
    names = tuple(field.name for field in fields)
    return Dataset(stack, "table", "the table", columns=names, fields=fields)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
