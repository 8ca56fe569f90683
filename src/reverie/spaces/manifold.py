"""What every curved space gives: points and tangent vectors as tensors in ambient coordinates.

A point is a tensor of `shape`, a tangent vector one of the same shape, tangent where it stands.
All methods take a batch first, keep the type they are given, and are differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space

OPEN = (1e-30, 1 - 1e-15)  # inside (0, 1), so that square roots and arc sines have slopes


class Manifold(Space):
    """A Riemannian manifold of dimension `dim` whose points have `shape`.

    `gap` is the least positive eigenvalue of minus the Laplacian: noise of duration tau (generator
    half the Laplacian) forgets its start as exp(-gap tau / 2). It is 0 where the space is not
    compact; then `log_volume` is infinite and there is no uniform law.

    >>> import torch
    >>> from reverie.spaces import Manifold, Sphere
    >>> sphere = Sphere(2)
    >>> isinstance(sphere, Manifold), sphere.gap, round(sphere.log_volume, 4)  # log 4 pi
    (True, 2.0, 2.531)
    """

    shape: tuple[int, ...]
    dim: int = 0  # of the manifold, fewer than the coordinates of a point
    gap: float
    log_volume: float
    rule: str  # what a point must satisfy, for the sentence of `check`

    @property
    def compact(self) -> bool:
        """Whether the space has a uniform law."""
        return math.isfinite(self.log_volume)

    def as_points(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else data.double()

    def residual(self, x: Tensor) -> Tensor:
        """How far rows (B, *shape) are from satisfying the constraint, (B,)."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """The closest point (B, *shape) of the manifold."""
        raise NotImplementedError

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Orthogonal projection of ambient vectors v (B, *shape) on the tangent space at x."""
        raise NotImplementedError

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """The end (B, *shape) of the geodesic from x with tangent velocity v, at time 1."""
        raise NotImplementedError

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The shortest tangent vector (B, *shape) at x with exp(x, v) = y."""
        raise NotImplementedError

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Geodesic distances of all pairs of x (B, *shape) and y (N, *shape), (B, N)."""
        raise NotImplementedError

    def frame(self, x: Tensor) -> Tensor:
        """An orthonormal basis (B, dim, *shape) of the tangent space at x."""
        raise NotImplementedError

    def uniform(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """`n` independent uniform points (n, *shape); InputError where the space is unbounded."""
        raise InputError(f"{self} is not compact, so it has no uniform law")

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """A point (*shape) that stands for the middle where there is no uniform law."""
        raise NotImplementedError

    def heat_moments(self, x: Tensor) -> tuple[Tensor, float]:
        """Centre (*shape) and duration of the heat kernel with the moments of rows x (N, *shape).

        Asked of spaces that are not compact only; elsewhere noise forgets both: (origin, 0).
        """
        return self.origin(x.dtype), 0.0

    # --- what follows from these ---------------------------------------------------------------

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        """The ambient covector of v: sum(lower(v) * w) is the inner product of v and w at x."""
        return v

    def inner(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Riemannian inner product (B,) of tangent vectors at x."""
        return (self.lower(x, v) * w).flatten(1).sum(1)

    def norm(self, x: Tensor, v: Tensor) -> Tensor:
        """Riemannian length (B,) of tangent vectors at x."""
        return self.inner(x, v, v).clamp(min=0).sqrt()

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        """The Riemannian gradient (B, *shape) from the derivative by ambient coordinates."""
        return self.tangent(x, derivative)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Geodesic distance (B,) of paired points."""
        return self.norm(x, self.log(x, y))

    def noise(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """A standard normal vector (B, *shape) of each tangent space."""
        z = torch.randn((len(x), self.dim), generator=generator, dtype=x.dtype, device=x.device)
        return torch.einsum("bk,bk...->b...", z, self.frame(x))

    def features(self, x: Tensor) -> Tensor:
        """Coordinates (B, F), smooth on the manifold, that a network may read."""
        return x.flatten(1)

    def steer(self, x: Tensor, raw: Tensor) -> Tensor:
        """The tangent vector (B, *shape) at x that a network's output (B, *shape) stands for.

        Its length is of the order of the output's.
        """
        return self.tangent(x, raw)

    def check(self, x: Tensor) -> Tensor:
        """Return `x` (B, *shape), or raise InputError that names the first offending row."""
        if x.ndim < 1 or tuple(x.shape[1:]) != self.shape:
            raise InputError(f"points of {self} have shape {self.shape}, not {tuple(x.shape[1:])}")
        bad = ~torch.isfinite(x.flatten(1)).all(1)
        if bad.any():
            raise InputError(f"row {int(bad.nonzero()[0, 0])} holds a value that is not finite")
        tolerance = 1e-6 if x.dtype == torch.float64 else 1e-5
        off = self.residual(x)
        if (off > tolerance).any():
            row = int((off > tolerance).nonzero()[0, 0])
            raise InputError(
                f"row {row} is not on {self}: {self.rule} fails by {float(off[row]):.2g}; "
                f"project the rows first"
            )
        return x


def sinc(r: Tensor) -> Tensor:
    """sin(r) / r, with its derivatives at 0."""
    return torch.sinc(r / math.pi)


def sinhc(r: Tensor) -> Tensor:
    """sinh(r) / r, with its derivatives at 0."""
    small = r.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(r), r)
    return torch.where(small, 1 + r.square() / 6, safe.sinh() / safe)


def length(v: Tensor) -> Tensor:
    """Euclidean length over the last axis, (..., 1), with derivative 0 at the zero vector."""
    square = v.square().sum(-1, keepdim=True)
    zero = square == 0
    return torch.where(zero, torch.zeros_like(square), torch.where(zero, 1.0, square).sqrt())


def scale(factor: Tensor, v: Tensor) -> Tensor:
    """factor (B,) times v (B, *shape)."""
    return factor.reshape(-1, *(1,) * (v.ndim - 1)) * v
