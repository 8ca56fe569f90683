"""Denoisers on the simplex: exact for mixtures of Dirichlet laws, and trained networks.

A network under Wright-Fisher noise predicts p = x + 2 e^(F_0) (softmax(log x + F) - x): with F = 0
the prior, and lineages that are positive whatever F says. It is trained on the drawn types of
lineages (`lineage_loss`; their mean given the noised shares is what is asked for, so that no
series is needed) or on the implicit objective (`implicit_shares_loss`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import ResidualMLP
from reverie.errors import InputError
from reverie.processes import LogRatios, WrightFisher
from reverie.processes.lineages import draw_dirichlet
from reverie.processes.wright_fisher import LEAST


class SharesNetwork(Denoiser):
    """`body(features, level)` gives k + 1 numbers (B, k + 1); the default is a residual MLP.

    The features (B, 2 k) are the roots of the shares and their logarithms, the level
    log(tau) / 4.
    """

    process: WrightFisher

    def __init__(
        self,
        process: WrightFisher,
        body: nn.Module | None = None,
        width: int = 128,
        depth: int = 2,
    ) -> None:
        super().__init__()
        self.process, types = process, process.space.shape[0]
        self.body = body or ResidualMLP((2 * types,), width, depth, out=types + 1)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        level = 0.25 * self.process.tau(t).log().to(state).expand(len(state))
        x = state.clamp(min=LEAST)
        log = x.log()
        extra = () if condition is None else (condition,)
        raw = self.body(torch.cat([x.sqrt(), log / 4], 1), level, *extra)
        pulled = (log + raw[:, 1:]).softmax(1)
        return state + 2 * raw[:, :1].exp() * (pulled - state)


def lineage_loss(
    denoiser: Denoiser, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Denoising loss (B,) in nats per e-fold of tau, of shares x (B, k) noised to t (B,).

    The target is made of the drawn types of the lineages. Their scatter adds to the loss a number
    that the network does not touch.
    """
    process = _process(denoiser)
    state, types = process.with_types(x, t, generator=generator)
    tau = process.tau(t)
    target = process.guess(types, state.double(), tau).to(state)
    return process.cost(denoiser(state, t.to(x)), target, state) / tau.to(state)


def implicit_shares_loss(
    denoiser: Denoiser, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Implicit score matching (B,) in nats per e-fold of tau, of x (B, k) noised to t (B,)."""
    process = _process(denoiser)
    state = process.corrupt(x, t, generator=generator)
    return process.tau(t).to(state) * process.implicit(denoiser, state, t)


def _process(denoiser: Denoiser) -> WrightFisher:
    if not isinstance(denoiser.process, WrightFisher):
        raise TypeError("these losses need a Wright-Fisher process")
    return denoiser.process


class DirichletMixture(Denoiser):
    """The exact denoiser of data from sum_c weights_c Dirichlet(parameters_c).

    parameters: (C, k), weights: (C,), positive; weights are normalised. Raises InputError on
    parameters that are not, or of another number of shares.
    """

    process: WrightFisher

    def __init__(self, process: WrightFisher, parameters: Tensor, weights: Tensor) -> None:
        super().__init__()
        if parameters.ndim != 2 or parameters.shape[1:] != process.space.shape:
            raise InputError(
                f"parameters have shape {tuple(parameters.shape)}, not (C, "
                f"{process.space.shape[0]})"
            )
        if len(weights) != len(parameters) or not (weights > 0).all():
            raise InputError("weights must be positive, one per row of parameters")
        if not (parameters > 0).all():
            row = int((parameters <= 0).any(1).nonzero()[0, 0])
            raise InputError(f"row {row} of the parameters is not positive")
        self.process, self.components = process, parameters.double()
        self.shares = (weights / weights.sum()).double()

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        log_parts, lineages = self._parts(state, t)
        share = log_parts.softmax(1)[..., None]
        tau = self.process.tau(t).expand(len(state))
        return self.process.guess((share * lineages).sum(1), state.double(), tau).to(state)

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Exact log-density (B,) in nats of the noised data, of the first k - 1 shares."""
        log_parts, _ = self._parts(state, torch.as_tensor(t))
        return torch.logsumexp(log_parts, 1) + self.process.log_prior(state.double())

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n clean points (n, k), float64."""
        part = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        return draw_dirichlet(self.components[part], generator)

    def _parts(self, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.process.given_dirichlet(state, row, t) for row in self.components]
        ratios, lineages = (torch.stack(columns, 1) for columns in zip(*parts, strict=True))
        return self.shares.log() + ratios, lineages


class InLogRatios(Denoiser):
    """A denoiser of the base process on log-ratios, as one of shares: `inner.process` is base."""

    process: LogRatios

    def __init__(self, process: LogRatios, inner: Denoiser) -> None:
        super().__init__()
        self.process, self.inner = process, inner

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.inner(state, t, condition)
