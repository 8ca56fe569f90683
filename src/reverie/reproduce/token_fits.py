"""What the reproductions on finite sets share: training on the bound itself."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from reverie.denoisers import PosteriorHead
from reverie.processes import JumpProcess
from reverie.processes.times import bound_rate, low_discrepancy

DECAY = 0.998


def fit_tokens(
    process: JumpProcess,
    body: nn.Module,
    data: Tensor,
    steps: int,
    *,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> PosteriorHead:
    """A posterior head trained on data (n, *sites) by the bound's own rate; averaged weights.

    Adam with a warm-up and a linear decay; low-discrepancy times. With steps = 0 it is untrained.
    """
    denoiser = PosteriorHead(process, body)
    average = deepcopy(denoiser)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps)
        rows = data[torch.randint(len(data), (batch,), generator=generator)]
        t = low_discrepancy(batch, process.t_range, generator)
        loss = bound_rate(process, denoiser, rows, t, generator=generator).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 5.0)
        optimiser.step()
        decay = min(DECAY, 1 - 1 / (0.1 * step + 1))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), denoiser.parameters(), strict=True):
                mean.lerp_(weight, 1 - decay)
    return average.eval()
