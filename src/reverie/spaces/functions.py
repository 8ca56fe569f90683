"""Real functions on [0, 1]^k, known at grid points: one shape, several resolutions.

A grid carries quadrature weights, so that norms are those of L2([0, 1]^k) and converge as it is
refined; a plain mean over the points would depend on where the points lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.euclidean import Euclidean


class Functions(Euclidean):
    """Functions on [0, 1]^k by their values at n points, as tensors of the shape of the grid.

    points: (*shape, k), or (n,) on the unit interval. weights: (*shape), positive with sum 1;
    default: the length of each point's cell for k = 1 (increasing points), 1/n otherwise.
    Raises InputError on points outside [0, 1]^k, repeated or out of order, or weights that do not
    belong to them.

    >>> import torch
    >>> from reverie.spaces import Functions
    >>> grid = Functions.regular(100)
    >>> f = torch.sin(torch.pi * grid.points[..., 0])[None]
    >>> grid.inner(f, f).round(decimals=4)  # the integral of sin^2
    tensor([0.5000], dtype=torch.float64)
    """

    shape: tuple[int, ...]
    points: Tensor  # (n, k), in the order of a flattened function
    weights: Tensor  # (n,)
    uniform: bool  # midpoints of equal cells: Fourier sums are fast transforms there

    def __init__(
        self, points: Tensor | Sequence[float], weights: Tensor | Sequence[float] | None = None
    ) -> None:
        given = torch.as_tensor(points, dtype=torch.float64)
        given = given[:, None] if given.ndim == 1 else given
        if given.ndim < 2 or not given.numel():
            raise InputError(f"a grid has shape (n,) or (*shape, k), not {tuple(given.shape)}")
        super().__init__(tuple(given.shape[:-1]))
        self.points = given.reshape(-1, given.shape[-1])
        _check_points(self.points)
        self.weights = self._default_weights() if weights is None else self._weights(weights)
        self.uniform = self._is_uniform()

    @classmethod
    def regular(cls, shape: int | tuple[int, ...], *, ends: bool = False) -> Functions:
        """Midpoints of equal cells, `shape` of them; with `ends` the 1-D grid 0, ..., 1."""
        sides: tuple[int, ...] = (shape,) if isinstance(shape, int) else shape
        if not sides or min(sides) < 2:
            raise InputError(f"a grid of shape {shape} needs at least two points on every side")
        if ends:
            if len(sides) > 1:
                raise InputError("a grid with its ends is one-dimensional: give one number")
            return cls(torch.linspace(0, 1, math.prod(sides), dtype=torch.float64))
        return cls(_midpoints(sides))

    @property
    def axes(self) -> int:
        """Number k of arguments of a function."""
        return self.points.shape[1]

    def inner(self, f: Tensor, g: Tensor) -> Tensor:
        """L2 inner products (B,) of functions (B, *shape)."""
        return (f * g).flatten(1) @ self.weights.to(f)

    def square_norm(self, f: Tensor) -> Tensor:
        """Squared L2 norms (B,) of functions (B, *shape)."""
        return self.inner(f, f)

    def slopes(self, f: Tensor) -> Tensor:
        """Squared L2 norms (B,) of the gradients of functions (B, *shape), by differences.

        Over the span of the points: half a cell is missing at each end of a regular grid.
        Raises InputError on scattered points of k > 1.
        """
        if self.axes == 1:
            step = self.points[:, 0].diff().to(f)
            return (f.diff(dim=1).square() / step).sum(1)
        if not self.uniform:
            raise InputError("differences need a regular grid or one dimension")
        total = f.new_zeros(len(f))
        for axis, side in enumerate(self.shape, start=1):
            total = total + side**2 * f.diff(dim=axis).square().flatten(1).sum(1) / self.dim
        return total

    def _default_weights(self) -> Tensor:
        if self.axes > 1:
            return torch.full((len(self.points),), 1 / len(self.points), dtype=torch.float64)
        x = self.points[:, 0]
        if (x.diff() <= 0).any():
            raise InputError("the points of a one-dimensional grid must increase")
        edges = torch.cat([x.new_zeros(1), 0.5 * (x[1:] + x[:-1]), x.new_ones(1)])
        return edges.diff()

    def _weights(self, weights: Tensor | Sequence[float]) -> Tensor:
        given = torch.as_tensor(weights, dtype=torch.float64).flatten()
        if len(given) != len(self.points) or (given <= 0).any() or abs(given.sum() - 1) > 1e-6:
            raise InputError(
                f"quadrature weights must be {len(self.points)} positive numbers of sum 1"
            )
        return given

    def _is_uniform(self) -> bool:
        if len(self.shape) != self.axes:
            return False
        even = torch.full_like(self.weights, 1 / len(self.weights))
        return torch.allclose(self.points, _midpoints(self.shape).reshape(-1, self.axes)) and (
            torch.allclose(self.weights, even)
        )

    def __repr__(self) -> str:
        kind = "regular" if self.uniform else "irregular"
        return f"Functions({kind}, {self.shape})"


def _midpoints(shape: tuple[int, ...]) -> Tensor:
    sides = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), -1)


def _check_points(points: Tensor) -> None:
    inside = ((points >= 0) & (points <= 1)).all(1)
    if not inside.all():
        row = int((~inside).nonzero()[0, 0])
        raise InputError(
            f"grid point {row} is {points[row].tolist()}; scale the arguments to [0, 1]"
        )
    if len(torch.unique(points, dim=0)) < len(points):
        raise InputError("the grid holds a point twice; average the values there first")
