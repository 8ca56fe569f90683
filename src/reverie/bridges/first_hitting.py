"""First hitting bridges: Brownian motion that stops where it first meets its target set.

A process that starts at z0 and is conditioned to stop at x has the drift grad log h_x, with h_x(z)
the density of stopping at x from z (Doob). For data of law p it is Markov: given the state the
end's law is p(x) h_x(z) / h_x(z0), normalised (Ye, Wu & Liu 2022; of that paper only the abstract
was at hand, the mathematics here is derived anew).

A step draws the end given the state and then moves on the bridge to that end. Both moves are
exact: a coordinate on its way to a face is a three-dimensional Bessel process, which never meets
the other face; in the ball the bridge leaves a small ball around its state by the Poisson kernel.
So no step overshoots into a corner without data, at any length of steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.errors import InputError

Ends = Callable[[Tensor], Tensor]  # a draw (B, d) of the end, given the state (B, d)
CAP = 100_000  # steps that no run passes
TRIES = 10_000  # rounds of rejection
ROUNDS = 8  # of rejection that a move in the ball may take


@dataclass(frozen=True)
class Stopped:
    """Runs that have stopped: ends (n, d), time and number of steps (n,) that each took."""

    ends: Tensor
    time: Tensor
    steps: Tensor


class FirstHitting(ABC):
    """A Brownian motion in `dim` coordinates from `origin` (dim,), and where it stops."""

    dim: int
    origin: Tensor

    @abstractmethod
    def stopped(self, state: Tensor) -> Tensor:
        """Mask (B,) of states that have reached the target set."""
        raise NotImplementedError

    @abstractmethod
    def check(self, ends: Tensor) -> None:
        """InputError unless all ends (n, dim) lie in the target set."""
        raise NotImplementedError

    @abstractmethod
    def log_h(self, state: Tensor, ends: Tensor) -> Tensor:
        """log density (B, n) of stopping at each end (n, dim) from each state (B, dim)."""
        raise NotImplementedError

    @abstractmethod
    def step(
        self, state: Tensor, end: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """One move (B, dim) on the bridge to `end` (B, dim), and the time (B,) that it takes."""
        raise NotImplementedError

    @abstractmethod
    def drift(self, state: Tensor, end: Tensor) -> Tensor:
        """grad log h (B, dim) of the bridge to `end` (B, dim); 0 where one has stopped."""
        raise NotImplementedError

    def sample(self, ends: Ends, n: int, *, generator: torch.Generator | None = None) -> Stopped:
        """Run n states from the origin until each has stopped, at ends drawn by `ends`.

        Raises InputError where one has not after CAP steps (ends that contradict one another).
        """
        state = self.origin.expand(n, self.dim).clone()
        time, steps = state.new_zeros(n), torch.zeros(n, dtype=torch.long)
        for _ in range(CAP):
            going = (~self.stopped(state)).nonzero()[:, 0]
            if len(going) == 0:
                return Stopped(state, time, steps)
            here = state[going]
            state[going], took = self.step(here, ends(here), generator)
            time[going] += took
            steps[going] += 1
        raise InputError(f"{int((~self.stopped(state)).sum())} runs have not stopped by {CAP:,}")


class EnumeratedEnds:
    """The exact law of the end given the state, of points (n, dim) with weights (n,).

    >>> import torch
    >>> from reverie.bridges import BooleanCube, EnumeratedEnds
    >>> points = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    >>> law = EnumeratedEnds(BooleanCube(2), points)
    >>> law.weights(torch.tensor([[0.75, 0.75]]).double())  # 1/16 to 9/16
    tensor([[0.1000, 0.9000]], dtype=torch.float64)
    """

    def __init__(
        self,
        process: FirstHitting,
        points: Tensor,
        weights: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        process.check(points)
        share = torch.full((len(points),), 1 / len(points)) if weights is None else weights
        self.process, self.points, self.generator = process, points.double(), generator
        start = process.log_h(process.origin[None], self.points)[0]
        self.log_prior = share.double().log() - start

    def weights(self, state: Tensor) -> Tensor:
        """P(point | state) (B, n)."""
        return (self.log_prior + self.process.log_h(state, self.points)).softmax(1)

    def drift(self, state: Tensor) -> Tensor:
        """Drift (B, dim) of the Markov process: the mean of the bridges' drifts."""
        each = [self.process.drift(state, x.expand_as(state)) for x in self.points]
        return torch.einsum("bn,nbd->bd", self.weights(state), torch.stack(each))

    def __call__(self, state: Tensor) -> Tensor:
        pick = torch.multinomial(self.weights(state), 1, generator=self.generator)[:, 0]
        return self.points[pick]


