"""Arrays of numbers in MATLAB files of versions 5 to 7: every length is checked before it is used.

A file is a head of 128 bytes and elements: a type, a size and bytes up to a multiple of 8;
small ones hold size and type in one word. An array is an element of elements: flags, shape, name,
and its numbers, by columns.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8",
           15: "u8"}  # fmt: skip
SPARSE, MATRIX, PACKED = 5, 14, 15
LOGICAL, COMPLEX = 0x200, 0x800
HEAD = 128
MOST_BYTES = 2**34  # of an array, unpacked


class DamagedError(ValueError):
    """What is wrong with the file."""


@dataclass(frozen=True)
class Element:
    """The type of an element, its bytes, and the order of bytes in a word."""

    kind: int
    body: bytes
    order: str

    def numbers(self) -> np.ndarray:
        """The numbers of a plain element."""
        if self.kind not in TYPES:
            raise DamagedError(f"an element of type {self.kind} in place of numbers")
        dtype = np.dtype(self.order + TYPES[self.kind])
        if len(self.body) % dtype.itemsize:
            raise DamagedError("an element ends within a number")
        return np.frombuffer(self.body, dtype)


def arrays_of(raw: bytes) -> dict[str, Any]:
    """The arrays of numbers of a file by name, dense ones and SciPy's sparse.

    Complex arrays, texts, cells and structures are left out. Raises DamagedError.
    """
    if len(raw) < HEAD or raw[126:128] not in (b"IM", b"MI"):
        raise DamagedError("its head is none of MATLAB's")
    order = "<" if raw[126:128] == b"IM" else ">"
    found: dict[str, Any] = {}
    for element in _elements(raw, HEAD, order):
        if element.kind == PACKED:
            element = next(_elements(_unpacked(element.body), 0, order), element)
        if element.kind != MATRIX:
            raise DamagedError(f"an element of type {element.kind} in place of an array")
        named = _array(element)
        if named is not None:
            found[named[0]] = named[1]
    return found


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise DamagedError("an array cannot be unpacked") from error
    if not unpacker.eof:
        raise DamagedError("an array is cut off")
    return raw


def _elements(raw: bytes, place: int, order: str) -> Iterator[Element]:
    while place + 8 <= len(raw):
        first, second = struct.unpack_from(order + "II", raw, place)
        if first >> 16:  # a small element
            size, kind, start, end = first >> 16, first & 0xFFFF, place + 4, place + 8
            if size > 4:
                raise DamagedError("a small element of over 4 bytes")
        else:
            kind, size, start = first, second, place + 8
            end = start + size + (0 if kind == PACKED else -size % 8)
        if start + size > len(raw):
            raise DamagedError("it ends within an array")
        yield Element(kind, raw[start : start + size], order)
        place = end
    if place < len(raw) and raw[place:].strip(b"\0"):
        raise DamagedError("it ends within an array")


def _array(element: Element) -> tuple[str, Any] | None:
    """Name and array of a matrix of numbers; None for one of another sort."""
    parts = _elements(element.body, 0, element.order)
    try:
        flags = next(parts).numbers()
        shape = next(parts).numbers().tolist()
        name = next(parts).body.decode("latin-1")
        word = int(flags[0])
        kind = word & 0xFF
        if kind not in (*CLASSES, SPARSE) or word & COMPLEX:
            return None
        if len(shape) < 2 or min(shape) < 0:
            raise DamagedError("an array of no shape")
        if kind == SPARSE:
            return name, _sparse(parts, shape)
        numbers = next(parts).numbers()
    except (StopIteration, IndexError) as error:
        raise DamagedError("an array without its numbers") from error
    if len(numbers) != int(np.prod(shape, dtype=object)):
        raise DamagedError("an array has not as many numbers as its shape")
    dtype = np.dtype("u1" if word & LOGICAL else CLASSES[kind])
    return name, np.reshape(numbers.astype(dtype), shape, order="F")


def _sparse(parts: Iterator[Element], shape: list[int]) -> Any:
    from scipy import sparse

    rows, ends, numbers = next(parts).numbers(), next(parts).numbers(), next(parts).numbers()
    count = int(ends[-1]) if len(ends) else 0
    fits = len(shape) == 2 and len(ends) == shape[1] + 1 and count <= min(len(rows), len(numbers))
    if not fits or (np.diff(ends) < 0).any() or ends[0] != 0:
        raise DamagedError("a sparse array of wrong columns")
    if count and not (rows[:count].min() >= 0 and rows[:count].max() < shape[0]):
        raise DamagedError("a sparse array of wrong rows")
    values = numbers[:count].astype(np.float64)
    return sparse.csc_array((values, rows[:count].astype(np.int64), ends.astype(np.int64)), shape)
