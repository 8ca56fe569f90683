"""The exact denoiser of a mixture of Gaussians, and of its posterior given a linear measurement.

    p(x) = sum_k w_k N(x; m_k, C_k),    xhat(x_t) = sum_k w_k(x_t) E_k[x | x_t]

Both the noised law and the law given y = A x + noise e are mixtures of Gaussians again, so that
every reading of an inverse problem is known: the posterior, its denoiser and log p(y).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.low_rank import Moments
from reverie.errors import InputError
from reverie.processes import GaussianProcess


class GaussianMixture(Denoiser):
    """Exact denoiser of sum_k weights_k N(means_k, covariances_k) in d dimensions.

    means: (K, d). covariances: (K, d, d), symmetric without negative eigenvalues. weights: (K,),
    positive, normalised here. Raises InputError where the shapes disagree, a weight or an
    eigenvalue is negative, or the process noises modes differently.

    >>> import torch
    >>> from reverie.denoisers import GaussianMixture
    >>> from reverie.processes import EDM
    >>> means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    >>> exact = GaussianMixture(EDM(), means, 0.01 * torch.eye(2).expand(2, 2, 2), torch.ones(2))
    >>> t = exact.process.time(1 / 0.25)  # sigma = .5
    >>> exact(torch.tensor([[1.5, 0.0]]), t).round(decimals=2)
    tensor([[1.9800, 0.0000]])
    """

    process: GaussianProcess
    means: Tensor
    covariances: Tensor
    log_weights: Tensor
    spectrum: Tensor
    basis: Tensor

    def __init__(
        self, process: GaussianProcess, means: Tensor, covariances: Tensor, weights: Tensor
    ) -> None:
        super().__init__()
        count, dim = means.shape
        if covariances.shape != (count, dim, dim) or weights.shape != (count,):
            raise InputError(
                f"means {tuple(means.shape)} need covariances {(count, dim, dim)} and weights "
                f"{(count,)}, not {tuple(covariances.shape)} and {tuple(weights.shape)}"
            )
        if not process.isotropic:
            raise InputError("a Gaussian mixture needs one noise level for all modes")
        if not (weights > 0).all():
            raise InputError("the weights of a mixture must be positive")
        covariances = covariances.double()
        spectrum, basis = torch.linalg.eigh(covariances)
        if (spectrum < -1e-12 * spectrum.abs().amax(1, keepdim=True)).any():
            raise InputError("a covariance of the mixture has a negative eigenvalue")
        self.process = process
        weights = weights.double()
        self.register_buffer("means", means.double())
        self.register_buffer("covariances", covariances)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("spectrum", spectrum.clamp(min=0))
        self.register_buffer("basis", basis)

    @property
    def seen(self) -> Moments:  # type: ignore[override]
        weights = self.log_weights.exp()
        mean = weights @ self.means
        off = self.means - mean
        covariance = torch.einsum("k,kij->ij", weights, self.covariances)
        spectrum, basis = torch.linalg.eigh(covariance + (weights * off.T) @ off)
        return Moments(mean, basis.flip(1), spectrum.flip(0).clamp(min=0), 0.0)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """E[x | x_t], (B, d)."""
        log_parts, guesses = self._parts(state, t)
        return (log_parts.softmax(1)[:, :, None] * guesses).sum(1)

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Log-density (B,) in nats of the mixture noised to t."""
        return self._parts(state, torch.as_tensor(t))[0].logsumexp(1)

    def _parts(self, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k p_k(x_t), (B, K), and E_k[x | x_t], (B, K, d)."""
        alpha, sigma = (level[:, None] for level in self.process.scales(t, state))
        means, basis, spectrum = (
            value.to(state) for value in (self.means, self.basis, self.spectrum)
        )
        score = torch.einsum("bkd,kde->bke", state[:, None] - alpha * means, basis)
        variance = alpha.square() * spectrum + sigma.square()
        nats = 0.5 * (score.square() / variance + (2 * math.pi * variance).log()).sum(2)
        guesses = means + torch.einsum("bke,kde->bkd", alpha * spectrum / variance * score, basis)
        return self.log_weights.to(state) - nats, guesses

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent clean points, (n, d), in float64."""
        kinds = torch.multinomial(self.log_weights.exp(), n, True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        scaled = self.spectrum.sqrt()[kinds] * noise
        return self.means[kinds] + torch.einsum("nde,ne->nd", self.basis[kinds], scaled)

    def posterior(self, matrix: Tensor, y: Tensor, noise: float) -> GaussianMixture:
        """The law of x given y = matrix x + noise e, (m,): its forward is E[x | x_t, y]."""
        residual, precision, log_evidence = self._observe(matrix, y, noise)
        gain = self.covariances @ matrix.double().T @ precision
        means = self.means + (gain @ residual[:, :, None])[:, :, 0]
        covariances = self.covariances - gain @ matrix.double() @ self.covariances
        covariances = 0.5 * (covariances + covariances.mT)
        weights = log_evidence.softmax(0).clamp(min=torch.finfo(torch.float64).tiny)
        return GaussianMixture(self.process, means, covariances, weights)

    def log_evidence(self, matrix: Tensor, y: Tensor, noise: float) -> float:
        """log p(y) in nats of y = matrix x + noise e, (m,)."""
        return float(self._observe(matrix, y, noise)[2].logsumexp(0))

    def _observe(self, matrix: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """y - E_k[y], (K, m), the inverse of Var_k[y], (K, m, m), and log w_k p_k(y), (K,)."""
        matrix = matrix.double()
        own = noise**2 * torch.eye(len(matrix), dtype=torch.float64)
        variance = matrix @ self.covariances @ matrix.T + own
        residual = y.double() - self.means @ matrix.T
        precision = torch.linalg.inv(variance)
        square = torch.einsum("km,kmn,kn->k", residual, precision, residual)
        volume = torch.logdet(variance) + len(matrix) * math.log(2 * math.pi)
        return residual, precision, self.log_weights - 0.5 * (square + volume)
