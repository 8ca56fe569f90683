"""A Fourier neural operator, conditioned on the noise level: weights that belong to no grid.

Every block multiplies the low Fourier coefficients of its input by learned matrices and maps each
point's channels by the same small network (Li et al. 2021, Fourier neural operator for parametric
partial differential equations). On midpoints of equal cells the coefficients are a fast Fourier
transform; on any other grid they are quadrature sums, equal to it where both apply.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.network import FourierTime, Network
from reverie.errors import InputError
from reverie.processes import FunctionNoise
from reverie.spaces import Functions


class FourierNeuralOperator(nn.Module):
    """body(x, level) for `Network`: functions (B, *shape) on the grid of `space` to the same.

    modes: frequencies kept per axis, 0 to modes - 1 and their negatives; every side of a regular
    grid needs at least 2 modes points. width: channels. depth: blocks. observations: whether a
    condition is taken: the function (B, *shape) where it was observed, NaN elsewhere; None is
    nowhere.

    `on(space)` is the same operator on another grid. Raises InputError on a grid too coarse for
    the modes, or x of another shape than the grid's.
    Source: Li et al. 2021.

    >>> import torch
    >>> from reverie.denoisers import FourierNeuralOperator
    >>> from reverie.spaces import Functions
    >>> body = FourierNeuralOperator(Functions.regular(32), modes=8, width=8, depth=2)
    >>> body(torch.zeros(3, 32), torch.zeros(3)).shape
    torch.Size([3, 32])
    >>> body.on(Functions.regular(64))(torch.zeros(3, 64), torch.zeros(3)).shape
    torch.Size([3, 64])
    """

    points: Tensor

    def __init__(
        self,
        space: Functions,
        modes: int = 16,
        width: int = 32,
        depth: int = 4,
        observations: bool = False,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = dict(
            modes=modes, width=width, depth=depth, observations=observations
        )
        self.space, self.observations = space, observations
        self.register_buffer("points", space.points.float(), persistent=False)
        inputs = 1 + space.axes + 2 * observations
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 4 * width), nn.SiLU())
        self.enter = nn.Linear(inputs, width)
        self.waves = Waves(space, modes)
        self.blocks = nn.ModuleList(
            OperatorBlock(self.waves.count, width, 4 * width) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def on(self, space: Functions) -> FourierNeuralOperator:
        """A copy of this operator on another grid over the same arguments."""
        other = FourierNeuralOperator(space, **self.settings)
        try:
            other.load_state_dict(self.state_dict())
        except RuntimeError:
            raise InputError(
                f"this operator is for functions of {self.space.axes} arguments, not {space.axes}"
            ) from None
        return other.to(self.enter.weight.device).train(self.training)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.space.shape:
            raise InputError(
                f"functions have shape {tuple(x.shape[1:])}, but the operator's grid "
                f"{self.space.shape}: use operator.on(space)"
            )
        time, batch = self.time(level), len(x)
        places = self.points.to(x).reshape(1, *self.space.shape, -1) * 2 - 1
        channels = [x[..., None], places.expand(batch, *places.shape[1:])]
        if self.observations:
            told = torch.full_like(x, math.nan) if condition is None else condition.to(x)
            channels.append(torch.stack([told.nan_to_num(), (~told.isnan()).to(x)], -1))
        elif condition is not None:
            raise InputError("this operator takes no condition: build it with observations=True")
        h = self.enter(torch.cat(channels, -1))
        for block in self.blocks:
            h = block(h, time, self.waves)
        return self.leave(self.norm(h))[..., 0]


def on_grid(network: Network, process: FunctionNoise) -> Network:
    """The same weights with noise on another grid (see `FunctionNoise.on`), for `sample` and all.

    Raises InputError where the network's body is not an operator.

    >>> import torch
    >>> from reverie.denoisers import FourierNeuralOperator, Network, on_grid
    >>> from reverie.processes import FunctionNoise, Matern
    >>> from reverie.spaces import Functions
    >>> coarse = FunctionNoise(Functions.regular(32), Matern(1.5, length=0.2))
    >>> body = FourierNeuralOperator(coarse.space, modes=8, width=8, depth=1)
    >>> finer = on_grid(Network(coarse, body), coarse.on(Functions.regular(64)))
    >>> finer(torch.zeros(2, 64), torch.tensor(0.5)).shape
    torch.Size([2, 64])
    """
    if not isinstance(network.body, FourierNeuralOperator):
        raise InputError("only a FourierNeuralOperator can be read on another grid")
    body = network.body.on(process.space)
    return type(network)(process, body, network.data_std).train(network.training)


class Waves(nn.Module):
    """Analysis into and synthesis from the low Fourier modes of a grid; channels come last."""

    count: int  # modes kept: the others are fixed by the values being real
    forward_waves: Tensor
    backward_waves: Tensor

    def __init__(self, space: Functions, modes: int) -> None:
        super().__init__()
        if modes < 1 or (space.uniform and min(space.shape) < 2 * modes):
            raise InputError(
                f"a grid of shape {space.shape} resolves fewer than {modes} modes per axis: it "
                f"needs {2 * modes} points on every side"
            )
        self.space = space
        full = [*range(modes), *range(1 - modes, 0)]
        sides = [full] * (space.axes - 1) + [list(range(modes))]
        frequencies = torch.tensor(list(itertools.product(*sides)))
        self.count = len(frequencies)
        self.places = tuple(frequencies.T)  # negative frequencies stand at the end of the axis
        if not space.uniform:
            angle = 2 * math.pi * space.points @ frequencies.double().T
            waves = torch.polar(torch.ones_like(angle), -angle)
            twice = torch.where(frequencies[:, -1] == 0, 1.0, 2.0)
            forward = torch.view_as_real(space.weights[:, None] * waves)
            backward = torch.view_as_real(waves * twice)  # real part: c e^(iwx) = (c, conj wave)
            self.register_buffer("forward_waves", forward.float(), persistent=False)
            self.register_buffer("backward_waves", backward.float(), persistent=False)

    def analyse(self, h: Tensor) -> Tensor:
        """Complex coefficients (B, count, C) of functions h (B, *shape, C)."""
        if self.space.uniform:
            axes = tuple(range(1, h.ndim - 1))
            return torch.fft.rfftn(h, dim=axes, norm="forward")[(slice(None), *self.places)]
        parts = torch.einsum("bnc,nmr->bmcr", h.flatten(1, -2), self.forward_waves.to(h))
        return torch.view_as_complex(parts.contiguous())

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Functions (B, *shape, C) of complex coefficients (B, count, C)."""
        batch, _, width = coefficients.shape
        shape = self.space.shape
        if self.space.uniform:
            whole = coefficients.new_zeros(batch, *shape[:-1], shape[-1] // 2 + 1, width)
            whole[(slice(None), *self.places)] = coefficients
            axes = tuple(range(1, 1 + len(shape)))
            return torch.fft.irfftn(whole, s=shape, dim=axes, norm="forward")
        parts = torch.view_as_real(coefficients)
        values = torch.einsum("bmcr,nmr->bnc", parts, self.backward_waves.to(parts))
        return values.reshape(batch, *shape, width)


class OperatorBlock(nn.Module):
    """Residual block: normalise, modulate by the level, low modes plus pointwise map, GELU."""

    def __init__(self, count: int, width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(time_width, 2 * width)
        # pairs of real numbers: optimisers and weight files need no complex type
        self.spectral = nn.Parameter(torch.randn(count, width, width, 2) / width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h: Tensor, time: Tensor, waves: Waves) -> Tensor:
        spread = (len(h), *(1,) * (h.ndim - 2), -1)
        scale, shift = (part.reshape(spread) for part in self.modulate(time).chunk(2, 1))
        a = self.norm(h) * (1 + scale) + shift
        low = torch.einsum("bmi,mio->bmo", waves.analyse(a), torch.view_as_complex(self.spectral))
        mixed = self.first(a) + waves.synthesise(low)
        return h + self.second(nn.functional.gelu(mixed))
