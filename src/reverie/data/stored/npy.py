"""Rows of a plain `.npy` file, by their places in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reverie.data.arrays import from_array
from reverie.data.stored.rows import Piece, StoredRows, Watched, pieces_of
from reverie.errors import InputError

DENSE = 4  # of so many rows in a row one is wanted: then all are read


class NpyRows(StoredRows):
    """Rows of a `.npy` file in C order; kind and layout as `reverie.data.load` reads its shape.

    The file is read, not mapped: pages that were read do not count as this process's memory.
    """

    def __init__(self, path: Path, source: str | None = None, *, plain: bool = False) -> None:
        self.path, self.source = Path(path), str(path) if source is None else source
        raw, self.dtype, self.start = header_of(self.path)
        self.raw = raw
        like = from_array(np.broadcast_to(np.zeros((), self.dtype), (1, *raw[1:])), self.source)
        self.kind, self.layout, self.notes = like.kind, like.layout, like.notes
        self.file = Watched(self.path)
        self.stored_type = self.dtype
        self.dtype, self.shape = like.values.dtype, (raw[0], *like.shape)
        if plain:  # as the rows stand, whatever their shape would tell
            self.layout, self.shape, self.dtype = "as-is", raw, self.stored_type
        self.width = int(np.prod(raw[1:], dtype=np.int64)) * self.stored_type.itemsize
        if self.file.known[0] < self.start + raw[0] * self.width:
            raise InputError(f"{path} is cut short: its header tells {raw[0]:,} rows")

    def take(self, rows: np.ndarray) -> np.ndarray:
        self.file.check()
        if len(rows) and len(rows) * DENSE > rows[-1] - rows[0]:
            first = int(rows[0])
            room = self._room(int(rows[-1]) + 1 - first)
            self.file.read(_bytes(room), self.start + first * self.width)
            whole = len(room) == len(rows)
            return in_layout(room if whole else room[rows - first], self.layout)
        out = self._room(len(rows))
        view, width = _bytes(out), self.width
        for place, row in enumerate(rows.tolist()):
            part = view[place * width : (place + 1) * width]
            self.file.read(part, self.start + row * width)
        return in_layout(out, self.layout)

    def _room(self, count: int) -> np.ndarray:
        return np.empty((count, *self.raw[1:]), self.stored_type)

    def pieces(self) -> list[Piece]:
        return pieces_of(self.path)


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


def in_layout(values: np.ndarray, layout: str) -> np.ndarray:
    """Rows as they stand in a file, with their axes as a Dataset has them."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if layout in ("flat", "hw"):
        return values[:, None]
    return np.moveaxis(values, 3, 1) if layout == "hwc" else values


def header_of(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and where the numbers begin; InputError on what cannot be read by rows."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, by_columns, dtype = read(file)
            start = file.tell()
    except (KeyError, ValueError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a plain NumPy array ({line})") from error
    if dtype.kind not in "fiub" or dtype.hasobject or dtype.itemsize > 8:
        raise InputError(f"{path} holds {dtype}; rows are read from disk as plain numbers")
    if not shape or shape[0] == 0:
        raise InputError(f"{path} has no rows")
    if by_columns and len(shape) > 1:
        raise InputError(
            f"{path} keeps its columns together: its rows cannot be read by themselves; write it "
            "again with np.save(path, np.ascontiguousarray(array))"
        )
    return tuple(map(int, shape)), dtype, start
