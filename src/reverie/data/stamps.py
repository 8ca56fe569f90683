"""Dates, times and durations in a table: the form they are written in, read and written back.

A form is that of strftime (`%d/%m/%Y %H:%M`), with `%-d`, `%-m`, `%-H` and `%-I` for numbers that
are not filled up with zeros, `%3f` for three digits of a second, `%P` for am and pm in small
letters, `%D` for the days of a duration, and a zone as it stands (`Z`, `+02:00`). A column is one
of times only if all its cells come back from their form letter for letter. Where both orders of
day and month fit every cell, the month comes first after a slash, the day after a point or a dash.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

DAY_SECONDS = 86_400
EPOCH = datetime.date(1970, 1, 1).toordinal()
ISO_DAY, ISO_TIME = "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"
CENTURY = 69  # two digits below it are of this century, as POSIX has it
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
NUMBER = r"\d{1,2}"
GROUPS = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d{2})", "m": rf"(?P<m>{NUMBER})", "d": rf"(?P<d>{NUMBER})",
    "H": r"(?P<H>\d{1,4})", "I": rf"(?P<H>{NUMBER})", "M": r"(?P<M>[0-5]\d)",
    "S": r"(?P<S>[0-5]\d)", "f": r"(?P<f>\d{1,9})", "D": r"(?P<D>-?\d{1,6})",
    "b": r"(?P<b>[A-Za-z]{3})", "B": r"(?P<b>[A-Za-z]{3,9})",
    "p": r"(?P<p>[AP]M)", "P": r"(?P<p>[ap]m)", "z": r"(?P<z>Z|[+-]\d{2}:?\d{2})",
}  # fmt: skip
TOKEN = re.compile(r"%(-?)(\d?)([A-Za-z])")
ZONE = re.compile(r"(?P<z>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$")
CLOCK = re.compile(
    r"\d{1,4}:\d\d(?P<s>:\d\d)?(?P<f>[.,]\d{1,9})?(?P<g>\s?)(?P<p>[AaPp][Mm])?"
    r"(?P<z>\s?(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?"
)
DATES = (  # what a date looks like, and its forms, the likelier first
    (r"\d{4}([-/.])\d{1,2}\1\d{1,2}", ("%Y{0}%m{0}%d",)),
    (r"\d{4}()-\d{2}", ("%Y-%m",)),
    (r"\d{1,2}(/)\d{1,2}/\d{4}", ("%m{0}%d{0}%Y", "%d{0}%m{0}%Y")),
    (r"\d{1,2}([-.])\d{1,2}\1\d{4}", ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
    (r"\d{2}(/)\d{2}/\d{2}", ("%m{0}%d{0}%y", "%d{0}%m{0}%y")),
    (r"\d{2}([-.])\d{2}\1\d{2}", ("%d{0}%m{0}%y", "%m{0}%d{0}%y")),
    (r"\d{1,2}([ -])[A-Za-z]{3}\1\d{4}", ("%d{0}%b{0}%Y", "%d{0}%B{0}%Y")),
    (r"\d{1,2}([ -])[A-Za-z]{3}\1\d{2}", ("%d{0}%b{0}%y",)),
    (r"\d{1,2}(\.? )[A-Za-z]{3,9} \d{4}", ("%d{0}%B %Y",)),
    (r"[A-Za-z]{3}( )\d{1,2}, \d{4}", ("%b %d, %Y", "%B %d, %Y")),
    (r"[A-Za-z]{3,9}( )\d{1,2}, \d{4}", ("%B %d, %Y",)),
    (r"[A-Za-z]{3}([ -])\d{4}", ("%b{0}%Y", "%B{0}%Y")),
    (r"\d{8}()", ("%Y%m%d",)),
    (r"-?\d{1,6}( days?,? )", ("%D{0}",)),
    (r"()", ("",)),
)
WORDED = ("b", "p")


@dataclass(frozen=True)
class Times:
    """Texts read as times: their form, seconds (n,), and what else they could have been."""

    form: str
    seconds: np.ndarray
    either: str = ""  # the other form that fits as well

    @property
    def dtype(self) -> str:
        """As a column calls it."""
        if "%D" in self.form or not re.search("%[Yy]", self.form):
            return "duration"
        return "timestamp" if _has_clock(self.form) else "date"


def read_times(texts: Sequence[str], form: str = "") -> Times | None:
    """Texts as times, all of them in one form; None where they are none.

    form: the one to read by; then texts need not come back letter for letter.
    """
    if form:
        seconds, _ = _parse(texts, form)
        return None if np.isnan(seconds).any() else Times(form, seconds)
    if not texts or not any(c.isdigit() for c in texts[0]) or len(texts[0]) > 40:
        return None
    fitting = []
    for candidate in _forms(texts[0]):
        seconds, exact = _parse(texts, candidate)
        if exact and not np.isnan(seconds).any():
            fitting.append(Times(exact, seconds))
    if not fitting:
        return None
    first = fitting[0]
    others = [t for t in fitting[1:] if not np.array_equal(t.seconds, first.seconds)]
    return Times(first.form, first.seconds, others[0].form if others else "")


def unit_of(form: str) -> float:
    """Seconds of the least unit that a form shows; a month counts as a day."""
    unit, digits = _units(form)
    return unit / 10**digits


def _units(form: str) -> tuple[int, int]:
    """Whole seconds of the least unit of a form, and the digits of a second that it shows."""
    digits = max((int(n or 6) for _, n, kind in TOKEN.findall(form) if kind == "f"), default=0)
    kinds = {kind for _, _, kind in TOKEN.findall(form)}
    unit = 1 if "S" in kinds else 60 if "M" in kinds else 3600 if kinds & {"H", "I"} else 86_400
    return unit, digits


def write_times(seconds: Sequence[float], form: str) -> list[str]:
    """Times (n,) in a form, to the nearest of its least units."""
    unit, digits = _units(form)
    kinds = {kind for _, _, kind in TOKEN.findall(form)}
    steps = [round(float(s) * 10**digits / unit) * unit for s in seconds]
    return [_write(step, digits, form, kinds) for step in steps]


def swapped(form: str) -> str:
    """The form with day and month exchanged."""
    return re.sub("%(-?)([dm])", lambda m: f"%{m[1]}{'m' if m[2] == 'd' else 'd'}", form)


def _forms(text: str) -> list[str]:
    """The forms that the first text may have."""
    clock = CLOCK.search(text)
    day, rest = (text, "") if clock is None else (text[: clock.start()], text[clock.start() :])
    gap = "" if clock is None else (re.search(r"(?:T|,? )?$", day) or [""])[0]
    day = day.removesuffix(gap) if "day" not in day else day
    gap = gap if "day" not in day else ""
    ending = "" if clock is None else _clock_form(clock)
    if clock is not None and clock.end() - clock.start() != len(rest):
        return []
    found = []
    for look, forms in DATES:
        match = re.fullmatch(look, day)
        if match is not None and (day or clock is not None):
            found += [form.format(match[1]) + gap + ending for form in forms]
            if found:
                break
    return found


def _clock_form(match: re.Match[str]) -> str:
    half = match["p"] or ""
    form = "%I:%M" if half else "%H:%M"
    form += "%S".join((":", "")) if match["s"] else ""
    form += f"{match['f'][0]}%{len(match['f']) - 1}f" if match["f"] else ""
    form += match["g"] + ("%p" if half.isupper() else "%P") if half else ""
    zone = match["z"] or ""
    return form + ("" if half else match["g"]) + zone


@cache
def _pattern(form: str) -> re.Pattern[str]:
    parts, end = [], 0
    for token in TOKEN.finditer(form):
        parts += [re.escape(form[end : token.start()]), GROUPS.get(token[3], re.escape(token[0]))]
        end = token.end()
    parts.append(re.escape(form[end:]).replace(r"\ days", r"\ days?"))
    text = "".join(parts).replace(r"\ days", r"\ days?")
    return re.compile(text.replace("??", "?"))


def _parse(texts: Sequence[str], form: str) -> tuple[np.ndarray, str]:
    """Seconds (n,), NaN where a text has another form; and the form with its fillings, or ""."""
    nothing = np.full(len(texts), np.nan)
    first = _pattern(form).fullmatch(texts[0])
    if first is None:
        return nothing, ""
    found = _fixed(texts, first) or _free(texts, _pattern(form))
    if found is None:
        return nothing, ""
    numbers, bare, filled, words = found
    if "b" in words:
        months = {name[:3].lower(): k for k, name in enumerate(MONTHS, 1)}
        numbers["m"] = np.array([months.get(w[:3].lower(), 0) for w in words["b"]])
    seconds = _seconds(numbers, words, form)
    exact = not any(bare[k] and filled[k] for k in bare)
    for token in TOKEN.finditer(form):
        key = "H" if token[3] == "I" else token[3]
        if exact and key in ("d", "m", "H") and bare.get(key):
            form = form.replace(f"%{token[3]}", f"%-{token[3]}")
    in_doubt = words or "days" in form or re.search("%[4-9]f", form) or len(texts) < 50
    if exact and in_doubt and not np.isnan(seconds).any():
        exact = write_times(seconds.tolist(), form) == list(texts)
    return seconds, form if exact else ""


Found = tuple[dict[str, np.ndarray], dict[str, bool], dict[str, bool], dict[str, list[str]]]


def _fixed(texts: Sequence[str], first: re.Match[str]) -> Found | None:
    """The parts of texts that all have the digits of the first, in the same places."""
    width, spans = len(first[0]), {k: first.span(k) for k in first.groupdict()}
    words = any(k in (*WORDED, "z", "D") for k in spans)
    if words or not all(len(text) == width for text in texts):
        return None
    codes = np.array(texts).view(np.uint32).reshape(len(texts), width).astype(np.int64)
    is_digit = np.zeros(width, bool)
    for start, end in spans.values():
        is_digit[start:end] = True
    digits = codes - ord("0")
    if (codes[:, ~is_digit] != codes[0, ~is_digit]).any():
        return None
    if ((digits[:, is_digit] < 0) | (digits[:, is_digit] > 9)).any():
        return None
    numbers, bare, filled = {}, {}, {}
    for key, (start, end) in spans.items():
        power = 10 ** np.arange(end - start - 1, -1, -1)
        numbers[key] = digits[:, start:end] @ power
        bare[key] = end - start == 1
        filled[key] = end - start > 1 and bool((digits[:, start] == 0).any())
        if key == "f":
            numbers["f"] = numbers["f"] / 10 ** (end - start)
            bare["f"] = filled["f"] = False
    if "M" in numbers and (numbers["M"] > 59).any():
        return None
    return numbers, bare, filled, {}


def _free(texts: Sequence[str], pattern: re.Pattern[str]) -> Found | None:
    """The parts of texts of any length; None where one does not fit."""
    parts: dict[str, list[str]] = {key: [] for key in pattern.groupindex}
    for text in texts:
        match = pattern.fullmatch(text)
        if match is None:
            return None
        for key, value in match.groupdict().items():
            parts[key].append(value)
    words = {key: parts.pop(key) for key in (*WORDED, "z") if key in parts}
    numbers, bare, filled = {}, {}, {}
    for key, values in parts.items():
        if key == "f":
            numbers[key] = np.array([int(v) / 10 ** len(v) for v in values])
            bare[key], filled[key] = len({len(v) for v in values}) > 1, True
            continue
        numbers[key] = np.array([int(v) for v in values])
        bare[key] = any(len(v) == 1 for v in values)
        filled[key] = any(len(v) > 1 and v[0] == "0" for v in values)
    bare["D"] = False
    return numbers, bare, filled, words


def _seconds(part: dict[str, np.ndarray], words: dict[str, list[str]], form: str) -> np.ndarray:
    """Seconds (n,) since 1970, or of a duration; NaN on a day or an hour that there is not."""
    count = len(next(iter(part.values())))
    total, good = np.zeros(count), np.ones(count, bool)
    dated = "Y" in part or "y" in part
    if dated:
        year = part["Y"] if "Y" in part else _whole_year(part["y"])
        month, day = part.get("m", np.ones(count, int)), part.get("d", np.ones(count, int))
        good &= (month >= 1) & (month <= 12) & (day >= 1)
        start = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("M8[M]")
        moment = start.astype("M8[D]") + (day - 1)
        good &= moment.astype("M8[M]") == start
        total += moment.astype(np.int64) * float(DAY_SECONDS)
    hour = part.get("H", np.zeros(count, int))
    if "p" in words:
        good &= (hour >= 1) & (hour <= 12)
        late = np.array([w.lower() == "pm" for w in words["p"]])
        hour = hour % 12 + 12 * late
    elif dated:
        good &= hour <= 23
    clock = 3600.0 * hour + 60.0 * part.get("M", 0) + part.get("S", 0) + part.get("f", 0)
    if "D" in part:
        clock = clock + float(DAY_SECONDS) * part["D"]
    total = total + clock
    if "z" in words:
        total -= np.array([_away(zone) for zone in words["z"]])
    total -= _zone_of(form)
    return np.where(good, total, np.nan)


def _has_clock(form: str) -> bool:
    return re.search("%-?[HI]", form) is not None


def _whole_year(two: np.ndarray) -> np.ndarray:
    return two + np.where(two < CENTURY, 2000, 1900)


def _zone_of(form: str) -> float:
    """Seconds by which the zone that a form names lies before UTC."""
    match = ZONE.search(form) if _has_clock(form) else None
    return 0.0 if match is None else _away(match["z"])


def _away(zone: str) -> float:
    if zone[0] not in "+-":
        return 0.0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    away = 3600.0 * int(digits[:2]) + 60.0 * int(digits[2:])
    return away if zone[0] == "+" else -away


def _write(step: int, digits: int, form: str, kinds: set[str]) -> str:
    """One time, as whole steps of 10^-digits seconds."""
    step += round(_zone_of(form) * 10**digits)
    whole, fraction = divmod(step, 10**digits)
    days, rest = divmod(whole, DAY_SECONDS)
    dated = bool(kinds & {"Y", "y"})
    hour = rest // 3600 if dated or "D" in kinds else whole // 3600
    first, last = datetime.date.min.toordinal(), datetime.date.max.toordinal()
    day = datetime.date.fromordinal(min(max(EPOCH + days if dated else EPOCH, first), last))

    def one(token: re.Match[str]) -> str:
        bare, size, kind = token[1], token[2], token[3]
        if kind in "bB":
            return MONTHS[day.month - 1][: 3 if kind == "b" else None]
        if kind in "pP":
            word = "PM" if hour % 24 >= 12 else "AM"
            return word if kind == "p" else word.lower()
        if kind == "f":
            return f"{fraction:0{digits}d}"[: int(size or 6)]
        if kind == "z":
            return "+00:00"
        value = {
            "Y": lambda: day.year, "y": lambda: day.year % 100, "m": lambda: day.month,
            "d": lambda: day.day, "H": lambda: hour, "I": lambda: hour % 12 or 12,
            "M": lambda: rest % 3600 // 60, "S": lambda: rest % 60, "D": lambda: days,
        }[kind]()  # fmt: skip
        if kind == "D":
            return str(value)
        return str(value) if bare else f"{value:0{4 if kind == 'Y' else 2}d}"

    return TOKEN.sub(one, form)
