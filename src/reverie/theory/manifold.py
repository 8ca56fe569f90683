"""Where scores meet manifolds: what the score of noised data points at, in closed form.

For y = x + s z (in units of the data, s = sigma / alpha) the guess xhat(y) = E[x | y] has the
symmetric Jacobian J = Cov(x | y) / s^2, and in the mean over y, for data in R^d,

    tr J = |x - xhat|^2 / s^2 = 2 u rate(u),   u = s^-2      the loss curve itself
    |s score|^2 = d - tr J                                   the rest, the codimension

As s falls, tr J goes to the dimension of what the score points at: 0 for single points (the
memoriser of training rows), k for a manifold, d for a density (De Bortoli 2022; Pidstrigach 2022).
For any law in a ball of radius R, in units of the data:

    |score| <= (|y| + R) / s^2,    0 <= eigenvalues of J <= R^2 / s^2

and for the uniform law on the unit sphere of R^d, with k = r / s^2, r = |y| and
A(k) = I_{d/2}(k) / I_{d/2-1}(k),

    xhat = A(k) y / r
    J = A / r along the sphere, d - 1 times, and (1 - A^2 - (d-1) A / k) / s^2 across it
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from reverie.errors import InputError


@dataclass(frozen=True)
class GuessSpectrum:
    """Eigenvalues of a guess's Jacobian: along the sphere, `multiplicity` times, and across."""

    along: float
    across: float
    multiplicity: int

    @property
    def trace(self) -> float:
        """The soft dimension of what the score points at."""
        return self.multiplicity * self.along + self.across

    @property
    def rank(self) -> int:
        """Directions that are kept: eigenvalues above 1/2."""
        return self.multiplicity * (self.along > 0.5) + int(self.across > 0.5)


def bessel_ratio(k: np.ndarray | float, dim: int) -> np.ndarray:
    """A(k) = I_{dim/2}(k) / I_{dim/2-1}(k) of the mean on the unit sphere of R^dim, in [0, 1)."""
    if dim < 1:
        raise InputError(f"dim is {dim}; a sphere needs at least one dimension")
    value = np.asarray(k, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = special.ive(dim / 2, value) / special.ive(dim / 2 - 1, value)
    return np.where(value < 1e-8, value / dim, found)


def sphere_guess(y: np.ndarray, spread: float) -> np.ndarray:
    """xhat (n, d) of points y (n, d) in units of the data, uniform on the unit sphere of R^d."""
    radius = np.linalg.norm(y, axis=1, keepdims=True)
    return bessel_ratio(radius / spread**2, y.shape[1]) * y / np.maximum(radius, 1e-300)


def sphere_spectrum(radius: float, spread: float, dim: int) -> GuessSpectrum:
    """The Jacobian of `sphere_guess` at distance `radius` from the centre."""
    k = radius / spread**2
    mean = float(bessel_ratio(k, dim))
    across = (1 - mean**2 - (dim - 1) * mean / k) / spread**2
    return GuessSpectrum(mean / radius, across, dim - 1)


def score_bound(norm: np.ndarray | float, radius: float, spread: float) -> np.ndarray:
    """Largest norm of the score at |y| = norm, of any law in a ball of `radius`."""
    return (np.asarray(norm) + radius) / spread**2


def jacobian_bound(radius: float, spread: float) -> float:
    """Largest eigenvalue of the guess's Jacobian, of any law in a ball of `radius`."""
    return (radius / spread) ** 2


def sphere_dimension(spread: float, dim: int, nodes: int = 120) -> float:
    """E tr J of the uniform law on the unit sphere of R^dim at one noise level, by quadrature.

    d - |s score|^2 in the mean: the radius of y = x + s z has a law that is known.
    """
    if dim < 2:
        raise InputError(f"dim is {dim}; the sphere needs at least two dimensions")
    z, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / math.sqrt(2 * math.pi)
    along = 1 + spread * z  # the component of y along x
    degrees = dim - 1  # of the chi-square of the others
    across, other = special.roots_genlaguerre(nodes, degrees / 2 - 1)
    other = other / special.gamma(degrees / 2)
    radius = np.sqrt(along[:, None] ** 2 + 2 * spread**2 * across)
    k = radius / spread**2
    mean = bessel_ratio(k, dim)
    trace = (dim - 1) * mean / radius + (1 - mean**2 - (dim - 1) * mean / k) / spread**2
    return float(weight @ trace @ other)
