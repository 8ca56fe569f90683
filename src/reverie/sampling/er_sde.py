"""ER-SDE-Solvers 1 to 3: an extended reverse SDE whose noise a function phi sets.

With s = sigma/alpha and r = phi(s')/phi(s) for a step from s to s' < s,

    x' = (alpha'/alpha) r x + alpha' (1 - r) xhat + alpha' sqrt(s'^2 - s^2 r^2) z,

and the higher orders add a Taylor expansion of xhat in s from the last two or three guesses (Cui,
Zhang, Lu & Liao 2023, arXiv 2309.06169, and their code). phi(s) = s is the probability-flow ODE,
s^2 the usual reverse SDE. Their integrals of 1/phi are sums over 100 points; here Gauss-Legendre
in log s, so that no error but the solver's own is left.

The published third order takes its slope from a backward difference, whose error is of second
order: on a Gaussian both higher orders converge as h^2, and the third has the smaller error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.sampling.multistep import Table
from reverie.sampling.scales import Scales

Phi = Callable[[Tensor], Tensor]
PHIS: dict[str, Phi] = {
    "ode": lambda s: s,
    "sde": lambda s: s.square(),
    "default": lambda s: s * (s.pow(0.3).exp() + 10),  # the authors' choice, "SDE_5"
}
NODES = 24


def er_sde(scales: Scales, order: int, phi: str | Phi) -> Table:
    """phi: a name in `PHIS`, or a function of s (float64) with phi(s)/s nowhere decreasing."""
    if isinstance(phi, str):
        if phi not in PHIS:
            raise InputError(f"no phi is called {phi!r}; choose {', '.join(PHIS)} or a function")
        phi = PHIS[phi]
    alpha, s = scales.alpha, scales.spread
    ratio = phi(s[1:]) / phi(s[:-1])
    spare = 1 - (ratio * s[:-1] / s[1:]).square()
    if (spare < -1e-9).any():
        raise InputError("phi(s)/s must not decrease in s: the step's noise would be imaginary")
    noise = alpha[1:] * s[1:] * spare.clamp(min=0).sqrt()
    weights = [1 - ratio]
    if order > 1:
        weights = _bend(s, phi, weights[0], order)
    return Table(alpha[1:] / alpha[:-1] * ratio, tuple(alpha[1:] * w for w in weights), noise)


def _bend(s: Tensor, phi: Phi, flat: Tensor, order: int) -> list[Tensor]:
    """Weights of the last `order` guesses, from divided differences in s."""
    first, second = _integrals(s, phi)
    slope = torch.zeros_like(flat)
    slope[1:] = first[1:] / (s[1:-1] - s[:-2])  # weight of xhat_k - xhat_{k-1}
    weights = [flat + slope, -slope]
    if order == 3:
        latest, older = torch.zeros_like(flat), torch.zeros_like(flat)
        curve = 2 * second[2:] / (s[2:-1] - s[:-3])
        latest[2:] = curve / (s[2:-1] - s[1:-2])
        older[2:] = curve / (s[1:-2] - s[:-3])
        weights = [weights[0] + latest, weights[1] - latest - older, older]
    return weights


def _integrals(s: Tensor, phi: Phi) -> tuple[Tensor, Tensor]:
    """phi(s') int_s^s' of (first, second) power of distance over phi, for every step s -> s'.

    s' - s + phi(s') int_{s'}^s d eta / phi(eta), and (s' - s)^2 / 2 + phi(s') int_{s'}^s
    (eta - s) d eta / phi(eta).
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))
    high, low = s[:-1].log(), s[1:].log()
    across = (NODES, *(1,) * high.ndim)
    half = 0.5 * (high - low)
    eta = (0.5 * (high + low) + half * nodes.to(s).reshape(across)).exp()
    density = weights.to(s).reshape(across) * half * eta / phi(eta) * phi(s[1:])
    gap = s[1:] - s[:-1]
    first = gap + density.sum(0)
    second = 0.5 * gap.square() + (density * (eta - s[:-1])).sum(0)
    return first, second
