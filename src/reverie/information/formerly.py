"""Functions of the release before, each now in `bound` or a process; they go with the next."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.formerly import warn
from reverie.information.bound import bound_of
from reverie.objectives.variational import state_bound
from reverie.processes import GaussianProcess, JumpProcess
from reverie.processes.base import Guess


def prior_divergence(process: GaussianProcess, x: Tensor) -> Tensor:
    """`process.prior_kl(x)`."""
    warn("reverie.evidence.prior_divergence(process, x)", "process.prior_kl(x)")
    return process.prior_kl(x)


def reconstruction(
    process: GaussianProcess,
    x: Tensor,
    values: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`process.reconstruction(x, values)`."""
    warn("reverie.evidence.reconstruction(process, x)", "process.reconstruction(x)")
    return process.reconstruction(x, values, generator=generator)


def negative_elbo(
    denoiser: Denoiser, x: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """The bound (B,) of a linear SDE, differentiable: the sum of `state_bound`'s parts."""
    warn("reverie.denoisers.negative_elbo", "sum of reverie.objectives.variational.state_bound")
    prior, path, last = state_bound(denoiser, x, generator=generator)
    return prior + path + last


def negative_elbo_of_jumps(
    process: JumpProcess,
    guess: Guess,
    x: Tensor,
    draws: int = 64,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The bound (B,) of a jump process: `bound(denoiser, x).each`."""
    warn("reverie.processes.bound.negative_elbo", "reverie.bound(denoiser, x).each")
    asked = Asked(process, guess)
    found = bound_of(process, asked, process.space.check(x), None, generator, draws=draws)
    return torch.from_numpy(found.each).to(x.device)


class Asked(Denoiser):
    """A guess (state, t) as a denoiser."""

    def __init__(self, process: JumpProcess, guess: Guess) -> None:
        super().__init__()
        self.process, self.guess = process, guess

    def forward(self, state: Tensor, t: Tensor, condition: object = None) -> Tensor:
        return self.guess(state, t)
