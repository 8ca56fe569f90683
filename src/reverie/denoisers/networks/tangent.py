"""A trained score on a manifold: a network on smooth coordinates, turned into tangent vectors.

    s(x, tau) = s_0(x, tau) + P_x F(features(x), log tau / 4) / sqrt(tau (1 + tau))

The factor is the preconditioning of Karras et al. 2022 (eq. 7, data of deviation 1) read for the
score, so that F is of order one at every level: the target of denoising score matching has length
about sqrt(dim / tau) when tau is small, and dies out when the noised law nears the uniform one.
s_0, the score of data that end in the prior exactly, is 0 on compact spaces; elsewhere it brings
stray points home where F has seen no data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.adaptive_mixture import AdaptiveMixture
from reverie.denoisers.exact.kernel_mixture import KernelMixture
from reverie.denoisers.networks.network import ResidualMLP
from reverie.processes import Brownian
from reverie.spaces.manifold import scale


class TangentNetwork(Denoiser):
    """`body(features, level)` gives an ambient vector (B, D); the default is a residual MLP.

    Before training the score is that of the prior: on compact spaces 0, the uniform law.
    Features are those of the space, (B, F).
    Source: the preconditioning of Karras et al. 2022, eq. 7, read for the score.

    >>> import torch
    >>> from reverie.denoisers import TangentNetwork
    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Sphere
    >>> network = TangentNetwork(Brownian(Sphere(2)), width=16)
    >>> network(torch.eye(3).double(), torch.tensor(0.5)).detach().abs().max()  # untrained
    tensor(0., dtype=torch.float64)
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
        raw = _ask(self.body, space.features(state), tau, *extra)
        change = scale((tau * (1 + tau)).rsqrt(), space.steer(state, raw.reshape(state.shape)))
        return change + self.process.prior_score(state, t)

    def loss_weight(self, t: Tensor) -> Tensor:
        """tau (1 + tau), (B,): makes the squared error of the score that of F."""
        tau = self.process.tau(t)
        return tau * (1 + tau)


class CorrectedKernel(Denoiser):
    """A kernel estimate corrected by a network: s = (1 + a) s_base + P F / sqrt(tau (1 + tau)).

    The network reads the place, the level, and what the estimate says there (log-densities of its
    parts, and its score); before training it gives the estimate itself. In training the rows meet
    an estimate that was made without them (`loss`), or the network would learn to trust it.
    States are (B, *shape), the guess is the score there (B, *shape).

    >>> import torch
    >>> from reverie.denoisers import AdaptiveMixture, CorrectedKernel
    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Sphere
    >>> rows = Sphere(2).uniform(60, generator=torch.Generator().manual_seed(0))
    >>> base = AdaptiveMixture(Brownian(Sphere(2)), rows, taus=[0.1, 1.0], groups=1)
    >>> untrained = CorrectedKernel(base, width=8)(rows[:3], torch.tensor(0.5))
    >>> torch.allclose(untrained, base(rows[:3], torch.tensor(0.5)), atol=1e-5)
    True
    """

    process: Brownian
    body: nn.Module

    def __init__(self, base: AdaptiveMixture, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.process, self.base = base.process, base
        space = base.process.space
        features = space.features(space.origin()[None]).shape[1]
        size, parts = math.prod(space.shape), len(base.weights)
        self.body = ResidualMLP((features + size + parts,), width, depth, out=size + 1)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self._correct(self.base, state, t)

    def _correct(self, base: KernelMixture, state: Tensor, t: Tensor) -> Tensor:
        space, tau = self.process.space, self.process.tau(t).to(state).expand(len(state))
        log_parts, score = base.read(state, t)
        unit = (tau * (1 + tau)).sqrt()
        told = log_parts.clamp(min=-20) / 4
        seen = torch.cat([space.features(state), scale(unit, score).flatten(1), told], 1)
        raw = _ask(self.body, seen, tau)
        change = space.steer(state, raw[:, 1:].reshape(state.shape))
        return scale(1 + raw[:, 0], score) + scale(1 / unit, change)

    def losses(
        self, rows: Tensor, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`loss` of as many rows of one fold as there are times: they meet what never saw them."""
        device = "cpu" if generator is None else generator.device
        place = int(torch.randint(len(self.base.folds), (), generator=generator, device=device))
        fold = self.base.folds[place]
        pick = torch.randint(len(fold.rows), (len(t),), generator=generator, device=device)
        return self.loss(fold.rows[pick], fold.rest, t, generator=generator)

    def loss(
        self,
        rows: Tensor,
        rest: KernelMixture,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Denoising score matching times tau (1 + tau), (B,), of rows (B, *shape) at times (B,).

        rest: the estimate that stands for the base, made without the rows (`AdaptiveMixture.folds`
        has such pairs). Each row is noised by an antithetic pair.
        """
        process = self.process
        state = torch.cat(process.corrupt_pair(rows, t, generator=generator))
        times = torch.cat([t, t])
        target = process.target(state, torch.cat([rows, rows]), times).to(rest.kind)
        state = state.to(rest.kind)
        off = self._correct(rest, state, times) - target
        tau = process.tau(times).to(off)
        each = tau * (1 + tau) * process.space.inner(state, off, off)
        return 0.5 * (each[: len(rows)] + each[len(rows) :])


def _ask(body: nn.Module, seen: Tensor, tau: Tensor, *extra: Any) -> Tensor:
    """The body's answer in the type of what it has seen; the body works in its own."""
    kind = next(body.parameters()).dtype
    return body(seen.to(kind), 0.25 * tau.log().to(kind), *extra).to(seen)
