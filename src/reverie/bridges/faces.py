"""First hitting on categories: shares that lose one category after the other, face by face.

At each site a martingale moves on the simplex from its centre, until one of its shares is 1. Any
martingale that does so ends at vertex i with chance z_i, h_i(z) = z_i. Here it is the
Wright-Fisher diffusion without mutation, a(z) = diag(z) - z z^T, whose bridge to vertex i has the
bounded drift e_i - z: it is the diffusion with mutation to i alone, at rate 2, so that a step has
an exact draw at any length (lineages of the coalescent: see `processes.lineages`). Types without a
lineage are lost for good, i is never lost: no step overshoots a face.

    E tau = -2 sum_i (1 - z_i) log(1 - z_i)

for one site (Kimura & Ohta 1969, summed over the types that may win). A guess p of the end's
chances drifts by p - z and costs 1/2 sum_i (p_i - x_i)^2 / z_i nats per unit of time (Girsanov:
the inverse of a on vectors of sum 0 is diag(1 / z)).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.bridges.first_hitting import FirstHitting
from reverie.bridges.hitting_fit import bridge_states
from reverie.denoisers import ResidualMLP
from reverie.errors import InputError
from reverie.processes.lineages import draw_lineages, draw_types

LEAST = 1e-6  # chance of a category that a network's input and its loss tell from 0


class CategoricalFaces(FirstHitting):
    """`sites` categories of `count` each: shares from the centre to a vertex at every site.

    States and ends are (B, sites * count), a site's shares side by side. dt: time of a step (of
    the last one at most). InputError on fewer than two categories, no site, or dt not above 0.
    Source: Ye, Wu & Liu 2022 (from its abstract); the process and its steps are derived here.

    >>> import torch
    >>> from reverie.bridges import CategoricalFaces, EnumeratedEnds
    >>> faces, draw = CategoricalFaces(1, 3), torch.Generator().manual_seed(0)
    >>> ends = EnumeratedEnds(faces, torch.eye(3), torch.tensor([0.5, 0.5, 0.0]), draw)
    >>> faces.sample(ends, 1000, generator=draw).ends.mean(0).round(decimals=1)
    tensor([0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, sites: int, count: int, dt: float = 0.1) -> None:
        if sites < 1 or count < 2 or not dt > 0:
            raise InputError(
                f"{sites} sites of {count} categories in steps of time {dt:g}: it takes a site, "
                "two categories and a positive step"
            )
        self.sites, self.count, self.dt, self.dim = sites, count, dt, sites * count
        self.origin = torch.full((self.dim,), 1 / count, dtype=torch.float64)

    def shares(self, state: Tensor) -> Tensor:
        """A state as (B, sites, count)."""
        return state.reshape(len(state), self.sites, self.count)

    def stopped(self, state: Tensor) -> Tensor:
        return (self.shares(state).amax(2) == 1).all(1)

    def check(self, ends: Tensor) -> None:
        good = ends.ndim == 2 and ends.shape[1] == self.dim and ((ends == 0) | (ends == 1)).all()
        if not good or not (self.shares(ends).sum(2) == 1).all():
            raise InputError(
                f"ends are rows of {self.sites} one-hot vectors of {self.count} numbers"
            )

    def log_h(self, state: Tensor, ends: Tensor) -> Tensor:
        return state.log().clamp(min=-1e4) @ ends.T.to(state)

    def drift(self, state: Tensor, end: Tensor) -> Tensor:
        return end - state

    def step(
        self, state: Tensor, end: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        every, goals = state.reshape(-1, self.count), end.to(state).reshape(-1, self.count)
        going = every.amax(1) < 1
        z, goal = every[going], goals[going]
        theta = z.new_full((len(z),), 2.0)
        left = draw_lineages(theta, z.new_full((len(z),), self.dt), generator=generator)
        weight = draw_types(left, z, generator) + 2 * goal
        there = weight > 0
        parts = torch._standard_gamma(weight.where(there, 1.0), generator=generator)  # pyright: ignore
        parts = torch.where(there, parts.clamp(min=1e-300), 0.0)
        moved = every.clone()
        moved[going] = parts / parts.sum(1, keepdim=True)
        moved = moved.reshape(state.shape)
        took = state.new_full((len(state),), self.dt)
        return moved, torch.where(self.stopped(moved), 0.5 * took, took)


class CategoricalGuess(nn.Module):
    """P(category | shares) (B, dim) from states (B, dim), and draws of it as the ends of a run.

    Without a network a site's chances are its shares, which is exact for uniform categories.
    """

    def __init__(self, process: CategoricalFaces, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.process = process
        self.body = ResidualMLP((2 * process.dim,), width, depth, out=process.dim)
        self.generator: torch.Generator | None = None

    def log_chances(self, state: Tensor) -> Tensor:
        """Logarithms (B, sites, count); a share of 0 stays one."""
        shares = self.process.shares(state).float()
        log = shares.clamp(min=LEAST).log()
        seen = torch.cat([shares.flatten(1), log.flatten(1) / 4], 1)
        raw = self.body(seen, seen.new_zeros(len(seen)))
        logits = log + raw.reshape(log.shape)
        return logits.masked_fill(shares == 0, -torch.inf).log_softmax(2)

    def forward(self, state: Tensor) -> Tensor:
        return self.log_chances(state).exp().flatten(1).to(state)

    def __call__(self, state: Tensor) -> Tensor:  # the ends of `FirstHitting.sample`
        with torch.no_grad():
            law = self.log_chances(state).exp().reshape(-1, self.process.count)
        pick = torch.multinomial(law, 1, generator=self.generator)
        return torch.zeros_like(law).scatter(1, pick, 1.0).reshape(state.shape).to(state)


def face_rate(guess: Callable[[Tensor], Tensor], state: Tensor, ends: Tensor) -> Tensor:
    """Nats (B,) per unit of time that a guess of the chances costs on bridges to ends (B, dim)."""
    off = (guess(state) - ends).square()
    return 0.5 * torch.where(state > 0, off / state.clamp(min=1e-300), 0.0).sum(1)


def fit_categories(
    data: Tensor,
    process: CategoricalFaces,
    *,
    steps: int = 1000,
    batch: int = 256,
    rate: float = 2e-3,
    width: int = 128,
    depth: int = 2,
    generator: torch.Generator | None = None,
) -> CategoricalGuess:
    """Fit a guess on bridges to one-hot rows of data (n, dim), by the surprise of their ends.

    Its least point is that of the path KL, with a finite variance.
    """
    process.check(data)
    guess = CategoricalGuess(process, width, depth)
    guess.generator = generator
    optimiser = torch.optim.Adam(guess.parameters(), lr=rate)
    pool: tuple[Tensor, Tensor] | None = None
    for k in range(steps):
        if pool is None or k % 100 == 0:
            rows = data[torch.randint(len(data), (1000,), generator=generator)]
            pool = bridge_states(process, rows, generator)
        pick = torch.randint(len(pool[0]), (batch,), generator=generator)
        state, ends = pool[0][pick], process.shares(pool[1][pick])
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 2 * (steps - k) / steps)
        log = guess.log_chances(state).clamp(min=-30)
        loss = -(ends.float() * log).sum((1, 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return guess
