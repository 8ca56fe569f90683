"""Networks on finite sets: an MLP and a small transformer over one-hot sites, and two heads.

A body maps states (B, *sites) of M symbols and times (B,) to numbers (B, *sites, C). What a site's
own state says about its clean symbol is known exactly, log p(x_t | x), and needs not be learned:
the head adds it to the body's numbers. For masking this is carry-over (a revealed site is
certain) and the mask is never predicted, by the same formula (Sahoo et al. 2024, section 3.2.3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import Block, FourierTime
from reverie.processes import JumpProcess


class PosteriorHead(Denoiser):
    """Prediction softmax(body + log p(x_t | x)) (B, *sites, S); the body has C = S columns.

    Source: Sahoo et al. 2024, section 3.2.3 (masking).

    >>> import torch
    >>> from reverie.denoisers import PosteriorHead, TokenMLP
    >>> from reverie.processes import Uniform
    >>> head = PosteriorHead(Uniform(4, sites=3), TokenMLP(4, (3,), 4, width=16))
    >>> head(torch.tensor([[0, 1, 2]]), torch.tensor(0.5)).sum(-1).detach().round(decimals=5)
    tensor([[1., 1., 1.]])
    """

    process: JumpProcess

    def __init__(self, process: JumpProcess, body: nn.Module) -> None:
        super().__init__()
        self.process, self.body = process, body

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        logits = _run(self.body, state, t, condition)
        return self.process.clean_law(logits, state, t)


class RatioHead(Denoiser):
    """The body's C = M columns are log p_t(y) / p_t(x_t); the prediction is their posterior.

    Trained on `score_entropy` (Lou, Meng & Ermon 2024) or through the prediction, like any other.

    >>> import torch
    >>> from reverie.denoisers import RatioHead, TokenMLP
    >>> from reverie.processes import Uniform
    >>> head = RatioHead(Uniform(4, sites=3), TokenMLP(4, (3,), 4, width=16))
    >>> ratios = head.ratios(torch.tensor([[0, 1, 2]]), torch.tensor(0.5))
    >>> ratios.shape, bool((ratios > 0).all())
    (torch.Size([1, 3, 4]), True)
    """

    process: JumpProcess

    def __init__(self, process: JumpProcess, body: nn.Module) -> None:
        super().__init__()
        self.process, self.body = process, body

    def ratios(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The ratios (B, *sites, M), positive."""
        return _run(self.body, state, t, condition).exp()

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.process.posterior(self.ratios(state, t, condition), state, t)

    def score_entropy(self, x: Tensor, state: Tensor, t: Tensor) -> Tensor:
        """The head's own loss (B,) in nats per unit of sigma at draws of X_t given x."""
        return self.process.score_entropy(self.ratios(state, t), x, state, t)


def _run(body: nn.Module, state: Tensor, t: Tensor, condition: Any) -> Tensor:
    weight = next(body.parameters())
    level = torch.as_tensor(t).to(weight).expand(len(state))
    return body(state, level) if condition is None else body(state, level, condition)


class TokenMLP(nn.Module):
    """Residual MLP over the one-hot symbols of all sites: for few sites.

    states: symbols M that a site of the state may hold. columns: C, numbers per site to give.
    States are int64 (B, *sites), levels (B,), the answer is (B, *sites, C).

    >>> import torch
    >>> from reverie.denoisers import TokenMLP
    >>> TokenMLP(5, (3,), 4, width=16)(torch.tensor([[0, 4, 2]]), torch.zeros(1)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        states: int,
        sites: tuple[int, ...],
        columns: int,
        width: int = 256,
        depth: int = 3,
    ) -> None:
        super().__init__()
        count = math.prod(sites)
        self.states, self.columns = states, columns
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 128), nn.SiLU())
        self.enter = nn.Linear(count * states, width)
        self.blocks = nn.ModuleList(Block(width, 128) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = _zero(nn.Linear(width, count * columns))

    def forward(self, state: Tensor, level: Tensor) -> Tensor:
        time = self.time(level)
        symbols = nn.functional.one_hot(state, self.states).to(level)
        h = self.enter(symbols.flatten(1))
        for block in self.blocks:
            h = block(h, time)
        return self.leave(self.norm(h)).reshape(*state.shape, self.columns)


class Attention(nn.Module):
    """Pre-norm attention between sites and an MLP, both modulated by the time (B, time_width)."""

    def __init__(self, width: int, heads: int, time_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(time_width, 4 * width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.join = _zero(nn.Linear(width, width))
        self.inner = nn.Linear(width, 4 * width)
        self.outer = _zero(nn.Linear(4 * width, width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        batch, sites, width = h.shape
        scale, shift, scale2, shift2 = self.modulate(time)[:, None].chunk(4, -1)
        mixed = self.query_key_value(self.norm(h) * (1 + scale) + shift)
        parts = mixed.reshape(batch, sites, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        h = h + self.join(seen.transpose(1, 2).reshape(batch, sites, width))
        inner = self.inner(self.norm(h) * (1 + scale2) + shift2)
        return h + self.outer(nn.functional.gelu(inner))


class TokenTransformer(nn.Module):
    """Transformer encoder with a learned place per site; arguments as `TokenMLP`.

    width must be a multiple of heads.

    >>> import torch
    >>> from reverie.denoisers import TokenTransformer
    >>> body = TokenTransformer(5, (3,), 4, width=16, depth=1, heads=2)
    >>> body(torch.tensor([[0, 4, 2]]), torch.zeros(1)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        states: int,
        sites: tuple[int, ...],
        columns: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.symbol = nn.Embedding(states, width)
        self.place = nn.Parameter(0.02 * torch.randn(math.prod(sites), width))
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 128), nn.SiLU())
        self.blocks = nn.ModuleList(Attention(width, heads, 128) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = _zero(nn.Linear(width, columns))

    def forward(self, state: Tensor, level: Tensor) -> Tensor:
        time = self.time(level)
        h = self.symbol(state.flatten(1)) + self.place
        for block in self.blocks:
            h = block(h, time)
        return self.leave(self.norm(h)).reshape(*state.shape, self.columns)


def _zero(layer: nn.Linear) -> nn.Linear:
    """A layer that starts at 0: the network starts from what the noise alone says."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
