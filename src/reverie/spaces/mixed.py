"""Products of any spaces: numbers beside symbols, as in a table of mixed columns.

A point is the parts' points, flattened one after another into one row of numbers. Symbols are kept
as whole numbers, which float32 holds exactly up to 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space


class Mixed(Space):
    """The product of `parts`, each of a fixed shape; points have shape (D,).

    `Product` is that of manifolds, with their geometry. Raises InputError without parts, and on a
    part without a shape.

    >>> import torch
    >>> from reverie.spaces import Euclidean, FiniteSet, Mixed
    >>> space = Mixed(Euclidean((2,)), FiniteSet(3, sites=1))
    >>> [piece.tolist() for piece in space.split(torch.tensor([[0.5, -1.0, 2.0]]))]
    [[[0.5, -1.0]], [[2]]]
    """

    shape: tuple[int, ...]

    def __init__(self, *parts: Space) -> None:
        if not parts:
            raise InputError("a product of spaces needs at least one part")
        for part in parts:
            if part.shape is None:
                raise InputError(f"{part!r} has no fixed shape: a part of a product needs one")
        self.parts = parts
        self.sizes = [math.prod(part.shape or ()) for part in parts]
        self.shape = (sum(self.sizes),)

    def as_points(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else data.float()

    def split(self, x: Tensor) -> list[Tensor]:
        """The parts' points, each (B, *part.shape) in the part's own type, of points (B, D)."""
        return [
            part.as_points(piece.reshape(len(x), *(part.shape or ())))
            for piece, part in zip(x.split(self.sizes, 1), self.parts, strict=True)
        ]

    def join(self, pieces: Iterable[Tensor], like: Tensor | None = None) -> Tensor:
        """Points (B, D) of the parts' points, in the type of `like` or else float32."""
        kind = torch.float32 if like is None else like.dtype
        return join_flat(pieces, kind)

    def check(self, x: Tensor) -> Tensor:
        self._check_shape(x)
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            raise InputError(f"row {int(bad.nonzero()[0, 0])} holds a value that is not finite")
        for part, piece in zip(self.parts, x.split(self.sizes, 1), strict=True):
            part.check(piece.reshape(len(x), *(part.shape or ())))
        return x

    def __repr__(self) -> str:
        return f"Mixed({', '.join(map(repr, self.parts))})"


def join_flat(pieces: Iterable[Tensor], kind: torch.dtype) -> Tensor:
    """Tensors (B, ...) flattened and set side by side, (B, sum)."""
    return torch.cat([piece.flatten(1).to(kind) for piece in pieces], 1)


def split_flat(x: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Pieces (B, *shape) of a row (B, sum): the inverse of `join_flat`."""
    pieces = x.split([math.prod(shape) for shape in shapes], 1)
    return [p.reshape(len(x), *shape) for p, shape in zip(pieces, shapes, strict=True)]
