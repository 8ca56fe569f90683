"""Columns that tell a time: dates and time stamps as text, Unix times, and numbers named so."""

from __future__ import annotations

import re

import numpy as np

from reverie.data.dataset import Column, Dataset

READABLE = 0.95  # share of the distinct texts that must be dates
UNIX_SECONDS = (5e8, 4e9)  # 1985 to 2096; in milliseconds, 1000 times that
WORDS = (
    "date|time|timestamp|datetime|year|month|day|hour|minute|week|quarter|epoch|datum|zeit|jahr|"
    "monat|created|updated|fecha|data_hora"
)
NAMED = re.compile(rf"^({WORDS})$|^({WORDS})[_ .-]|[_ .-]({WORDS}|at)$", re.IGNORECASE)
CAMEL = re.compile(r"[a-z](Date|Time|Timestamp|Year|Month|Day|At)$")

CLOCK = r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?"
YEAR_FIRST = re.compile(rf"(\d{{4}})[-/.](\d{{1,2}})(?:[-/.](\d{{1,2}}))?{CLOCK}")
YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){CLOCK}")


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
    """Days (n,) since the year 0 of dates as text, NaN for the odd one; None if they are no dates.

    Read are 2024-01-31, 2024/1/31, 2024-01, 31.01.2024, 31/01/2024 and 01/31/2024, with or
    without a time of day. Where day and month could be either, the day stands first unless a text
    of the column says otherwise.
    """
    if not texts:
        return None
    first = [YEAR_FIRST.fullmatch(text.strip()) for text in texts]
    last = [YEAR_LAST.fullmatch(text.strip()) for text in texts]
    found = sum(a is not None or b is not None for a, b in zip(first, last, strict=True))
    if found < READABLE * len(texts):
        return None
    month_first = any(m and int(m[3]) > 12 for m in last)
    days = np.full(len(texts), np.nan)
    for k, (a, b) in enumerate(zip(first, last, strict=True)):
        if a:
            days[k] = _days(a[1], a[2], a[3] or "1", a.groups()[3:])
        elif b:
            day, month = (b[3], b[1]) if month_first else (b[1], b[3])
            days[k] = _days(b[4], month, day, b.groups()[4:])
    return days if np.isfinite(days).mean() >= READABLE else None


def _days(year: str, month: str, day: str, clock: tuple[str | None, ...]) -> float:
    """Days since the year 0; NaN for a date that the calendar does not have."""
    try:
        date = np.datetime64(f"{year}-{int(month):02d}-{int(day):02d}", "D")
    except ValueError:
        return np.nan
    hour, minute, second = (float(part or 0) for part in clock)
    return float(date.astype(np.int64)) + hour / 24 + minute / 1440 + second / 86400


def _unix(values: np.ndarray) -> bool:
    here = values[np.isfinite(values)]
    if len(here) < 2 or not (here == np.round(here)).all() or len(np.unique(here)) < 2:
        return False
    low, high = here.min(), here.max()
    return any(UNIX_SECONDS[0] * f <= low and high <= UNIX_SECONDS[1] * f for f in (1, 1e3))
