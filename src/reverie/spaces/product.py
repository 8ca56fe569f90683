"""Products of manifolds: a point is the parts' points, flattened one after another."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.manifold import Manifold


class Product(Manifold):
    """The product of `parts` with the sum of their metrics; points have shape (D,).

    Raises InputError without parts.

    >>> import torch
    >>> from reverie.spaces import Product, Sphere, Torus
    >>> space = Product(Sphere(2), Torus(1))
    >>> x = space.uniform(5, generator=torch.Generator().manual_seed(0))
    >>> x.shape, space.dim, space.distance(x, x).max().round(decimals=3)
    (torch.Size([5, 4]), 3, tensor(0., dtype=torch.float64))
    """

    def __init__(self, *parts: Manifold) -> None:
        if not parts:
            raise InputError("a product of manifolds needs at least one part")
        self.parts = parts
        self.sizes = [math.prod(part.shape) for part in parts]
        self.shape = (sum(self.sizes),)
        self.dim = sum(part.dim for part in parts)
        self.gap = min(part.gap for part in parts)
        self.log_volume = sum(part.log_volume for part in parts)

    def split(self, x: Tensor) -> list[Tensor]:
        """The parts' points, each (B, *part.shape), of points (B, D)."""
        pieces = x.split(self.sizes, dim=1)
        return [
            piece.reshape(len(x), *part.shape)
            for piece, part in zip(pieces, self.parts, strict=True)
        ]

    def join(self, pieces: Iterable[Tensor]) -> Tensor:
        """Points (B, D) of the parts' points; the inverse of `split`."""
        return torch.cat([piece.flatten(1) for piece in pieces], 1)

    def _each(self, method: str, *points: Tensor) -> list[Tensor]:
        columns = zip(self.parts, *(self.split(p) for p in points), strict=True)
        return [getattr(part, method)(*pieces) for part, *pieces in columns]

    def residual(self, x: Tensor) -> Tensor:
        return torch.stack(self._each("residual", x)).amax(0)

    def project(self, x: Tensor) -> Tensor:
        return self.join(self._each("project", x))

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self.join(self._each("tangent", x, v))

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        return self.join(self._each("lower", x, v))

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return self.join(self._each("gradient", x, derivative))

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.join(self._each("exp", x, v))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.join(self._each("log", x, y))

    def features(self, x: Tensor) -> Tensor:
        return self.join(self._each("features", x))

    def steer(self, x: Tensor, raw: Tensor) -> Tensor:
        return self.join(self._each("steer", x, raw))

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack(self._each("distances", x, y)).square().sum(0).sqrt()

    def frame(self, x: Tensor) -> Tensor:
        blocks, row, column = x.new_zeros(len(x), self.dim, self.shape[0]), 0, 0
        for part, size, basis in zip(self.parts, self.sizes, self._each("frame", x), strict=True):
            blocks[:, row : row + part.dim, column : column + size] = basis.flatten(2)
            row, column = row + part.dim, column + size
        return blocks

    def uniform(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return self.join(
            part.uniform(n, generator=generator, dtype=dtype, device=device) for part in self.parts
        )

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.cat([part.origin(dtype).flatten() for part in self.parts])

    def heat_moments(self, x: Tensor) -> tuple[Tensor, float]:
        """The parts' centres, and the mean duration of those that are not compact."""
        moments = [part.heat_moments(y) for part, y in zip(self.parts, self.split(x), strict=True)]
        sizes = [0 if part.compact else part.dim for part in self.parts]
        total = sum(size * tau for size, (_, tau) in zip(sizes, moments, strict=True))
        return torch.cat([centre.flatten() for centre, _ in moments]), total / max(sum(sizes), 1)

    def check(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or tuple(x.shape[1:]) != self.shape:
            raise InputError(f"points of {self} have shape {self.shape}, not {tuple(x.shape[1:])}")
        for part, piece in zip(self.parts, self.split(x), strict=True):
            part.check(piece)
        return x

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.parts))})"
