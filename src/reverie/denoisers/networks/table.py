"""A network for tables: numbers beside symbols, noised each in their own way.

A residual MLP sees the scaled numbers, sines and cosines of them, the sum of learned embeddings of
all symbols (a mask is one more symbol of its site), and the levels of all clocks. Of it come

    numbers    xhat = c_skip y + c_out F, as of `network.Network` (Karras et al. 2022, eq. 7)
    symbols    logits of every site, with carry-over: a shown symbol is certain

and the loss is a sum of nats: the cross-entropy of hidden symbols at uniform shares, which is
their bound, and half the squared error of numbers times 1 + gamma, which is the loss of F itself
(the bound's own weight would spend all effort on the last digits).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import TIME_WIDTH, Block, FourierTime
from reverie.errors import InputError
from reverie.processes import ProductProcess

WAVES = (0.5, 1.0, 2.0, 4.0)  # of sines and cosines of the numbers, in radians a deviation
LEAST_STD = 0.1  # of a number that is mostly 0


class TableNetwork(Denoiser):
    """`body(numbers, symbols, levels)` in the units of training points (n, D).

    body: default a `TableMLP`; it maps (B, d) numbers, (B, k) symbols and levels (B, J) to (B, P)
    raw predictions. Raises InputError on parts that are neither Gaussian noise nor on symbols.
    """

    process: ProductProcess
    std: Tensor

    def __init__(
        self,
        process: ProductProcess,
        train: Tensor | None,
        width: int = 256,
        depth: int = 3,
        body: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        parts: list[Any] = list(process.parts)
        self.numbers = [j for j, part in enumerate(parts) if part.gaussian is not None]
        self.symbols = [j for j, part in enumerate(parts) if hasattr(part, "clean_law")]
        if len(self.numbers) + len(self.symbols) < len(parts):
            raise InputError("a network for a product takes Gaussian noise and noise on symbols")
        std = [torch.ones(process.space.sizes[j]) for j in self.numbers]
        if train is not None and len(train) > 1:
            points = train.float().split(process.space.sizes, 1)
            std = [points[j].std(0).clamp(min=LEAST_STD) for j in self.numbers]
        self.register_buffer("std", torch.cat([*std, torch.empty(0)]))
        self.body = body or TableMLP(process, width, depth)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if condition is not None:
            raise InputError("this network takes no condition")
        process, weight = self.process, next(self.body.parameters())
        time = torch.as_tensor(t).reshape(-1).double().expand(len(state))
        pieces, times = process.space.split(state), process.part_times(time)
        scaled = self._scaled(pieces, times)
        symbols = [pieces[j].flatten(1) for j in self.symbols]
        none = state.new_zeros(len(state), 0)
        raw = self.body(
            torch.cat([none, *(view for view, _, _ in scaled.values())], 1).to(weight),
            torch.cat([none.long(), *symbols], 1),
            self._levels(time).to(weight),
        )
        found = process.split(raw)
        for j, (_, skip, scale) in scaled.items():
            guess = skip + scale * found[j].flatten(1).to(state)
            found[j] = guess.reshape(found[j].shape)
        for j in self.symbols:
            part: Any = process.parts[j]
            found[j] = part.clean_law(found[j].float(), pieces[j], times[j])
        return process.join(found, state)

    def _scaled(
        self, pieces: list[Tensor], times: list[Tensor]
    ) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """Of each part of numbers: what the body sees, c_skip y and c_out, each (B, n)."""
        found, start = {}, 0
        for j in self.numbers:
            noise, state = self.process.parts[j].gaussian, pieces[j].flatten(1)
            assert noise is not None
            alpha, sigma = noise.scales(times[j], state)
            std = self.std[start : start + state.shape[1]].to(state)
            start += state.shape[1]
            spread, view = sigma / alpha, state / alpha
            total = (spread.square() + std.square()).sqrt()
            found[j] = view / total, view * (std / total).square(), spread * std / total
        return found

    def _levels(self, time: Tensor) -> Tensor:
        """The clocks (B, J) on a scale of about 1: log of a ratio / 4, a share from -1 to 1."""
        clock = self.process.clock(time)
        levels = [
            2 * clock[:, j] - 1 if low == 0 else clock[:, j].log() / 4
            for j, (low, _) in enumerate(self.process.ends)
        ]
        return torch.stack(levels, 1)

    def losses(
        self, rows: Tensor, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Nats (B,) of the module's loss, every other row with one symbol hidden for sure."""
        process = self.process
        time = t.to(x.device)
        state = process.corrupt(x, time, generator=generator)
        sure = process.hide_one(state[1::2], generator)
        state = torch.stack([state[0::2], _filled(sure, state[0::2])], 1).flatten(0, 1)[: len(x)]
        rate = process.rate(self(state, time), x, state, time)
        clock = process.clock(time)
        weights = [
            torch.full_like(clock[:, j], high) if low == 0 else 1 + clock[:, j]
            for j, (low, high) in enumerate(process.ends)
        ]
        each = (rate * torch.stack(weights, 1)).sum(1)
        return (each * process.mixture_weight(state, time)).float()


def _filled(rows: Tensor, like: Tensor) -> Tensor:
    """Rows, and where there is one too few a copy of the last of `like`."""
    return rows if len(rows) == len(like) else torch.cat([rows, like[-1:]])


class TableMLP(nn.Module):
    """Residual MLP over numbers (B, d), symbols (B, k) and levels (B, J), to (B, P)."""

    offsets: Tensor
    waves: Tensor

    def __init__(self, process: ProductProcess, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        parts: list[Any] = list(process.parts)
        sizes = process.space.sizes
        numbers = sum(n for n, part in zip(sizes, parts, strict=True) if part.gaussian is not None)
        states = [
            part.states
            for n, part in zip(sizes, parts, strict=True)
            if part.gaussian is None
            for _ in range(n)
        ]
        self.register_buffer("waves", torch.tensor(WAVES), persistent=False)
        offsets = torch.tensor([0, *states]).cumsum(0)
        self.register_buffer("offsets", offsets[:-1], persistent=False)
        self.symbol = nn.Embedding(max(int(offsets[-1]), 1), width)
        nn.init.normal_(self.symbol.weight, std=1 / math.sqrt(max(len(states), 1)))
        self.enter = nn.Linear(max(numbers, 1) * (1 + 2 * len(WAVES)), width)
        inner = 32 * len(parts)
        self.wave = FourierTime()
        self.time = nn.Sequential(nn.Linear(inner, TIME_WIDTH), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, TIME_WIDTH) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, sum(map(math.prod, process.shapes)))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, numbers: Tensor, symbols: Tensor, levels: Tensor) -> Tensor:
        waves = self.wave(levels.flatten()).reshape(len(levels), -1)
        time = self.time(waves)
        numbers = numbers if numbers.shape[1] else levels.new_zeros(len(levels), 1)
        angles = (numbers[..., None] * self.waves).flatten(1)
        h = self.enter(torch.cat([numbers, angles.sin(), angles.cos()], 1))
        h = h + self.symbol(symbols + self.offsets).sum(1)
        for block in self.blocks:
            h = block(h, time)
        return self.leave(self.norm(h))
