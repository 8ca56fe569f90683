"""Which score errors keep a reversal on its training set, and how often chance looks like it.

A score error of finite energy in noise time changes the weights of the training points and not
the support of the samples (Pidstrigach 2022, arXiv 2206.01018, read in its abstract; theorem and
experiment here are a reconstruction). To leave the training set the error of the drift must
diverge as the noise vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.processes import GaussianProcess
from reverie.processes.gaussian import require_gaussian

ScoreError = Callable[[Tensor, Tensor], Tensor]


class PerturbedScore(Denoiser):
    """`denoiser` with `error(x_t, t)` (B, *shape) added to its score.

    xhat changes by (sigma^2 / alpha) error, since the score is (alpha xhat - x_t) / sigma^2.
    """

    process: GaussianProcess

    def __init__(self, denoiser: Denoiser, error: ScoreError) -> None:
        super().__init__()
        self.process = require_gaussian(denoiser.process, "a perturbed score")
        self.denoiser, self.error = denoiser, error

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        clean = self.denoiser(state, t, condition)
        error = self.process.to_modes(self.error(state, t))
        return clean + self.process.from_modes(sigma.square() / alpha * error)


class Smoothed(Denoiser):
    """Exact denoiser of the training set blurred by a Gaussian of deviation `bandwidth`.

    The law of a kernel density estimate, whose score differs from the training set's by an error
    that grows like 1 / sigma^2. `memoriser` is on an exploding-variance process (alpha = 1) whose
    range holds sqrt(sigma^2 + bandwidth^2) at every level.
    """

    process: GaussianProcess

    def __init__(self, memoriser: Denoiser, bandwidth: float) -> None:
        super().__init__()
        process = require_gaussian(memoriser.process, "smoothing", one_level=True)
        if bandwidth <= 0:
            raise InputError(f"bandwidth is {bandwidth}; smoothing needs a positive one")
        self.process, self.memoriser, self.bandwidth = process, memoriser, bandwidth

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        if (alpha != 1).any():
            raise InputError("smoothing is written for exploding variance: alpha must be 1")
        wide = sigma.square() + self.bandwidth**2
        later = self.process.time((1 / wide).double().flatten()).to(state)
        centre = self.memoriser(state, later.expand(len(state)))
        return centre + (self.bandwidth**2 / wide) * (state - centre)


@torch.no_grad()
def nearest_two(samples: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (m, 2) to the two nearest rows of `data`, and the index (m,) of the nearest.

    samples (m, *shape), data (n, *shape), n >= 2 (else InputError); float64, exact differences.
    """
    if len(data) < 2:
        raise InputError("two nearest neighbours need at least two rows of data")
    flat, points = samples.flatten(1).double(), data.flatten(1).double()
    every = torch.cdist(flat, points, compute_mode="donot_use_mm_for_euclid_dist")
    near = every.topk(2, dim=1, largest=False)
    return near.values, near.indices[:, 0]


def copied_share(samples: Tensor, data: Tensor, threshold: float = 1 / 3) -> float:
    """Share of samples whose nearest row is closer than `threshold` times the second nearest.

    The f_mem of the field (unsquared distances; Bonnaire et al. 2025 take 1/3). Chance alone
    gives about `null_copied_share`.
    """
    near = nearest_two(samples, data)[0]
    return float((near[:, 0] < threshold * near[:, 1]).double().mean())


def null_copied_share(dim: float, threshold: float = 1 / 3) -> float:
    """Share threshold^dim that novel samples reach by chance, `dim` the intrinsic dimension.

    For locally uniform data (d_1 / d_2)^dim is uniform on (0, 1), a reconstruction; above .01 for
    dim <= 4, where the ratio proves nothing. Raises InputError outside 0 < threshold < 1.
    """
    if not 0 < threshold < 1 or dim <= 0:
        raise InputError(
            "the ratio's threshold lies between 0 and 1 and the dimension is positive"
        )
    return threshold**dim


def geometric_times(
    process: GaussianProcess, sigma_max: float, sigma_min: float, steps: int
) -> Tensor:
    """Process times (steps + 1,) at which sigma / alpha falls geometrically between two values."""
    log_ends = math.log(sigma_max), math.log(sigma_min)
    sigma = torch.as_tensor(np.exp(np.linspace(*log_ends, steps + 1)))
    return process.time(sigma**-2)
