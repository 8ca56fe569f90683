"""Columns that name rows and say nothing about them: counters, keys, hashes, a frame's index.

Two rows never agree in such a column, whatever they hold, so it is set apart before rows are
compared. It is told from a measurement by what chance would do. Whole numbers that were measured
repeat: n of them drawn from a range of s values give n (n - 1) / 2s equal pairs or more, whatever
their law, and where at least PAIRS are expected, a column without one was counted, not measured
(a birthday bound: chance e^-PAIRS). Numbers with decimals, dates and times always stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.dates import is_time_name, times_of

MOST_COLUMNS = 2000  # a wider array is no table, and is not searched
LEAST = 20  # rows, below which being unique says nothing
UNIQUE = 0.95  # share of distinct cells among texts that are keys
PAIRS = 14.0  # equal pairs that chance would give
LARGEST = 2.0**53  # beyond, a double no longer holds every whole number
NAMED = re.compile(
    r"(unnamed: ?\d+(_level_\d+)?|__?index_level_\d+__?|index|idx|level_0|rowid|row|ids?|uuid|guid"
    r"|key|nr|no\.?|number|.*[_ .-](ids?|uuid|guid|key|nr|no|number|index|idx)"
    r"|ids?[_ .-].*|.*(?-i:[a-z](Id|ID|Key|Nr)))",
    re.IGNORECASE,
)
KEY = re.compile(
    r"\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?"  # a UUID
    r"|(?=.*\d)[0-9a-f]{16,128}",  # a hash
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Identifier:
    """A column that names rows: its name, its place from 0, and how it was told.

    >>> import numpy as np
    >>> from reverie.data import Identifier, identifier_columns, load
    >>> rng = np.random.default_rng(0)
    >>> table = np.rec.fromarrays([np.arange(100), rng.normal(size=100)], names="id,height")
    >>> (found,) = identifier_columns(load(table, keys=True))
    >>> isinstance(found, Identifier), found.name, found.place
    (True, 'id', 0)
    """

    name: str
    place: int
    why: str


def is_key_name(name: str) -> bool:
    """Whether a column is named as an index or a key: id, Unnamed: 0, patient_id, orderNr, ..."""
    return bool(NAMED.fullmatch(name.strip()))


def identifier_columns(*sets: Dataset) -> list[Identifier]:
    """The columns that name rows, in tables whose columns are aligned (training, held-out).

    Recognised are texts that hardly repeat (keys, hashes, free text), UUIDs and hashes however
    often, and whole numbers of which none repeats within a set and that are named as an index or
    id, or that would repeat if they were measured (see the module). Never all columns.

    >>> import numpy as np
    >>> from reverie.data import identifier_columns, load
    >>> rng = np.random.default_rng(0)
    >>> table = np.rec.fromarrays([np.arange(100), rng.normal(size=100)], names="id,height")
    >>> [(one.name, one.place) for one in identifier_columns(load(table, keys=True))]
    [('id', 0)]
    """
    first = sets[0]
    if first.kind not in ("table", "vectors") or first.values.ndim != 2:
        return []
    if min(map(len, sets)) == 0:
        return []
    if first.shape[0] > MOST_COLUMNS:
        return []
    found = []
    for j in range(first.shape[0]):
        why = _why(sets, j)
        if why is not None:
            name = first.fields[j].name if first.fields else first.name(j).removeprefix("column ")
            found.append(Identifier(name.strip("'"), j, why))
    return found if len(found) < first.shape[0] else []


def set_apart(sets: Sequence[Dataset]) -> tuple[list[Dataset], list[Identifier]]:
    """Aligned sets without the columns that name rows, which the first two of them tell.

    >>> import numpy as np
    >>> from reverie.data import load, set_apart
    >>> rng = np.random.default_rng(0)
    >>> table = np.rec.fromarrays([np.arange(100), rng.normal(size=100)], names="id,height")
    >>> (rest,), found = set_apart([load(table, keys=True)])
    >>> rest.columns, found[0].name
    (('height',), 'id')
    """
    found = identifier_columns(*sets[:2])
    if not found:
        return list(sets), []
    places = {column.place for column in found}
    kept = [j for j in range(sets[0].shape[0]) if j not in places]
    return [data.with_columns(kept) for data in sets], found


def identifier_sentence(found: Sequence[Identifier]) -> str:
    """One line that names them.

    >>> from reverie.data import Identifier, identifier_sentence
    >>> identifier_sentence([Identifier("id", 0, "whole numbers that never repeat")])
    'Set apart, for they name rows and are not compared: id (whole numbers that never repeat).'
    """
    named = ", ".join(f"{column.name} ({column.why})" for column in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"Set apart, for they name rows and are not compared: {named}{more}."


def _why(sets: Sequence[Dataset], place: int) -> str | None:
    field = sets[0].fields[place] if sets[0].fields else Column("")
    name = sets[0].columns[place] if sets[0].columns else field.name
    columns = [data.values[:, place] for data in sets]
    if field.role == "identifier":
        return "as said"
    if field.role or field.is_time:
        return None
    if field.kind == "categorical" and field.dtype in ("int64", "uint64"):
        return _why_text(sets, place, columns) or _why_beyond(columns)
    if field.kind == "categorical":
        return _why_text(sets, place, columns)
    whole = all(_is_whole(column) for column in columns)
    if not whole or max(map(len, columns)) < LEAST or is_time_name(name):
        return None
    columns = [column[np.isfinite(column)].astype(np.float64) for column in columns]
    if all(np.median(np.abs(column)) > LARGEST for column in columns):
        return "whole numbers beyond 2^53"
    if any(times_of(data, place) is not None for data in sets) or not all(map(_unique, columns)):
        return None
    if is_key_name(name):
        return "an index by its name, and no number of it repeats"
    if _counted(np.concatenate(columns)) or all(map(_counted, columns)):
        return "a counter: no number of it repeats, as measured ones would"
    return None


def _why_beyond(columns: list[np.ndarray]) -> str | None:
    """Whole numbers beyond 2^53 that hardly repeat: nobody measures to 16 digits."""
    codes = [column[~np.isnan(column)] for column in columns]
    once = all(len(np.unique(code)) >= UNIQUE * len(code) for code in codes)
    return "whole numbers beyond 2^53" if once and min(map(len, codes)) >= LEAST else None


def _why_text(sets: Sequence[Dataset], place: int, columns: list[np.ndarray]) -> str | None:
    data = sets[0]
    codes = [column[~np.isnan(column)].astype(np.int64) for column in columns]
    if min(map(len, codes)) == 0 or max(map(len, codes)) < LEAST:
        return None
    used = np.unique(np.concatenate(codes))
    texts = [data.fields[place].categories[code] for code in used]
    if len(texts) >= LEAST and sum(bool(KEY.fullmatch(t)) for t in texts) >= UNIQUE * len(texts):
        return "UUIDs or hashes"
    if any(len(np.unique(code)) < UNIQUE * len(code) for code in codes):
        return None
    if times_of(data, place) is not None:
        return None
    name = data.columns[place] if data.columns else data.fields[place].name
    codes_like = sum(any(c.isdigit() for c in t) and " " not in t for t in texts)
    if not is_key_name(name) and codes_like < UNIQUE * len(texts):
        return None  # words, which are compared by what they share
    return "texts that hardly repeat"


def _is_whole(values: np.ndarray) -> bool:
    if values.dtype.kind in "iu":
        return True
    here = values[~np.isnan(values)]
    return len(here) >= 0.95 * len(values) > 0 and bool((here == np.round(here)).all())


def _unique(values: np.ndarray) -> bool:
    return len(np.unique(values)) == len(values) > 1


def _counted(values: np.ndarray) -> bool:
    """Whether none repeats, though numbers measured on this range would (the module's bound)."""
    count = len(values)
    if count < LEAST or not _unique(values):
        return False
    return count * (count - 1) / 2 / (np.ptp(values) + 1) >= PAIRS
