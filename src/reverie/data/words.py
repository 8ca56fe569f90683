"""Text as rows of symbols: every line is a row, every place in it a site.

Shorter lines are filled up with spaces on the right, which are dropped when they are written.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.errors import InputError
from reverie.files import write_text

PAD = " "
LONGEST = 4096


def read_words(path: Path) -> Dataset:
    """Read the lines of a UTF-8 text that are not blank, as indices into its letters.

    Raises InputError on text that is not UTF-8, has no lines, or a line of over 4,096 letters.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    words = [line.rstrip() for line in lines if line.strip()]
    if not words:
        raise InputError(f"{path} holds no line of text")
    longest = max(map(len, words))
    if longest > LONGEST:
        raise InputError(
            f"{path} has a line of {longest:,} letters; a line is one row, of at most {LONGEST:,}"
        )
    return words_as_rows(words, str(path))


def words_as_rows(words: list[str], source: str) -> Dataset:
    """Words as rows of a Dataset of kind "text"."""
    longest = max(map(len, words))
    grid = np.array([list(word.ljust(longest, PAD)) for word in words])
    letters, codes = np.unique(grid, return_inverse=True)
    alphabet = tuple(map(str, letters))
    if PAD not in alphabet:  # all words have one length, but others to come may not
        alphabet, codes = (PAD, *alphabet), codes + 1
    fields = tuple(Column(str(j), "categorical", alphabet, dtype="string") for j in range(longest))
    return Dataset(codes.reshape(grid.shape).astype(np.float64), "text", source, fields=fields)


def words_of(values: np.ndarray, alphabet: list[str] | tuple[str, ...]) -> list[str]:
    """The words (n,) of rows of indices (n, sites)."""
    letters = np.asarray(alphabet)
    return ["".join(row).rstrip(PAD) for row in letters[values.astype(np.int64)]]


def lengthened(data: Dataset, sites: int) -> Dataset:
    """The same text with at least so many sites."""
    more = sites - data.shape[0]
    if more <= 0:
        return data
    alphabet = data.fields[0].categories
    pad = np.full((len(data), more), alphabet.index(PAD), dtype=np.float64)
    extra = tuple(replace(data.fields[0], name=str(j)) for j in range(data.shape[0], sites))
    return replace(
        data, values=np.concatenate([data.values, pad], 1), fields=(*data.fields, *extra)
    )


def write_words(path: Path, values: np.ndarray, alphabet: list[str]) -> Path:
    """Write rows of indices as lines of text, atomically."""
    return write_text(path, "\n".join(words_of(values, alphabet)) + "\n")
