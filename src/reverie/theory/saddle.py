"""Spectral density of the random-feature matrix U as d, n, p grow together.

With psi_n = n/d, psi_p = p/d and a complex z off the spectrum, the traces

    q = (1/p) tr (U - z)^-1
    r = (1/(p d)) tr(Sigma W^T (U - z)^-1 W),   s the same without Sigma

solve three equations (Bonnaire et al. 2025, theorem 3.1; the 1/d is needed, and their agreement
with simulated matrices was checked here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import root
from torch import Tensor

from reverie.errors import InputError
from reverie.theory.random_features import FeatureConstants, RandomFeatures


@dataclass(frozen=True)
class Traces:
    """The three normalised traces at one z."""

    q: complex
    r: complex
    s: complex


@dataclass(frozen=True, eq=False)
class SaddlePoint:
    """The limit's equations at fixed ratios; `spectrum` (d,) of the population covariance."""

    constants: FeatureConstants
    psi_n: float
    psi_p: float
    spectrum: np.ndarray

    def __post_init__(self) -> None:
        if self.psi_n <= 0 or self.psi_p <= 0 or len(self.spectrum) == 0:
            raise InputError("the saddle point needs positive ratios and a spectrum")

    def _averages(self, q: complex, r: complex) -> tuple[complex, complex, complex]:
        """(s, r) that q and r imply, and the shared denominator."""
        c = self.constants
        signal = c.a**2 * math.exp(-2 * c.t)
        shared = 1 + (signal * self.psi_p * r + self.psi_p * c.v2 * q) / self.psi_n
        flat = c.b**2 * self.psi_p + 1 / q
        steep = self.psi_p * signal / shared
        inverse = 1 / (flat + self.spectrum * steep)
        return inverse.mean(), (self.spectrum * inverse).mean(), shared

    def residuals(self, z: complex, traces: Traces) -> np.ndarray:
        """Relative residuals (3,) of the equations at given traces; 0 in the limit."""
        q, r, s = traces.q, traces.r, traces.s
        s_next, r_next, shared = self._averages(q, r)
        return np.array([s_next / s - 1, r_next / r - 1, self._trace_equation(z, q, s, shared)])

    def _trace_equation(self, z: complex, q: complex, s: complex, shared: complex) -> complex:
        c, psi_p = self.constants, self.psi_p
        terms = (psi_p * (c.s2 - z), psi_p * c.v2 / shared, (1 - psi_p) / q, -s / q**2)
        return sum(terms) / max(abs(term) for term in terms)

    def solve(self, z: complex, start: Traces | None = None) -> Traces:
        """Traces at z (off the spectrum), from a nearby solution or by continuation from afar.

        Raises InputError when the equations do not converge (move z off the real axis).
        """
        if start is not None:
            return self._newton(z, start)
        c = self.constants
        reach = 10 * (c.s2 + self.psi_p * (c.b**2 + c.a**2 * self.spectrum.max() + c.v2) + abs(z))
        away = z + 1j * reach
        traces = Traces(-1 / away, -self.spectrum.mean() / away, -1 / away)
        for share in np.geomspace(1, 1e-9, 60):
            traces = self._newton(z + 1j * reach * share, traces)
        return self._newton(z, traces)

    def _newton(self, z: complex, start: Traces) -> Traces:
        unit_q, unit_r = start.q, start.r

        def equations(x: np.ndarray) -> np.ndarray:
            q, r = unit_q * complex(x[0], x[1]), unit_r * complex(x[2], x[3])
            s, r_next, shared = self._averages(q, r)
            both = (r_next / r - 1, self._trace_equation(z, q, s, shared))
            return np.array([both[0].real, both[0].imag, both[1].real, both[1].imag])

        found = root(equations, np.array([1.0, 0.0, 1.0, 0.0]), tol=1e-12)
        if np.abs(found.fun).max() > 1e-6:
            raise InputError(f"the saddle point did not converge at z = {z}")
        q, r = unit_q * complex(*found.x[:2]), unit_r * complex(*found.x[2:])
        return Traces(q, r, self._averages(q, r)[0])

    def density(self, x: Sequence[float] | np.ndarray, width: float = 0.005) -> np.ndarray:
        """Density (L,) per unit of ln eigenvalue at positive `x` (L,), smoothed over `width`.

        Im q / pi at z = x (1 + i width), multiplied by x. An atom of mass m adds a tail of about
        m width / pi everywhere above it.
        """
        places = np.asarray(x, dtype=np.float64)
        traces, values = None, np.empty(len(places))
        order = np.argsort(-places)
        for k in order:
            z = complex(places[k], width * places[k])
            try:
                traces = self.solve(z, traces)
            except InputError:
                traces = self.solve(z)
            if traces.q.imag < 0:  # the other branch of the equations: approach from afar
                traces = self.solve(z)
            values[k] = places[k] * traces.q.imag / math.pi
        return values


def measured_traces(model: RandomFeatures, z: complex) -> Traces:
    """The same traces of one drawn matrix U."""
    values, vectors = model.eigen
    seen: Tensor = vectors.T @ model.weight
    resolvent = 1 / (values.numpy() - z)
    size = model.features * model.dim
    r = resolvent @ (seen.square() @ model.spectrum).numpy() / size
    s = resolvent @ seen.square().sum(1).numpy() / size
    return Traces(complex(resolvent.mean()), complex(r), complex(s))
