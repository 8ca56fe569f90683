"""What a table of text is written in: its encoding, what parts its cells, and its first line.

Everything is told from the first thousand lines. A mark parts the cells if every line has the same
number of them, two or more. The first line names the columns when none of its cells is a number,
or when it has text above numbers or dates; numbers alone do when they count up (0, 1, 2, or years)
and are not like what stands below. Where it could have been otherwise, the form says so.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from reverie.data.cells import GROUPED, is_missing, is_number
from reverie.data.dataset import TableForm
from reverie.data.options import Reading
from reverie.data.stamps import read_times
from reverie.errors import InputError

SAMPLE_LINES, SAMPLE_BYTES = 1000, 2**20
MARKS = ("\t", ";", "|", ",")  # in this order where several part all lines alike
BLANK = re.compile(r"[ \t]+")
PLAIN = {mark: re.compile(rf"[+-]?\d+{re.escape(mark)}\d+([eE][+-]?\d+)?") for mark in (",", ".")}
WITH_GROUPS = {
    mark: re.compile(rf"[+-]?\d{{1,3}}({re.escape(other)}\d{{3}})+{re.escape(mark)}\d+")
    for mark, other in ((",", "."), (".", ","))
}
LONG_ROW = 5  # counting numbers that are no chance
LEAST_ROWS = 3  # below a first line of numbers, or nothing is known of it
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def open_text(path: Path, encoding: str) -> IO[str]:
    """A text file, gzipped or not, with its line ends as they are."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", newline="", encoding=encoding)
    return path.open(newline="", encoding=encoding)


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, gzipped or not."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def rows_of(file: IO[str], sep: str) -> Iterator[list[str]]:
    """The cells of each line; `sep` " " is any run of blanks."""
    if sep != " ":
        return csv.reader(file, delimiter=sep, skipinitialspace=sep != "\t")
    lines = (BLANK.sub(" ", line.strip(" \t\r\n")) + "\n" for line in file)
    return (row for row in csv.reader(lines, delimiter=" ") if row)


def sniff(path: Path, reading: Reading) -> tuple[TableForm, list[list[str]]]:
    """The form of a file, and the cells of its first lines, those above left out."""
    encoding = reading.encoding or _encoding(path)
    with open_text(path, encoding) as file:
        text = "".join(itertools.islice(file, SAMPLE_LINES))[:SAMPLE_BYTES]
    above, text = _above(text)
    cut = len(text) == SAMPLE_BYTES
    if "\0" in text:
        raise InputError(f"{path} is no table of text: it holds bytes of zero")
    sep = reading.sep or _separator(text, path)
    rows = [row for row in rows_of(io.StringIO(text, newline=""), sep) if row]
    rows = rows[:-1] if cut and len(rows) > 1 else rows
    decimal = reading.decimal or _decimal(rows, sep)
    header, why = (reading.header, "") if reading.header is not None else _header(rows, decimal)
    form = TableForm(sep, decimal, encoding, above, header, why, '"' in text)
    return form, rows


def _encoding(path: Path) -> str:
    """UTF-8, what a byte order mark says, or else Latin-1 as Windows has it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        head = file.read(4)
        for mark, name in ENCODINGS:
            if head.startswith(mark):
                return name
        try:
            decoder.decode(head)
            while block := file.read(2**22):
                if decoder.getstate()[0] or not block.isascii():
                    decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _latin(path)
    return "utf-8"


def _latin(path: Path) -> str:
    """Windows' Latin-1 where the file has its letters, else Latin-1; InputError on no text."""
    with open_bytes(path) as file:
        block = file.read(2**22)
    controls = sum(block.count(bytes([k])) for k in (*range(9), *range(14, 32)))
    if controls > len(block) / 1000:
        raise InputError(f"{path} is not UTF-8 text, nor text of any kind that is known")
    try:
        block.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _above(text: str) -> tuple[int, str]:
    """How many lines stand on top that are blank or begin with #, and the text below them."""
    above, start = 0, 0
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            break
        above, start = above + 1, start + len(line)
    return above, text[start:]


def _separator(text: str, path: Path) -> str:
    counts = {mark: _counts(text, mark) for mark in MARKS if mark in text}
    named = path.name.lower().removesuffix(".gz").endswith(".tsv")
    if named and "\t" in counts:
        return "\t"
    even = [mark for mark, found in counts.items() if len(set(found)) == 1 and found[0] > 1]
    if even:
        return even[0]
    blanks = _counts(text, " ")
    if len(set(blanks)) == 1 and blanks[0] > 1 and _mostly_numbers(text):
        return " "
    # uneven everywhere: the mark that parts most lines alike, so that the odd line can be named
    alike = {m: max(map(found.count, set(found) - {1}), default=0) for m, found in counts.items()}
    best = max(alike, key=lambda mark: alike[mark], default=",")
    most = max(blanks.count(k) for k in set(blanks)) if blanks else 0
    if alike.get(best, 0) <= len(blanks) / 2 < most and _mostly_numbers(text):
        return " " if max(set(blanks), key=blanks.count) > 1 else best
    return best