class BooleanCube(FirstHitting):
    """{0, 1}^dim: independent coordinates from 1/2, each of which stops at 0 or 1.

    h_x(z) = prod z^x (1 - z)^(1 - x). dt: time of a step (of the last one at most).
    States are (B, dim). InputError unless dt lies in (0, 1).
    Source: Ye, Wu & Liu 2022 (from its abstract).

    >>> import torch
    >>> from reverie.bridges import BooleanCube
    >>> cube = BooleanCube(2)
    >>> ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    >>> cube.log_h(torch.tensor([[0.75, 0.5]]).double(), ends).exp()
    tensor([[0.1250, 0.3750]], dtype=torch.float64)
    """

    def __init__(self, dim: int, dt: float = 0.01) -> None:
        if not 0 < dt < 1:
            raise InputError(f"a step of time {dt:g}; it must lie in (0, 1)")
        self.dim, self.dt = dim, dt
        self.origin = torch.full((dim,), 0.5, dtype=torch.float64)

    def stopped(self, state: Tensor) -> Tensor:
        return ((state == 0) | (state == 1)).all(1)

    def check(self, ends: Tensor) -> None:
        if ends.ndim != 2 or ends.shape[1] != self.dim or not ((ends == 0) | (ends == 1)).all():
            raise InputError(f"ends of a Boolean cube are rows of {self.dim} zeros and ones")

    def log_h(self, state: Tensor, ends: Tensor) -> Tensor:
        up, down = state.log().clamp(min=-1e4), torch.log1p(-state).clamp(min=-1e4)
        return up @ ends.T.to(state) + down @ (1 - ends.T.to(state))

    def drift(self, state: Tensor, end: Tensor) -> Tensor:
        moving = (state > 0) & (state < 1)
        inside = torch.where(moving, state, 0.5)
        return moving * (end / inside - (1 - end) / (1 - inside))

    def step(
        self, state: Tensor, end: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Bessel moves; a level is also met between the ends of a move (Brownian crossing)."""
        moving = (state > 0) & (state < 1)
        gone = torch.where(end > 0.5, state, 1 - state)  # way from the face that is not met
        noise = torch.randn((3, *state.shape), generator=generator, dtype=state.dtype)
        x, y, z = self.dt**0.5 * noise
        after = ((gone + x).square() + y.square() + z.square()).sqrt()
        crossing = (-2 * (1 - gone) * (1 - after) / self.dt).exp()
        chance = torch.rand(state.shape, generator=generator, dtype=state.dtype)
        arrived = (after >= 1) | (chance < crossing)
        after = torch.where(arrived, 1.0, after)
        moved = torch.where(moving, torch.where(end > 0.5, after, 1 - after), state)
        took = state.new_full((len(state),), self.dt)
        # where the last coordinate arrives the step is cut at half, its mean to first order
        return moved, torch.where(self.stopped(moved), 0.5 * took, took)


class Ball(FirstHitting):
    """The unit sphere, from a point inside the ball: Poisson kernel (1 - |z|^2) / |z - x|^dim.

    Moves go to the rim of balls inside, as wide as rejection takes few trials: the rim's law is
    the Poisson kernel's there. Time is the mean exit time radius^2 / dim of each, which does not
    depend on where a ball is left. A state nearer than `reach` to its end stops there.
    States and ends are (B, dim), origin (dim,). InputError unless dim is at least 2 and the origin
    lies inside.
    Source: Ye, Wu & Liu 2022 (from its abstract).

    >>> import torch
    >>> from reverie.bridges import Ball
    >>> ball = Ball(2)
    >>> ends = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    >>> near = torch.tensor([[0.5, 0.0]]).double()
    >>> ball.log_h(near, ends).exp().round(decimals=3)
    tensor([[3.0000, 0.3330]], dtype=torch.float64)
    """

    def __init__(self, dim: int, origin: Tensor | None = None, reach: float = 1e-3) -> None:
        zero = torch.zeros(dim, dtype=torch.float64)
        self.dim, self.reach = dim, reach
        self.origin = zero if origin is None else origin.double()
        if dim < 2 or self.origin.shape != (dim,) or float(self.origin.norm()) >= 1:
            raise InputError(
                f"the origin must be a point of {dim} > 1 coordinates inside the ball"
            )
        # Harnack: h on a rim at this share of the way is at most ROUNDS times h at its centre
        shares = torch.linspace(0, 0.99, 1000)
        few = (1 + shares) / (1 - shares) ** (dim - 1) <= ROUNDS
        self.share = float(shares[few].max())

    def stopped(self, state: Tensor) -> Tensor:
        return state.norm(dim=1) >= 1 - 1e-12

    def check(self, ends: Tensor) -> None:
        on = ends.ndim == 2 and ends.shape[1] == self.dim
        if not on or not torch.allclose(ends.norm(dim=1), torch.ones((), dtype=ends.dtype)):
            raise InputError(f"ends of the ball are unit vectors of {self.dim} coordinates")

    def log_h(self, state: Tensor, ends: Tensor) -> Tensor:
        inside = torch.log1p(-state.square().sum(1).clamp(max=1)).clamp(min=-1e4)[:, None]
        # by differences: products of matrices lose the digits of small distances
        apart = torch.cdist(state, ends.to(state), compute_mode="donot_use_mm_for_euclid_dist")
        return inside - self.dim * apart.clamp(min=1e-30).log()

    def drift(self, state: Tensor, end: Tensor) -> Tensor:
        moving = ~self.stopped(state)[:, None]
        inside = torch.where(moving, state, 0.0)
        left, off = 1 - inside.square().sum(1, keepdim=True), inside - end
        return moving * (-2 * inside / left - self.dim * off / off.square().sum(1, keepdim=True))

    def step(
        self, state: Tensor, end: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        # as wide for every end: else how far it moves would tell the end, and draws of ends
        # given the state alone would forget that
        radius = self.share * (1 - state.norm(dim=1))
        log_most = self._log_most(state, end, radius)
        moved, open_ = state.clone(), torch.arange(len(state))
        least = self._log_kernel(state, end) + log_most
        for _ in range(TRIES):
            shape = (ROUNDS, len(open_), self.dim)
            way = torch.randn(shape, generator=generator, dtype=state.dtype)
            way = way * (radius[open_] / way.norm(dim=2))[..., None]
            trial = state[open_] + way
            log_ratio = self._log_kernel(trial, end[open_]) - least[open_]
            chance = torch.rand(shape[:2], generator=generator, dtype=state.dtype)
            taken, first = (chance.log() < log_ratio).max(0)
            moved[open_] = torch.where(
                taken[:, None], trial[first, torch.arange(len(open_))], state[open_]
            )
            open_ = open_[~taken]
            if len(open_) == 0:
                break
        near = (moved - end).norm(dim=1, keepdim=True) < self.reach
        moved = torch.where(near, end / end.norm(dim=1, keepdim=True), moved)
        return moved, radius.square() / self.dim

    def _log_most(self, state: Tensor, end: Tensor, radius: Tensor) -> Tensor:
        """The log (B,) of a bound of h on the rim by h at its centre.

        On the rim |z'| is at least |z| - r, and |z' - x| at least |z - x| - r.
        """
        size, apart = state.norm(dim=1), (state - end).norm(dim=1)
        inner = (size - radius).clamp(min=0)
        log_most = torch.log1p(-inner.square()) - torch.log1p(-size.square())
        return log_most - self.dim * torch.log1p(-radius / apart)

    def _log_kernel(self, state: Tensor, end: Tensor) -> Tensor:
        square = state.square().sum(-1).clamp(max=1 - 1e-15)
        return torch.log1p(-square) - self.dim * (state - end).norm(dim=-1).clamp(1e-30).log()
