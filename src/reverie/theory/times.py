"""When a reverse diffusion decides: speciation and collapse from a covariance spectrum.

Times are those of the Ornstein-Uhlenbeck process, ab = e^{-2t}; sigma is that of x + sigma e, so
that gamma = 1/sigma^2 = e^{-2t}/(1 - e^{-2t}). Speciation: Biroli, Bonnaire, de Bortoli & Mezard
2024 (t_S = 1/2 log Lambda). Collapse: their condition s(t_C) = s_sep(t_C), which for Gaussian
data of any spectrum is that the information about a point equals log n (derived here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq

from reverie.errors import InputError
from reverie.theory.equivalents import Atoms


@dataclass(frozen=True)
class CriticalTime:
    """One noise level, three ways: OU time, sigma of x + sigma e, log signal-to-noise ratio.

    Source: Biroli et al. 2024.

    >>> from reverie.theory import CriticalTime, speciation_time
    >>> level = speciation_time(5.0)
    >>> isinstance(level, CriticalTime), round(level.sigma, 3), round(level.log_snr, 3)
    (True, 2.0, -1.386)
    """

    time: float
    sigma: float
    log_snr: float


def at_gamma(gamma: float) -> CriticalTime:
    """The noise level of a signal-to-noise ratio gamma > 0."""
    return CriticalTime(0.5 * math.log1p(1 / gamma), gamma**-0.5, math.log(gamma))


def speciation_time(top: float) -> CriticalTime:
    """Where the leading variance `top` falls to the noise: top e^{-2t} = 1, sigma^2 = top - 1.

    top is in units of the final noise; at top <= 1 nothing speciates: the level is the clean end.
    InputError on a variance that is not positive. Source: Biroli et al. 2024.

    >>> from reverie.theory import speciation_time
    >>> round(speciation_time(5.0).sigma, 3)  # sqrt(5 - 1)
    2.0
    """
    if top <= 0:
        raise InputError(f"the leading variance is {top}; it must be positive")
    return at_gamma(1 / (top - 1)) if top > 1 else CriticalTime(0.0, 0.0, math.inf)


def collapse_time(n: int, spectrum: Atoms) -> CriticalTime:
    """Where the empirical law collapses onto n points: log n = 1/2 sum log(1 + gamma lam).

    n: points, at least two (else InputError). Source: Biroli et al. 2024.

    >>> import numpy as np
    >>> from reverie.theory import atoms, collapse_time
    >>> round(collapse_time(1000, atoms(np.ones(10))).sigma, 3)
    0.579
    """
    if n < 2:
        raise InputError(f"collapse needs at least two points, not {n}")

    def surplus(log_gamma: float) -> float:
        grown = np.log1p(math.exp(log_gamma) * spectrum.values)
        return 0.5 * float(spectrum.counts @ grown) - math.log(n)

    low = high = -math.log(float(spectrum.values.max()))
    while surplus(low) > 0:
        low -= 2
    while surplus(high) < 0:
        high += 2
    root = cast(float, brentq(surplus, low, high, xtol=1e-13))
    return at_gamma(math.exp(root))
