"""The flags of every command that reads data: what to say where a guess is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Reads:
    """How DATA are read; without these flags all is decided from the data, and said."""

    ignore: str | None = None
    """Columns to leave out, by name, joined by commas."""
    id: str | None = None
    """Columns that name rows: set apart, never compared."""
    time: str | None = None
    """Columns of times, each with its form if need be: seen=%d/%m/%Y."""
    category: str | None = None
    """Columns whose numbers are categories."""
    missing: str | None = None
    """Words and numbers for a missing cell, beside those that always are: "-9999,None"."""
    sep: str | None = None
    """What parts the cells: a character, or comma, tab, semicolon, bar, blanks. With it a .txt
    file is a table."""
    decimal: str | None = None
    """The decimal mark of numbers, a point or a comma."""
    encoding: str | None = None
    """The encoding of a text file, as utf-8 or cp1252."""
    header: Literal["yes", "no"] | None = None
    """Whether the first line names the columns."""
    columns: Path | None = None
    """All of these from a columns.json that `reverie describe` wrote; flags come before it."""
    size: int | None = None
    """Bring pictures to this height and width."""
    mode: Literal["rgb", "grey"] | None = None
    """Bring pictures to colour or to grey."""
    angles: Literal["degrees", "radians"] | None = None
    """What angles and places are in, where neither their headers nor their range tell."""
    skip_bad: bool = False
    """Leave out pictures that cannot be read."""
    stored: bool = False
    """Read rows from disk in pieces, as is done by itself where they would take a quarter of the
    memory (.npy, .parquet, .feather, Zarr, folders of images, shards of .tar)."""
