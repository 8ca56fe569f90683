"""R^n with the methods of a manifold, so that it can stand in a product with curved spaces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.spaces.euclidean import Euclidean
from reverie.spaces.manifold import Manifold


class Flat(Euclidean, Manifold):
    """R^n, points as vectors (n,).

    >>> import torch
    >>> from reverie.spaces import Flat
    >>> Flat(2).distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """

    gap = 0.0
    log_volume = math.inf

    def __init__(self, n: int) -> None:
        super().__init__((n,))
        self.dim = n

    def residual(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, 0])

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y)

    def frame(self, x: Tensor) -> Tensor:
        axes = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        return axes.expand(len(x), self.dim, self.dim)

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(self.shape, dtype=dtype)

    def heat_moments(self, x: Tensor) -> tuple[Tensor, float]:
        """The mean, and the mean variance of the coordinates."""
        centre = x.mean(0)
        return centre, float((x - centre).square().mean())

    def __repr__(self) -> str:
        return f"Flat({self.dim})"
