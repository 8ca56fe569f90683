"""Gaussian noise: x_t = alpha_t x + sigma_t e, everything through (alpha, sigma).

The information clock is the signal-to-noise ratio gamma = alpha^2 / sigma^2 and the rate is
1/2 |x - xhat|^2 (I-MMSE: Guo, Shamai & Verdu 2005; dI/dgamma = mmse/2). `alpha(t)` and `sigma(t)`
may differ per coordinate, or per mode of an orthonormal basis: all noise is diagonal between
`to_modes` and `from_modes`, which are the identity here. Modes of one speed share a column of the
clock and of the rate.

The reverse step is the posterior of the bridge x_s | x_t, xhat: DDPM's small-variance step, the
first-order stochastic solver for which the path KL of K steps is exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Process, State
from reverie.spaces import Euclidean


class Step(NamedTuple):
    """Coefficients of x_s = state * x_t + guess * xhat + noise * z."""

    state: Tensor
    guess: Tensor
    noise: Tensor


class GaussianProcess(Process):
    """x_t = alpha(t) x + sigma(t) e; subclasses give `alpha`, `sigma` and the exact inverse clock.

    `alpha(t)` and `sigma(t)` take t of shape (B,) and return (B,), or (B, *shape) when they differ
    per mode. `columns` is the number of clocks.
    """

    def __init__(
        self, t_range: tuple[float, float], shape: tuple[int, ...] | None = None, columns: int = 1
    ) -> None:
        super().__init__()
        low, high = t_range
        if not 0 <= low < high <= 1:
            raise InputError(f"t_range is {t_range}; it must satisfy 0 <= low < high <= 1")
        self.t_range = (float(low), float(high))
        self.space = Euclidean(shape)
        self.columns = columns

    @property
    def isotropic(self) -> bool:
        """Whether all modes have the same alpha and sigma, which then are (B,)."""
        return self.columns == 1

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the signal at time t."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t."""
        raise NotImplementedError

    def settings(self) -> dict[str, float]:
        """Keyword arguments that rebuild this process, for a run's `config.json`."""
        raise InputError(f"{type(self).__name__} cannot be written to a run directory")

    def levels(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) at t, to broadcast against modes of the shape of `like`."""
        time = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        return _fit(self.alpha(time), like), _fit(self.sigma(time), like)

    def network_levels(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """The (alpha, sigma) that a network's input and output are scaled by: `levels` for most.

        A process whose modes belong to a grid gives one level for all of them, so that a network
        can be read on another grid.
        """
        return self.levels(t, like)

    def clock(self, t: Tensor | float) -> Tensor:
        time = _float64(t).reshape(-1)
        gamma = self.gamma(time)
        return gamma.flatten(1) if self.columns > 1 else gamma

    def gamma(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2; subclasses override it where subtraction would cancel digits."""
        return (self.alpha(t) / self.sigma(t)).square()

    def time(self, u: Tensor | float) -> Tensor:
        clock = _float64(u)
        goal = clock.log().flatten(1).mean(1) if clock.ndim > 1 else clock.reshape(-1).log()
        return self._bisect(goal)

    def _bisect(self, goal: Tensor) -> Tensor:
        """Solve mean(log u(t)) = goal in `t_range` to the last bit (log u decreases in t)."""
        low, high = (torch.full_like(goal, end) for end in self.t_range)
        for _ in range(64):
            middle = 0.5 * (low + high)
            level = self.clock(middle).log()
            level = level.mean(1) if level.ndim > 1 else level
            above = level > goal
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return 0.5 * (low + high)

    def sample_prior(
        self,
        n: int,
        *,
        shape: tuple[int, ...] | None = None,
        t: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        shape = shape if shape is not None else self.space.shape
        if shape is None:
            raise InputError("this process has no fixed shape: pass shape=(...) of one point")
        noise = torch.randn((n, *shape), generator=generator, dtype=dtype, device=device)
        _, sigma = self.levels(self.t_range[1] if t is None else t, noise)
        return self.from_modes(sigma * noise)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        alpha, sigma = self.levels(t, x)
        if end is None:
            end = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.from_modes(alpha * self.to_modes(x) + sigma * self.to_modes(end))

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        end = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.corrupt(x, t, end=end), self.corrupt(x, t, end=-end)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = self.levels(t, state)
        state, x = self.to_modes(state), self.to_modes(x)
        count = math.prod(state.shape[1:])
        scaled = (state / sigma).flatten(1)
        centre = (alpha / sigma).expand(state.shape[0], *alpha.shape[1:])
        if centre[0].numel() == 1:  # one speed: every state scales all points alike
            points = x.flatten(1)
            ratio = centre.reshape(-1, 1)
            square = scaled.square().sum(1, keepdim=True) - 2 * ratio * (scaled @ points.T)
            square = square + ratio.square() * points.square().sum(1)
        else:
            offset = scaled[:, None] - (centre[:, None] * x[None]).flatten(2)
            square = offset.square().sum(2)
        volume = sigma.log().expand(state.shape).flatten(1).sum(1, keepdim=True)
        return -0.5 * square - volume - 0.5 * count * math.log(2 * math.pi)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return x

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.pool(0.5 * self.to_modes(x - prediction).square())

    def pool(self, squares: Tensor) -> Tensor:
        """Sum half squared errors of modes (B, *shape) by clock: (B,), or (B, J)."""
        squares = squares.flatten(1)
        return squares if self.columns > 1 else squares.sum(1)

    def step(self, t: Tensor | float, s: Tensor | float, eta: float = 1.0) -> Step:
        """Coefficients in float64 of the DDIM(eta) step t -> s; eta = 1 is ancestral.

        x_s = alpha_s xhat + sqrt(sigma_s^2 - v^2) ehat + v z, where
        v^2 = eta^2 sigma_s^2 (1 - gamma_t / gamma_s) (Song, Meng & Ermon 2021, eq. 12).
        """
        now, then = _float64(t).reshape(-1), _float64(s).reshape(-1)
        alpha_t, sigma_t, alpha_s, sigma_s = (
            self.alpha(now),
            self.sigma(now),
            self.alpha(then),
            self.sigma(then),
        )
        lost = eta * eta * (1 - self.gamma(now) / self.gamma(then)).clamp(min=0)
        kept = sigma_s / sigma_t * (1 - lost).clamp(min=0).sqrt()
        return Step(kept, alpha_s - kept * alpha_t, sigma_s * lost.sqrt())

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        kept, guess, noise = (_fit(c, state) for c in self.step(t, s))
        moved = kept * self.to_modes(state) + guess * self.to_modes(prediction)
        if noise.any():
            shape, kind = state.shape, state.dtype
            z = torch.randn(shape, generator=generator, dtype=kind, device=state.device)
            moved = moved + noise * z
        return self.from_modes(moved)


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value).to(torch.float64)


def _fit(level: Tensor, like: Tensor) -> Tensor:
    """Give a level (B,) or (B, *shape) the type and the rank of `like`."""
    level = level.to(dtype=like.dtype, device=like.device)
    if level.ndim <= 1:
        return level.reshape(-1, *(1,) * (like.ndim - 1))
    return level.reshape(-1, *like.shape[1:])
