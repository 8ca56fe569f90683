"""The flat torus T^n: n angles in radians."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.manifold import Manifold


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


class Torus(Manifold):
    """T^n, points as angles (n,) in [-pi, pi]. Raises InputError for n < 1.

    >>> import torch
    >>> from reverie.spaces import Torus
    >>> Torus(1).distance(torch.tensor([[3.0]]), torch.tensor([[-3.0]])).round(decimals=4)
    tensor([0.2832])
    """

    rule = "every angle in [-pi, pi] radians"

    def __init__(self, n: int = 1) -> None:
        if n < 1:
            raise InputError(f"a torus has dimension 1 or more, not {n}")
        self.dim, self.shape, self.gap = n, (n,), 1.0
        self.log_volume = n * math.log(2 * math.pi)

    def residual(self, x: Tensor) -> Tensor:
        return (x.abs() - math.pi).clamp(min=0).amax(1)

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return wrap(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(x[:, None] - y[None]).norm(dim=2)

    def frame(self, x: Tensor) -> Tensor:
        axes = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        return axes.expand(len(x), self.dim, self.dim)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x.cos(), x.sin()], 1)

    def uniform(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        share = torch.rand((n, self.dim), generator=generator, dtype=dtype, device=device)
        return (2 * share - 1) * math.pi

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(self.dim, dtype=dtype)

    def __repr__(self) -> str:
        return f"Torus({self.dim})"
