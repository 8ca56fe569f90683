"""A trained score on a manifold: a network on ambient coordinates, projected to tangent vectors.

    s(x, tau) = P_x F(features(x), log tau / 4) / sqrt(tau (1 + tau))

The factor is the preconditioning of Karras et al. 2022 (eq. 7, data of deviation 1) read for the
score, so that F is of order one at every level: the target of denoising score matching has length
about sqrt(dim / tau) when tau is small, and dies out when the noised law nears the uniform one.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.network import ResidualMLP
from reverie.processes import Brownian
from reverie.spaces.manifold import scale


class TangentNetwork(Denoiser):
    """`body(features, level)` gives an ambient vector (B, D); the default is a residual MLP.

    Before training the score is 0: the uniform law.
    """

    process: Brownian

    def __init__(
        self, process: Brownian, body: nn.Module | None = None, width: int = 256, depth: int = 3
    ) -> None:
        super().__init__()
        self.process = process
        space = process.space
        origin = space.features(space.origin()[None])
        self.body = body or ResidualMLP(origin.shape[1:], width, depth, math.prod(space.shape))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        space, tau = self.process.space, self.process.tau(t).to(state).expand(len(state))
        extra = () if condition is None else (condition,)
        raw = self.body(space.features(state), 0.25 * tau.log(), *extra)
        return scale((tau * (1 + tau)).rsqrt(), space.tangent(state, raw.reshape(state.shape)))

    def loss_weight(self, t: Tensor) -> Tensor:
        """tau (1 + tau), (B,): makes the squared error of the score that of F."""
        tau = self.process.tau(t)
        return tau * (1 + tau)
