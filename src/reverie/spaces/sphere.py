"""The unit sphere S^n in R^(n+1), with the metric of arc length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.manifold import OPEN, Manifold, length, sinc


class Sphere(Manifold):
    """S^n, points as unit vectors (n + 1,). Raises InputError for n < 1.

    >>> import torch
    >>> from reverie.spaces import Sphere
    >>> x, y = torch.eye(3)[:1], torch.eye(3)[1:2]
    >>> Sphere(2).distance(x, y).round(decimals=4)  # a quarter of a great circle
    tensor([1.5708])
    """

    rule = "unit length"

    def __init__(self, n: int = 2) -> None:
        if n < 1:
            raise InputError(f"a sphere has dimension 1 or more, not {n}")
        self.dim, self.shape, self.gap = n, (n + 1,), float(n)
        half = 0.5 * (n + 1)
        self.log_volume = math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    def residual(self, x: Tensor) -> Tensor:
        return (x.norm(dim=1) - 1).abs()

    def project(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - (x * v).sum(1, keepdim=True) * x

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        r = length(v)
        return self.project(r.cos() * x + sinc(r) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        # arc cosine loses half the digits at both ends; chords of x - y and x + y do not
        r = 2 * torch.atan2(length(x - y), length(x + y))
        toward = self.tangent(x, y)
        across = length(toward)
        return toward * torch.where(across > 0, r / across.clamp(min=1e-300), torch.ones_like(r))

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        gap = (0.5 - 0.5 * x @ y.T).clamp(*OPEN)  # where the square root has a derivative
        return 2 * gap.sqrt().asin()

    def frame(self, x: Tensor) -> Tensor:
        # columns of the Householder reflection that takes the last axis to +-x
        sign = torch.where(x[:, -1:] < 0, -1.0, 1.0).to(x)
        mirror = x.clone()
        mirror[:, -1:] = mirror[:, -1:] + sign
        weight = 2 / mirror.square().sum(1)
        axes = torch.eye(self.dim + 1, dtype=x.dtype, device=x.device)[:-1]
        return axes - weight[:, None, None] * mirror[:, None, :] * mirror[:, :-1, None]

    def noise(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.tangent(x, z)

    def uniform(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = torch.randn((n, *self.shape), generator=generator, dtype=dtype, device=device)
        return self.project(z)

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.eye(self.dim + 1, dtype=dtype)[-1]

    def __repr__(self) -> str:
        return f"Sphere({self.dim})"


def from_degrees(places: Tensor) -> Tensor:
    """Points (n, 3) of S^2 from latitude and longitude (n, 2) in degrees."""
    latitude, longitude = places.deg2rad().T
    flat = latitude.cos()
    return torch.stack([flat * longitude.cos(), flat * longitude.sin(), latitude.sin()], 1)


def to_degrees(points: Tensor) -> Tensor:
    """Latitude and longitude (n, 2) in degrees of points (n, 3) of S^2."""
    latitude = torch.atan2(points[:, 2], points[:, :2].norm(dim=1))
    return torch.stack([latitude, torch.atan2(points[:, 1], points[:, 0])], 1).rad2deg()
