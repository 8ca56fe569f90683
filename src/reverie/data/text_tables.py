"""Tables as text: commas between cells, quotes where needed, plain or gzipped.

A column is numeric when every cell that is present is a number, else categorical. Cells that are
empty, or `?`, `NA`, `N/A`, `nan` or `null` in any case, are missing.
"""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.errors import InputError
from reverie.files import write_bytes

ENDINGS = (".csv", ".csv.gz", ".data", ".data.gz")
MISSING = ("", "?", "na", "n/a", "nan", "null")
MOST_DECIMALS = 10
SEEN_ROWS = 1000  # of a table of numbers, whose text tells the digits after the point
TYPOS = 0.05  # a column with at most this share of distinct cells that are no numbers is numeric


def read_csv(path: Path, mixed: bool = False) -> Dataset:
    """Read a table; lines that begin with # stand above it and are skipped.

    The first line is a header when none of its cells is a number. mixed: take text and missing
    cells; otherwise the first such cell is an InputError that names its line and column.
    """
    try:
        return _read(path, mixed)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def write_csv(
    path: Path, values: np.ndarray, fields: Sequence[Column], header: bool, gzipped: bool = False
) -> Path:
    """Write rows (n, d) with the columns' categories, decimals and missing cells, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(f.name for f in fields)
    cells = [[f.text(v) for v in values[:, j]] for j, f in enumerate(fields)]
    writer.writerows(zip(*cells, strict=True))
    raw = text.getvalue().encode()
    content = gzip.compress(raw, mtime=0) if gzipped else raw
    return write_bytes(path, lambda file: file.write(content))


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _lines(file: TextIO) -> Any:
    return csv.reader(file, skipinitialspace=True)


def _read(path: Path, mixed: bool) -> Dataset:
    above, first = _first_row(path)
    header = not any(_is_number(cell) for cell in first)
    if header and len(first) == 1 and ";" in first[0]:
        raise InputError(f"{path} separates its cells by semicolons: use commas")
    skip = above + int(header)
    values = _numbers(path, skip, len(first))
    if values is None and mixed:
        return _mixed(path, above, header)
    if values is None:
        raise InputError(_fault(path, first, skip, header))
    if values.size == 0:
        raise InputError(f"{path} has a header but no rows")
    seen = _seen(path, skip)
    fields = tuple(
        _numeric(first[j] if header else str(j), values[:, j], {row[j] for row in seen})
        for j in range(len(first))
    )
    names = tuple(first) if header else None
    return Dataset(values, "table", str(path), columns=names, fields=fields)


def _first_row(path: Path) -> tuple[int, list[str]]:
    """How many comment lines stand on top, and the cells of the first line after them."""
    with _open(path) as file:
        for number, row in enumerate(_lines(file)):
            if row and not row[0].startswith("#"):
                return number, row
    return 0, []


def _numbers(path: Path, skip: int, width: int) -> np.ndarray | None:
    """All rows as numbers, or None where a cell is none or a row has another length."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no rows: said better by the caller
            values = np.loadtxt(
                path,
                delimiter=",",
                skiprows=skip,
                ndmin=2,
                quotechar='"',
                comments=None,
                encoding="utf-8-sig",
            )
    except UnicodeDecodeError:
        raise
    except ValueError:
        return None
    return values if values.size == 0 or values.shape[1] == width else None


def _seen(path: Path, skip: int) -> list[list[str]]:
    """The cells of the first rows, as text."""
    with _open(path) as file:
        rows = (row for number, row in enumerate(_lines(file)) if number >= skip and row)
        return [row for row, _ in zip(rows, range(SEEN_ROWS), strict=False)]


