"""The time law: at which noise levels a network trains, importance-sampled.

The target law is uniform in log-SNR with a normal bump at the levels where data of unit deviation
take shape (Karras et al. 2022 use the bump alone). Levels are drawn two thirds
in proportion to it times the square root of the running root-mean-square loss of their bin, one
third as it stands; losses are weighted back, so that the objective is unchanged and its gradient
less noisy. Draws are stratified within a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.processes import GaussianProcess

BINS = 32
BUMP = (-0.5, 1.2)  # centre and deviation of log(sigma / data deviation)
UNIFORM_SHARE = 0.25
MEMORY, TEMPER = 0.99, 0.5


class NoiseLaw:
    """Draws times (B,) with importance weights of mean 1; learns from the losses it is told.

    bump: centre and deviation of the bump, in log(sigma / data_std).
    """

    def __init__(
        self, process: GaussianProcess, data_std: float = 1.0, bump: tuple[float, float] = BUMP
    ) -> None:
        self.process = process
        centre, width = bump
        ends = process.clock(torch.tensor(process.t_range[::-1], dtype=torch.float64)).log()
        low, high = ends.reshape(2, -1).mean(1).tolist()
        self.edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
        middle = 0.5 * (self.edges[1:] + self.edges[:-1])
        level = -0.5 * middle - math.log(data_std)  # log of sigma in units of the data
        shape = torch.exp(-0.5 * ((level - centre) / width) ** 2)
        target = (1 - UNIFORM_SHARE) * shape / shape.sum() + UNIFORM_SHARE / BINS
        self.target = target / target.sum()
        self.square = torch.ones(BINS, dtype=torch.float64)

    def probabilities(self) -> Tensor:
        """Chance (BINS,) of each stratum; never below a third of the target's."""
        raw = self.target * self.square.sqrt() ** TEMPER
        raw = raw / raw.sum()
        return (2 * raw + self.target) / 3

    def density(self, t: Tensor) -> Tensor:
        """Density (B,) at times t (B,) of the law that the weighted draws stand for.

        A loss of uniform times is the mean of its values over this density (see `loss_weight`).
        """
        time = t.to(torch.float64).reshape(-1).contiguous()

        def level(at: Tensor) -> Tensor:
            return self.process.clock(at).log().reshape(len(at), -1).mean(1)

        place, slope = torch.func.jvp(level, (time,), (torch.ones_like(time),))[:2]
        bins = (torch.searchsorted(self.edges, place.detach()) - 1).clamp(0, BINS - 1)
        return -slope * self.target[bins] / (self.edges[1] - self.edges[0])

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Times (B,), weights (B,) and bins (B,) of one batch."""
        chance = self.probabilities()
        start = torch.rand(1, generator=generator, device=generator.device).cpu().double()
        place = (torch.arange(batch, dtype=torch.float64) + start) / batch
        running = chance.cumsum(0)
        bins = torch.searchsorted(running, place.clamp(max=float(running[-1]) * (1 - 1e-12)))
        inside = (place - (running - chance)[bins]) / chance[bins]
        level = self.edges[bins] + inside.clamp(0, 1) * (self.edges[1] - self.edges[0])
        times = self.process.time(level.exp()).clamp(*self.process.t_range)
        return times, (self.target / chance)[bins], bins

    def learn(self, bins: Tensor, losses: Tensor) -> None:
        """Update the running mean square loss (B,) of the bins that were drawn."""
        count = torch.zeros(BINS, dtype=torch.float64)
        count.index_add_(0, bins, torch.ones(len(bins), dtype=torch.float64))
        total = torch.zeros(BINS, dtype=torch.float64)
        total.index_add_(0, bins, losses.double().square())
        seen = count > 0
        mean = total[seen] / count[seen]
        self.square[seen] = MEMORY * self.square[seen] + (1 - MEMORY) * mean

    def state(self) -> dict[str, Tensor]:
        return {"square": self.square}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.square = state["square"].clone()
