"""Tables of text read by pyarrow: numbers at once, all other columns as their distinct texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.cells import EXACT, Cells
from reverie.data.dataset import TableForm
from reverie.data.sniffing import open_bytes

BLOCK = 2**24
LEADING = 2**24  # bytes searched at a time for zeros in front of a number


def arrow_columns(
    path: Path, form: TableForm, width: int, sample: list[list[str]]
) -> list[np.ndarray | Cells] | None:
    """Every column (n,) as numbers, or as texts; None where this reader cannot tell the table.

    Numbers are taken as such only if they are exact: whole ones within 2^53 and without zeros in
    front; a column with missing cells, dates or truths is texts.
    """
    try:
        import pyarrow
        from pyarrow import compute, csv
    except ImportError:
        return None
    if form.sep == " " or form.encoding.startswith("utf-16") or form.encoding == "utf-32":
        return None
    if form.quoted and any(cell != cell.strip() for row in sample for cell in row):
        return None
    names = [str(j) for j in range(width)]
    try:
        table = _read(pyarrow, csv, path, form, names, {})
        texts = [
            name for name, column in zip(names, table.columns, strict=True)
            if not _is_exact(pyarrow, compute, column)
        ]  # fmt: skip
        whole = [n for n in names if n not in texts and pyarrow.types.is_integer(
            table.schema.field(n).type)]  # fmt: skip
        if whole and _has_leading_zeros(path, form):
            texts += whole
        string = pyarrow.string()
        again = [n for n in texts if table.schema.field(n).type != string]
        parts = {n: table.column(n) for n in names if n not in again}
        if again:
            reread = _read(pyarrow, csv, path, form, names, dict.fromkeys(names, string), again)
            parts |= {n: reread.column(n) for n in again}
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError, UnicodeDecodeError):
        return None
    if table.num_rows == 0:
        return None
    return [_texts(parts[n]) if n in texts else parts[n].cast("double").to_numpy() for n in names]


def _read(
    pyarrow: Any, csv: Any, path: Path, form: TableForm, names: list[str], types: dict[str, Any],
    only: list[str] | None = None,
) -> Any:  # fmt: skip
    """The table, of all columns or of those alone; numbers are inferred where no type is given."""
    encoding = "utf-8" if form.encoding == "utf-8-sig" else form.encoding
    with open_bytes(path) as file:
        return csv.read_csv(
            file,
            csv.ReadOptions(column_names=names, encoding=encoding, block_size=BLOCK,
                            skip_rows=form.above + int(form.header)),
            csv.ParseOptions(delimiter=form.sep, quote_char='"', newlines_in_values=True),
            csv.ConvertOptions(column_types=types, include_columns=only or [], null_values=[],
                               true_values=[], false_values=[], strings_can_be_null=False,
                               timestamp_parsers=[], decimal_point=form.decimal),
        )  # fmt: skip


def _is_exact(pyarrow: Any, compute: Any, column: Any) -> bool:
    """Whether a column holds numbers, all of them present and exact as doubles."""
    kind = column.type
    if column.null_count or not (
        pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
    ):
        return False
    least, most = compute.min_max(column).values()
    ends = [float(end.as_py()) for end in (least, most) if end.as_py() is not None]
    return bool(ends) and max(map(abs, ends)) <= EXACT


def _has_leading_zeros(path: Path, form: TableForm) -> bool:
    """Whether some cell begins with a zero and a further digit."""
    before = b'%b\n\r"' % form.sep.encode(form.encoding)
    tail = b"\n"
    with open_bytes(path) as file:
        while block := file.read(LEADING):
            codes = np.frombuffer(tail + block, np.uint8)
            zero = np.flatnonzero(codes[1:-1] == ord("0")) + 1
            digit = (codes[zero + 1] >= ord("0")) & (codes[zero + 1] <= ord("9"))
            zero = zero[digit]
            if np.isin(codes[zero - 1], np.frombuffer(before, np.uint8)).any():
                return True
            tail = (tail + block)[-2:]
    return False


def _texts(column: Any) -> Cells:
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if hasattr(coded, "combine_chunks") else coded
    codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Cells(coded.dictionary.to_pylist(), codes)