def _counts(text: str, sep: str) -> list[int]:
    try:
        rows = [len(row) for row in rows_of(io.StringIO(text, newline=""), sep) if row]
    except csv.Error:
        return []
    return rows[:-1] if len(rows) > 1 and not text.endswith(("\n", "\r")) else rows


def _mostly_numbers(text: str) -> bool:
    cells = [c for row in rows_of(io.StringIO(text, newline=""), " ") for c in row]
    return sum(is_number(c) or is_number(c, ",") for c in cells) > len(cells) / 2


def _decimal(rows: list[list[str]], sep: str) -> str:
    """The decimal mark: a comma where cells tell it and none tells a point."""
    commas = {cell.strip() for row in rows for cell in row if "," in cell}
    points = (cell.strip() for row in rows for cell in row if "." in cell)
    if not commas:
        return "."
    told = {",": any(_tells(c, ",") for c in commas), ".": any(_tells(c, ".") for c in points)}
    if told[","] != told["."]:
        return "," if told[","] else "."
    # 1,234 alone: a decimal comma where commas do not part the cells
    unclear = any(re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell) for cell in commas)
    return "," if unclear and sep == ";" and not told["."] else "."


def _tells(cell: str, mark: str) -> bool:
    """Whether a cell is a number with this decimal mark, and cannot be one with groups."""
    if PLAIN[mark].fullmatch(cell):
        return GROUPED[mark].fullmatch(cell) is None or not _may_be_groups(cell, mark)
    return WITH_GROUPS[mark].fullmatch(cell) is not None


def _may_be_groups(cell: str, mark: str) -> bool:
    head, _, tail = cell.lstrip("+-").partition(mark)
    return len(tail) == 3 and tail.isdigit() and not head.startswith("0") and len(head) <= 3


def _header(rows: list[list[str]], decimal: str) -> tuple[bool, str]:
    """Whether the first line names the columns, and why, where it could have been otherwise."""
    first, rest = [c.strip() for c in rows[0]] if rows else [], rows[1:]
    rest = [row for row in rest if len(row) == len(first)]
    numbers = [is_number(cell, decimal) for cell in first]
    if not any(numbers):
        return not _recurs(first, rest), ""
    if not rest or any(is_missing(cell) for cell in first):
        return False, ""
    columns = [[row[j].strip() for row in rest] for j in range(len(first))]
    kinds = [_kind(column, decimal) for column in columns]
    above = [not n and kind != "text" for n, kind in zip(numbers, kinds, strict=True)]
    values = np.array([float(c.replace(decimal, ".")) for c, n in zip(first, numbers) if n])  # noqa: B905
    below = [
        np.array([float(c.replace(decimal, ".")) for c in column if is_number(c, decimal)])
        for column, n in zip(columns, numbers, strict=True)
        if n
    ]
    counts = len(values) > 1 and bool((np.diff(values) == 1).all())
    unlike = _unlike(values, below)
    if any(above) and (counts or unlike.all() or len(values) < sum(above)):
        return True, "the first line names the columns, for it has text above numbers"
    apart = unlike.mean() >= 0.8 and bool((np.diff(values) > 0).all()) and len(values) > 1
    whole = all(bool((column == np.round(column)).all()) for column in below)
    if counts and len(rest) >= LEAST_ROWS:
        if whole and _others_count(rest, decimal):
            return False, ""
        if not whole or unlike.mean() >= 0.5 or len(values) >= LONG_ROW:
            return True, "the first line counts up, unlike the others: it names the columns"
        return False, "the first line counts up, but is like the others: it is a row"
    if apart and not all(numbers):
        return True, "the first line names the columns: its numbers lie outside of theirs"
    return False, ""


def _recurs(first: list[str], rest: list[list[str]]) -> bool:
    """Whether every cell of the first row stands again below it: then it is a row of text."""
    return len(rest) > 0 and all(
        cell in {row[j].strip() for row in rest} for j, cell in enumerate(first)
    )


def _kind(cells: Sequence[str], decimal: str) -> str:
    present = [cell for cell in dict.fromkeys(cells) if not is_missing(cell)]
    if present and all(is_number(cell, decimal) for cell in present):
        return "number"
    return "time" if present and read_times(present) is not None else "text"


def _unlike(values: np.ndarray, below: list[np.ndarray]) -> np.ndarray:
    """Which numbers lie outside of their columns by more than these reach."""
    found = []
    for value, column in zip(values, below, strict=True):
        if len(column) == 0:
            found.append(False)
            continue
        low, high = column.min(), column.max()
        reach = max(high - low, 1e-300)
        found.append(bool(value > high + reach or value < low - reach))
    return np.array(found)


def _others_count(rows: list[list[str]], decimal: str) -> bool:
    for row in rows:
        cells = [cell.replace(decimal, ".") for cell in row if is_number(cell, decimal)]
        if len(cells) > 1 and (np.diff([float(cell) for cell in cells]) == 1).all():
            return True
    return False
