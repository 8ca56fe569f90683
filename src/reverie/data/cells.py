"""The cells of one column of text: a number, a truth, a time, a category, or missing.

A column is what all of its cells are that are present. What stands for a missing cell is what
pandas takes for one, and `?`; numbers may be grouped by thousands, where all of them are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reverie.data.dataset import Column
from reverie.data.options import Reading
from reverie.data.stamps import read_times

MISSING_ANY_CASE = frozenset(("", "?", "na", "n/a", "nan", "null"))
MISSING = frozenset((
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "None", "NaT",
))  # fmt: skip
TRUTHS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"),
          ("nein", "ja"), ("non", "oui"), ("falsch", "wahr"))  # fmt: skip
LETTERS = 2  # words shorter than this tell a truth only beside their opposite
FILLED = 2  # digits of a number that is filled up with zeros; longer ones are codes
MOST_DECIMALS = 10
CHUNK = 2**14  # numbers that are rounded at a time
TYPOS = 0.05  # a column with at most this share of distinct cells that are no numbers is numeric
EXACT = 2**53  # beyond, a double no longer holds every whole number
NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE
)
GROUPED = {
    mark: re.compile(rf"[+-]?\d{{1,3}}(?:{re.escape(mark)}\d{{3}})*(?:[.,]\d+)?")
    for mark in (",", ".", " ", "'", "\u00a0", "\u202f", "\u2019")
}


@dataclass(frozen=True)
class Cells:
    """A column as it stands: its distinct texts, and which of them each row holds (n,)."""

    texts: Sequence[str]
    codes: np.ndarray

    @classmethod
    def of(cls, cells: Sequence[str]) -> Cells:
        """Texts in the order in which they first stand."""
        seen: dict[str, int] = {}
        codes = np.fromiter((seen.setdefault(c, len(seen)) for c in cells), np.int64, len(cells))
        return cls(tuple(seen), codes)

    def first_row(self, text: str) -> int:
        """The first row that holds a text."""
        return int(np.argmax(self.codes == list(self.texts).index(text)))


class TypoError(ValueError):
    """A cell that is no number in a column of numbers: the text of it."""


def is_missing(cell: str, words: Sequence[str] = ()) -> bool:
    """Whether a cell is empty, or holds a word for missing, of pandas' or of the user's."""
    if cell[-1:].isdigit():
        return cell in words
    return cell.lower() in MISSING_ANY_CASE or cell in MISSING or cell in words


def is_gap(cell: str, reading: Reading) -> bool:
    """Whether a cell is missing, also by a number that the user says stands for that."""
    return is_missing(cell, reading.missing) or _is_code(cell, reading)


def codes_of(reading: Reading) -> dict[float, str]:
    """The numbers that the user says stand for a missing cell, as he writes them."""
    return {float(word): word for word in reading.missing if NUMBER.fullmatch(word)}


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number as it stands, without groups."""
    if decimal == ",":
        if "." in cell:
            return False
        cell = cell.replace(",", ".", 1)
    return NUMBER.fullmatch(cell.strip()) is not None


def column_of(
    name: str, cells: Cells, reading: Reading, decimal: str = "."
) -> tuple[Column, np.ndarray]:
    """One column and its values (n,); TypoError where one cell is no number, the others are."""
    texts = [text.strip() for text in cells.texts]
    absent = [is_gap(text, reading) for text in texts]
    present = [text for text, gone in zip(texts, absent, strict=True) if not gone]
    missing = _missing_word(texts, absent, cells)
    field, known = _understood(name, list(dict.fromkeys(present)), reading, decimal)
    values = np.array(
        [np.nan if gone else known[t] for t, gone in zip(texts, absent, strict=True)]
    )
    column = values[cells.codes] if len(values) else np.empty(0)
    return replace(field, missing=missing), column


def number_column(name: str, values: np.ndarray, texts: Sequence[str]) -> Column:
    """A column whose cells are numbers; texts: some of them, as they are written, with a point."""
    parts = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    finite = [np.isfinite(part) for part in parts]  # in parts that stay in the processor's cache
    here = [p if f.all() else p[f] for p, f in zip(parts, finite, strict=True)]
    least, most = _decimals(here, texts)
    gaps = any(len(h) < len(p) and np.isnan(p).any() for h, p in zip(here, parts, strict=True))
    missing = "nan" if gaps else None  # a reader of numbers takes it for one
    return Column(
        name, dtype="int64" if most == 0 else "double", decimals=most,
        least_decimals=least if most != least else None, missing=missing,
    )  # fmt: skip


def _is_code(text: str, reading: Reading) -> bool:
    """Whether a number is one that the user says stands for a missing cell."""
    if not reading.missing or NUMBER.fullmatch(text) is None:
        return False
    return float(text) in codes_of(reading)


def _missing_word(texts: list[str], absent: list[bool], cells: Cells) -> str | None:
    """The word for missing that stands most often."""
    if not any(absent):
        return None
    counts = np.bincount(cells.codes, minlength=len(texts))
    return texts[int(np.argmax(np.where(absent, counts, -1)))]


def _understood(
    name: str, texts: list[str], reading: Reading, decimal: str
) -> tuple[Column, dict[str, float]]:
    """The column of these texts, and the value of each."""
    role = "identifier" if name in reading.names("id") else ""
    if name in reading.names("category"):
        return _category(name, texts, "category")
    if name in reading.names("time"):
        return _said_times(name, texts, reading, decimal)
    if not texts:
        return Column(name, dtype="double", role=role), {}
    found = _numbers(name, texts, decimal, role) or _truths(name, texts) or _times(name, texts)
    if found is None:
        odd = [text for text in texts if not is_number(text, decimal)]
        if role == "" and len(odd) <= TYPOS * len(texts):
            raise TypoError(odd[0])
        found = _category(name, texts, role)
    return replace(found[0], role=found[0].role or role), found[1]


