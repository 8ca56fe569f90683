"""Several observations of the same parameters: their posteriors' guesses, combined.

p(w | w_t, x_1..n) is proportional to prod_i p(w | w_t, x_i) / p(w | w_t)^(n - 1) for independent
observations. With each factor taken as Gaussian, of precision L_i and mean what_i, it has

    L = sum_i L_i + (1 - n) L_prior,   L what = sum_i L_i what_i + (1 - n) L_prior what_prior

the corrected composition of scores of Linhart et al. 2024 (arXiv 2404.07593), written in guesses;
exact where prior and posteriors are Gaussian. In model coordinates the prior has unit covariance,
and what_prior is known in closed form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.processes import GaussianProcess
from reverie.processes.gaussian import require_gaussian
from reverie.simulation.coordinates import Guess


class Composed(Denoiser):
    """Guess for w (B, d) given all rows of `observations` (k, m) at once.

    prior_guess: E[w | y] of the prior, from y = w + spread e and the spread. covariances:
    (k, d, d), of each single posterior, from which L_i = covariance^-1 + gamma I (the paper's
    GAUSS); variances above the prior's are cut to it. Raises InputError where the shapes disagree
    or the process is not Gaussian with one noise level.
    Source: Linhart et al. 2024 (arXiv 2404.07593).

    >>> import torch
    >>> from reverie.simulation import Composed, posterior
    >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1), 1)
    >>> found = posterior(lambda theta: theta + 1, prior, n=200, steps=20)
    >>> composed = found.composed([[1.0], [1.2]])  # both observations at once
    >>> isinstance(composed, Composed), composed(torch.zeros(3, 1), torch.tensor(0.5)).shape
    (True, torch.Size([3, 1]))
    """

    process: GaussianProcess
    observations: Tensor
    precisions: Tensor

    def __init__(
        self, denoiser: Denoiser, prior_guess: Guess, observations: Tensor, covariances: Tensor
    ) -> None:
        super().__init__()
        process = require_gaussian(denoiser.process, "composition", one_level=True)
        if len(covariances) != len(observations):
            raise InputError(
                f"{len(observations)} observations need as many covariances, "
                f"not {len(covariances)}"
            )
        self.denoiser, self.process, self.prior_guess = denoiser, process, prior_guess
        variance, basis = torch.linalg.eigh(covariances.double())
        scaled = basis / variance.clamp(1e-10, 1.0)[:, None, :]
        self.register_buffer("observations", observations)
        self.register_buffer("precisions", scaled @ basis.mT)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Guess (B, d); the condition is ignored, the observations are this denoiser's own."""
        count, (batch, dim) = len(self.observations), state.shape
        given = self.observations.repeat_interleave(batch, 0)
        times = torch.as_tensor(t).expand(batch).repeat(count)
        each = self.denoiser(state.repeat(count, 1), times, given).reshape(count, batch, dim)
        alpha, sigma = self.process.scales(t, state.double())
        gamma = (alpha / sigma).square().reshape(-1, 1, 1).expand(batch, 1, 1)
        unit = torch.eye(dim, dtype=torch.float64, device=state.device)
        prior = self.prior_guess(state.double() / alpha, sigma / alpha)
        summed = torch.einsum("kij,kbj->bi", self.precisions, each.double())
        summed = summed + gamma[:, 0] * each.double().sum(0)
        summed = summed + (1 - count) * (1 + gamma[:, 0]) * prior
        total = self.precisions.sum(0) + (1 - count) * unit + gamma * unit
        return torch.linalg.solve(total, summed[:, :, None])[:, :, 0].to(state)
