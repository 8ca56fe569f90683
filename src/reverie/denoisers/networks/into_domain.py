"""A network for bridges into a domain: it tilts the Gaussian that is cut to the domain.

Without data the far end of a motion at y, with variance v to go, is N(y, v) cut to the domain (see
`processes.into_domain`). The guess is the mean of the tilted law, for a network's raw output F

    numbers     N(y + sqrt(v) F, v) cut to its interval
    symbols     softmax(y / v + F)

so that it lies in the domain's hull whatever F is. Liu, Wu, Ye & Liu 2022, 2023 add f to the drift
of the cut law; here it stands inside the cut, scaled so that F is of order 1 at every level: of a
standard normal number and sigma = 1 it is 0.

The loss is a sum of nats: the surprise of symbols at uniform t, and half the squared error of
numbers by 1 + epsilon u, which is the loss of F itself on a line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser, one_level
from reverie.denoisers.networks.network import ResidualMLP
from reverie.errors import InputError
from reverie.processes import DomainBridges

OCTAVES = 3  # of sines and cosines of the numbers: 1, 2 and 4 radians a deviation


class DomainNetwork(Denoiser):
    """`body(features, level)` gives (B, dim) raw tilts; the default is a residual MLP.

    The features are the scaled state (B, dim), waves of its numbers (B, 6 d) and the chances that
    the unguided motion gives to symbols. InputError on a condition.
    Source: Liu, Wu, Ye & Liu 2022, 2023, with the tilt inside the cut.

    >>> import torch
    >>> from reverie.denoisers import DomainNetwork
    >>> from reverie.processes import DomainBridges
    >>> from reverie.spaces import Bounded, Intervals
    >>> process = DomainBridges(Bounded(Intervals([0.0], [1.0])))
    >>> DomainNetwork(process, width=16)(torch.zeros(1, 1), torch.tensor(0.5))
    tensor([[0.4...]], grad_fn=...)
    """

    process: DomainBridges

    def __init__(
        self,
        process: DomainBridges,
        width: int = 256,
        depth: int = 3,
        body: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        features = 2 * process.dim - process.count + 2 * OCTAVES * process.count
        self.body = body or ResidualMLP((features,), width, depth, out=process.dim)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if condition is not None:
            raise InputError("this network takes no condition")
        process, weight = self.process, next(self.body.parameters())
        t = one_level(t)
        left = process.left(t).to(state.device)
        level = 0.25 * process.clock(t).log().to(state).expand(len(state))
        raw = self.body(self._features(state, t, left).to(weight), level.to(weight)).to(state)
        scale = left.to(state)[:, None].repeat(1, process.dim)
        scale[:, : process.count].sqrt_()
        return process.cut(torch.addcmul(state, raw, scale), left)

    def _features(self, state: Tensor, t: Tensor, left: Tensor) -> Tensor:
        process = self.process
        alpha, sigma = process.base.scales(t, state)
        scaled = state / (alpha.square() + sigma.square()).sqrt()
        known = process.law(state, left)
        return torch.cat([scaled, *_waves(scaled[:, : process.count]), known], 1)

    def losses(
        self, rows: Tensor, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Nats (B,) of the module's loss."""
        process, count = self.process, self.process.count
        time = t.to(x.device)
        guess = self(process.corrupt(x, time, generator=generator), time)
        square = (guess[:, :count] - x[:, :count]).square().sum(1)
        weight = (process.base.deviation**2 / process.left(time)).to(square)
        return 0.5 * weight * square + process.surprise(guess, x)


def _waves(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Sines and cosines (B, OCTAVES d) of numbers (B, d), each octave from the one below."""
    sines, cosines = [numbers.sin()], [numbers.cos()]
    for _ in range(OCTAVES - 1):
        sine, cosine = sines[-1], cosines[-1]
        sines.append(2 * sine * cosine)
        cosines.append(1 - 2 * sine.square())
    return torch.stack(sines, 2).flatten(1), torch.stack(cosines, 2).flatten(1)
