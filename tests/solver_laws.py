"""Laws, plans and runs that the tests of solvers share."""

import numpy as np
import torch

from reverie.denoisers import Denoiser, Linear
from reverie.sampling import sample

C2 = 0.49


def gaussian(process, cov=None):
    cov = torch.full((1, 1), C2, dtype=torch.float64) if cov is None else cov
    return Linear(process, torch.zeros(len(cov), dtype=torch.float64), *torch.linalg.eigh(cov))


def grid(process, steps, ends=(20.0, 0.05)):
    """Uniform log-SNR between two values of sigma/alpha; grids of K and 2K steps are nested."""
    gamma = torch.logspace(*(-2 * np.log10(ends)), steps + 1, dtype=torch.float64)
    return process.time(gamma)


def variances(process, times):
    return process.alpha(times) ** 2 * C2 + process.sigma(times) ** 2


class Mixture(Denoiser):
    """Exact denoiser of (N(-1, .1^2) + N(1, .1^2)) / 2 in every coordinate: not linear."""

    def __init__(self, process, width=0.1):
        super().__init__()
        self.process, self.width = process, width

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        noised = alpha**2 * self.width**2 + sigma**2
        side = torch.tanh(alpha * state / noised)
        return side + alpha * self.width**2 / noised * (state - alpha * side)


def seed_after_the_start():
    """The generator of `visits_of` once the initial states are drawn."""
    seed = torch.Generator().manual_seed(7)
    torch.randn(5, 3, generator=seed, dtype=torch.float64)
    return seed


def visits_of(process, times, sampler, **options):
    model, seed = Mixture(process), torch.Generator().manual_seed(7)
    init = process.sigma(times[:1]) * torch.randn(5, 3, generator=seed, dtype=torch.float64)
    return list(sample.trajectory(model, 5, times, sampler, init=init, generator=seed, **options))
