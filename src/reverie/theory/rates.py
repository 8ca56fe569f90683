"""Loss rates of the linear denoiser fitted to n samples: training, test, oracle; asymptotic.

A rate is 1/2 E|x - xhat|^2, nats per unit of gamma, summed over dimensions. With the guess
xhat = mu + G (x_t/alpha - mu), G a function of S0, and s = 1/gamma,

    2 rate = tr (1 - G)^2 Sigma* + s tr G^2,        Sigma* = S0 (training) or Sigma (test).

Converged with ridge c: 1 - G = s R at z = s + c. Reconstruction, checked against simulation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reverie.errors import InputError
from reverie.theory.equivalents import Atoms, SampleMeasure, Traces
from reverie.theory.gradient_flow import kept_noise


class Fit(NamedTuple):
    """What n samples see: the spectrum behind S0, its g = d/N, the test-side factor of Sigma.

    A mean estimated from the data takes one sample: S0 = (1 - 1/n) times a covariance of n - 1
    samples of known mean, and the error of the mean adds tr(. Sigma)/n to the test.
    """

    spectrum: Atoms
    g: np.ndarray
    inflation: np.ndarray


def fit_of(true: Atoms, n: np.ndarray | int, mean: str = "known") -> Fit:
    """The `Fit` of a law at n samples (any shape for a known mean, a number otherwise)."""
    count = np.asarray(n, dtype=np.float64)
    if mean not in ("known", "estimated"):
        raise InputError(f"mean is {mean!r}; choose known or estimated")
    if (count < (1 if mean == "known" else 2)).any():
        raise InputError("n must be at least 1, or 2 where the mean is estimated")
    if mean == "known":
        return Fit(true, true.dim / count, np.ones_like(count))
    scaled = Atoms(true.values * float((count - 1) / count), true.counts)
    return Fit(scaled, true.dim / (count - 1), (count + 1) / (count - 1))


def ridge_rates(
    fit: Fit, ridge: np.ndarray | float, gamma: np.ndarray, constant: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(training, test) rates of the converged fit with S0 + ridge; ridge, gamma, g broadcast.

    constant: dimensions without variance, which cost what the ridge lets through of their noise.
    """
    noise = 1 / np.asarray(gamma, dtype=np.float64)
    ridge, noise, g = np.broadcast_arrays(ridge, noise, fit.g)
    traces = Traces(ridge + noise, g, fit.spectrum)
    through = noise * (traces.s2_r2 + 2 * ridge * traces.s_r2 + ridge**2 * traces.r2)
    dead = constant * noise * (ridge / (ridge + noise)) ** 2
    half = 0.5 * fit.spectrum.dim
    train = half * (noise**2 * traces.s_r2 + through) + 0.5 * dead
    test = half * (fit.inflation * noise**2 * traces.r2_sigma + through) + 0.5 * dead
    return train, test


def stopped_rates(
    fit: Fit,
    measure: SampleMeasure,
    gamma: np.ndarray,
    time: float | None,
    ridge: float = 0.0,
    constant: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(training, test) rates (L,) at gamma (L,) after a training time (see `gradient_flow`)."""
    gamma = np.asarray(gamma, dtype=np.float64)
    kept = kept_noise(measure.nodes, gamma[:, None], time, ridge)
    through = (1 - kept) ** 2 @ measure.mass / gamma
    dead = constant * (1 - kept_noise(0.0, gamma, time, ridge)) ** 2 / gamma
    half = 0.5 * fit.spectrum.dim
    train = half * (kept**2 @ (measure.mass * measure.nodes) + through) + 0.5 * dead
    test = half * (float(fit.inflation) * (kept**2 @ measure.overlap) + through) + 0.5 * dead
    return train, test


def oracle_rate(true: Atoms, gamma: np.ndarray) -> np.ndarray:
    """Rate of the optimum that knows Sigma: 1/2 sum lam / (1 + gamma lam); exact."""
    noise = 1 / np.asarray(gamma, dtype=np.float64)
    (gain,) = true.sums(noise, lambda lam, s: lam / (lam + s))
    return 0.5 * true.dim * noise * gain
