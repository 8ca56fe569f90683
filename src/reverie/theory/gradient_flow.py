"""Early stopping: the linear denoiser after a finite training time, in closed form.

Gradient flow dW/dtau = -eta dL/dW on the noise-prediction loss at each level, in variance
preserving coordinates (ab = gamma/(1 + gamma), C = ab lam + 1 - ab; any process maps onto them):

    W(tau) = W* + (W(0) - W*) exp(-2 eta tau C),        W* = sqrt(1 - ab) / C

`time` is eta tau throughout, the same at all levels. Large variances and large noise are learned
first. Derived for this library; the x0 form is that of Wang & Pehlevan 2025 (arXiv 2503.03206).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.special import exp1, expi

from reverie.errors import InputError

Array = np.ndarray | float


def _curvature(lam: Array, ab: Array, ridge: float) -> np.ndarray:
    return np.asarray(ab * (np.asarray(lam) + ridge) + 1 - ab)


def flow_weight(
    lam: Array, ab: Array, time: float, ridge: float = 0.0, start: Array = 0.0
) -> np.ndarray:
    """Weight of a mode in epsilon-hat = W x after `time`, from W(0) = start; exact.

    lam, ab, start broadcast; `ridge` c is the weight decay ab c |W|^2, which acts as S0 + c.
    """
    curvature = _curvature(lam, ab, ridge)
    best = np.sqrt(1 - np.asarray(ab)) / curvature
    return best + (start - best) * np.exp(-2 * time * curvature)


def descent_weight(
    lam: Array, ab: Array, steps: int, rate: float, ridge: float = 0.0, start: Array = 0.0
) -> np.ndarray:
    """The same after `steps` full-batch gradient steps of size `rate` (eta); exact."""
    curvature = _curvature(lam, ab, ridge)
    best = np.sqrt(1 - np.asarray(ab)) / curvature
    return best + (start - best) * (1 - 2 * rate * curvature) ** steps


def effective_variance(lam: Array, ab: Array, time: float) -> np.ndarray:
    """Variance of the converged mode with the weight that a mode `lam` has at `time`, from zero.

    lam + (C/ab)/(e^{2 time C} - 1), about lam + 1/(2 time ab): early stopping acts as a ridge.
    """
    curvature = _curvature(lam, ab, 0.0)
    return lam + curvature / ab / np.expm1(2 * time * curvature)


def kept_noise(lam: Array, gamma: Array, time: float | None, ridge: float = 0.0) -> np.ndarray:
    """1 - G for the guess xhat = mu + G (x_t/alpha - mu) of a mode at signal-to-noise gamma.

    time: None is the converged optimum.
    """
    ab = np.asarray(gamma) / (1 + np.asarray(gamma))
    curvature = _curvature(lam, ab, ridge)
    learned = 1.0 if time is None else -np.expm1(-2 * time * curvature)
    return learned / (1 + np.asarray(gamma)) / curvature


def null_floor(time: float, sampler: str = "ancestral") -> float:
    """Variance that a direction without data variance gets from a sampler, many steps, W(0) = 0.

    "ddim" (the probability flow): e^{-gamma_E}/(2 time) = .2807/time. "ancestral" (the reverse
    diffusion): (1/2) int_0^inf exp(-2 Ein(u)) du / time = .3738/time. Holds for time >> 1.
    """
    if time <= 0:
        raise InputError(f"training time is {time}; it must be positive")
    if sampler == "ddim":
        return math.exp(-np.euler_gamma) / (2 * time)
    if sampler != "ancestral":
        raise InputError(f"the floor is known for ancestral and ddim, not {sampler!r}")
    # Ein(u) = E1(u) + log u + gamma_E; past u = 40 the rest is exp(-2 gamma_E) / u^2 integrated
    body = quad(_floor_density, 0, 40, epsabs=1e-12, limit=200)[0]
    return 0.5 * (body + math.exp(-2 * np.euler_gamma) / 40) / time


def _floor_density(u: float) -> float:
    return math.exp(-2 * (float(exp1(u)) + math.log(u) + np.euler_gamma)) if u > 0 else 1.0


def edm_stopped_variance(
    lam: Array, time: float, sigma_start: float, sigma_stop: float, start: Array = 0.0
) -> np.ndarray:
    """Sampled variance of a mode by the EDM probability flow after training for `time`; exact.

    Gradient flow on the x0-loss at each sigma, weight Q = `start` at the outset; the flow runs
    from variance sigma_start^2 down to sigma_stop. Source: Wang & Pehlevan 2025, proposition 4.2.
    """
    lam = np.asarray(lam, dtype=np.float64)

    def log_scale(sigma: float) -> np.ndarray:
        rate = 2 * time
        first = 0.5 * (1 - np.asarray(start)) * expi(-rate * sigma**2) * np.exp(-rate * lam)
        return 0.5 * np.log(lam + sigma**2) + first - 0.5 * expi(-rate * (sigma**2 + lam))

    return sigma_start**2 * np.exp(2 * (log_scale(sigma_stop) - log_scale(sigma_start)))
