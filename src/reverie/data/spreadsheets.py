"""Excel workbooks (extra `excel`): the first sheet, or FILE.xlsx:SHEET, and written with one."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.databases import table_of_values
from reverie.data.dataset import Column, Dataset
from reverie.data.options import Reading
from reverie.errors import InputError
from reverie.files import write_bytes

EPOCH = datetime.datetime(1970, 1, 1)
SHOWN_TIME = "yyyy-mm-dd hh:mm:ss"


def read_excel(path: Path, sheet: str, reading: Reading) -> Dataset:
    """The rows of a sheet as values; empty rows and columns around the table are left out."""
    openpyxl = _openpyxl("reading")
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


def write_excel(path: Path, values: np.ndarray, fields: Sequence[Column]) -> Path:
    """Write rows (n, d) as a sheet: numbers, truths and dates as such, all else as text, never a
    formula."""
    openpyxl = _openpyxl("writing")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("samples")
    cell = openpyxl.cell.WriteOnlyCell
    columns = [_cells(f, values[:, j], cell, sheet) for j, f in enumerate(fields)]
    sheet.append([_text(cell(sheet), field.name) for field in fields])
    for row in zip(*columns, strict=True):
        sheet.append(row)
    return write_bytes(path, book.save)


def _openpyxl(doing: str) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(f"{doing} .xlsx needs the extra: pip install 'reverie[excel]'") from error
    return openpyxl


def _cells(field: Column, values: np.ndarray, cell: Any, sheet: Any) -> list[Any]:
    """The cells (n,) of one column; None is an empty one."""
    if field.kind == "categorical" or (field.is_time and not field.dtype.startswith(DAYS)):
        return [None if np.isnan(v) else _text(cell(sheet), field.text(v)) for v in values]
    return [None if np.isnan(v) else _typed(field, float(v), cell, sheet) for v in values]


DAYS = ("date", "timestamp")


def _typed(field: Column, value: float, cell: Any, sheet: Any) -> Any:
    if field.is_time:
        made = cell(sheet, EPOCH + datetime.timedelta(seconds=value))
        day = field.dtype.startswith("date")
        made.number_format = SHOWN_TIME.split()[0] if day else SHOWN_TIME
        return made
    if field.dtype == "bool":
        return bool(value)
    return round(value) if field.decimals == 0 and np.isfinite(value) else value


def _text(cell: Any, text: str) -> Any:
    """A cell of text, also where it begins as a formula does."""
    cell.value = text
    cell.data_type = "s"
    return cell


def _plain(value: object) -> object:
    """Whole numbers that a workbook keeps as floats as they are shown, dates without midnight."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date()
    return value


def _is_header(rows: list[list[object]]) -> bool:
    return all(isinstance(value, str) for value in rows[0] if value is not None)
