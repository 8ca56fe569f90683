"""Critically damped Langevin diffusion: noise enters through a velocity.

    dx = v/M db,   dv = -x db - (damping/M) v db + sqrt(2 damping) dW_b,   damping^2 = 4 M,

b = beta t, x of the data, v_0 ~ N(0, share * M), stationary law N(0, 1) x N(0, M) (Dockhorn,
Vahdat & Kreis 2022, section 3). Critical damping is the fastest approach without oscillation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import State
from reverie.processes.linear_sde import LinearSDE

SERIES = 0.25  # below it 1 - exp(-c) (1 + c + c^2/2) is summed, above it subtracted
TERMS = 14


class CriticallyDamped(LinearSDE):
    """State (B, 2, *shape): x_t and its velocity; `readout` drops the velocity.

    beta: speed, constant in t. mass: M, the velocity's stationary variance. share: v_0's variance
    over M. Defaults are the paper's. InputError where one is not positive.
    Source: Dockhorn, Vahdat & Kreis 2022.

    >>> import torch
    >>> from reverie.processes import CriticallyDamped
    >>> process = CriticallyDamped()
    >>> state = process.corrupt(torch.zeros(3, 2), 0.5)
    >>> state.shape, process.readout(state).shape
    (torch.Size([3, 2, 2]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        beta: float = 4.0,
        mass: float = 0.25,
        share: float = 0.04,
        t_min: float = 1e-3,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        if min(beta, mass, share) <= 0:
            raise InputError(
                f"beta, mass, share are {beta}, {mass}, {share}; all must be positive"
            )
        self.mass, self.share, self.damping = mass, share, 2 * math.sqrt(mass)
        super().__init__(
            torch.tensor([[0.0, 1 / mass], [-1.0, -self.damping / mass]], dtype=torch.float64),
            torch.tensor([[0.0], [math.sqrt(2 * self.damping)]], dtype=torch.float64),
            start=torch.tensor([[share * mass]], dtype=torch.float64),
            duration=beta,
            t_min=t_min,
            shape=shape,
        )

    def settings(self) -> dict[str, float]:
        """Keyword arguments that rebuild this process, for a run's `config.json`."""
        low = self.t_range[0]
        return dict(beta=self.duration, mass=self.mass, share=self.share, t_min=low)

    def transition(self, duration: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form (ibid., appendix B), arranged so that no term cancels: c = 4 b / damping."""
        c, width = 4 * duration / self.damping, self.damping
        decay = (-0.5 * c).exp()
        move = _matrices(1 + 0.5 * c, c / width, -0.25 * width * c, 1 - 0.5 * c)
        tail, left = _lower_gamma(c), decay.square()
        shared = 0.25 * width * c * c * left
        noise = _matrices(tail, shared, shared, 0.25 * width * width * (2 * c * left + tail))
        return move * decay[:, None, None], noise

    # --- hybrid score matching ------------------------------------------------------------------

    def velocity_scale(self, t: Tensor | float) -> Tensor:
        """ell (L,) of hybrid score matching: the score of v is -ell times a standard normal.

        v_0 is averaged out (ibid., section 3.2). The paper calls ell bounded, which holds with
        the small variance that it adds to x_0; without, ell^2 tends to 3 / (2 damping b), against
        2 / (damping b) with v_0 given.
        """
        return self.precision(t)[2][:, 1, 1].sqrt()

    def velocity_noise(self, prediction: Tensor, state: State, t: Tensor | float) -> Tensor:
        """What a hybrid score network answers, E[e_v | X_t] (B, *shape), from the clean guess."""
        score = self.score(prediction, state, t)[:, 1]
        return -score / _beside(self.velocity_scale(t), score)

    def clean_from_velocity_noise(self, noise: Tensor, state: State, t: Tensor | float) -> Tensor:
        """The clean guess (B, *shape) of a hybrid score network: inverse of `velocity_noise`."""
        reading, _, inverse = self.precision(t)
        own = (inverse[:, 1:].to(state) @ self.blocks(state)).reshape(noise.shape)
        score = -_beside(self.velocity_scale(t), noise) * noise
        return (score + own) / _beside(reading[:, 0, 1], noise)

    def hybrid_loss(self, noise: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Hybrid score matching (B,), damping beta ell^2 |e_v - noise|^2: the likelihood weight.

        Nats per unit of process time. It is the rate of the clean guess times the clock's speed,
        1/2 |x - xhat|^2 (-dgamma/dt), so that a network trained on clean guesses is trained on it.
        """
        off = (self.velocity_noise(x, state, t) - noise).flatten(1).square().sum(1)
        scale = self.duration * self.damping * self.velocity_scale(t).square()
        return scale.to(off) * off


def _lower_gamma(c: Tensor) -> Tensor:
    """1 - exp(-c) (1 + c + c^2/2) for c >= 0, to the last digits: of order c^3/6 near 0."""
    series = torch.ones_like(c)
    for n in range(TERMS, 3, -1):
        series = 1 + series * c / n
    left = (-c).exp()
    small = series * c**3 / 6 * left
    return torch.where(c < SERIES, small, -torch.expm1(-c) - left * c * (1 + 0.5 * c))


def _matrices(xx: Tensor, xv: Tensor, vx: Tensor, vv: Tensor) -> Tensor:
    return torch.stack([xx, xv, vx, vv], -1).reshape(-1, 2, 2)


def _beside(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))
