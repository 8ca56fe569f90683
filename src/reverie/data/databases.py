"""Tables of a database by query, opened for reading only: `db.sqlite:SELECT ...`, DuckDB too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from reverie.data.cells import Cells, TypoError, column_of
from reverie.data.dataset import Dataset
from reverie.data.frames import from_arrow
from reverie.data.options import Reading
from reverie.errors import InputError

SQLITE = (".sqlite", ".sqlite3", ".db")
DATABASES = (*SQLITE, ".duckdb")
MAGIC = b"SQLite format 3\x00"


def read_query(path: Path, query: str, reading: Reading) -> Dataset:
    """The rows that a query gives; without one, those of the database's only table."""
    if path.suffix.lower() == ".duckdb":
        return _read_duckdb(path, query, reading)
    with path.open("rb") as file:
        if file.read(16) != MAGIC:
            raise InputError(f"{path} is not an SQLite database")
    try:
        address = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            cursor = connection.execute(query or _only_table(connection, path))
            names = [str(column[0]) for column in cursor.description or []]
            rows = cursor.fetchall()
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error
    if not rows or not names:
        raise InputError(f"{path}: the query gives no rows")
    return table_of_values(names, list(zip(*rows, strict=True)), f"{path}:{query}", reading)


def table_of_values(
    names: list[str], columns: list[tuple], source: str, reading: Reading
) -> Dataset:
    """Columns of Python's own values as a table; None is a missing cell."""
    fields, values = [], []
    for name, column in zip(names, columns, strict=True):
        cells = Cells.of([_text(value) for value in column])
        try:
            field, numbers = column_of(name, cells, reading)
        except TypoError as typo:
            row = cells.first_row(str(typo)) if str(typo) in cells.texts else 0
            raise InputError(
                f"{source}: row {row}, column {name!r} is {str(typo)!r}, not a number like nearly "
                f"all others of that column; if it stands for a missing cell, --missing={typo}"
            ) from typo
        fields.append(field)
        values.append(numbers)
    notes = tuple(f"column {f.name!r}: {f.note}" for f in fields if f.note)
    return Dataset(np.stack(values, 1), "table", source, columns=tuple(names),
                   fields=tuple(fields), notes=notes)  # fmt: skip


def _text(value: object) -> str:
    """A value as a cell of text: dates in ISO's form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        raise InputError("a column holds bytes, neither numbers nor categories")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)  # type: ignore[attr-defined]


def _only_table(connection: sqlite3.Connection, path: Path) -> str:
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    if len(found) != 1:
        names = ", ".join(name for (name,) in found) or "none"
        raise InputError(f"{path} holds the tables {names}: name one, {path}:SELECT * FROM ...")
    quoted = found[0][0].replace('"', '""')
    return f'SELECT * FROM "{quoted}"'


def _read_duckdb(path: Path, query: str, reading: Reading) -> Dataset:
    try:
        import duckdb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "reading .duckdb needs the extra: pip install 'reverie[duckdb]'"
        ) from error
    try:
        closed = {"enable_external_access": "false"}  # a query reads this file and no other
        with duckdb.connect(str(path), read_only=True, config=closed) as connection:
            if not query:
                raise InputError(f"{path} is a database: name rows, {path}:SELECT * FROM ...")
            found = connection.sql(query)
            if found is None:
                raise InputError(f"{path}: the query gives no rows")
            return from_arrow(found.to_arrow_table(), f"{path}:{query}", reading)
    except duckdb.Error as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
