"""A trained network with EDM preconditioning, for every Gaussian process through (alpha, sigma).

With y = x_t / alpha and s = sigma / alpha (the variance-exploding view of any Gaussian process):

    xhat = c_skip y + c_out F(c_in y, c_noise)          Karras et al. 2022, eq. 7 and table 1

so that one network F serves every schedule, and its loss is near 1 at every level. Where modes are
noised differently, the scalings act on them, and F sees and gives points.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.conditions import Encoder, Labels, Values
from reverie.errors import InputError
from reverie.processes import GaussianProcess

TIME_WIDTH = 128


class Network(Denoiser):
    """Preconditioned `body(x, c_noise)`; `data_std` is the data's deviation per coordinate.

    States and guesses are (B, *shape). Source: Karras et al. 2022, eq. 7 and table 1.

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.processes import VP
    >>> network = Network(VP(), ResidualMLP((2,), width=16))
    >>> network(torch.zeros(4, 2), torch.tensor(0.5)).shape
    torch.Size([4, 2])
    """

    process: GaussianProcess

    def __init__(self, process: GaussianProcess, body: nn.Module, data_std: float = 1.0) -> None:
        super().__init__()
        self.process, self.body, self.data_std = process, body, float(data_std)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.network_scales(t, state)
        spread = sigma / alpha
        total = (spread.square() + self.data_std**2).sqrt()
        level = 0.25 * spread.log().flatten(1).mean(1).expand(state.shape[0])
        view = self.process.to_modes(state) / alpha
        extra = () if condition is None else (condition,)
        raw = self.process.to_modes(
            self.body(self.process.from_modes(view / total), level, *extra)
        )
        clean = view * (self.data_std / total) ** 2 + raw * (spread * self.data_std / total)
        return self.process.from_modes(clean)

    def loss_weight(self, t: Tensor, like: Tensor) -> Tensor:
        """1 / c_out^2 (B, ...): times (x - xhat)^2 of the modes it gives the loss of F itself."""
        alpha, sigma = self.process.network_scales(t, like)
        spread = sigma / alpha
        return (spread.square() + self.data_std**2) / (spread * self.data_std).square()


class MaskedNetwork(Network):
    """One network for every conditional of a joint law: any coordinates may be observed.

    The condition is the point (B, *shape) with NaN where it is not observed (None: nowhere), and
    the body takes `Values` of the same shape. Observed coordinates stay clean in the state and
    are returned as they are, so that a loss, a curve and a sample concern the others alone
    (Simformer: Gloeckler et al. 2024, section 3.2). Raises InputError on another shape.

    >>> import torch
    >>> from reverie.denoisers import MaskedNetwork, ResidualMLP, Values
    >>> from reverie.processes import VP
    >>> network = MaskedNetwork(VP(), ResidualMLP((3,), width=16, condition=Values((3,))))
    >>> seen = torch.tensor([[0.5, torch.nan, torch.nan]])
    >>> network(torch.zeros(1, 3), torch.tensor(0.5), seen).detach()[0, 0]  # returned as it is
    tensor(0.5000)
    """

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if condition is None:
            return super().forward(state, t, None)
        if condition.shape != state.shape:
            raise InputError(
                f"the condition of a masked model has the shape of its points, "
                f"{tuple(state.shape)}, not {tuple(condition.shape)}"
            )
        seen = ~condition.isnan()
        known = condition.nan_to_num()
        alpha, _ = self.process.scales(t, state)
        guess = super().forward(torch.where(seen, alpha * known, state), t, condition)
        return torch.where(seen, known, guess)


class FourierTime(nn.Module):
    """Sines and cosines of a level (B,) at fixed geometric frequencies: (B, 2 * count)."""

    frequencies: Tensor

    def __init__(self, count: int = 16, top: float = 32.0) -> None:
        super().__init__()
        self.register_buffer(
            "frequencies", torch.logspace(-1, math.log10(top), count), persistent=False
        )

    def forward(self, level: Tensor) -> Tensor:
        angle = level[:, None] * self.frequencies.to(level)
        return torch.cat([angle.sin(), angle.cos()], 1)


class Block(nn.Module):
    """Residual block: normalise, modulate by the level, two linear maps."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(time_width, 2 * width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulate(time).chunk(2, 1)
        h = self.norm(x) * (1 + scale) + shift
        return x + self.second(nn.functional.silu(self.first(h)))


class ResidualMLP(nn.Module):
    """Residual MLP over flattened points of `shape`: for vectors, tables and small images.

    It gives values of the same shape, or (B, out) where `out` is given. condition: what it is
    told; labels are embedded beside the level, values enter beside the point.
    InputError on a condition where it takes none.

    >>> import torch
    >>> from reverie.denoisers import ResidualMLP
    >>> ResidualMLP((2, 3), width=16)(torch.zeros(4, 2, 3), torch.zeros(4)).shape
    torch.Size([4, 2, 3])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 3,
        out: int | None = None,
        condition: Encoder | None = None,
    ) -> None:
        super().__init__()
        dim = math.prod(shape)
        told = 2 * math.prod(condition.shape) if isinstance(condition, Values) else 0
        self.out_shape = shape if out is None else (out,)
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, TIME_WIDTH), nn.SiLU())
        self.enter = nn.Linear(dim + told, width)
        self.blocks = nn.ModuleList(Block(width, TIME_WIDTH) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim if out is None else out)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.condition = condition
        if isinstance(condition, Labels):
            self.label = nn.Embedding(condition.classes + 1, TIME_WIDTH)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        time, parts = self.time(level), [x.flatten(1)]
        if isinstance(self.condition, Labels):
            time = time + self.label(self.condition(condition, x))
        elif isinstance(self.condition, Values):
            parts += [told.flatten(1) for told in self.condition(condition, x)]
        elif condition is not None:
            raise InputError("this network takes no condition")
        h = self.enter(torch.cat(parts, 1))
        for block in self.blocks:
            h = block(h, time)
        return self.leave(self.norm(h)).reshape(-1, *self.out_shape)
