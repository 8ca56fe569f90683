"""Excel workbooks (extra `excel`): the first sheet, or FILE.xlsx:SHEET."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

from reverie.data.databases import table_of_values
from reverie.data.dataset import Dataset
from reverie.data.options import Reading
from reverie.errors import InputError


def read_excel(path: Path, sheet: str, reading: Reading) -> Dataset:
    """The rows of a sheet as values; empty rows and columns around the table are left out."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError("reading .xlsx needs the extra: pip install 'reverie[excel]'") from error
    try:
        book = openpyxl.load_workbook(
            io.BytesIO(path.read_bytes()), read_only=True, data_only=True
        )
        names = book.sheetnames
        if sheet and sheet not in names:
            raise InputError(f"{path} has no sheet {sheet!r}; it has {', '.join(names)}")
        rows = [list(row) for row in book[sheet or names[0]].iter_rows(values_only=True)]
        book.close()
    except InputError:
        raise
    except Exception as error:  # its reader fails in many ways on damaged files
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not an Excel workbook ({line})") from error
    rows = [[_plain(value) for value in row] for row in rows if any(v is not None for v in row)]
    if not rows:
        raise InputError(f"{path} has an empty sheet")
    width = max(j + 1 for row in rows for j, v in enumerate(row) if v is not None)
    start = min(j for row in rows for j, v in enumerate(row) if v is not None)
    rows = [(row + [None] * width)[start:width] for row in rows]
    header = _is_header(rows) if reading.header is None else reading.header
    names = [str(v) if v is not None else f"column {j}" for j, v in enumerate(rows[0])]
    names = names if header else [str(j) for j in range(len(rows[0]))]
    body = rows[int(header) :]
    if not body:
        raise InputError(f"{path} has a header but no rows")
    return table_of_values(names, list(zip(*body, strict=True)), str(path), reading)


def _plain(value: object) -> object:
    """Whole numbers that a workbook keeps as floats as they are shown, dates without midnight."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date()
    return value


def _is_header(rows: list[list[object]]) -> bool:
    return all(isinstance(value, str) for value in rows[0] if value is not None)
