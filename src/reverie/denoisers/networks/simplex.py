"""Networks on the simplex: shares under Wright-Fisher noise, and log-ratios.

A network under Wright-Fisher noise predicts p = x + 2 e^(F_0) (softmax(log x + F) - x): with F = 0
the prior, and lineages that are positive whatever F says. It is trained on `objectives.shares`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import ResidualMLP
from reverie.processes import LogRatios, WrightFisher
from reverie.processes.wright_fisher import LEAST


class SharesNetwork(Denoiser):
    """`body(features, level)` gives k + 1 numbers (B, k + 1); the default is a residual MLP.

    The features (B, 2 k) are the roots of the shares and their logarithms, the level
    log(tau) / 4.

    >>> import torch
    >>> from reverie.denoisers import SharesNetwork
    >>> from reverie.processes import WrightFisher
    >>> network = SharesNetwork(WrightFisher([1.0, 1.0, 1.0]), width=16)
    >>> network(torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor(0.5)).shape
    torch.Size([1, 3])
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


class InLogRatios(Denoiser):
    """A denoiser of the base process on log-ratios, as one of shares: `inner.process` is base.

    States and guesses are log-ratios (B, k - 1).

    >>> import torch
    >>> from reverie.denoisers import InLogRatios, Linear
    >>> from reverie.processes import LogRatios
    >>> process = LogRatios(3)
    >>> inner = Linear(process.base, torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> InLogRatios(process, inner)(torch.zeros(4, 2), torch.tensor(0.5)).shape
    torch.Size([4, 2])
    """

    process: LogRatios

    def __init__(self, process: LogRatios, inner: Denoiser) -> None:
        super().__init__()
        self.process, self.inner = process, inner

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.inner(state, t, condition)
