"""Laws that paths start from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.errors import InputError


class GaussianStart(nn.Module):
    """N(mean, scale scale^T), mean (dim,), scale (dim, dim) lower triangular; both may be learned.

    >>> from reverie.targets import GaussianStart
    >>> start = GaussianStart.of(2, mean=[0.0, 1.0], deviation=3.0)
    >>> start.sample(5).shape, round(float(start.log_prob(start.mean[None])), 4)  # -log 18 pi
    (torch.Size([5, 2]), -4.0351)
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.double())
        self.register_buffer("scale", scale.double())

    @classmethod
    def of(cls, dim: int, mean: Any = 0.0, deviation: Any = 1.0) -> GaussianStart:
        """From a mean and deviations, each a number or dim of them. InputError on others."""
        rows = []
        for name, value in (("mean", mean), ("deviation", deviation)):
            row = torch.as_tensor(np.asarray(value, dtype=np.float64))
            if row.ndim > 1 or (row.ndim == 1 and len(row) != dim) or not row.isfinite().all():
                raise InputError(f"the start's {name} must be a number, or {dim} of them")
            rows.append(row.expand(dim).clone())
        if (rows[1] <= 0).any():
            raise InputError("the start's deviation must be positive")
        return cls(rows[0], torch.diag(rows[1]))

    @classmethod
    def fitted(cls, x: Tensor, widened: float = 1.0, tails: float = 3.0) -> GaussianStart:
        """The Gaussian of points (n, dim), with `widened` times their deviations.

        Coordinates are drawn in to `tails` robust deviations of their median first, so that heavy
        tails do not rule; the covariance is drawn towards its diagonal by dim / (dim + n).
        """
        middle = x.median(0).values
        spread = 1.4826 * (x - middle).abs().median(0).values
        spread = torch.where(spread > 0, spread, x.std(0)).clamp(min=1e-12)
        drawn = middle + ((x - middle) / spread).clamp(-tails, tails) * spread
        mean = drawn.mean(0)
        cov = (drawn - mean).T @ (drawn - mean) / len(x)
        few = x.shape[1] / (x.shape[1] + len(x))
        own = torch.diag(cov.diagonal().clamp(min=1e-24))
        return cls(mean, widened * torch.linalg.cholesky((1 - few) * cov + few * own))

    @property
    def dim(self) -> int:
        return len(self.mean)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, dim), float64."""
        noise = torch.randn(
            n, self.dim, dtype=self.mean.dtype, device=self.mean.device, generator=generator
        )
        return self.mean + noise @ self.scale.T

    def whitened(self, x: Tensor) -> Tensor:
        """Points (n, dim) in units of this law."""
        return torch.linalg.solve_triangular(self.scale, (x - self.mean).T, upper=False).T

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density (n,) of points (n, dim)."""
        volume = self.scale.diagonal().abs().log().sum() + 0.5 * self.dim * math.log(2 * math.pi)
        return -0.5 * self.whitened(x).square().sum(1) - volume

    def score(self, x: Tensor) -> Tensor:
        """Gradient (n, dim) of the log density."""
        return -torch.linalg.solve_triangular(self.scale.T, self.whitened(x).T, upper=True).T
