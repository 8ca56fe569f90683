"""Rows of numbers in Parquet, Arrow and Zarr: read group by group, never as a whole.

These are stored in groups of rows that are decoded together, so that single rows are costly: a fit
writes them once as plain rows (`unpacked`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.arrays import from_array
from reverie.data.stored.npy import in_layout
from reverie.data.stored.rows import Piece, StoredRows, Watched, pieces_of
from reverie.errors import InputError

KEPT = 2  # groups that stay decoded


class GroupedRows(StoredRows):
    """Rows in groups of `ends` (g + 1,), of which a few are kept; `group` decodes one."""

    decodes = True
    notes: tuple[str, ...] = ()

    def __init__(self, source: str, ends: np.ndarray) -> None:
        self.source, self.ends = source, np.asarray(ends)
        self.cache: OrderedDict[int, np.ndarray] = OrderedDict()

    @abstractmethod
    def group(self, number: int) -> np.ndarray:
        """The rows of one group."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        where = np.searchsorted(self.ends, rows, "right") - 1
        for number in np.unique(where).tolist():
            here = where == number
            out[here] = self._kept(number)[rows[here] - self.ends[number]]
        return out

    def _kept(self, number: int) -> np.ndarray:
        if number not in self.cache:
            self.cache[number] = self.group(number)
            while len(self.cache) > KEPT:
                self.cache.popitem(last=False)
        return self.cache[number]


class ColumnRows(GroupedRows):
    """The columns of a Parquet, Feather or Arrow file, all of them numbers."""

    kind, layout = "table", "as-is"

    def __init__(self, path: Path, ignored: set[str] | None = None) -> None:
        self.path, self.file, ignored = Path(path), Watched(path), ignored or set()
        pyarrow = _pyarrow(self.path)
        self.errors: Any = (pyarrow.ArrowException, OSError)
        try:
            counts, schema = self._open(pyarrow)
        except self.errors as error:
            raise InputError(f"{path} is not a {self._what} file ({_line(error)})") from error
        super().__init__(str(path), np.concatenate([[0], np.cumsum(counts)]))
        for column in schema:
            if column.name in ignored:
                continue
            plain = pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
            if not (plain or pyarrow.types.is_boolean(column.type)):
                raise InputError(
                    f"{path}: column {column.name!r} holds {column.type}, not numbers; read from "
                    f"disk a table is of numbers alone: --ignore={column.name}, or fit on fewer "
                    "rows"
                )
        self.columns = tuple(name for name in schema.names if name not in ignored)
        self.shape, self.dtype = (int(self.ends[-1]), len(self.columns)), np.dtype(np.float64)
        if 0 in self.shape:
            raise InputError(f"{path} has no rows")

    @property
    def _what(self) -> str:
        return "parquet" if self.path.suffix.lower() == ".parquet" else "feather"

    table: Any

    def _open(self, pyarrow: Any) -> tuple[list[int], Any]:
        if self._what == "parquet":
            from pyarrow import parquet

            self.table = parquet.ParquetFile(self.path)
            known = self.table.metadata
            return [known.row_group(g).num_rows for g in range(known.num_row_groups)], (
                self.table.schema_arrow
            )
        # mapped for the sizes of the batches alone, which are read from the file one by one
        with pyarrow.memory_map(str(self.path)) as mapped:
            reader = pyarrow.ipc.open_file(mapped)
            counts = [reader.get_batch(g).num_rows for g in range(reader.num_record_batches)]
        self.table = pyarrow.ipc.open_file(pyarrow.OSFile(str(self.path)))
        return counts, reader.schema

    def group(self, number: int) -> np.ndarray:
        self.file.check()
        try:
            if self._what == "parquet":
                part = self.table.read_row_group(number)
            else:
                part = self.table.get_batch(number)
            part.validate(full=True)
            return np.stack([_numbers(part.column(name)) for name in self.columns], 1)
        except self.errors as error:
            raise InputError(f"{self.path} is damaged ({_line(error)})") from error

    def pieces(self) -> list[Piece]:
        return pieces_of(self.path)


class ZarrRows(GroupedRows):
    """A Zarr array on disk (extra `zarr`), by the chunks of its first axis."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            import zarr
        except ImportError as error:
            raise InputError(f"reading {path} needs the extra: pip install 'reverie[zarr]'") from (
                error
            )
        try:
            self.array: Any = zarr.open(str(path), mode="r")
            shape, dtype = self.array.shape, np.dtype(self.array.dtype)
            step = int(self.array.chunks[0])
        except AttributeError as error:
            raise InputError(f"{path} is a group of Zarr arrays: name one, {path}/NAME") from error
        except Exception as error:  # of damaged metadata and codecs that are not there
            raise InputError(f"{path} is not a Zarr array ({_line(error)})") from error
        if dtype.kind not in "fiub" or dtype.itemsize > 8 or not shape or 0 in shape:
            raise InputError(f"{path} holds {dtype} of shape {shape}; give rows of plain numbers")
        super().__init__(str(path), np.append(np.arange(0, shape[0], step), shape[0]))
        like = from_array(np.broadcast_to(np.zeros((), dtype), (1, *shape[1:])), self.source)
        self.kind, self.layout, self.notes = like.kind, like.layout, like.notes
        self.shape, self.dtype = (shape[0], *like.shape), like.values.dtype

    def group(self, number: int) -> np.ndarray:
        start, stop = int(self.ends[number]), int(self.ends[number + 1])
        try:
            return in_layout(np.asarray(self.array[start:stop]), self.layout)
        except Exception as error:  # of cut chunks and missing ones
            raise InputError(
                f"{self.path} cannot be read from row {start:,} on ({_line(error)})"
            ) from error

    def pieces(self) -> list[Piece]:
        files = sorted(p for p in self.path.rglob("*") if p.is_file())
        return [Piece(p.relative_to(self.path).as_posix(), p, 0, p.stat().st_size) for p in files]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or a group of them."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _numbers(column: Any) -> np.ndarray:
    """A column as float64, NaN where a cell is missing."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise InputError(
            f"reading {path.suffix} needs the extra: pip install 'reverie[tables]'"
        ) from error
    return pyarrow


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
