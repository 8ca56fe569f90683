"""Columns that tell a time: dates and time stamps as text, Unix times, and numbers named so."""

from __future__ import annotations

import re

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.times import DAY_SECONDS, seconds_of

READABLE = 0.95  # share of the distinct texts that must be dates
UNIX_SECONDS = (5e8, 4e9)  # 1985 to 2096; in milliseconds, 1000 times that
WORDS = (
    "date|time|timestamp|datetime|year|month|day|hour|minute|week|quarter|epoch|datum|zeit|jahr|"
    "monat|created|updated|fecha|data_hora"
)
NAMED = re.compile(rf"^({WORDS})$|^({WORDS})[_ .-]|[_ .-]({WORDS}|at)$", re.IGNORECASE)
CAMEL = re.compile(r"[a-z](Date|Time|Timestamp|Year|Month|Day|At)$")


def is_time_name(name: str) -> bool:
    """Whether a column is named as one of times: date, created_at, Year, visitDate, ..."""
    return bool(NAMED.search(name.strip()) or CAMEL.search(name.strip()))


def times_of(data: Dataset, column: int) -> np.ndarray | None:
    """Times (n,) of a table's column, in days where it holds dates; None if it tells no time.

    Missing or unreadable cells are NaN. Numbers are times by the column's name, or when all of
    them are whole Unix seconds or milliseconds of the years 1985 to 2096.
    """
    field = data.fields[column] if data.fields else Column(data.name(column))
    values = data.values[:, column].astype(np.float64)
    if field.is_time:
        return values / DAY_SECONDS
    if field.kind == "categorical":
        days = days_of(field.categories)
        if days is None:
            return None
        here = ~np.isnan(values)
        times = np.full(len(values), np.nan)
        times[here] = days[values[here].astype(np.int64)]
        return times
    named = data.columns is not None and is_time_name(data.columns[column])
    return values if named or _unix(values) else None


def days_of(texts: tuple[str, ...]) -> np.ndarray | None:
    """Days (n,) of dates as text, NaN for the odd one; None if they are no dates.

    The forms are those of `data.times.seconds_of`.
    """
    if not texts:
        return None
    seconds = seconds_of(texts, texts)
    if seconds is None or np.isfinite(seconds).mean() < READABLE:
        return None
    return seconds / DAY_SECONDS


def _unix(values: np.ndarray) -> bool:
    here = values[np.isfinite(values)]
    if len(here) < 2 or not (here == np.round(here)).all() or len(np.unique(here)) < 2:
        return False
    low, high = here.min(), here.max()
    return any(UNIX_SECONDS[0] * f <= low and high <= UNIX_SECONDS[1] * f for f in (1, 1e3))
