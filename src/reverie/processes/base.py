"""The contract of a forward process: one file with these few methods adds a space to reverie.

`t` in [0, 1] is process time (0 clean, 1 noise), of shape () or (B,); `u` is the information
clock, increasing towards clean data, (B,) or (B, J) where modes are noised at J speeds.
Broadcasting over the data's own axes is done here, never by the caller. All rates are nats per
sample, summed over dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.spaces import Space

State = Tensor
Guess = Callable[[State, Tensor], Tensor]


class Process(nn.Module):
    """A Markov process from data (t = 0) to noise (t = 1) and the pieces of its reversal."""

    space: Space
    t_range: tuple[float, float]  # levels between which the clock is finite and positive
    monotone: bool = True  # the ideal rate never increases with the clock
    area_exact: bool = True  # the area under the ideal curve is information
    steps_exact: bool = True  # the charge of a step is clock time multiplied by the rate
    has_kernel: bool = True  # `log_kernel` exists, and with it the memoriser
    clock_label: str = "signal-to-noise ratio"  # what the clock is, on a figure's axis

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
        """Draw `n` states (n, *shape) of the noisy end `t` (default: the noisiest level)."""
        raise NotImplementedError

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw X_t given X_0 = x (B, *shape), and X_1 = `end` for two-ended processes."""
        raise NotImplementedError

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        """Two draws of X_t given x, as negatively dependent as the process allows."""
        return self.corrupt(x, t, generator=generator), self.corrupt(x, t, generator=generator)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """Return log p(x_t | x) for all pairs of states (B, ...) and points (N, ...): (B, N)."""
        raise NotImplementedError

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """What a perfect prediction averages over p(x | x_t): x, a one-hot vector, a score."""
        raise NotImplementedError

    def average_target(
        self, weights: Tensor, state: Tensor, x: Tensor, t: Tensor | float
    ) -> Tensor:
        """Sum over points x (N, ...) of weights (B, N) times their targets at the states: (B, *).

        As written the target is a function of x alone; where it depends on the state as well,
        override this.
        """
        return weights @ self.target(state, x, t).flatten(1)

    def clock(self, t: Tensor | float) -> Tensor:
        """Information clock u(t), (B,) or (B, J), decreasing in t."""
        raise NotImplementedError

    def time(self, u: Tensor | float) -> Tensor:
        """Inverse of `clock`; of J columns it matches the mean of log u."""
        raise NotImplementedError

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Nats per unit of clock that `prediction` costs at `t` when the truth is `x`: like u."""
        raise NotImplementedError

    def probe(
        self,
        guess: Guess,
        x: Tensor,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Unbiased rates, like u, of each row of x (B, *shape) at t: the curve is their mean.

        The guess is asked once about 2 B states, both halves in the order of x. Here they are an
        antithetic pair of draws of X_t; a process with a better estimator overrides it.
        """
        batch, time = len(x), torch.as_tensor(t, dtype=torch.float64)
        state = torch.cat(self.corrupt_pair(x, time, generator=generator))
        times = time.expand(batch).repeat(2)
        both = torch.cat([x, x])
        rate = self.rate(guess(state, times), both, state, times if time.ndim else time)
        return 0.5 * (rate[:batch] + rate[batch:])

    def charge(
        self, guess: Guess, x: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """Nats (B,) of the step t -> s < t with the guess frozen at t.

        Valid as written where `steps_exact`; other processes override it.
        """
        batch = state.shape[0]
        now, then = (torch.as_tensor(v, dtype=torch.float64) for v in (t, s))
        rate = self.rate(guess(state, now.expand(batch)), x, state, now).reshape(batch, -1)
        step = (self.clock(then) - self.clock(now)).reshape(-1, rate.shape[1])
        return (step * rate).sum(1)

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw the state at s < t given the state at t and the denoiser's prediction there."""
        raise NotImplementedError

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The data points (B, *shape) that end a run: the last denoise, at the cleanest level."""
        return self.readout(prediction)

    def to_modes(self, x: Tensor) -> Tensor:
        """Modes of points or states, like x; an orthonormal map, the identity for most."""
        return x

    def from_modes(self, modes: Tensor) -> Tensor:
        """Points or states of modes: the inverse of `to_modes`."""
        return modes

    def readout(self, state: State) -> Tensor:
        """The data point in a state: drops auxiliary variables; the identity for most."""
        return state
