"""A network for a first hitting bridge on the Boolean cube, and what it costs in nats.

It guesses P(x_i = 1 | z) for each coordinate. The drift of coordinate i is q/z - (1 - q)/(1 - z),
so that the path KL of a guess is a rate per unit of time,

    1/2 sum_i (x_i - q_i)^2 / (z_i (1 - z_i))^2     over coordinates that still move (Girsanov).

Training weights the squares by 1 / (z (1 - z)) alone: the same minimum, and a finite variance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.bridges.first_hitting import BooleanCube, FirstHitting
from reverie.denoisers import ResidualMLP

NEAR = 1e-3  # of a face, within which training does not weigh more


class BooleanGuess(nn.Module):
    """P(x = 1 | z) (B, dim) from states (B, dim), and draws of it as the ends of a run."""

    def __init__(self, dim: int, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.body = ResidualMLP((dim,), width, depth)
        self.generator: torch.Generator | None = None

    def forward(self, state: Tensor) -> Tensor:
        seen = 2 * state.float() - 1
        logit = torch.special.logit(state.clamp(1e-6, 1 - 1e-6)).float()  # were bits independent
        raw = self.body(seen, seen.new_zeros(len(seen))) + logit
        return torch.where((state > 0) & (state < 1), raw.sigmoid().to(state), state)

    def __call__(self, state: Tensor) -> Tensor:  # the ends of `FirstHitting.sample`
        with torch.no_grad():
            chance = self.forward(state)
            return (torch.rand(state.shape, generator=self.generator) < chance).to(state)


def path_rate(guess: Callable[[Tensor], Tensor], state: Tensor, ends: Tensor) -> Tensor:
    """Nats (B,) per unit of time that a guess of P(x = 1) costs on the bridges to ends (B, d)."""
    moving = (state > 0) & (state < 1)
    inside = torch.where(moving, state, 0.5)
    off = (ends - guess(state)) / (inside * (1 - inside))
    return 0.5 * (moving * off.square()).sum(1)


def bridge_states(
    process: FirstHitting, ends: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """All states (m, dim) on one bridge to each end (n, dim), and the ends they run to."""
    state = process.origin.expand(ends.shape).clone()
    goal, states, goals = ends.to(state), [], []
    while len(state):
        states.append(state)
        goals.append(goal)
        state, _ = process.step(state, goal, generator)
        going = ~process.stopped(state)
        state, goal = state[going], goal[going]
    return torch.cat(states), torch.cat(goals)


def fit_boolean(
    data: Tensor,
    *,
    steps: int = 1000,
    batch: int = 512,
    rate: float = 3e-3,
    width: int = 64,
    dt: float = 0.02,
    generator: torch.Generator | None = None,
) -> BooleanGuess:
    """Fit a guess on bridges to the rows of data (n, dim) of zeros and ones."""
    process = BooleanCube(data.shape[1], dt)
    process.check(data)
    guess = BooleanGuess(data.shape[1], width)
    guess.generator = generator
    optimiser = torch.optim.Adam(guess.parameters(), lr=rate)
    pool: tuple[Tensor, Tensor] | None = None
    for k in range(steps):
        if pool is None or k % 100 == 0:
            rows = data[torch.randint(len(data), (2000,), generator=generator)]
            pool = bridge_states(process, rows, generator)
        pick = torch.randint(len(pool[0]), (batch,), generator=generator)
        state, ends = pool[0][pick], pool[1][pick]
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 2 * (steps - k) / steps)
        weight = 1 / (state * (1 - state)).clamp(min=NEAR)
        loss = (weight * (ends - guess.forward(state)).square()).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return guess
