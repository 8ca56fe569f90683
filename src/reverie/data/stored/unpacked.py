"""A plain copy of rows that are costly to read one by one: `.npy`, written block by block."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.stored.npy import NpyRows
from reverie.data.stored.rows import Piece, StoredRows, ticker
from reverie.errors import InputError
from reverie.files import write_bytes


class Unpacked(StoredRows):
    """Rows whose plain copy is read, and whose pieces are those of their source."""

    def __init__(self, whole: StoredRows, plain: NpyRows) -> None:
        self.whole, self.plain = whole, plain
        self.source, self.shape, self.dtype = whole.source, plain.shape, plain.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.plain.take(rows)

    def pieces(self) -> list[Piece]:
        return self.whole.pieces()

    def root(self) -> tuple[StoredRows, np.ndarray | None]:
        return self.whole.root()


def unpack(rows: StoredRows, path: Path | None) -> tuple[NpyRows, np.ndarray]:
    """Write all rows that can be read to a `.npy` file, and say their places (n,).

    path: None is a temporary file that goes with the process. InputError where there is no room.
    """
    folder = Path(tempfile.gettempdir()) if path is None else _standing(path.parent)
    free = shutil.disk_usage(folder).free
    if rows.nbytes > 0.9 * free:
        raise InputError(
            f"{rows.source} takes {rows.nbytes / 2**30:.3g} GiB as plain rows, and {folder} has "
            f"{free / 2**30:.3g} GiB left: choose another --out, or write it as .npy"
        )
    kept: list[np.ndarray] = []

    def write(file: Any) -> None:
        tell = ticker("unpacking")
        head = {"descr": rows.dtype.str, "fortran_order": False, "shape": rows.shape}
        np.lib.format.write_array_header_1_0(file, head)
        for places, block in rows.sound():
            file.write(np.ascontiguousarray(block).data)
            kept.append(places)
            tell(int(places[-1]) + 1 if len(places) else 0, len(rows))
        count = sum(map(len, kept))
        file.seek(0)  # the header has room for any number of rows
        np.lib.format.write_array_header_1_0(file, head | {"shape": (count, *rows.shape[1:])})
        tell(len(rows), len(rows))

    if path is not None:
        plain = NpyRows(write_bytes(path, write), rows.source, plain=True)
    else:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            write(file)
            file.flush()
            plain = NpyRows(Path(file.name), rows.source, plain=True)
    return plain, np.concatenate(kept)


def _standing(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    folder = folder.absolute()
    return folder if folder.exists() else _standing(folder.parent)
