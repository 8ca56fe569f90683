"""Hyperbolic space H^n of curvature -1, in the Lorentz model.

Points are vectors (x_0, x) of R^(n+1) with x_0 = sqrt(1 + |x|^2); the inner product of tangent
vectors is -v_0 w_0 + v.w. Coordinates grow as exp(distance from the origin), so that float64 keeps
about eight digits of a distance up to 18 away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.manifold import OPEN, Manifold, length, sinhc


class Hyperbolic(Manifold):
    """H^n, points as vectors (n + 1,) of the upper hyperboloid. Raises InputError for n < 2.

    >>> import torch
    >>> from reverie.spaces import Hyperbolic
    >>> space = Hyperbolic(2)
    >>> x = space.origin()[None]
    >>> y = space.exp(x, 2 * space.frame(x)[:, 0])
    >>> space.distance(x, y).round(decimals=6)
    tensor([2.], dtype=torch.float64)
    """

    rule = "x_0 = sqrt(1 + |x|^2)"
    gap = 0.0
    log_volume = math.inf

    def __init__(self, n: int = 2) -> None:
        if n < 2:
            raise InputError(f"hyperbolic space has dimension 2 or more, not {n}")
        self.dim, self.shape = n, (n + 1,)

    def residual(self, x: Tensor) -> Tensor:
        top = _top(x[:, 1:])
        return ((x[:, :1] - top) / top).abs()[:, 0]

    def project(self, x: Tensor) -> Tensor:
        return torch.cat([_top(x[:, 1:]), x[:, 1:]], 1)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v + (self.lower(x, x) * v).sum(1, keepdim=True) * x

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.cat([-v[..., :1], v[..., 1:]], -1)

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return self.tangent(x, self.lower(x, derivative))

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        square = (self.lower(x, v) * v).sum(1, keepdim=True).clamp(min=0)
        r = torch.where(square == 0, 0.0, torch.where(square == 0, 1.0, square).sqrt())
        return self.project(r.cosh() * x + sinhc(r) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        chord = _chord(self, x, y)
        r = 2 * (0.25 * torch.where(chord == 0, 1e-300, chord)).sqrt().asinh()
        # y - cosh(r) x, with cosh(r) - 1 = chord / 2: no digits are lost when y is near x
        return (y - x - 0.5 * chord * x) / sinhc(r)

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        cosh = -(self.lower(x, x) @ y.T)
        return 2 * (0.5 * (cosh - 1)).clamp(min=OPEN[0]).sqrt().asinh()

    def frame(self, x: Tensor) -> Tensor:
        # the Lorentz boost that takes the origin to x, applied to the axes there
        space = x[:, 1:]
        axes = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        spread = space[:, :, None] * space[:, None, :] / (1 + x[:, :1, None])
        return torch.cat([space[:, :, None], axes + spread], 2)

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.eye(self.dim + 1, dtype=dtype)[0]

    def features(self, x: Tensor) -> Tensor:
        # coordinates grow as exp(r): a network reads the geodesic from the origin, and the ball's
        space = x[:, 1:]
        size = length(space)
        geodesic = torch.where(size > 0, size.asinh() / size.clamp(min=1e-30), 1.0) * space
        return torch.cat([geodesic, space / (1 + x[:, :1])], 1)

    def steer(self, x: Tensor, raw: Tensor) -> Tensor:
        # along the frame: the projection of an ambient vector would grow as exp(r)
        return torch.einsum("bk,bki->bi", raw[:, 1:], self.frame(x))

    def heat_moments(self, x: Tensor) -> tuple[Tensor, float]:
        """The centroid of least mean cosh(distance), and tau of E[cosh r] = exp(n tau / 2)."""
        mean = x.mean(0)
        centre = mean / (-(self.lower(x, mean) * mean).sum()).sqrt()
        cosh = float((1 + 0.5 * _chord(self, centre[None], x)).mean())
        return self.project(centre[None])[0], 2 / self.dim * math.log(cosh)

    def __repr__(self) -> str:
        return f"Hyperbolic({self.dim})"


def _chord(space: Hyperbolic, x: Tensor, y: Tensor) -> Tensor:
    """2 (cosh(distance) - 1), (B, 1), without cancellation where the points are near."""
    return (space.lower(x, x - y) * (x - y)).sum(1, keepdim=True).clamp(min=0)


def _top(space: Tensor) -> Tensor:
    return (1 + space.square().sum(1, keepdim=True)).sqrt()
