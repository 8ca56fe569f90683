"""Dates written as text, as numbers that are written in the same form again.

A pattern has one field for each part of a date, as "{y:04d}-{m:02d}-{d:02d}". A column of texts
has a pattern where all are read as times (`times.seconds_of`) and come out letter by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from reverie.data.times import MONTHS, seconds_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAYS = (
    "{y:04d}-{m:02d}-{d:02d}", "{y:04d}/{m:02d}/{d:02d}", "{y:04d}.{m:02d}.{d:02d}",
    "{y:04d}{m:02d}{d:02d}", "{y:04d}-{m:02d}", "{d:02d}.{m:02d}.{y:04d}",
    "{d}.{m}.{y:04d}", "{m:02d}/{d:02d}/{y:04d}", "{m}/{d}/{y:04d}", "{d:02d}/{m:02d}/{y:04d}",
    "{d}/{m}/{y:04d}", "{d:02d}-{m:02d}-{y:04d}", "{m:02d}-{d:02d}-{y:04d}",
    "{m:02d}/{d:02d}/{yy:02d}", "{m}/{d}/{yy:02d}", "{d:02d}.{m:02d}.{yy:02d}",
    "{d:02d} {b} {y:04d}", "{d} {b} {y:04d}", "{d:02d}-{b}-{y:04d}", "{d:02d}-{b}-{yy:02d}",
    "{b} {d}, {y:04d}", "{b} {d:02d}, {y:04d}", "{b} {y:04d}", "{b}-{y:04d}",
    "{d} {B} {y:04d}", "{B} {d}, {y:04d}", "{B} {y:04d}",
)  # fmt: skip
CLOCKS = ("{H:02d}:{M:02d}", "{H:02d}:{M:02d}:{S:02d}", "{H}:{M:02d}",
          "{H:02d}:{M:02d}:{S:02d}.{f:06d}", "{H:02d}:{M:02d}:{S:02d}.{ms:03d}")  # fmt: skip
ENDS = ("", "Z", "+00:00")
PATTERNS = (
    *DAYS,
    *(f"{day}{gap}{clock}{end}" for day in DAYS for gap in (" ", "T") for clock in CLOCKS
      for end in ENDS),
    *CLOCKS,
)  # fmt: skip
NAMES = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
         "October", "November", "December")  # fmt: skip
TRIED = 64  # texts that rule out most patterns


def date_text(seconds: float, pattern: str) -> str:
    """A time, in seconds since 1970, in the form of a pattern, to its least unit."""
    unit = unit_of(pattern)
    at = EPOCH + timedelta(microseconds=round(round(seconds / unit) * unit * 1e6))
    name = NAMES[at.month - 1]
    return pattern.format(
        y=at.year, yy=at.year % 100, m=at.month, d=at.day, b=MONTHS[at.month - 1].capitalize(),
        B=name, H=at.hour, M=at.minute, S=at.second, f=at.microsecond, ms=at.microsecond // 1000,
    )  # fmt: skip


def unit_of(pattern: str) -> float:
    """Seconds of the least unit that a pattern shows; a month counts as a day."""
    for sign, unit in (("{f", 1e-6), ("{ms", 1e-3), ("{S", 1.0), ("{M", 60.0), ("{H", 3600.0)):
        if sign in pattern:
            return unit
    return 86_400.0


def pattern_of(texts: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """The pattern of texts (L,) and their seconds (L,); None where they are no dates of one."""
    seconds = seconds_of(texts, texts)
    if seconds is None:
        return None
    few = list(zip(texts, seconds.tolist(), strict=True))
    for pattern in PATTERNS:
        if all(date_text(value, pattern) == text for text, value in few[:TRIED]) and all(
            date_text(value, pattern) == text for text, value in few[TRIED:]
        ):
            return pattern, seconds
    return None
