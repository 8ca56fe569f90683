"""Tables as text, plain or gzipped, whatever parts their cells; see `sniffing` for their form.

A column is numeric when every cell that is present is a number, a truth or a time, else
categorical (`cells`). Tables of numbers are read by pyarrow where it is installed, else by numpy.
"""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.data.cells import (
    EXACT,
    Cells,
    TypoError,
    codes_of,
    column_of,
    is_gap,
    is_number,
    number_column,
)
from reverie.data.dataset import Column, Dataset, TableForm, side_by_side
from reverie.data.fast_tables import arrow_columns
from reverie.data.options import Reading
from reverie.data.sniffing import open_text, rows_of, sniff
from reverie.errors import InputError
from reverie.files import write_bytes

PLAIN = (".csv", ".data", ".tsv", ".tab", ".dat", ".amat")
ENDINGS = tuple(ending + packed for ending in PLAIN for packed in ("", ".gz"))
NUMBERS_ONLY = "; only audits and --space table or symbols take categories"


def read_csv(path: Path, mixed: bool = False, reading: Reading | None = None) -> Dataset:
    """Read a table of text; lines that begin with # stand above it and are skipped.

    mixed: take text and missing cells; otherwise the first such cell is an InputError that names
    its line and column. reading: what is known of the file.
    """
    try:
        return _read(path, mixed, reading or Reading())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; --encoding names another") from error
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table ({error})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def write_csv(
    path: Path,
    values: np.ndarray,
    fields: Sequence[Column],
    header: bool,
    gzipped: bool = False,
    form: TableForm | None = None,
) -> Path:
    """Write rows (n, d) as their columns and the form of their table have it, atomically."""
    form = form or TableForm()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=form.sep, lineterminator="\n")
    if header:
        writer.writerow(f.name for f in fields)
    cells = [f.texts(values[:, j]) for j, f in enumerate(fields)]
    writer.writerows(zip(*cells, strict=True))
    raw = text.getvalue().encode(form.encoding, errors="xmlcharrefreplace")
    content = gzip.compress(raw, mtime=0) if gzipped else raw
    return write_bytes(path, lambda file: file.write(content))


def _read(path: Path, mixed: bool, reading: Reading) -> Dataset:
    form, sample = sniff(path, reading)
    if len(sample) <= int(form.header):
        raise InputError(f"{path} has a header but no rows" if sample else f"{path} has no rows")
    names = [cell.strip() for cell in sample[0]] if form.header else None
    named = names or [str(j) for j in range(len(sample[0]))]
    body = sample[int(form.header) :]
    columns: Sequence[np.ndarray | Cells] | None = None
    even = all(len(row) == len(named) for row in sample)
    if even:
        columns = _numbers(path, form, len(named)) or arrow_columns(path, form, len(named), body)
    columns = columns or _cells(path, form, len(named))
    fields, values = [], []
    room = next((c.base for c in columns if isinstance(c, np.ndarray)), None)
    for j, column in enumerate(columns):
        try:
            field, cells = _column(named[j], j, column, body, reading, form)
        except TypoError as typo:
            raise InputError(_typo(path, form, named, j, str(typo), reading)) from typo
        fields.append(field)
        values.append(cells)
    data = Dataset(
        side_by_side(values, room), "table", str(path),
        columns=None if names is None else tuple(names),
        fields=tuple(fields), notes=_notes(form, fields), form=form,
    )  # fmt: skip
    if not mixed:
        _only_numbers(path, form, data, reading)
    return data


def _column(
    name: str,
    place: int,
    column: np.ndarray | Cells,
    body: list[list[str]],
    reading: Reading,
    form: TableForm,
) -> tuple[Column, np.ndarray]:
    if isinstance(column, Cells):
        return column_of(name, column, reading, form.decimal)
    texts = [row[place].strip() for row in body]
    texts = [text.replace(form.decimal, ".") for text in texts] if form.decimal != "." else texts
    codes = codes_of(reading)
    if codes:
        column[np.isin(column, list(codes))] = np.nan
    field = number_column(name, column, [t for t in texts if not is_gap(t, reading)])
    gaps = Counter(text for text in texts if is_gap(text, reading)) or Counter(codes.values())
    missing = gaps.most_common(1)[0][0] if gaps and field.has_missing else field.missing
    role = "identifier" if name in reading.names("id") else ""
    return replace(field, decimal=form.decimal, role=role, missing=missing), column


