"""Laws on manifolds whose exact denoiser is known: von Mises on circles, uniform on a torus.

For y = x + s z (units of the data, s = sigma / alpha), with A(k) = I_1(k) / I_0(k):

    k circles, densities ~ exp(kappa cos theta), placed isometrically in R^D
        xhat = A(|h|) h / |h| of each,  h = y / s^2 + kappa e_1;  0 in the other coordinates
    torus in R^3, radii R > r, uniform area ~ rho = R + r cos v
        w(v) ~ rho I_0(rho |y_12| / s^2) exp(-(rho^2 + (y_3 - r sin v)^2) / 2 s^2)
        xhat_12 = E_w[rho A(rho |y_12| / s^2)] y_12 / |y_12|,   xhat_3 = E_w[r sin v]

The circle of the tube is summed on NODES equal steps h, exact to exp(-2 pi^2 s^2 / h^2) for a
periodic integrand: to 1e-12 down to s = .01 at the radius 1/2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.processes import GaussianProcess

NODES = 384
TINY = 1e-30


class Circles(Denoiser):
    """Exact denoiser of k independent von Mises angles on unit circles, (D,) points, D >= 2k.

    kappa: concentration; 0 is uniform. basis: (D, 2k) with orthonormal columns; default the first
    coordinates of R^{2k}.
    """

    process: GaussianProcess
    basis: Tensor

    def __init__(
        self, process: GaussianProcess, circles: int = 1, kappa: float = 0.0,
        basis: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.process, self.circles, self.kappa = process, circles, kappa
        given = torch.eye(2 * circles, dtype=torch.float64) if basis is None else basis
        self.register_buffer("basis", given)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        basis = self.basis.to(state)
        pairs = (state @ basis).reshape(len(state), self.circles, 2)
        pull = pairs * (alpha / sigma.square())[..., None]
        pull = torch.stack([pull[..., 0] + self.kappa, pull[..., 1]], -1)
        size = pull.square().sum(-1, keepdim=True).clamp(min=TINY).sqrt()
        mean = torch.special.i1e(size) / torch.special.i0e(size) * pull / size
        return mean.flatten(1) @ basis.T

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows (n, D) in float64."""
        angles = von_mises(n * self.circles, self.kappa, generator).reshape(n, self.circles)
        return torch.stack([angles.cos(), angles.sin()], -1).flatten(1) @ self.basis.T

    def angles(self, points: Tensor) -> Tensor:
        """Angles (n, k) in (-pi, pi] of the nearest points of the manifold."""
        pairs = (points.double() @ self.basis).reshape(len(points), self.circles, 2)
        return torch.atan2(pairs[..., 1], pairs[..., 0])

    def distance(self, points: Tensor) -> Tensor:
        """Distance (n,) from points (n, D) to the manifold."""
        x = points.double()
        near = self.angles(x)
        foot = torch.stack([near.cos(), near.sin()], -1).flatten(1) @ self.basis.T
        return (x - foot).norm(dim=1)


class RingTorus(Denoiser):
    """Exact denoiser of the uniform law on a torus in R^3: `ring` R, `tube` r, axis the third."""

    process: GaussianProcess

    def __init__(self, process: GaussianProcess, ring: float = 1.0, tube: float = 0.5) -> None:
        super().__init__()
        self.process, self.ring, self.tube = process, ring, tube

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        y, variance = (state / alpha).double(), (sigma / alpha).square().double()
        v = 2 * math.pi / NODES * torch.arange(NODES, dtype=torch.float64)
        rho, height = self.ring + self.tube * v.cos(), self.tube * v.sin()
        flat = y[:, :2].square().sum(1, keepdim=True).clamp(min=TINY).sqrt()
        k = flat * rho / variance
        square = (flat - rho).square() + (y[:, 2:] - height).square()
        weight = (torch.special.i0e(k) * rho).log() - square / (2 * variance)
        weight = weight.softmax(1)
        along = (weight * rho * torch.special.i1e(k) / torch.special.i0e(k)).sum(1, keepdim=True)
        guess = torch.cat([along * y[:, :2] / flat, weight @ height[:, None]], 1)
        return guess.to(state.dtype)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows (n, 3) in float64, uniform in area."""
        kept = torch.empty(0, dtype=torch.float64)
        while len(kept) < n:  # a proposal is kept with probability rho / (R + r), over 1/2
            v = 2 * math.pi * torch.rand(2 * n, generator=generator, dtype=torch.float64)
            rho = self.ring + self.tube * v.cos()
            keep = torch.rand(2 * n, generator=generator, dtype=torch.float64)
            kept = torch.cat([kept, v[keep * (self.ring + self.tube) < rho]])
        u = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        rho = self.ring + self.tube * kept[:n].cos()
        return torch.stack([rho * u.cos(), rho * u.sin(), self.tube * kept[:n].sin()], 1)

    def distance(self, points: Tensor) -> Tensor:
        """Distance (n,) from points (n, 3) to the torus."""
        x = points.double()
        flat = x[:, :2].norm(dim=1) - self.ring
        return ((flat.square() + x[:, 2].square()).sqrt() - self.tube).abs()


def von_mises(n: int, kappa: float, generator: torch.Generator) -> Tensor:
    """Angles (n,) in (-pi, pi] of density ~ exp(kappa cos theta), by inverting its CDF."""
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    if kappa == 0:
        return math.pi * (2 * uniform - 1)
    return torch.tensor(quantiles(uniform.numpy(), kappa))


def quantiles(levels: Any, kappa: float) -> Any:
    """Quantiles of the von Mises law at `levels` in (0, 1), on a fine grid of its CDF."""
    import numpy as np
    from scipy.stats import vonmises

    grid = np.linspace(-math.pi, math.pi, 20_001)
    return np.interp(levels, vonmises.cdf(grid, kappa), grid)
