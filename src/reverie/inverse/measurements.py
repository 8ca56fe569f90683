"""What was observed: y = A(x) + noise e, with e standard normal.

A is any differentiable function, a matrix, a linear function or a mask. All that the methods ask
for is A(x) and, at a point, the products of its Jacobian and of the transpose with a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError

Map = Callable[[Tensor], Tensor]


class Tangent(NamedTuple):
    """A(x), (B, *observed), v -> J v, (B, *observed), and u -> J^T u, (B, *shape)."""

    value: Tensor
    push: Map
    pull: Map


class Measurement:
    """y = function(x) + noise e, for a function differentiable in every row of x (B, *shape).

    function: (B, *shape) -> (B, *observed), row by row. shape: of one point. noise: standard
    deviation of e, a positive number or a tensor of the observed shape. Raises InputError on noise
    that is not positive or of another shape, or a function that fails or gives no row a point.

    >>> import torch
    >>> from reverie.inverse import Measurement
    >>> measurement = Measurement(lambda x: x.square().sum(1, keepdim=True), shape=(2,), noise=0.5)
    >>> measurement.log_prob(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0]])).round(decimals=3)
    tensor([-0.2260])
    """

    def __init__(self, function: Map, shape: tuple[int, ...], noise: float | Tensor) -> None:
        self.function, self.shape = function, tuple(shape)
        try:
            probe = self(torch.zeros(2, *self.shape))
        except (RuntimeError, IndexError, TypeError) as error:
            raise InputError(
                f"the measurement cannot be taken of points of shape {self.shape} in float32: "
                f"{error}"
            ) from error
        if probe.ndim < 2 or len(probe) != 2:
            raise InputError(
                f"the measurement of 2 points has shape {tuple(probe.shape)}; "
                "it must have one row of numbers for each point"
            )
        self.observed = tuple(probe.shape[1:])
        self.noise = _noise(noise, self.observed)

    def __call__(self, x: Tensor) -> Tensor:
        """A(x), (B, *observed), without noise."""
        return self.function(x)

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A noisy observation (B, *observed) of each point x (B, *shape)."""
        value = self(x)
        noise = torch.randn(
            value.shape, generator=generator, dtype=value.dtype, device=value.device
        )
        return value + self.noise.to(value) * noise

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x) in nats, (B,)."""
        return log_normal(y - self(x), self.noise.to(x).square())

    def tangent(self, x: Tensor) -> Tangent:
        """A and the two products with its Jacobian at x (B, *shape)."""
        value, pull = torch.func.vjp(self, x)[:2]
        return Tangent(
            value,
            lambda v: torch.func.jvp(self, (x,), (v,))[1],  # type: ignore[index]
            lambda u: pull(u)[0],
        )

    def gain(self, x: Tensor) -> float:
        """Mean over observed numbers of |row of the Jacobian|^2 at a point x (*shape)."""
        jacobian = torch.func.jacrev(lambda point: self(point[None])[0])(x)
        return float(jacobian.square().sum()) / self.size

    @property
    def size(self) -> int:
        """How many numbers are observed."""
        return math.prod(self.observed)

    def check(self, y: Tensor, n: int) -> Tensor:
        """One observation, (*observed), or one for each of n draws, (n, *observed), as n rows.

        Raises InputError on another shape or on values that are not finite.
        """
        y = torch.as_tensor(y)
        if y.shape not in (self.observed, (n, *self.observed)):
            raise InputError(
                f"y has shape {tuple(y.shape)}; this measurement gives {self.observed}, "
                f"or {(n, *self.observed)} for one observation a draw"
            )
        if not torch.isfinite(y).all():
            raise InputError(
                f"y holds {int((~torch.isfinite(y)).sum())} values that are not finite: leave "
                "them out of the measurement (a mask of what was observed)"
            )
        return y.expand(n, *self.observed)


class LinearMeasurement(Measurement):
    """y = A x + noise e, for a matrix A (m, d) of flattened points, or a linear function.

    The adjoint of a function is found by automatic differentiation. shape: of one point; for a
    matrix by default (d,). Raises InputError on a matrix that is not finite, not two-dimensional
    or of another width than the points, or a function that is not linear.
    noise: a positive number, or a deviation for each observed number, as (m,).

    >>> import torch
    >>> from reverie.inverse import LinearMeasurement
    >>> measurement = LinearMeasurement(torch.tensor([[1.0, 1.0]]), noise=0.1)  # a sum
    >>> measurement.adjoint(torch.tensor([[2.0]]))
    tensor([[2., 2.]])
    """

    def __init__(
        self,
        operator: Tensor | Map,
        noise: float | Tensor,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.matrix = operator if isinstance(operator, Tensor) else None
        if self.matrix is None:
            if shape is None or isinstance(operator, Tensor):
                raise InputError("a linear function needs shape=(...) of one point")
            super().__init__(operator, shape, noise)
            self._check_linear()
            return
        shape = self._check_matrix(self.matrix, shape)
        super().__init__(self._product, shape, noise)

    def _check_matrix(self, matrix: Tensor, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        if matrix.ndim != 2 or not torch.isfinite(matrix).all():
            raise InputError(
                f"the matrix of shape {tuple(matrix.shape)} must be finite, with one row for "
                "each observed number and one column for each coordinate"
            )
        shape = (matrix.shape[1],) if shape is None else tuple(shape)
        if math.prod(shape) != matrix.shape[1]:
            raise InputError(
                f"the matrix has {matrix.shape[1]} columns, but points of shape {shape} have "
                f"{math.prod(shape)} coordinates"
            )
        return shape

    def _product(self, x: Tensor) -> Tensor:
        assert self.matrix is not None
        return x.flatten(1) @ self.matrix.to(x).T

    def _check_linear(self) -> None:
        generator = torch.Generator().manual_seed(0)
        one, two = torch.randn(2, 1, *self.shape, generator=generator)
        apart = 2 * self(one) - self(two)
        if not torch.allclose(self(2 * one - two), apart, rtol=1e-3, atol=1e-3):
            raise InputError("the function is not linear: use Measurement(function, shape, noise)")

    def adjoint(self, u: Tensor) -> Tensor:
        """A^T u, (B, *shape), of u (B, *observed)."""
        if self.matrix is not None:
            return (u @ self.matrix.to(u)).reshape(-1, *self.shape)
        zero = torch.zeros(len(u), *self.shape, dtype=u.dtype, device=u.device)
        return torch.func.vjp(self, zero)[1](u)[0]

    def tangent(self, x: Tensor) -> Tangent:
        return Tangent(self(x), self, self.adjoint)


class Inpainting(LinearMeasurement):
    """The coordinates where `mask` (*shape) is true: y is (m,), in the order of the mask.

    noise: a positive number, or a deviation for each of the m, (m,). Raises InputError on a mask
    that is not of bool, or that observes nothing.

    >>> import torch
    >>> from reverie.inverse import Inpainting
    >>> measurement = Inpainting(torch.tensor([True, False, True]), noise=0.1)
    >>> measurement.function(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 3.]])
    """

    def __init__(self, mask: Tensor, noise: float | Tensor) -> None:
        if mask.dtype != torch.bool:
            raise InputError(f"the mask holds {mask.dtype}; it must be of bool, true = observed")
        if not mask.any():
            raise InputError("the mask observes nothing: at least one entry must be true")
        self.mask = mask
        super().__init__(lambda x: x[:, mask.to(x.device)], noise, tuple(mask.shape))

    def adjoint(self, u: Tensor) -> Tensor:
        """The observed numbers at their places, zero elsewhere."""
        full = torch.zeros(len(u), *self.shape, dtype=u.dtype, device=u.device)
        return full.masked_scatter(self.mask.to(u.device), u)


def log_normal(residual: Tensor, variance: Tensor) -> Tensor:
    """log N(residual; 0, diag(variance)) in nats, (B,), summed over all but the first axis."""
    variance = variance.expand(residual.shape)
    nats = residual.square() / variance + (2 * math.pi * variance).log()
    return -0.5 * nats.flatten(1).sum(1)


def _noise(noise: float | Tensor, observed: tuple[int, ...]) -> Tensor:
    noise = torch.as_tensor(noise, dtype=torch.float64)
    if noise.ndim and noise.shape != observed:
        raise InputError(
            f"noise has shape {tuple(noise.shape)}; it must be one number, or {observed} like y"
        )
    if not (torch.isfinite(noise).all() and (noise > 0).all()):
        raise InputError("noise must be a positive standard deviation; for exact data give 1e-3")
    return noise
