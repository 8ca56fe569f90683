"""The bound on -log p(x) of a jump process, and the loss that a denoiser on it is trained by.

    -log p(x) <= KL(p(x_1 | x) || noise) + int rate(u) du + (cost of the last denoise)

for masking the two ends are 0. The integral over the clock is one over t with weight |du/dt|,
which takes low-discrepancy times (Kingma et al. 2021, appendix I.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.processes.base import Guess, Process
from reverie.processes.jump import JumpProcess


def low_discrepancy(
    n: int, t_range: tuple[float, float], generator: torch.Generator | None = None
) -> Tensor:
    """Times (n,) in float64: one in each of n equal strata of t_range, all with one offset."""
    device = "cpu" if generator is None else generator.device
    offset = torch.rand((), generator=generator, dtype=torch.float64, device=device).cpu()
    low, high = t_range
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + offset) / n


def clock_speed(process: Process, t: Tensor) -> Tensor:
    """|du/dt| at times t, () or (B,), of a process with one clock."""
    with torch.enable_grad():
        time = t.detach().double().clone().requires_grad_()
        (slope,) = torch.autograd.grad(process.clock(time).sum(), time)
    return -slope


def bound_rate(
    process: Process,
    guess: Guess,
    x: Tensor,
    t: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unbiased nats (B,) per unit of t of each row of x at t, () or (B,): the loss of training.

    Its mean over uniform t is the integral of the bound; differentiable in the guess.
    """
    return process.probe(guess, x, t, generator=generator) * clock_speed(process, t)


@torch.no_grad()
def negative_elbo(
    process: JumpProcess,
    guess: Guess,
    x: Tensor,
    draws: int = 64,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unbiased estimate (B,) in nats of the bound on -log p(x), x: (B, *sites).

    draws: noise levels, shared by the rows, two in each of draws / 2 equal strata of t. Raises
    InputError on points outside the space.
    """
    x = process.space.check(x)
    low, high = process.t_range
    total = process.prior_kl(x)
    times = low_discrepancy((draws + 1) // 2, process.t_range, generator)
    # with their mirror images, so that the offset the rows share costs nothing to first order
    for t in torch.cat([times, low + high - times]):
        rate = bound_rate(process, guess, x, t, generator=generator)
        total = total + rate * (high - low) / (2 * len(times))
    state = process.corrupt(x, low, generator=generator)
    times = torch.full((len(x),), low, dtype=torch.float64, device=x.device)
    return total + process.reconstruction(guess(state, times), x, state)
