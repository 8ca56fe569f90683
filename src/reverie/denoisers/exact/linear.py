"""The linear denoiser: the optimum among affine guesses, known in closed form from two moments.

    xhat(x_t) = mu + U diag(alpha lam / (alpha^2 lam + sigma^2)) U^T (x_t - alpha mu)

(Merger & Goldt 2025; Li, Dai & Qu 2024, theorem 1.) One eigendecomposition serves every noise
level: the guess and the curve are then O(d) in the eigenbasis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.low_rank import Moments
from reverie.errors import InputError
from reverie.processes import GaussianProcess


class Linear(Denoiser):
    """Exact denoiser of N(mean, basis diag(spectrum) basis^T).

    mean: (*shape). spectrum: (r,) variances >= 0. basis: (d, r) with orthonormal columns; variance
    outside it is zero. Raises InputError where the shapes disagree or a variance is negative.
    Source: Merger & Goldt 2025; Li, Dai & Qu 2024, theorem 1.

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> linear = Linear.fit(VP(), rows)
    >>> linear.information([1.0]).round(2)  # nats; 3/2 log 2 = 1.04 for N(0, I)
    array([1.08])
    """

    process: GaussianProcess
    mean: Tensor
    spectrum: Tensor
    basis: Tensor

    def __init__(
        self, process: GaussianProcess, mean: Tensor, spectrum: Tensor, basis: Tensor
    ) -> None:
        super().__init__()
        if basis.shape != (mean.numel(), len(spectrum)):
            raise InputError(
                f"basis has shape {tuple(basis.shape)}; need {(mean.numel(), len(spectrum))}"
            )
        if (spectrum < 0).any():
            raise InputError("a covariance spectrum holds no negative value")
        self.process = process
        self.register_buffer("mean", mean)
        self.register_buffer("spectrum", spectrum.double())
        self.register_buffer("basis", basis)

    @property
    def seen(self) -> Moments:  # type: ignore[override]
        return Moments(self.mean.double(), self.basis.double(), self.spectrum, 0.0)

    @classmethod
    def fit(cls, process: GaussianProcess, data: Tensor, ridge: float = 0.0) -> Linear:
        """Fit mean and covariance (1/N) of `data` (N, *shape), plus `ridge` on every variance."""
        if len(data) < 2:
            raise InputError(f"a covariance needs at least two rows, not {len(data)}")
        points = process.space.check(data).flatten(1).double()
        mean = points.mean(0)
        centred = points - mean
        count, dim = centred.shape
        if count > dim or ridge > 0:
            spectrum, basis = torch.linalg.eigh(centred.T @ centred / count)
        else:
            spectrum, left = torch.linalg.eigh(centred @ centred.T / count)
            keep = spectrum > spectrum[-1] * count * torch.finfo(torch.float64).eps
            spectrum = spectrum[keep]
            basis = centred.T @ left[:, keep] / (count * spectrum).sqrt()
        spectrum = spectrum.clamp(min=0) + ridge
        shape = data.shape[1:]
        return cls(process, mean.reshape(shape).to(data.dtype), spectrum, basis.to(data.dtype))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if not self.process.isotropic:
            return self._in_modes(state, torch.as_tensor(t))
        alpha, sigma = self.process.scales(t, state)
        offset = (state - alpha * self.mean.to(state)).flatten(1)
        basis = self.basis.to(state)
        alpha, sigma, spectrum = alpha.flatten(1), sigma.flatten(1), self.spectrum.to(state)
        gain = alpha * spectrum / (alpha.square() * spectrum + sigma.square())
        return ((offset @ basis * gain) @ basis.T).reshape(state.shape) + self.mean.to(state)

    def _in_modes(self, state: Tensor, t: Tensor) -> Tensor:
        """mu + Sigma A (A Sigma A + S^2)^-1 (x_t - A mu), in the modes of the noise."""
        process, mean = self.process, self.mean.to(state)
        times, place = t.reshape(-1).unique(return_inverse=True)  # one solve per noise level
        alpha, sigma = (level.flatten(1) for level in process.scales(times, state))
        axes = self.basis.to(state).T.reshape(-1, *self.mean.shape)
        basis = process.to_modes(axes).flatten(1).T
        covariance = basis * self.spectrum.to(state) @ basis.T
        noised = alpha[:, :, None] * covariance * alpha[:, None]
        noised = noised + torch.diag_embed(sigma.square())
        gain = torch.linalg.solve(noised, alpha[:, :, None] * covariance).mT
        offset = process.to_modes(state).flatten(1)
        offset = offset - alpha[place] * process.to_modes(mean[None]).flatten(1)
        if len(times) == 1:
            moved = offset @ gain[0].mT
        else:
            moved = (gain[place] @ offset[:, :, None])[:, :, 0]
        return process.from_modes(moved.reshape(state.shape)) + mean

    def covariance(self) -> Tensor:
        """Covariance (d, d) of the law this denoiser is exact for."""
        basis = self.basis.double()
        return basis * self.spectrum @ basis.T

    def exact_rate(
        self,
        clock: np.ndarray,
        mean: Tensor | None = None,
        covariance: Tensor | None = None,
    ) -> np.ndarray:
        """Rate (L,) in nats per unit of gamma at `clock` (L,): isotropic noise, no simulation.

        Default: on its own law, 1/2 sum_j lam_j / (1 + gamma lam_j). With `mean` and `covariance`
        of other data it is the exact rate on those (Merger & Goldt setting, both moments enter).
        """
        self._check_isotropic()
        gamma = np.asarray(clock, dtype=np.float64)[:, None]
        spectrum = self.spectrum.cpu().numpy()
        shrink = 1 / (1 + gamma * spectrum)
        if mean is None or covariance is None:
            return 0.5 * (spectrum * shrink).sum(1)
        basis = self.basis.double().cpu().numpy()
        other = covariance.double().cpu().numpy()
        shift = (mean - self.mean).double().flatten().cpu().numpy()
        inside = (basis * (other @ basis)).sum(0) + (basis.T @ shift) ** 2
        outside = float(np.trace(other) + shift @ shift - inside.sum())
        noise = gamma * spectrum**2 * shrink**2  # gain^2 / gamma: what the noise adds
        return 0.5 * ((shrink**2 * inside + noise).sum(1) + max(outside, 0.0))

    def information(self, clock: np.ndarray) -> np.ndarray:
        """I(x; x_t) in nats of its own law at each clock value: 1/2 sum log(1 + gamma lam)."""
        self._check_isotropic()
        gamma = np.asarray(clock, dtype=np.float64)[:, None]
        return 0.5 * np.log1p(gamma * self.spectrum.cpu().numpy()).sum(1)

    def _check_isotropic(self) -> None:
        if not self.process.isotropic:
            raise InputError("exact rates are written for one noise level in all coordinates")

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density (B,) in nats of clean points under the fitted Gaussian (full rank only)."""
        if len(self.spectrum) < self.mean.numel() or (self.spectrum <= 0).any():
            raise InputError("the fitted covariance is singular: fit with ridge > 0")
        score = (x - self.mean).flatten(1).double() @ self.basis.double()
        square = (score.square() / self.spectrum).sum(1)
        return -0.5 * (square + self.spectrum.log().sum() + math.log(2 * math.pi) * score.shape[1])
