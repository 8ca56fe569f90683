"""Tables of text read by pyarrow: numbers at once, all other columns as their distinct texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.cells import EXACT, MISSING, MISSING_ANY_CASE, Cells, is_missing, is_number
from reverie.data.dataset import TableForm, empty_rows
from reverie.data.sniffing import open_bytes

BLOCK = 2**20  # bytes that are read at a time, small enough for the processor's cache,
LONG = 16  # and at least so many times the longest of the first rows
SEARCHED, CACHED = 2**22, 2**17  # bytes that are read, and searched, at a time
ZERO = ord("0")
WORDS = sorted(MISSING | {f(w) for w in MISSING_ANY_CASE for f in (str, str.upper, str.title)}
               | {"NaN", "N/A"})  # fmt: skip


def arrow_columns(
    path: Path, form: TableForm, width: int, sample: list[list[str]]
) -> list[np.ndarray | Cells] | None:
    """Every column (n,) as numbers, or as texts; None where this reader cannot tell the table.

    sample: the first rows, header left out, which tell what a column is thought to be. Numbers
    are taken as such only if they are exact: whole ones within 2^53, and without zeros in front
    in any row, as codes have.
    NaN is a missing cell, of which the sample has one.
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
    columns = [list({row[j]: None for row in sample}) for j in range(width)]
    columns = [[cell.strip() for cell in cells] for cells in columns]
    kinds = {n: _kind(pyarrow, c, form.decimal) for n, c in zip(names, columns, strict=True)}
    gaps = {n: list(filter(is_missing, c)) for n, c in zip(names, columns, strict=True)}
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    has_quotes = _holds_quote(path)
    block = max(BLOCK, LONG * max(sum(map(len, row)) + 4 * len(row) for row in sample))
    try:
        seen = sorted({cell for cells in gaps.values() for cell in cells})
        table = None
        # a column may not be what its first rows say: then look closer, which takes longer
        for types, words in ((kinds, seen), (kinds, WORDS), (dict.fromkeys(names, text), [])):
            if table is None:
                table = _read(csv, path, form, types, has_quotes, words, block)
        if table is None or table.num_rows == 0:
            return None
        parts = {n: table.column(n) for n in names}
        whole = [n for n in names if pyarrow.types.is_integer(table.schema.field(n).type)]
        again = [
            n for n in names
            if table.schema.field(n).type != text
            and not _is_exact(pyarrow, parts[n], bool(gaps[n]))
        ]  # fmt: skip
        whole = [n for n in whole if n not in again]
        if whole and _holds_zeros(path, form, "0" in whole, has_quotes):
            texts = dict.fromkeys(names, pyarrow.string())
            plain = _read(csv, path, form, texts, has_quotes, [], block, whole)
            again += [n for n in whole if _has_codes(compute, plain.column(n))]
        if again:
            texts = dict.fromkeys(names, text)
            reread = _read(csv, path, form, texts, has_quotes, [], block, again)
            parts |= {n: reread.column(n) for n in again}
    except (pyarrow.ArrowException, UnicodeDecodeError):
        return None
    rows = empty_rows(table.num_rows, width)
    return [
        _texts(column) if column.type == text else _numbers(column, rows[:, j])
        for j, column in enumerate(parts.values())
    ]


def _kind(pyarrow: Any, cells: Sequence[str], decimal: str) -> Any:
    """The Arrow type that a column has by its first rows."""
    present = [cell for cell in cells if not is_missing(cell)]
    if not present or not all(is_number(cell, decimal) for cell in present):
        return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    whole = all(cell.lstrip("-").isdigit() for cell in present)
    return pyarrow.int64() if whole else pyarrow.float64()


