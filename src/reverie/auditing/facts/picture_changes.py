"""The changes people make to pictures, one at a time, as maps of (n, channels, height, width).

Brightness and contrast need no map: pictures are compared after each has mean 0 and norm 1. Noise
and JPEG need none either: they leave a residue that resembles no other picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FARTHEST = 2  # pixels of a shift

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Change:
    """`apply` makes the change called `name`; `undo` takes it back, up to what was cut off.

    lossy: so much is cut off that it is better made than undone.
    """

    name: str
    apply: Map
    undo: Map
    lossy: bool = False


def changes(shape: tuple[int, ...], *, products: bool = False) -> list[Change]:
    """Single changes for pictures of this shape (channels, height, width), "" first: none.

    products: also every turn, mirror and inversion followed by every shift or zoom.
    """
    height, width = shape[-2:]
    turns = _turns(square=height == width)
    moves = [*_shifts(), *_zooms(height, width)]
    both = [_then(turn, move) for turn in turns for move in moves] if products else []
    return [Change("", _same, _same), *turns, *moves, *both]


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _turns(square: bool) -> list[Change]:
    found = [
        Change("inverted", np.negative, np.negative),
        Change("mirrored", lambda x: x[..., ::-1], lambda x: x[..., ::-1]),
        Change("upside down", lambda x: x[..., ::-1, :], lambda x: x[..., ::-1, :]),
        Change("turned by 180 degrees", _turn(2), _turn(2)),
    ]
    if square:
        found += [
            Change("turned by 90 degrees", _turn(1), _turn(3)),
            Change("turned by 270 degrees", _turn(3), _turn(1)),
        ]
    return found


def _turn(quarters: int) -> Map:
    return lambda x: np.rot90(x, quarters, axes=(-2, -1))


def _shifts() -> list[Change]:
    steps = range(-FARTHEST, FARTHEST + 1)
    return [
        Change(f"shifted by ({down}, {right})", _shift(down, right), _shift(-down, -right))
        for down in steps
        for right in steps
        if (down, right) != (0, 0)
    ]


def _shift(down: int, right: int) -> Map:
    """Rows and columns that come in repeat the edge."""

    def move(x: np.ndarray) -> np.ndarray:
        rows = np.clip(np.arange(x.shape[-2]) - down, 0, x.shape[-2] - 1)
        columns = np.clip(np.arange(x.shape[-1]) - right, 0, x.shape[-1] - 1)
        return x[..., rows, :][..., columns]

    return move


def _zooms(height: int, width: int) -> list[Change]:
    """A border of 1 or 2 pixels, or of 5, 10 and 15% of a larger picture, cut off and resized."""
    least = min(height, width)
    borders = {1, 2} | {round(least * part) for part in (0.05, 0.1, 0.15)}
    return [
        Change(
            f"cropped by {b} pixel{'s' * (b > 1)} and resized", _zoom(height, width, b),
            _zoom(height, width, -b), lossy=True,
        )
        for b in sorted(borders)
        if 0 < b < least / 4
    ]  # fmt: skip


def _zoom(height: int, width: int, border: int) -> Map:
    """Bilinear; a negative border shrinks the picture, and its edge is repeated."""

    def place(size: int) -> np.ndarray:
        scale = (size - 2 * border) / size if border > 0 else size / (size + 2 * border)
        middle = (size - 1) / 2
        return np.clip((np.arange(size) - middle) * scale + middle, 0, size - 1)

    return lambda x: _bilinear(x, place(height), place(width))


def _bilinear(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    for axis, places in ((-2, rows), (-1, columns)):
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        weight = (places - low).astype(np.float32)
        weight = weight[:, None] if axis == -2 else weight
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return x


def _then(first: Change, second: Change) -> Change:
    return Change(
        f"{first.name}, {second.name}",
        lambda x: second.apply(first.apply(x)),
        lambda x: first.undo(second.undo(x)),
        second.lossy,
    )


def standardised(pictures: np.ndarray, side: int) -> np.ndarray:
    """(n, p) of float32: mean 0 and norm 1; 0 where constant. Averaged down to at most `side`."""
    height, width = pictures.shape[-2:]
    factor = -(-max(height, width) // side)
    flat = np.asarray(pictures, np.float32)
    if factor > 1:  # means of whole tiles; a rest at the far edges is left out
        rows, columns = height // factor, width // factor
        tiles = flat[..., : rows * factor, : columns * factor]
        flat = tiles.reshape(*flat.shape[:-2], rows, factor, columns, factor).mean((-3, -1))
    flat = flat.reshape(len(flat), -1)
    flat = flat - flat.mean(1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 1e-6)
