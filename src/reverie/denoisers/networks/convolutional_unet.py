"""A U-Net of our own for pictures and volumes: residual convolutions at halved sides.

Channels double at every halving of a picture, so that each level costs about the same and most
weights lie where the grid is coarse and a weight is cheap. Sides need not be powers of two: a
level of n cells has one of ceil(n / 2) below it, and what comes back up is cut to n. Activations
are channels last (weights are not, so that a saved state is laid out as it was), the noise level
scales and shifts every block, and only the coarsest grid has attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.conditions import Encoder, Labels, Values
from reverie.denoisers.networks.network import FourierTime
from reverie.errors import InputError

TIME_WIDTH = 128
COARSEST, HALVINGS = 4, 4  # cells of the coarsest grid's shortest side, at most; and levels below
LEAST_WIDTH = 8  # channels of a level
GROUP = 8  # channels that are normalised together, at least
ATTENDED = 512  # cells of a grid with attention, at most: 8 x 8, and 8 x 8 x 8
HEAD = 32  # channels of a head
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class ConvolutionalUNet(nn.Module):
    """`body(x, level)` on pictures (B, C, H, W) or volumes (B, C, D, H, W), any sides.

    width: channels of the coarsest level; a finer one has half of those below it (a quarter in
    volumes), and at least 8. depth: residual blocks of a level, on the way down and on the way up.
    condition: what it is told; labels and vectors enter beside the noise level, values on the
    same grid as further channels. It starts as 0. operations: about so many multiplications a
    point. InputError on other shapes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 64,
        depth: int = 1,
        condition: Encoder | None = None,
    ) -> None:
        super().__init__()
        dim = len(shape) - 1
        if dim not in CONVOLUTIONS:
            raise InputError(
                "the network 'convolutional' takes pictures (C, H, W) or volumes (C, D, H, W), "
                f"not points of shape {shape}"
            )
        self.shape, self.dim, self.condition = tuple(shape), dim, condition
        stacked = self._told(condition)
        widths = level_widths(shape[1:], width)
        self.time = nn.Sequential(
            FourierTime(), nn.Linear(32, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH)
        )
        self.enter = _convolution(dim, shape[0] + stacked, widths[0])
        self.down = nn.ModuleList(_blocks(dim, w, w, depth) for w in widths[:-1])
        self.shrink = nn.ModuleList(
            _convolution(dim, fine, coarse, stride=2) for fine, coarse in pairwise(widths)
        )
        self.middle = nn.ModuleList(Block(dim, widths[-1], widths[-1]) for _ in range(2 * depth))
        cells = [
            math.prod(-(-side // 2**level) for side in shape[1:]) for level in range(len(widths))
        ]
        self.attention = Attention(widths[-1]) if cells[-1] <= ATTENDED else nn.Identity()
        self.grow = nn.ModuleList(
            _convolution(dim, coarse, fine, size=1) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(_blocks(dim, 2 * w, w, depth) for w in widths[:-1])
        self.norm = nn.GroupNorm(_groups(widths[0]), widths[0])
        self.leave = _zero(_convolution(dim, widths[0], shape[0]))
        weights = [*map(_weights, zip(self.down, self.up, strict=True)), _weights([self.middle])]
        self.operations = sum(w * c for w, c in zip(weights, cells, strict=True))

    def _told(self, condition: Encoder | None) -> int:
        """Channels that a condition adds to the picture; the others get a map of their own."""
        if isinstance(condition, Labels):
            self.label = nn.Embedding(condition.classes + 1, TIME_WIDTH)
        elif isinstance(condition, Values):
            if condition.shape[1:] == self.shape[1:]:
                return 2 * condition.shape[0]
            if len(condition.shape) != 1:
                raise InputError(
                    "the network 'convolutional' is told labels, vectors, or values on a grid of "
                    f"{self.shape[1:]}, not values of shape {condition.shape}"
                )
            self.vector = nn.Linear(2 * condition.shape[0], TIME_WIDTH)
        return 0

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Values of the shape of x (B, *shape), at levels (B,)."""
        time = self.time(level)
        if isinstance(self.condition, Labels):
            time = time + self.label(self.condition(condition, x))
        elif isinstance(self.condition, Values):
            told = torch.cat(self.condition(condition, x), 1)
            if told.ndim == 2:
                time = time + self.vector(told)
            else:
                x = torch.cat([x, told], 1)
        elif condition is not None:
            raise InputError("this network takes no condition")
        time = nn.functional.silu(time)
        h = self.enter(x.contiguous(memory_format=LAST[self.dim]))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            h = _through(blocks, h, time)
            skips.append(h)
            h = shrink(h)
        half = len(self.middle) // 2
        h = _through(self.middle[:half], h, time)
        h = _through(self.middle[half:], self.attention(h), time)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            skip = skips.pop()
            h = torch.cat([skip, _doubled(grow(h), skip.shape[2:])], 1)
            h = _through(blocks, h, time)
        return self.leave(nn.functional.silu(self.norm(h)))


class Block(nn.Module):
    """Residual block: two convolutions, normalised; the noise level scales and shifts between."""

    def __init__(self, dim: int, channels: int, width: int) -> None:
        super().__init__()
        self.before = nn.GroupNorm(_groups(channels), channels)
        self.first = _convolution(dim, channels, width)
        self.between = nn.GroupNorm(_groups(width), width, affine=False)
        self.modulate = nn.Linear(TIME_WIDTH, 2 * width)
        self.second = _zero(_convolution(dim, width, width))
        same = channels == width
        self.skip = nn.Identity() if same else _convolution(dim, channels, width, size=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        ones = (1,) * (x.ndim - 2)
        scale, shift = self.modulate(time).reshape(len(x), -1, *ones).chunk(2, 1)
        h = self.first(nn.functional.silu(self.before(x)))
        h = torch.addcmul(shift, self.between(h), 1 + scale)
        return self.skip(x) + self.second(nn.functional.silu(h))


class Attention(nn.Module):
    """Residual attention between the cells of a grid, normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        while width % self.heads:
            self.heads -= 1
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        mixed = self.query_key_value(self.norm(cells)).unflatten(-1, (3, self.heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        out = self.join(seen.transpose(1, 2).flatten(2))
        return x + out.transpose(1, 2).reshape(x.shape)


def level_widths(sides: tuple[int, ...], width: int) -> list[int]:
    """Channels of each level, the finest first; the coarsest has `width`."""
    count = 0
    while count < HALVINGS and -(-min(sides) // 2**count) > COARSEST:
        count += 1
    ratio = 2 ** (len(sides) - 1)
    fine = [width // ratio**k for k in range(count, 0, -1)]
    return [max(w - w % LEAST_WIDTH, LEAST_WIDTH) for w in fine] + [width]


def _blocks(dim: int, channels: int, width: int, depth: int) -> nn.ModuleList:
    return nn.ModuleList(Block(dim, width if k else channels, width) for k in range(depth))


def _through(blocks: nn.ModuleList, h: Tensor, time: Tensor) -> Tensor:
    for block in blocks:
        h = block(h, time)
    return h


def _doubled(h: Tensor, sides: torch.Size) -> Tensor:
    """Every cell twice along every axis, cut to `sides`."""
    h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
    return h[(..., *(slice(side) for side in sides))]


def _convolution(dim: int, channels: int, width: int, size: int = 3, stride: int = 1) -> nn.Module:
    return CONVOLUTIONS[dim](channels, width, size, stride=stride, padding=size // 2)


def _weights(modules: Iterable[nn.Module]) -> int:
    """Weights of convolutions, each of which is used once in every cell."""
    return sum(p.numel() for m in modules for p in m.parameters() if p.ndim > 2)


def _groups(channels: int) -> int:
    return math.gcd(channels, max(1, channels // GROUP))


def _zero(layer: nn.Module) -> nn.Module:
    """A layer that starts at 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
