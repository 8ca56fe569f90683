"""Flat space R^d, with points of any tensor shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError


class Euclidean:
    """R^d whose points have shape `shape`; `Euclidean()` takes points of any shape."""

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = None if shape is None else tuple(shape)

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        if self.shape is None:
            raise InputError("this space has no fixed shape: build it as Euclidean(shape)")
        return math.prod(self.shape)

    def check(self, x: Tensor) -> Tensor:
        """Return `x` (B, *shape), or raise InputError that names the first offending row."""
        if x.ndim < 1 or (self.shape is not None and tuple(x.shape[1:]) != self.shape):
            raise InputError(
                f"points have shape {tuple(x.shape[1:])}, but this space holds {self.shape}"
            )
        bad = ~torch.isfinite(x.flatten(1)).all(1)
        if bad.any():
            raise InputError(f"row {int(bad.nonzero()[0, 0])} holds a value that is not finite")
        return x

    def __repr__(self) -> str:
        return f"Euclidean({self.shape})"
