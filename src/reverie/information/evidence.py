"""The evidence lower bound of a Gaussian process and a denoiser, and bits per dimension.

    -log p(x) <= KL(q(z_1 | x) | p(z_1)) + diffusion + E[-log p(x | z_0)]

With our sampler's prior N(0, sigma_1^2) the first is 1/2 gamma_1 |x|^2. The diffusion term is the
area under the loss curve, or for T steps the staircase over it (Kingma et al. 2021, eq. 14 and
17). The last is the decoder's: of values on a grid the softmax of -1/2 gamma_0 (z_0/alpha_0 - v)^2
(ibid., appendix B); of densities the normal law N(z_0 / alpha_0, 1 / gamma_0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import Z95, as_points, measure
from reverie.denoisers import Denoiser, condition_rows
from reverie.errors import InputError
from reverie.processes import GaussianProcess


@dataclass(frozen=True)
class Bound:
    """Mean upper bound on -log p(x) in nats per sample, by its three parts; dim coordinates."""

    prior: float
    diffusion: float
    reconstruction: float
    stderr: float  # of the total, over rows
    dim: int

    @property
    def nats(self) -> float:
        return self.prior + self.diffusion + self.reconstruction

    @property
    def bits_per_dim(self) -> float:
        return self.nats / (self.dim * math.log(2))

    def __str__(self) -> str:
        half = Z95 * self.stderr / (self.dim * math.log(2))
        return f"{self.bits_per_dim:.4f} +- {half:.4f} bits per dimension ({self.nats:.4g} nats)"


def prior_divergence(process: GaussianProcess, x: Tensor) -> Tensor:
    """KL (B,) in nats, at the noisiest level, of noised x (B, *shape) from the sampler's prior."""
    alpha, sigma = process.levels(process.t_range[1], x)
    return 0.5 * (alpha / sigma * x).square().flatten(1).sum(1)


def reconstruction(
    process: GaussianProcess,
    x: Tensor,
    values: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """-log p(x | z_0) (B,) in nats, one draw of z_0 each.

    values: the grid (V,) on which all of x (B, *shape) lies, as of pixels; None for a density.
    Raises InputError where x lies off the grid.
    """
    alpha, sigma = process.levels(process.t_range[0], x)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    spread = (sigma / alpha).expand_as(x)
    if values is None:
        each = 0.5 * noise.square() + spread.log() + 0.5 * math.log(2 * math.pi)
        return each.flatten(1).sum(1)
    grid = values.to(x)
    place = (x[..., None] - grid).abs().argmin(-1)
    if not torch.allclose(grid[place], x, atol=1e-4 * float(grid.max() - grid.min())):
        raise InputError(f"some values of the data are not among the {len(grid)} of the grid")
    logits = -0.5 * ((x + spread * noise)[..., None] - grid).div(spread[..., None]).square()
    each = -logits.log_softmax(-1).gather(-1, place[..., None])
    return each.flatten(1).sum(1)


@torch.no_grad()
def evidence_bound(
    denoiser: Denoiser,
    data: Tensor | np.ndarray,
    *,
    values: Tensor | None = None,
    steps: int | None = None,
    levels: int = 128,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """Bound -log p of data (n, *shape), in the units of the denoiser.

    values: the grid (V,) that discrete data lie on; the bound is then on probabilities. steps: of
    a sampler even in t; None is continuous time, from a curve of `levels`. condition: as in
    `measure`. Raises InputError on a process that is not Gaussian, or fewer than two rows.
    """
    process = denoiser.process
    if not isinstance(process, GaussianProcess) or not process.isotropic:
        raise InputError("the evidence bound is written for Gaussian noise of one level")
    rows = as_points(denoiser, data)
    if len(rows) < 2:
        raise InputError(f"an error bar needs at least two rows, not {len(rows)}")
    at: int | np.ndarray = levels
    if steps is not None:
        low, high = process.t_range
        times = torch.linspace(high, low, steps + 1, dtype=torch.float64)
        at = process.clock(times).numpy()
    told = condition_rows(condition, len(rows), rows)
    curve = measure(denoiser, rows, at, generator=generator, keep_samples=True, condition=told)
    assert curve.per_sample is not None
    if steps is None:
        diffusion, weights = curve.area(), curve.weights
    else:
        weights = np.append(np.diff(curve.u), 0.0)
        diffusion = float((weights * curve.rate).sum())
    each = (curve.per_sample.astype(np.float64) * weights).reshape(len(rows), -1).sum(1)
    prior = prior_divergence(process, rows).double().cpu().numpy()
    decoded = reconstruction(process, rows, values, generator=generator).double().cpu().numpy()
    error = float((each + prior + decoded).std(ddof=1) / math.sqrt(len(rows)))
    dim = math.prod(rows.shape[1:])
    return Bound(float(prior.mean()), diffusion, float(decoded.mean()), error, dim)
