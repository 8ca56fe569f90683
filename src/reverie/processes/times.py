"""Times to train and to measure at, and the loss of a bound per unit of time.

    -log p(x) <= KL(p(x_1 | x) || noise) + int rate(u) du + (cost of the last denoise)

The integral over the clock is one over t with weight |du/dt|, which takes low-discrepancy times
(Kingma et al. 2021, appendix I.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.processes.base import Guess, Process


def low_discrepancy(
    n: int, t_range: tuple[float, float], generator: torch.Generator | None = None
) -> Tensor:
    """Times (n,) in float64: one in each of n equal strata of t_range, all with one offset."""
    device = "cpu" if generator is None else generator.device
    offset = torch.rand((), generator=generator, dtype=torch.float64, device=device).cpu()
    low, high = t_range
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + offset) / n


def clock_speed(process: Process, t: Tensor) -> Tensor:
    """|du/dt| at times t, () or (B,): (B,), or (B, J) of a process with several clocks."""
    with torch.enable_grad():
        time = t.detach().double().clone().requires_grad_()
        clock = process.clock(time)
        if clock.ndim > 1:
            of_one = time.detach().reshape(-1)
            return -torch.func.jvp(process.clock, (of_one,), (torch.ones_like(of_one),))[1]
        (slope,) = torch.autograd.grad(clock.sum(), time)
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
    rate = process.probe(guess, x, t, generator=generator) * clock_speed(process, t).to(x.device)
    return rate if rate.ndim < 2 else rate.sum(1)