def _read(
    csv: Any, path: Path, form: TableForm, types: dict[str, Any], quoted: bool,
    words: list[str], block: int, only: list[str] | None = None,
) -> Any:  # fmt: skip
    """The table, of all columns or of those alone; None where a cell is not of its type."""
    import pyarrow

    encoding = "utf-8" if form.encoding == "utf-8-sig" else form.encoding
    packed = path.suffix.lower() == ".gz"
    source = open_bytes(path) if packed else str(path)
    skipped = form.above + int(form.header)
    try:
        return csv.read_csv(
            source,
            csv.ReadOptions(column_names=list(types), encoding=encoding, block_size=block,
                            skip_rows=skipped),
            csv.ParseOptions(delimiter=form.sep, quote_char='"', newlines_in_values=quoted),
            csv.ConvertOptions(column_types=types, include_columns=only or [], null_values=words,
                               strings_can_be_null=False, decimal_point=form.decimal),
        )  # fmt: skip
    except pyarrow.ArrowInvalid as error:
        if "conversion error" in str(error):
            return None
        raise
    finally:
        if packed:
            source.close()  # type: ignore[union-attr]


def _is_exact(pyarrow: Any, column: Any, has_gaps: bool) -> bool:
    """Whether numbers are exact as doubles, and none is missing that the sample does not have."""
    if column.null_count and not has_gaps:
        return False
    ends: list[Any] = [np.nan]
    if pyarrow.types.is_floating(column.type) and not column.null_count:
        parts = [chunk.to_numpy() for chunk in column.chunks if len(chunk)]
        ends = [end for part in parts for end in (part.min(), part.max())]  # quicker than Arrow's
    if np.isnan(ends).any():
        known = pyarrow.compute.min_max(column).values()
        ends = [end.as_py() for end in known if end.as_py() is not None]
    return bool(ends) and max(map(abs, ends)) <= EXACT


def _has_codes(compute: Any, column: Any) -> bool:
    """Whether a cell of a column of texts begins with a zero and a further digit."""
    found = compute.match_substring_regex(column, r"^\s*[+-]?0\d")
    return bool(compute.any(found).as_py())


def _holds_quote(path: Path) -> bool:
    """Whether a cell of a file, unpacked, may stand in quotes."""
    return any(block.find(b'"') >= 0 for block in _blocks(path))


def _holds_zeros(path: Path, form: TableForm, first: bool, quoted: bool) -> bool:
    """Whether a cell begins with a zero and a further digit; first: also one that begins a line.

    Marks of one byte are sought in many bytes at once, which is quicker than a pattern.
    """
    sep = form.sep.encode(form.encoding)
    marks = [sep[-1], *(b"\n" if first else b""), *(b'"' if quoted else b"")]
    ends = b"\n\n"
    for block in _blocks(path):
        if _zero_after(np.frombuffer(ends + block[:2], np.uint8), marks):
            return True
        codes = np.frombuffer(block, np.uint8)
        parts = range(0, len(codes), CACHED)
        if any(_zero_after(codes[start : start + CACHED + 2], marks) for start in parts):
            return True
        ends = block[-2:]
    return False


def _zero_after(codes: np.ndarray, marks: Sequence[int]) -> bool:
    """Whether in bytes (n,) a mark, a zero and a digit follow one another."""
    here = (codes[1:-1] == ZERO) & (codes[2:] - ZERO < 10)  # what lies below 0 is large
    if not here.any():
        return False
    begun = codes[:-2] == marks[0]
    for mark in marks[1:]:
        begun |= codes[:-2] == mark
    return bool((here & begun).any())


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked, a block after another."""
    with open_bytes(path) as file:
        while block := file.read(SEARCHED):
            yield block


def _numbers(column: Any, room: np.ndarray) -> np.ndarray:
    """The numbers of a column in their room among the rows: large tables are not copied twice."""
    start = 0
    for chunk in column.chunks:
        room[start : start + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
        start += len(chunk)
    return room


def _texts(column: Any) -> Cells:
    coded = column.combine_chunks()
    coded = coded.combine_chunks() if hasattr(coded, "num_chunks") else coded
    codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Cells(coded.dictionary.to_pylist(), codes)
