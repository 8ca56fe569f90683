"""The random-feature score model: train and test loss along training, and the spectrum behind.

    s_A(x) = (A / sqrt(p)) act(W x / sqrt(d)),   W (p, d) frozen and Gaussian, A (d, p) learned

on n points at one Ornstein-Uhlenbeck time, exact in expectation over the noise (Bonnaire et al.
2025, arXiv 2505.17638). The loss is per dimension, (1/d) E|sqrt(Delta) s + z|^2, so that the zero
model costs 1 and, for standard normal data, the true score costs e^-2t. Its two matrices, in the
Gaussian-equivalent form of the authors' code (corrected for a doubled 1/sqrt(d)), are

    U = G G^T / n + b^2 W W^T / d + s^2 I,   G = a e^-t W X / sqrt(d) + v Omega
    V = b W / sqrt(d)

The closed forms of the losses in time and at infinity, and the population's U, are a
reconstruction. Gradient flow is solved by one eigendecomposition: no descent is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError

Activation = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FeatureConstants:
    """What a Gaussian sees of the activation at time t; `scale` is sqrt(tr Sigma / d).

    a: weight of the data, b: of the noise, v2: variance of the nonlinear part that two noised
    copies of one point share, s2: of the part that they do not share.
    """

    t: float
    scale: float
    a: float
    b: float
    v2: float
    s2: float

    @property
    def delta(self) -> float:
        """Noise variance 1 - e^-2t."""
        return -math.expm1(-2 * self.t)


def feature_constants(
    t: float, activation: Activation = np.tanh, scale: float = 1.0, nodes: int = 160
) -> FeatureConstants:
    """Constants by Gauss-Hermite quadrature of an odd, smooth `activation` (vectorised).

    t: Ornstein-Uhlenbeck time. scale: sqrt(tr Sigma / d) of centred data. Raises InputError where
    t or scale is not positive. Definitions: Bonnaire et al. 2025.
    """
    if t <= 0 or scale <= 0:
        raise InputError("the random-feature model needs a positive time and scale")
    z, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    signal, noise = math.exp(-t) * scale, math.sqrt(-math.expm1(-2 * t))
    table = activation(signal * z[:, None] + noise * z[None, :])  # shared u by own v
    shared = table @ weights
    first = float(weights @ (z * shared)) / signal
    second = float(weights @ (table @ (weights * z)))
    common = float(weights @ shared**2)
    total = float(weights @ (table**2 @ weights))
    nonlinear = common - (first * signal) ** 2
    rest = total - common - second**2
    return FeatureConstants(t, scale, first, second, max(nonlinear, 0.0), max(rest, 0.0))


@dataclass(frozen=True, eq=False)
class RandomFeatures:
    """One draw of the model: weights (p, d), training covariance part and population.

    weight: W (p, d). gram: U (p, p). spectrum: (d,) of the population covariance, diagonal in
    the coordinates of the data.
    """

    constants: FeatureConstants
    weight: Tensor
    gram: Tensor
    spectrum: Tensor
    count: int

    @classmethod
    def draw(
        cls,
        constants: FeatureConstants,
        features: int,
        count: int,
        spectrum: Sequence[float] | np.ndarray | Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> RandomFeatures:
        """Draw W, `count` centred Gaussian points of variances `spectrum` (d,), and Omega.

        Raises InputError where the spectrum's mean is not the `scale` squared of the constants.
        """
        lam = torch.as_tensor(spectrum, dtype=torch.float64)
        if lam.ndim != 1 or (lam < 0).any() or features < 1 or count < 1:
            raise InputError("random features need a spectrum (d,), features and points")
        if abs(float(lam.mean()) / constants.scale**2 - 1) > 1e-6:
            raise InputError("the mean variance must be the square of the constants' scale")
        dim, c = len(lam), constants

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        weight = normal(features, dim)
        data = lam.sqrt()[:, None] * normal(dim, count)
        seen = c.a * math.exp(-c.t) / math.sqrt(dim) * (weight @ data)
        seen += math.sqrt(c.v2) * normal(features, count)
        gram = seen @ seen.T / count + cls._noise_part(c, weight)
        return cls(c, weight, gram, lam, count)

    @staticmethod
    def _noise_part(c: FeatureConstants, weight: Tensor) -> Tensor:
        features, dim = weight.shape
        identity = torch.eye(features, dtype=torch.float64)
        return c.b**2 / dim * (weight @ weight.T) + c.s2 * identity

    @property
    def features(self) -> int:
        return self.weight.shape[0]

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    @cached_property
    def population_gram(self) -> Tensor:
        """U of infinitely many points, (p, p)."""
        c = self.constants
        signal = c.a**2 * math.exp(-2 * c.t) / self.dim * (self.weight * self.spectrum)
        identity = torch.eye(self.features, dtype=torch.float64)
        return signal @ self.weight.T + c.v2 * identity + self._noise_part(c, self.weight)

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (p,), increasing, and eigenvectors (p, p) of U."""
        values, vectors = torch.linalg.eigh(self.gram)
        return values, vectors

    def losses(self, times: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Train and test loss (L,) per dimension at gradient-flow times tau (L,), from A = 0.

        Infinity is allowed. dA/dtau = -2 Delta (d/p) A U - (2 d sqrt(Delta)/sqrt(p)) V^T, so the
        mode of eigenvalue lam is learned at rate 2 Delta lam / psi_p, psi_p = p/d.
        """
        tau = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if np.isnan(tau).any() or (tau < 0).any():
            raise InputError("training times cannot be negative")
        values, overlap, population = self._modes
        speed = 2 * self.constants.delta * self.dim / self.features
        fitted = -np.expm1(-speed * np.multiply.outer(tau, values))  # share learned, (L, p)
        fitted[np.isinf(tau)] = 1.0
        gain = fitted / values
        linear = 2 * gain @ np.diag(overlap)
        train = 1 - linear + (gain * fitted) @ np.diag(overlap)
        test = 1 - linear + ((gain @ (population * overlap)) * gain).sum(1)
        return train, test

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eigenvalues (p,), V V^T / d and the population's U in the eigenbasis of U (p, p)."""
        values, vectors = self.eigen
        seen = self.constants.b / math.sqrt(self.dim) * (vectors.T @ self.weight)
        population = vectors.T @ self.population_gram @ vectors
        return values.numpy(), (seen @ seen.T / self.dim).numpy(), population.numpy()

    def oracle(self) -> float:
        """Loss per dimension of the population's true score: (1/d) sum lam e^-2t / (...)."""
        decay, lam = math.exp(-2 * self.constants.t), self.spectrum
        return float((lam * decay / (lam * decay + self.constants.delta)).mean())

    def groups(self) -> dict[str, np.ndarray]:
        """Eigenvalues of U by what they learn, where p > n + d and n > d (else InputError).

        `null` (p - n - d, exactly s^2), `soft` (d, below the sample bulk: a finite-n effect),
        `sample` (n - d, the points' own directions: memorisation), `population` (d, the score).
        """
        p, n, d = self.features, self.count, self.dim
        if p <= n + d or n <= d:
            raise InputError(f"these groups need p > n + d and n > d, not p={p}, n={n}, d={d}")
        cuts = np.split(self.eigen[0].numpy(), [p - n - d, p - n, p - d])
        return dict(zip(("null", "soft", "sample", "population"), cuts, strict=True))


def sample_bulk(constants: FeatureConstants, psi_n: float, psi_p: float) -> tuple[float, float]:
    """Edges s^2 + v^2 (1 -+ sqrt(psi_p / psi_n))^2 of the memorising bulk, psi_p > psi_n >> 1.

    Source: Bonnaire et al. 2025, theorem 3.2.
    """
    ratio = math.sqrt(psi_p / psi_n)
    return tuple(constants.s2 + constants.v2 * (1 + sign * ratio) ** 2 for sign in (-1, 1))  # type: ignore[return-value]


def memorisation_time(constants: FeatureConstants, psi_n: float, psi_p: float) -> float:
    """Training time psi_p / (Delta lam_min), lam_min the lower edge of the memorising bulk.

    Of order psi_n / Delta for psi_p >> psi_n >> 1. Source: Bonnaire et al. 2025.
    """
    return psi_p / (constants.delta * sample_bulk(constants, psi_n, psi_p)[0])
