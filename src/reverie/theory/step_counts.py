"""How many steps a Gaussian takes to sample: exact laws of discretised reversals, mode by mode.

The forward process is Ornstein-Uhlenbeck, dX = -X dt + sqrt(2) dW, X_t = e^-t X_0 + sqrt(1 -
e^-2t) e, and the score exact. A mode of variance lam and mean mu ends with variance v and mean
c mu: both obey a linear recursion over the steps (Guth, Coste, De Bortoli & Mallat 2022, section
3, bound the error of the first sampler below; here it is computed).

    euler      x + d (x + 2 score) + sqrt(2 d) z, d = t - s: Euler-Maruyama, down to t = 0
    ancestral  the posterior of x_s given x_t and xhat; the last step gives xhat
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reverie.errors import InputError

SAMPLERS = ("euler", "ancestral")
MOST = 1 << 20  # steps, beyond which a count is given up


class Outcome(NamedTuple):
    """Of each mode (d,): variance of the samples, and c, their mean over the true one."""

    variance: np.ndarray
    mean: np.ndarray


def outcome(spectrum: np.ndarray, times: np.ndarray, sampler: str = "euler") -> Outcome:
    """Variance and mean of every mode after the steps `times` (N + 1,), falling to 0.

    spectrum: variances (d,) > 0; the start is N(0, 1). Raises InputError on an unknown sampler, or
    times that do not fall to 0.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"no sampler is called {sampler!r}; choose {', '.join(SAMPLERS)}")
    if len(times) < 2 or (np.diff(times) >= 0).any() or times[-1] != 0:
        raise InputError("times must fall from the noisiest to 0")
    t, s = times[:-1, None], times[1:, None]
    noised = 1 + np.exp(-2 * t) * (spectrum - 1)
    if sampler == "euler":
        kept, noise = 1 + (t - s) * (1 - 2 / noised), 2 * (t - s)
        pulled = noise * np.exp(-t) / noised
    else:
        clean, kept, noise = _posterior(t, s)
        gain = np.exp(-t) * spectrum / noised  # xhat = mu + gain (x_t - e^-t mu)
        kept, pulled = kept + clean * gain, clean * (1 - gain * np.exp(-t))
    # what a step adds is multiplied by all that the later ones keep
    later = np.cumprod(np.vstack([kept[1:], np.ones_like(kept[:1])])[::-1], axis=0)[::-1]
    variance = (later[0] * kept[0]) ** 2 + (later**2 * noise).sum(0)
    return Outcome(variance, (later * pulled).sum(0))


def _posterior(t: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_s given x_t and xhat: weights of xhat and of x_t, and the variance."""
    at_t, at_s, step = -np.expm1(-2 * t), -np.expm1(-2 * s), -np.expm1(-2 * (t - s))
    return np.exp(-s) * step / at_t, np.exp(s - t) * at_s / at_t, at_s * step / at_t


def kl_per_mode(
    spectrum: np.ndarray, found: Outcome, mean_square: np.ndarray | float = 0.0
) -> float:
    """KL(data || samples) / d in nats; `mean_square` is E mu^2 of each mode. inf if diverged."""
    ratio = found.variance / spectrum
    if not np.isfinite(ratio).all() or (ratio <= 0).any():
        return np.inf
    shift = (1 - found.mean) ** 2 * mean_square / found.variance
    return float(0.5 * np.mean(1 / ratio - 1 + np.log(ratio) + shift))


def euler_error(spectrum: np.ndarray) -> np.ndarray:
    """e(lam) with v - lam = (T / N) e(lam) + O(1 / N^2) for N equal Euler steps over a long T.

    e = 1 - lam^2 log lam / (2 (lam - 1)), and 1/2 at lam = 1: derived here by perturbing the
    variance's differential equation.
    """
    spectrum = np.asarray(spectrum, dtype=np.float64)
    near = np.abs(spectrum - 1) < 1e-6
    safe = np.where(near, 2.0, spectrum)
    return np.where(near, 0.5, 1 - safe**2 * np.log(safe) / (2 * (safe - 1)))


def least_steps(kl: Callable[[int], float], budget: float) -> int:
    """The least N >= 2 with kl(N) <= budget, for a kl that falls in N: doubling, then halving.

    Raises InputError where `MOST` steps do not do.
    """
    high = 2
    while not kl(high) <= budget:
        high *= 2
        if high > MOST:
            raise InputError(f"no number of steps up to {MOST} keeps the KL below {budget:g}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if kl(middle) <= budget else (middle, high)
    return high
