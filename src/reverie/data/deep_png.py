"""PNG files of 16 bits a channel in colour, which Pillow cuts to 8: read and written exactly."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from reverie.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 4: 2, 6: 4}  # colour, grey with alpha, colour with alpha


def is_deep(head: bytes) -> bool:
    """Whether the first 33 bytes of a file are those of a PNG that Pillow would cut."""
    return (
        head.startswith(SIGNATURE) and len(head) > 25 and head[24] == 16 and head[25] in CHANNELS
    )


def decode(raw: bytes, name: str) -> np.ndarray:
    """Pixels (h, w, channels) of uint16; InputError on a damaged or an interlaced file."""
    try:
        parts = list(_chunks(raw))
        kinds = dict(reversed(parts))
        width, height, _, colour, *_, interlaced = struct.unpack(">IIBBBBB", kinds[b"IHDR"])
        count = CHANNELS[colour]
        if interlaced:
            raise InputError(f"{name} is an interlaced picture of 16 bits: save it plain")
        step = 2 * count
        if width * height * step > 2**31:
            raise InputError(f"{name} is {width} x {height} pixels of 16 bits: too large")
        packed = b"".join(body for kind, body in parts if kind == b"IDAT")
        lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * step)
    except (struct.error, zlib.error, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is not an image (a damaged PNG)") from error
    pixels = _unfiltered(lines, step)
    return pixels.view(">u2").reshape(height, width, count).astype(np.uint16)


def encode(pixels: np.ndarray) -> bytes:
    """A PNG of pixels (h, w, 3) of uint16."""
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = np.zeros((height, 1 + 6 * width), np.uint8)
    lines[:, 1:] = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place + 12 <= len(raw):
        size = struct.unpack_from(">I", raw, place)[0]
        kind, body = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + size]
        if struct.unpack_from(">I", raw, place + 8 + size)[0] != zlib.crc32(kind + body):
            raise ValueError("checksum")
        yield kind, body
        place += 12 + size


def _unfiltered(lines: np.ndarray, step: int) -> np.ndarray:
    """The bytes (h, w) of lines whose first byte tells how they differ from their neighbours."""
    out = np.zeros((len(lines), lines.shape[1] - 1), np.uint8)
    above = np.zeros(out.shape[1], np.uint8)
    for row, line in enumerate(lines):
        rule, body = line[0], line[1:].copy()
        if rule == 1:
            body = _summed(body, step)
        elif rule == 2:
            body += above
        elif rule in (3, 4):
            body = _predicted(body, above, step, mean=rule == 3)
        elif rule:
            raise InputError("a PNG has a line of an unknown filter")
        out[row] = above = body
    return out


def _summed(body: np.ndarray, step: int) -> np.ndarray:
    return np.cumsum(body.reshape(-1, step), 0, dtype=np.uint8).reshape(-1)


def _predicted(body: np.ndarray, above: np.ndarray, step: int, mean: bool) -> np.ndarray:
    """One line by the mean of left and above, or by Paeth's choice of three neighbours."""
    line, up = [0] * step + body.tolist(), [0] * step + above.tolist()
    for k in range(step, len(line)):
        a, b, c = line[k - step], up[k], up[k - step]
        if mean:
            guess = (a + b) // 2
        else:
            pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
        line[k] = (line[k] + guess) & 255
    return np.array(line[step:], np.uint8)
