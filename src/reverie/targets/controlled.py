"""SCLD: a trained annealed pair whose particles are resampled on the way.

Between levels the log weight of a particle is log gamma_k(x_k) - log gamma_{k-1}(x_{k-1}) plus the
log ratio of the kernels; the sum telescopes to the pair's own, and resampling keeps every island's
Z-hat unbiased. A reconstruction of Chen et al. 2025 (arXiv 2412.07081) from its description: there
the training is over subtrajectories too, here over whole ones.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from reverie.errors import InputError
from reverie.targets.learned import AnnealedLayer, Whitened
from reverie.targets.smc import Islands, Population
from reverie.targets.target import Point


class Resampled:
    """Islands of `size` particles of a pair that anneals (mcd, cmcd or dbs)."""

    def __init__(self, pair: Whitened, size: int = 256) -> None:
        if not all(isinstance(layer, AnnealedLayer) for layer in pair.inner.layers):
            raise InputError("only pairs that anneal (mcd, cmcd, dbs) have levels to resample at")
        self.pair, self.size = pair, size

    @torch.no_grad()
    def islands(self, count: int, generator: torch.Generator | None = None) -> Islands:
        """`count` independent islands, in the target's units."""
        chain, frame = self.pair.inner, self.pair.frame
        crowd = Population(
            chain.target.at(chain.start.sample(count * self.size, generator)), count
        )
        before = 0.0
        for layer in chain.layers:
            assert isinstance(layer, AnnealedLayer)
            old = self._level(crowd.point, before)
            crowd.point, ratio = layer.ahead(crowd.point, generator)
            crowd.weigh(ratio + self._level(crowd.point, layer.b) - old)
            crowd.resample(generator)
            before = layer.b
        found = crowd.islands()
        x = frame.mean + found.x @ frame.scale.T
        return replace(found, x=x)

    @staticmethod
    def _level(point: Point, b: float) -> torch.Tensor:
        x = point.x
        normal = -0.5 * x.square().sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)
        return normal if b == 0 else (1 - b) * normal + b * point.log_density
