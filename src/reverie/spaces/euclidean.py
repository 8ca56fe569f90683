"""Flat space R^d, with points of any tensor shape."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space


class Euclidean(Space):
    """R^d whose points have shape `shape`; `Euclidean()` takes points of any shape.

    >>> import torch
    >>> from reverie.spaces import Euclidean
    >>> Euclidean((2,)).check(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    >>> Euclidean((2,)).check(torch.zeros(3, 4))
    Traceback (most recent call last):
        ...
    reverie.errors.InputError: points have shape (4,), but this space holds (2,)
    """

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = None if shape is None else tuple(shape)

    def as_points(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else data.float()

    def check(self, x: Tensor) -> Tensor:
        self._check_shape(x)
        bad = ~torch.isfinite(x.flatten(1)).all(1)
        if bad.any():
            raise InputError(f"row {int(bad.nonzero()[0, 0])} holds a value that is not finite")
        return x

    def __repr__(self) -> str:
        return f"Euclidean({self.shape})"
