"""Dates and times written as text, read as seconds.

A column is one of times when all its values in the pool can be read under one order of day, month
and year. Where "03/04/2021" leaves the order open, the month comes first after a slash, the day
after a point or a dash; all values are read in the same order, so that distances hardly suffer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?P<word>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
DAY, YEAR = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?", r"(?P<y>\d{4})"
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
CLOCK = (
    r"(?P<H>\d{1,2}):(?P<M>[0-5]\d)(?::(?P<S>[0-5]\d)(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?(?:\s*(?P<zone>z|utc|gmt|[+-]\d{2}:?\d{2}))?"
)
DATES = (
    r"(?P<y>\d{4})(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})",
    r"(?P<y>\d{4})-(?P<m>\d{2})",
    r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?=$|t)",
    r"(?P<d>\d{1,2})(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<y>\d{4}|\d{2})",
    r"(?P<m>\d{1,2})(?P<sep>[-/.])(?P<d>\d{1,2})(?P=sep)(?P<y>\d{4}|\d{2})",
    rf"{WEEKDAY}{DAY}\.?[\s-]+(?:of\s+)?{MONTH}[\s,-]+(?P<y>\d{{4}}|\d{{2}})",
    rf"{WEEKDAY}{MONTH}\s+{DAY},?\s+{YEAR}",
    rf"{WEEKDAY}{MONTH}\s+{DAY}\s+{CLOCK}\s+{YEAR}",
    rf"{MONTH}[\s-]+{YEAR}",
)
WITH_CLOCK = (text if "?P<H>" in text else rf"{text}(?:(?:t|,?\s+){CLOCK})?" for text in DATES)
FORMATS = tuple(map(re.compile, (*WITH_CLOCK, CLOCK)))
DAY_FIRST, MONTH_FIRST = 3, 4
CENTURY = 69  # two digits below it are of this century, as POSIX has it
DAY_SECONDS = 86_400
FIRST, LAST = 18_000_101, 22_001_231  # numbers outside are no dates
LEAST = 3  # different values, or nothing is known about a column


def seconds_of(texts: Sequence[str], known: Sequence[str]) -> np.ndarray | None:
    """Seconds (L,) since 1970 of each of `texts`; NaN where one is no time.

    known: the texts of the pool, which alone decide. None unless every one of them is a time, in
    one order of day and month. Hours without a date count from midnight.
    """
    if len(known) < LEAST or not any(ch.isdigit() for ch in known[0]):
        return None
    for order in _orders(known):
        seen = _read(known, order)
        if not np.isnan(seen).any():
            return _read(texts, order)
    return None


def may_be_dates(sets: list[np.ndarray]) -> np.ndarray:
    """(d,) of bool: do all numbers of a column lie where YYYYMMDD does? A quick look."""
    low = np.fmin.reduce([np.fmin.reduce(rows, 0) for rows in sets])
    high = np.fmax.reduce([np.fmax.reduce(rows, 0) for rows in sets])
    return (low >= FIRST) & (high <= LAST)


def dates_as_numbers(pool: np.ndarray) -> bool:
    """Are these (n,) whole numbers that all read YYYYMMDD, as 20210304?"""
    here = pool[~np.isnan(pool)]
    if len(here) == 0 or here.min() < FIRST or here.max() > LAST:
        return False
    if (here != np.round(here)).any() or len(np.unique(here)) < LEAST:
        return False
    return not np.isnan(date_numbers(here)).any()


def date_numbers(values: np.ndarray) -> np.ndarray:
    """Seconds (n,) since 1970 of numbers that read YYYYMMDD; NaN where one is no date."""
    distinct, place = np.unique(values, return_inverse=True)
    whole = (distinct >= FIRST) & (distinct <= LAST) & (distinct == np.round(distinct))
    seconds = [
        _date(int(v) // 10_000, int(v) // 100 % 100, int(v) % 100) if good else np.nan
        for v, good in zip(distinct, whole, strict=True)
    ]
    return np.array(seconds)[place]


def _orders(known: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    slash = "/" in known[0]
    rest = tuple(k for k in range(len(FORMATS)) if k not in (DAY_FIRST, MONTH_FIRST))
    first, second = (MONTH_FIRST, DAY_FIRST) if slash else (DAY_FIRST, MONTH_FIRST)
    return (*rest, first), (*rest, second)


def _read(texts: Sequence[str], order: tuple[int, ...]) -> np.ndarray:
    """Seconds of each text by the formats of `order`, the last that fitted tried first."""
    found, tried = np.full(len(texts), np.nan), list(order)
    for place, text in enumerate(texts):
        text = text.strip().lower()
        for rank, number in enumerate(tried):
            match = FORMATS[number].fullmatch(text)
            if match is None:
                continue
            found[place] = _seconds(match.groupdict())
            if not np.isnan(found[place]):
                tried.insert(0, tried.pop(rank))
                break
        else:
            if np.isnan(found[place]) and place < LEAST:
                break  # most columns of text end here
    return found


def _seconds(part: dict[str, str | None]) -> float:
    total = 0.0
    if part.get("y"):
        year = str(part["y"])
        y = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < CENTURY else 1900)
        word = part.get("word")
        m = MONTHS.index(word[:3]) + 1 if word else int(part.get("m") or 1)
        total = _date(y, m, int(part.get("d") or 1))
    if not part.get("H"):
        return total
    hour = int(str(part["H"]))
    if part.get("half"):
        if not 1 <= hour <= 12:
            return np.nan
        hour = hour % 12 + 12 * (part["half"] == "p")
    if hour > 23:
        return np.nan
    fraction = float(f"0.{part.get('f') or 0}")
    total += 3600 * hour + 60 * int(part["M"] or 0) + int(part.get("S") or 0) + fraction
    zone = (part.get("zone") or "z").replace(":", "")
    if zone[0] in "+-":
        away = 3600 * int(zone[1:3]) + 60 * int(zone[3:5])
        total -= away if zone[0] == "+" else -away
    return total


def _date(year: int, month: int, day: int) -> float:
    """Seconds since 1970 at midnight; NaN for a day that there is not."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return np.nan
    start = np.datetime64(f"{year:04d}-{month:02d}", "M")
    moment = start.astype("datetime64[D]") + (day - 1)
    if moment.astype("datetime64[M]") != start:
        return np.nan
    return float(moment.astype(np.int64)) * DAY_SECONDS
