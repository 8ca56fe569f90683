"""Numbers that stand for a missing cell: -9999, -3.4e38 and the like, told by where they lie."""

from __future__ import annotations

import numpy as np

CHUNK = 2**22  # numbers of the pool looked at together
NO_DATA = (-9999.0, -999.0, -99999.0, -999999.0, -9999999.0, -99999999.0, 9999.0, 99999.0,
           999999.0, 9999999.0, 99999999.0, -9999.9, -999.9, -999.99, -9999.99, -32768.0, 32767.0,
           -2147483648.0, 2147483647.0, 1e20, -1e20)  # fmt: skip
HUGE = 1e30  # no measurement: the ends of single and double precision, 1e200
APART, FAR_ABOVE = 1.0, 3.0  # ranges of the other values by which a no-data value lies away
CODES = 4  # no-data values of a column, at most


def without_no_data(sets: list[np.ndarray], columns: np.ndarray) -> dict[int, list[float]]:
    """Set no-data values in these columns of the sets (n, d) to NaN, in place; those found.

    A value is no datum if it is the least or the greatest of its column, one of NO_DATA or beyond
    HUGE, and lies apart: by the range of all other values (3 times that above them, where sums of
    money are cut), or below 0 where none of the others is.
    """
    found: dict[int, list[float]] = {}
    size = max(1, CHUNK // max(sum(map(len, sets)), 1))
    for start in range(0, len(columns), size):
        part = columns[start : start + size]
        low = np.min([np.fmin.reduce(rows[:, part], 0) for rows in sets], 0)
        high = np.max([np.fmax.reduce(rows[:, part], 0) for rows in sets], 0)
        low, high = np.nan_to_num(low), np.nan_to_num(high)  # NaN: every cell is missing
        odd = np.maximum(np.abs(low), np.abs(high)) >= HUGE
        odd |= np.isin(low, NO_DATA) | np.isin(high, NO_DATA)
        for j in part[odd]:
            codes = no_data_codes(np.concatenate([rows[:, j] for rows in sets]))
            if codes:
                found[int(j)] = codes
                for rows in sets:
                    rows[np.isin(rows[:, j], codes), j] = np.nan
    return found


def no_data_codes(values: np.ndarray) -> list[float]:
    """The no-data values among the numbers (n,) of a column, if any."""
    values = np.unique(values[~np.isnan(values)])
    codes: list[float] = []
    while len(values) > 1 and len(codes) < CODES:
        for end, rest in ((values[0], values[1:]), (values[-1], values[:-1])):
            if _lies_apart(float(end), rest):
                codes.append(float(end))
                values = rest
                break
        else:
            break
    return codes


def _lies_apart(value: float, rest: np.ndarray) -> bool:
    size = max(abs(float(rest[0])), abs(float(rest[-1])))
    if abs(value) >= HUGE:
        return size < abs(value) / 1e6 or (size == abs(value) and len(rest) > 1)
    if value not in NO_DATA or size >= HUGE:
        return False
    gap = min(abs(value - rest[0]), abs(value - rest[-1]))
    away = APART if value < 0 else FAR_ABOVE
    return bool(gap > away * (rest[-1] - rest[0]) or (value < 0 <= rest[0]))