def _notes(form: TableForm, fields: list[Column]) -> tuple[str, ...]:
    notes = [f"column {field.name!r}: {field.note}" for field in fields if field.note]
    if form.why_header:
        notes.append(f"{form.why_header} (--header says otherwise)")
    if form.encoding in ("cp1252", "latin-1"):
        notes.append(f"the file is not UTF-8 and is read as {form.encoding} (--encoding)")
    return tuple(notes)


def _numbers(path: Path, form: TableForm, width: int) -> list[np.ndarray] | None:
    """All columns as numbers, or None where a cell is none or a row has another length.

    Only of what pyarrow does not read: blanks between cells.
    """
    if form.sep != " " or form.decimal != ".":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no rows: said better by the caller
            values = np.loadtxt(path, skiprows=form.above + int(form.header), ndmin=2,
                                comments=None, encoding=form.encoding)  # fmt: skip
    except UnicodeDecodeError:
        raise
    except ValueError:
        return None
    if values.size == 0 or values.shape[1] != width or np.abs(values).max() > EXACT:
        return None
    return list(values.T)


def _cells(path: Path, form: TableForm, width: int) -> list[Cells]:
    """All columns as text; InputError names the first line of another length."""
    rows = []
    with open_text(path, form.encoding) as file:
        for number, row in _body(file, form):
            if len(row) != width:
                raise InputError(
                    f"{path}: line {number} has {len(row)} cells, the first line {width}"
                )
            rows.append(row)
    return [Cells.of(column) for column in zip(*rows[int(form.header) :], strict=True)]


def _body(file: io.TextIOBase | object, form: TableForm):  # noqa: ANN202
    """Pairs of a line's number, from 1, and its cells, the header among them."""
    for _ in range(form.above):
        next(file)  # type: ignore[call-overload]
    start, reader = form.above + 1, rows_of(file, form.sep)  # type: ignore[arg-type]
    for number, row in enumerate(reader, start):
        if row:
            yield number, row


def _typo(
    path: Path, form: TableForm, names: list[str], place: int, cell: str, reading: Reading
) -> str:
    line = _line_of(path, form, place, cell)
    if names[place] in reading.names("time"):
        return f"{path}: line {line}, column {names[place]!r} is {cell!r}, no time like the others"
    return (
        f"{path}: line {line}, column {names[place]!r} is {cell!r}, not a number like nearly all "
        f"others of that column; if it stands for a missing cell, --missing={cell}"
    )


def _line_of(path: Path, form: TableForm, place: int, cell: str) -> int:
    with open_text(path, form.encoding) as file:
        for number, row in _body(file, form):
            if len(row) > place and row[place].strip() == cell:
                return number
    return 0


def _only_numbers(path: Path, form: TableForm, data: Dataset, reading: Reading) -> None:
    """InputError names the first cell that is missing or no number."""
    odd = {
        j: field for j, field in enumerate(data.fields)
        if field.kind == "categorical" or field.has_missing
    }  # fmt: skip
    if not odd or all(
        field.missing == "nan" and field.kind == "numeric" for field in odd.values()
    ):
        return
    with open_text(path, form.encoding) as file:
        rows = _body(file, form)
        if form.header:
            next(rows)
        for number, row in rows:
            for j, field in odd.items():
                cell = row[j]
                gap = is_gap(cell.strip(), reading)
                if gap or (field.kind == "categorical" and not is_number(cell, form.decimal)):
                    name = repr(field.name) if form.header else str(j)
                    what = f"{cell!r}, not a number" if cell.strip() else "empty"
                    raise InputError(
                        f"{path}: line {number}, column {name} is {what}{NUMBERS_ONLY}"
                    )
    field = next(iter(odd.values()))
    raise InputError(f"{path}: column {field.name!r} holds text: {field.note}{NUMBERS_ONLY}")