def _mixed(path: Path, above: int, header: bool) -> Dataset:
    with _open(path) as file:
        numbered = [(n, row) for n, row in enumerate(_lines(file), start=1) if n > above and row]
    lines, rows = [n for n, _ in numbered], [row for _, row in numbered]
    width = len(rows[0])
    for line, row in zip(lines, rows, strict=True):
        if len(row) != width:
            raise InputError(f"{path}: line {line} has {len(row)} cells, the first line {width}")
    header = header and not _recurs(rows)
    body = int(header)
    if len(rows) == body:
        raise InputError(f"{path} has a header but no rows")
    parts = []
    for j, cells in enumerate(zip(*rows[body:], strict=True)):
        name = rows[0][j].strip() if header else str(j)
        parts.append(_column(name, cells, lines[body:], path))
    names = tuple(field.name for field, _ in parts) if header else None
    values = np.stack([column for _, column in parts], 1)
    fields = tuple(field for field, _ in parts)
    return Dataset(values, "table", str(path), columns=names, fields=fields)


def _recurs(rows: list[list[str]]) -> bool:
    """Whether every cell of the first row stands again below it: then it is a row of text."""
    return len(rows) > 1 and all(
        cell in {row[j] for row in rows[1:]} for j, cell in enumerate(rows[0])
    )


def _column(
    name: str, cells: Sequence[str], lines: list[int], path: Path
) -> tuple[Column, np.ndarray]:
    """One column of a mixed table and its values (n,)."""
    distinct = dict.fromkeys(cells)
    absent = [cell for cell in distinct if cell.strip().lower() in MISSING]
    present = [cell for cell in distinct if cell.strip().lower() not in MISSING]
    odd = [cell for cell in present if not _is_number(cell)]
    value_of = dict.fromkeys(absent, np.nan)
    if odd and len(odd) <= TYPOS * len(present):
        raise InputError(
            f"{path}: line {lines[cells.index(odd[0])]}, column {name!r} is {odd[0]!r}, not a "
            "number like nearly all others of that column"
        )
    missing = absent[0].strip() if absent else None
    if not odd:
        value_of |= {cell: float(cell) for cell in present}
        values = np.array([value_of[cell] for cell in cells])
        return _numeric(name, values, present, missing), values
    categories = sorted({cell.strip() for cell in present})
    code = {category: float(k) for k, category in enumerate(categories)}
    value_of |= {cell: code[cell.strip()] for cell in present}
    values = np.array([value_of[cell] for cell in cells])
    return Column(name, "categorical", tuple(categories), "string", missing=missing), values


def _numeric(
    name: str, values: np.ndarray, texts: Collection[str], missing: str | None = None
) -> Column:
    here = np.isfinite(values)
    if missing is None and not here.all() and np.isnan(values).any():
        missing = "nan"  # numpy reads it as a number
    least, most = _decimals(values[here], texts)
    return Column(
        name,
        dtype="int64" if most == 0 else "double",
        decimals=most,
        least_decimals=least if most != least else None,
        missing=missing,
    )


def _decimals(values: np.ndarray, texts: Collection[str]) -> tuple[int | None, int | None]:
    """Fewest and most digits after the point: those written, or more if values need them."""
    written = [len(text.strip().partition(".")[2]) for text in texts if text.strip()]
    if not written or any("e" in text.lower() for text in texts):
        return None, None
    for decimals in range(max(written), MOST_DECIMALS + 1):
        if np.array_equal(np.round(values, decimals), values):
            return min(written), decimals
    return None, None


def _fault(path: Path, first: list[str], skip: int, header: bool) -> str:
    """Name the first cell that is not a number, or the first row of another length."""
    with _open(path) as file:
        for number, row in enumerate(_lines(file), start=1):
            if number <= skip or not row:
                continue
            if len(row) != len(first):
                return f"{path}: line {number} has {len(row)} cells, the first line {len(first)}"
            for index, cell in enumerate(row):
                if not _is_number(cell):
                    name = repr(first[index]) if header else str(index)
                    what = f"{cell!r}, not a number" if cell.strip() else "empty"
                    return (
                        f"{path}: line {number}, column {name} is {what}; only audits "
                        "and --space table or symbols take categories"
                    )
    return f"{path} cannot be read as numbers separated by commas"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
