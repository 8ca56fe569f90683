"""What a discrete sampler makes of a linear denoiser: the variance of each mode, step by step.

Samples of a linear model are Gaussian, with mean and covariance in the eigenbasis of the model's
covariance; each mode follows v_s = A^2 v_t + spread^2 with xhat = gain x_t put into the step. The
steps are those of `sampling`: K steps between finite levels, then the last denoise without noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from reverie import lazily
from reverie.errors import InputError
from reverie.plan import Plan, PlannedSteps
from reverie.processes import GaussianProcess

SAMPLERS = ("ancestral", "ancestral-large", "ddim")


class Scales(NamedTuple):
    """alpha and sigma (K + 1,) along a plan, noisiest first.

    >>> from reverie.theory import Scales, ddpm_scales
    >>> scales = ddpm_scales(steps=10)
    >>> isinstance(scales, Scales), scales.gamma[[0, -1]].round(2)  # noisy, clean
    (True, array([9.390e+00, 9.999e+03]))
    """

    alpha: np.ndarray
    sigma: np.ndarray

    @property
    def gamma(self) -> np.ndarray:
        return (self.alpha / self.sigma) ** 2


def ddpm_scales(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Scales:
    """Levels of DDPM with beta_t linear from beta_min to beta_max (Ho, Jain & Abbeel 2020).

    >>> from reverie.theory import ddpm_scales
    >>> alpha, sigma = ddpm_scales()
    >>> alpha.shape, (alpha**2 + sigma**2)[[0, -1]].round(6)
    ((1000,), array([1., 1.]))
    """
    kept = np.cumsum(np.log1p(-np.linspace(beta_min, beta_max, steps)))[::-1]
    return Scales(np.exp(0.5 * kept), np.sqrt(-np.expm1(kept)))


def scales_of(plan: Plan | np.ndarray | torch.Tensor, process: GaussianProcess) -> Scales:
    """Levels of a Plan or of process times (K + 1,), noisy to clean, else InputError."""
    given = plan.times if isinstance(plan, PlannedSteps) else plan
    t = torch.as_tensor(given, dtype=torch.float64)
    if t.ndim != 1 or len(t) < 2 or (t.diff() >= 0).any():
        raise InputError("a plan's times must be a decreasing list of at least two levels")
    return Scales(process.alpha(t).numpy(), process.sigma(t).numpy())


def sampled_variance(
    scales: Scales, gain: np.ndarray, sampler: str = "ancestral", start: float | None = None
) -> np.ndarray:
    """Variance (M,) of each mode of the samples, after the last denoise; see `variance_path`.

    gain: (K + 1, M), xhat = gain x_t, for centred data.

    >>> import numpy as np
    >>> from reverie.theory import ddpm_scales, sampled_variance
    >>> scales = ddpm_scales(1000)
    >>> gain = (scales.alpha / (scales.alpha**2 * 2.0 + scales.sigma**2) * 2.0)[:, None]
    >>> sampled_variance(scales, gain, "ddim").round(3)  # of data of variance 2
    array([1.993])
    """
    return gain[-1] ** 2 * variance_path(scales, gain, sampler, start)[-1]


def variance_path(
    scales: Scales, gain: np.ndarray, sampler: str = "ancestral", start: float | None = None
) -> np.ndarray:
    """Variance (K + 1, M) of each mode of the states at every level; exact.

    gain: (K + 1, M), xhat = gain x_t for centred states. sampler: "ancestral" (DDPM with the
    small, posterior variance), "ancestral-large" (with beta_t) or "ddim". start: variance of the
    initial states, default sigma^2 of the noisiest level. InputError on other words or shapes.
    """
    alpha, sigma = scales
    if sampler not in SAMPLERS:
        raise InputError(f"no sampler is called {sampler!r}; choose {', '.join(SAMPLERS)}")
    if gain.ndim != 2 or len(gain) != len(alpha):
        raise InputError(f"gain has shape {gain.shape}; need one row for {len(alpha)} levels")
    lost = np.clip(1 - scales.gamma[:-1] / scales.gamma[1:], 0, None)
    if sampler == "ddim":
        lost = np.zeros_like(lost)
    kept = sigma[1:] / sigma[:-1] * np.sqrt(1 - lost)
    clean = alpha[1:] - kept * alpha[:-1]
    spread = sigma[1:] ** 2 * lost
    if sampler == "ancestral-large":
        spread = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
    path = np.empty_like(gain, dtype=np.float64)
    path[0] = sigma[0] ** 2 if start is None else start
    factor = (kept[:, None] + clean[:, None] * gain[:-1]) ** 2
    for k, added in enumerate(spread):
        np.multiply(factor[k], path[k], out=path[k + 1])
        path[k + 1] += added
    return path


__getattr__ = lazily(
    __name__,
    {},
    {
        "Levels": "reverie.theory.samplers:Scales",
        "ddpm_levels": "reverie.theory.samplers:ddpm_scales",
        "levels_of": "reverie.theory.samplers:scales_of",
    },
)
