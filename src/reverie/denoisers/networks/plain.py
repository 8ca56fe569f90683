"""A network on the state of any process at all: what `fit` builds where nobody registered one.

States and targets are brought to units by their own moments at levels along the process, and the
network F answers in these units:

    prediction(x_t, t) = m(t) + s(t) F((x_t - m'(t)) / s'(t), level)

m, s and m', s' are mean and deviation of targets and of states at t, per coordinate, of the
training points. Before training F is 0, and the prediction is the best that ignores the state. On
a manifold vectors are made tangent; for symbols F are the logits of the clean symbol.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import ResidualMLP
from reverie.errors import InputError
from reverie.processes import Process
from reverie.spaces import FiniteSet, Manifold

LEVELS, ROWS = 33, 1024  # where, and of how many points, the moments are measured
LEAST = 1e-6  # deviation of a coordinate, relative to the largest


class PlainNetwork(Denoiser):
    """`body(state, level)` in units of the noised training points; the default is a residual MLP.

    train: points (n, *shape) of the process's space. Raises InputError where a state or a target
    is not finite.
    """

    places: Tensor  # (L,) times
    state_mean: Tensor  # (L, *state)
    state_std: Tensor
    mean: Tensor  # (L, *target)
    std: Tensor

    def __init__(
        self,
        process: Process,
        train: Tensor,
        width: int = 256,
        depth: int = 3,
        body: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        low, high = process.t_range
        places = torch.linspace(low, high, LEVELS, dtype=torch.float64)
        generator = torch.Generator(train.device).manual_seed(0)
        x = process.space.as_points(train[:ROWS])
        x = x.repeat(-(-ROWS // len(x)), *(1,) * (x.ndim - 1))[:ROWS]
        space = process.space
        self.of_symbols = isinstance(space, FiniteSet)
        # a chain may own states beyond the data's symbols, a mask for one
        self.states = getattr(process, "states", space.symbols + 1) if self.of_symbols else 0  # type: ignore[attr-defined]
        states, targets = [], []
        for t in places:
            state = process.corrupt(x, t, generator=generator)
            states.append(_moments(self._seen(state)))
            targets.append(_moments(process.target(state, x, t).float()))
        for name, values in (("state", states), ("target", targets)):
            if not all(torch.isfinite(part).all() for pair in values for part in pair):
                kind = type(process).__name__
                raise InputError(f"{kind}: a {name} of the training points is not finite")
        self.register_buffer("places", places)
        self._keep("state_mean", "state_std", states)
        self._keep("mean", "std", targets)
        inner = tuple(self.state_mean.shape[1:])
        outer = math.prod(self.mean.shape[1:])
        self.body = body or ResidualMLP(inner, width, depth, out=outer)

    def _keep(self, mean: str, std: str, moments: list[tuple[Tensor, Tensor]]) -> None:
        means, stds = (torch.stack(parts) for parts in zip(*moments, strict=True))
        self.register_buffer(mean, means)
        self.register_buffer(std, stds.clamp(min=max(LEAST * float(stds.max()), 1e-30)))

    def _seen(self, state: Tensor) -> Tensor:
        """The state as numbers: symbols become one-hot vectors of as many states as they take."""
        if not self.of_symbols:
            return state.float()
        return torch.nn.functional.one_hot(state, self.states).float()

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if condition is not None:
            raise InputError("this network takes no condition")
        time = torch.as_tensor(t).double().reshape(-1).to(self.places).expand(len(state))
        seen = (self._seen(state) - self._at(self.state_mean, time)) / self._at(
            self.state_std, time
        )
        weight = next(self.body.parameters())
        level = (2 * time - 1).to(weight)
        raw = self.body(seen.to(weight), level).reshape(len(state), *self.mean.shape[1:])
        if self.of_symbols:
            return raw.softmax(-1)
        guess = self._at(self.mean, time) + self._at(self.std, time) * raw
        if isinstance(self.process.space, Manifold):
            return self.process.space.tangent(state, guess.to(state))
        return guess.to(state)

    def _at(self, table: Tensor, time: Tensor) -> Tensor:
        """Rows of a table (L, ...) at times (B,), linear in between."""
        low, high = self.process.t_range
        place = (time - low) / (high - low) * (LEVELS - 1)
        left = place.floor().long().clamp(0, LEVELS - 2)
        share = (place - left).to(table).reshape(-1, *(1,) * (table.ndim - 1))
        return torch.lerp(table[left], table[left + 1], share)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(values, 0)
    return mean, std