def _category(name: str, texts: list[str], role: str = "") -> tuple[Column, dict[str, float]]:
    categories = sorted(texts)
    if all(NUMBER.fullmatch(text) for text in categories):
        categories.sort(key=float)
    known = {category: float(k) for k, category in enumerate(categories)}
    return Column(name, "categorical", tuple(categories), "string", role=role), known


def _numbers(
    name: str, texts: list[str], decimal: str, role: str
) -> tuple[Column, dict[str, float]] | None:
    if all(is_number(text, decimal) for text in texts):
        codes = any(_is_code_word(text) for text in texts)
        if codes and all(len(text) == FILLED and text.isdigit() for text in texts):
            field = Column(name, dtype="int64", decimals=0, filled=FILLED)  # months, hours
            return field, {text: float(text) for text in texts}
        if codes:
            note = "cells that begin with 0 are kept as text, as codes are"
            field, known = _category(name, texts, role)
            return replace(field, note=note), known
        plain = [text.replace(decimal, ".") if decimal != "." else text for text in texts]
        if any(_is_beyond(text) for text in plain):
            field, known = _category(name, texts, role)
            note = "whole numbers beyond 2^53 are kept as text, digit by digit"
            return replace(field, dtype="int64" if _fits_int64(plain) else "string",
                           note=note), known  # fmt: skip
        known = {text: float(number) for text, number in zip(texts, plain, strict=True)}
        field = number_column(name, np.array(list(known.values())), plain)
        return replace(field, decimal=decimal), known
    for mark, pattern in GROUPED.items():
        if mark == decimal or not any(mark in text for text in texts):
            continue
        if all(pattern.fullmatch(text) for text in texts):
            plain = [text.replace(mark, "").replace(decimal, ".") for text in texts]
            if not all(NUMBER.fullmatch(text) for text in plain):
                continue
            known = {text: float(number) for text, number in zip(texts, plain, strict=True)}
            field = number_column(name, np.array(list(known.values())), plain)
            return replace(field, decimal=decimal, thousands=mark), known
    return None


def _is_code_word(text: str) -> bool:
    """Whether a cell is a code with zeros in front, which a number would lose."""
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits.isdigit()


def _is_beyond(text: str) -> bool:
    digits = text.lstrip("+-")
    return len(digits) > 15 and digits.isdigit() and int(digits) > EXACT


def _fits_int64(texts: list[str]) -> bool:
    return all(text.lstrip("-").isdigit() and -(2**63) <= int(text) < 2**63 for text in texts)


def _truths(name: str, texts: list[str]) -> tuple[Column, dict[str, float]] | None:
    """True and false, or yes and no, in whatever letters; 1 and 0 beside them count too."""
    letters = {text.lower() for text in texts} - {"0", "1"}
    for pair in TRUTHS:
        if not letters or not letters <= set(pair):
            continue
        if len(pair[0]) < LETTERS and len(letters) < 2:
            continue
        known = {text: float(text.lower() in (pair[1], "1")) for text in texts}
        words = []
        for truth in (0.0, 1.0):
            own = [text for text in texts if known[text] == truth and text not in "01"]
            words.append(own[0] if own else _in_case(pair[int(truth)], texts))
        return Column(name, dtype="bool", decimals=0, words=tuple(words)), known
    return None


def _in_case(word: str, texts: list[str]) -> str:
    like = next(text for text in texts if text not in "01")
    return word.upper() if like.isupper() else word.title() if like[0].isupper() else word


def _times(name: str, texts: list[str]) -> tuple[Column, dict[str, float]] | None:
    times = read_times(texts)
    if times is None:
        return None
    note = ""
    if times.either:
        note = (
            f"{texts[0]} is read as {times.form}, though {times.either} fits as well; "
            f"--time '{name}={times.either}' reads it so"
        )
    known = dict(zip(texts, times.seconds.tolist(), strict=True))
    return Column(name, dtype=times.dtype, form=times.form, note=note, role="time"), known


def _said_times(
    name: str, texts: list[str], reading: Reading, decimal: str
) -> tuple[Column, dict[str, float]]:
    """A column that the user says holds times."""
    form = reading.time_form(name)
    times = read_times(texts, form)
    if times is not None:
        known = dict(zip(texts, times.seconds.tolist(), strict=True))
        return Column(name, dtype=times.dtype, form=times.form, role="time"), known
    odd = [text for text in texts if read_times([text], form) is None]
    found = None if form else _numbers(name, texts, decimal, "time")
    if found is None:
        raise TypoError(odd[0] if odd else texts[0])
    return replace(found[0], role="time"), found[1]


def _decimals(parts: Sequence[np.ndarray], texts: Sequence[str]) -> tuple[int | None, int | None]:
    """Fewest and most digits after the point: those written, or more if values need them."""
    written = [len(text.partition(".")[2]) for text in texts]
    if not written or any("e" in text.lower() for text in texts):
        return None, None
    most = max(written)
    for part in parts:
        while not _holds_in(part, most):
            most += 1
            if most > MOST_DECIMALS:
                return None, None
    return (min(written), most) if most <= MOST_DECIMALS else (None, None)


def _holds_in(values: np.ndarray, decimals: int) -> bool:
    """Whether rounding to so many digits after the point changes no value."""
    if decimals == 0:
        return bool((np.rint(values) == values).all())
    with np.errstate(over="ignore", invalid="ignore"):  # no-data values near the largest double
        return bool((np.round(values, decimals) == values).all())
