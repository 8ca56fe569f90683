"""Which sources are read from disk in pieces, and how they are opened.

By default those whose rows would take more than a quarter of the machine's memory, and archives
and Zarr arrays always; `stored` in the reading says it for others.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from reverie.data.options import Reading
from reverie.data.parquet import ENDINGS as ARROW
from reverie.data.stored.dataset import StoredDataset
from reverie.data.stored.npy import NpyRows
from reverie.data.stored.packed import Index, PackedRows, index_folder, index_shards, shards_of
from reverie.data.stored.rows import StoredRows
from reverie.data.stored.tables import ColumnRows, ZarrRows, is_zarr
from reverie.errors import InputError

SHARE = 0.25  # of the memory, above which rows stay on disk
OTHERS = ("id", "time", "category", "missing")  # what can be said of tables in memory only


def open_stored(text: str, said: Reading, index: Path | None = None) -> StoredDataset | None:
    """The source as rows on disk, or None where it is read into memory.

    index: a file with the places of rows that an earlier opening found, or to write them to.
    Raises InputError on what is no such source though `stored` asks for it.
    """
    if said.stored is False and not _always(text):
        return None
    rows = _opened(text, said, index)
    if rows is None:
        if said.stored:
            raise InputError(
                f"{text} cannot be read from disk in pieces: that goes with .npy, .parquet, "
                ".feather, Zarr arrays, folders of images and shards of .tar"
            )
        return None
    return _dataset(rows, replace(said, stored=True))


def _always(text: str) -> bool:
    return text.lower().endswith(".tar") or is_zarr(Path(text)) or shards_of(text) is not None


def _opened(text: str, said: Reading, index: Path | None) -> StoredRows | None:
    path, name = Path(text), text.lower()
    shards = shards_of(text)
    if shards is not None:
        return PackedRows(_indexed(index, lambda: index_shards(shards)), text, said)
    if path.is_dir() and is_zarr(path):
        return ZarrRows(path)
    asked = said.stored or said.stored is None
    if not asked or not path.exists():
        return None
    if name.endswith(".npy"):
        return NpyRows(path) if said.stored or _is_large(path.stat().st_size) else None
    if name.endswith(ARROW):
        return _table(path, said)
    if path.is_dir():
        return _folder(path, said, index)
    return None


def _table(path: Path, said: Reading) -> StoredRows | None:
    if not said.stored and not _is_large(4 * path.stat().st_size):  # as decoded, about
        return None
    rows = ColumnRows(path, said.names("ignore"))
    return rows if said.stored or _is_large(rows.nbytes) else None


def _folder(path: Path, said: Reading, index: Path | None) -> StoredRows | None:
    """Pictures, where they are many."""
    if said.stored:
        return PackedRows(_indexed(index, lambda: index_folder(path)), str(path), said)
    size = sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    if not _is_large(4 * size):
        return None
    return PackedRows(_indexed(index, lambda: index_folder(path)), str(path), said)


def _indexed(path: Path | None, make: Any) -> Index:
    if path is not None and path.exists():
        return Index.load(path)
    return make()


def _is_large(size: int) -> bool:
    """Whether so many bytes are more than SHARE of the memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        memory = 2**33
    return size > SHARE * memory


def _dataset(rows: Any, said: Reading) -> StoredDataset:
    """The rows with what is known of them; InputError on roles of columns."""
    for role in OTHERS:
        if getattr(said, role):
            raise InputError(f"{rows.source} is read from disk in pieces: --{role} is not for it")
    columns = getattr(rows, "columns", None)
    if said.ignore and columns is None:
        raise InputError(f"{rows.source} is read from disk in pieces: it has no columns to ignore")
    size = rows.nbytes / 2**30
    notes = (*rows.notes, f"read from disk in pieces ({size:.2g} GiB as {rows.dtype})")
    index = getattr(rows, "index", None)
    if index is not None and index.others:
        notes += (f"{index.others:,} members are neither pictures nor .npy and are left out",)
    return StoredDataset(
        rows, rows.kind, rows.source, rows.layout, columns=columns, notes=notes, reading=said,
        folder_of=None if index is None else index.labels,
        folders=() if index is None else index.classes,
    )  # fmt: skip
