"""A small convolutional body for images, which may be told another image of the same size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.network import FourierTime
from reverie.errors import InputError
from reverie.formerly import keywords

Padding = Literal["circular", "zeros"]


class Convolutional(nn.Module):
    """Residual 3 x 3 convolutions over images (B, channels, H, W), modulated by the noise level.

    condition: channels of the condition (B, condition, H, W), which is stacked on the image; 0:
    none. periodic: wrap around at the borders, as on a torus, instead of padding with zeros. Every
    block doubles its reach by dilation: 1, 2, 4, ... InputError when called without its condition.

    >>> import torch
    >>> from reverie.denoisers import Convolutional, Network
    >>> from reverie.processes import VP
    >>> network = Network(VP(), Convolutional(channels=1, width=8, depth=2))
    >>> network(torch.zeros(2, 1, 8, 8), torch.tensor(0.5)).shape
    torch.Size([2, 1, 8, 8])
    """

    @keywords(told="condition")
    def __init__(
        self,
        channels: int,
        *,
        condition: int = 0,
        width: int = 32,
        depth: int = 3,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        padding: Padding = "circular" if periodic else "zeros"
        self.given = condition
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 64), nn.SiLU())
        self.enter = nn.Conv2d(channels + condition, width, 3, padding=1, padding_mode=padding)
        self.blocks = nn.ModuleList(_Block(width, 2**k, padding) for k in range(depth))
        self.leave = nn.Conv2d(width, channels, 3, padding=1, padding_mode=padding)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Values (B, channels, H, W) for images x at levels (B,)."""
        if (condition is None) != (self.given == 0):
            wanted = f"a condition of {self.given} channels" if self.given else "no condition"
            raise InputError(f"this network takes {wanted}")
        if condition is not None:
            x = torch.cat([x, condition.to(x)], 1)
        h, time = self.enter(x), self.time(level)
        for block in self.blocks:
            h = block(h, time)
        return self.leave(nn.functional.silu(h))


class _Block(nn.Module):
    def __init__(self, width: int, reach: int, padding: Padding) -> None:
        super().__init__()
        self.modulate = nn.Linear(64, 2 * width)
        self.first, self.second = (
            nn.Conv2d(width, width, 3, padding=reach, dilation=reach, padding_mode=padding)
            for _ in range(2)
        )
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulate(time)[:, :, None, None].chunk(2, 1)
        h = nn.functional.silu(x) * (1 + scale) + shift
        return x + self.second(nn.functional.silu(self.first(h)))
