"""Where the members of a `.tar` stand, read off its headers once: random access without unpacking.

Only names, sizes and offsets are read (ustar, GNU long names, pax paths); links and the like are
no data. An archive that ends within a member, or without the blocks of zeros that close it, is cut
short.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reverie.data.stored.rows import opened
from reverie.errors import InputError

UNIT = 512
REGULAR, LONG_NAME, PAX, PAX_ALL = (b"0", b"\0", b"7"), b"L", b"x", b"g"


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the regular files of an archive; InputError where it is damaged."""
    size = path.stat().st_size
    with opened(path) as file:
        place, name, length = 0, "", None
        while True:
            head = file.read(UNIT)
            if len(head) < UNIT:
                raise InputError(f"{path} is cut short: it has no end")
            if not head.strip(b"\0"):
                return
            if not _sound(head):
                raise InputError(f"{path} is no tar archive, or damaged at byte {place:,}")
            kind, count = head[156:157], _number(head[124:136], path)
            count = count if length is None or kind in (LONG_NAME, PAX, PAX_ALL) else length
            start = place + UNIT
            if start + count > size:
                raise InputError(f"{path} is cut short within {name or _name(head)}")
            if kind == LONG_NAME:
                name = file.read(count).rstrip(b"\0").decode(errors="replace")
            elif kind == PAX:
                told = _pax(file.read(count))
                name = told.get("path", name)
                length = int(told["size"]) if told.get("size", "").isdigit() else None
            else:
                if kind in REGULAR:
                    yield name or _name(head), start, count
                name, length = "", None
            place = start + -(-count // UNIT) * UNIT
            file.seek(place)


def _sound(head: bytes) -> bool:
    """Whether the sum that a header holds is that of its bytes."""
    try:
        known = int(head[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    return known == sum(head) - sum(head[148:156]) + 8 * 32


def _number(field: bytes, path: Path) -> int:
    if field[0] & 0x80:  # base 256, of large members
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise InputError(f"{path} is damaged: a size is no number") from error


def _name(head: bytes) -> str:
    name, prefix = (part.split(b"\0")[0] for part in (head[:100], head[345:500]))
    is_new = head[257:262] == b"ustar"
    whole = prefix + b"/" + name if prefix and is_new else name
    return whole.decode(errors="replace")


def _pax(text: bytes) -> dict[str, str]:
    """The records of a pax header, each `length key=value`."""
    found, place = {}, 0
    while place < len(text):
        length, _, _ = text[place:].partition(b" ")
        if not length.isdigit() or int(length) <= len(length):
            break
        line = text[place : place + int(length)].partition(b" ")[2]
        key, _, value = line.rstrip(b"\n").partition(b"=")
        found[key.decode(errors="replace")] = value.decode(errors="replace")
        place += int(length)
    return found
