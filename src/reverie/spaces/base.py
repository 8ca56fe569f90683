"""What every space answers: the shape of a point, and whether given data lie in it."""

from __future__ import annotations

import math

from torch import Tensor

from reverie.errors import InputError


class Space:
    """A set of points of shape `shape` (None: any shape); subclasses say which values belong.

    >>> import torch
    >>> from reverie.errors import InputError
    >>> from reverie.spaces import Space
    >>> class Interval(Space):
    ...     shape = (1,)
    ...     def check(self, x):
    ...         if (x.abs() > 1).any():
    ...             raise InputError("values must lie in [-1, 1]")
    ...         return x
    >>> Interval().dim, Interval().check(torch.tensor([[0.5]]))
    (1, tensor([[0.5000]]))
    """

    shape: tuple[int, ...] | None

    @property
    def dim(self) -> int:
        """Number of coordinates (sites, pixels) of a point."""
        if self.shape is None:
            raise InputError("this space has no fixed shape: build it with the shape of a point")
        return math.prod(self.shape)

    def as_points(self, data: Tensor) -> Tensor:
        """`data` in the type in which this space holds its points."""
        raise NotImplementedError

    def check(self, x: Tensor) -> Tensor:
        """Return `x` (B, *shape), or raise InputError that names the first offending row."""
        raise NotImplementedError

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim < 1 or (self.shape is not None and tuple(x.shape[1:]) != self.shape):
            raise InputError(
                f"points have shape {tuple(x.shape[1:])}, but this space holds {self.shape}"
            )
