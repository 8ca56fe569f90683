"""The contract of a forward process: one file with these few methods adds a process to reverie.

`t` in [0, 1] is process time (0 clean, 1 noise), of shape () or (B,); `u` is the information
clock, increasing towards clean data, (B,) or (B, J) where modes are noised at J speeds.
Broadcasting over the data's own axes is done here, never by the caller. All rates are nats per
sample, summed over dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.spaces import Space

if TYPE_CHECKING:
    from reverie.processes.gaussian import GaussianProcess

State = Tensor
Guess = Callable[[State, Tensor], Tensor]
HALVINGS = 64  # of the bisection that inverts a clock: to the last bit of float64


class Draw(TypedDict, total=False):
    """What may be asked of a draw from the prior: shape, t, generator, dtype and device.

    shape: of one point, where the space has none of its own; the draw is (n, *shape).

    >>> import torch
    >>> from reverie.processes import VP, Draw
    >>> draw: Draw = {"shape": (2, 2), "generator": torch.Generator().manual_seed(0)}
    >>> VP().sample_prior(3, **draw).shape
    torch.Size([3, 2, 2])
    """

    shape: tuple[int, ...] | None  # of one point, where the space has none of its own
    t: float | None  # the noisy end; None is the noisiest level
    generator: torch.Generator | None
    dtype: torch.dtype  # default float32
    device: torch.device | str  # default the CPU


class Process(nn.Module):
    """A Markov process from data (t = 0) to noise (t = 1) and the pieces of its reversal.

    A class that lacks one of the abstract methods is refused where it is written, by a TypeError
    that names them; a base for further classes says `class Base(Process, abstract=True)`.
    `reverie.testing.check_process` tells whether the laws of the contract hold.
    Times t are () or (B,), points (B, *shape), clocks (B,) or (B, J); rates are nats per sample
    and unit of clock, summed over dimensions.

    >>> from reverie import Process
    >>> class Half(Process):
    ...     def clock(self, t):
    ...         return 1 - t
    Traceback (most recent call last):
        ...
    TypeError: Half lacks corrupt, rate, reverse, sample_prior, target: a process gives ...
    """

    space: Space
    t_range: tuple[float, float]  # levels between which the clock is finite and positive
    monotone: bool = True  # the ideal rate never increases with the clock
    area_exact: bool = True  # the area under the ideal curve is information
    steps_exact: bool = True  # the charge of a step is clock time multiplied by the rate
    steps_measured: bool = False  # plans stand on pairs of levels priced by `expected_charge`
    has_kernel: bool = True  # `log_kernel` exists, and with it the memoriser
    targets_exact: bool = True  # `target` is what a perfect guess averages, not close to it
    costly_kernel: bool = False  # every pair of `log_kernel` sums a series
    clock_is_snr: bool = False  # the clock is that of x + noise: rivals and "samples" read it so
    # of several clocks, how many coordinates stand behind each that is such a ratio; 0: another
    snr_sizes: tuple[int, ...] = ()
    isotropic: bool = False  # x_t = alpha x + sigma e with one alpha and one sigma a level
    clock_label: str = "information clock"  # what the clock is, on a figure's axis

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        missing = [n for n in dir(cls) if getattr(getattr(cls, n), "__isabstractmethod__", False)]
        if missing and not abstract:
            raise TypeError(
                f"{cls.__name__} lacks {', '.join(missing)}: a process gives these methods, or "
                f"is written as a base for others, class {cls.__name__}(..., abstract=True)"
            )

    @property
    def gaussian(self) -> GaussianProcess | None:
        """This process as x_t = alpha x + sigma e, or None where it is no such noise."""
        return None

    @abstractmethod
    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """Draw `n` states (n, *shape) of the noisy end; keywords: `Draw`."""
        raise NotImplementedError

    @abstractmethod
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

    @property
    def numbers(self) -> int:
        """How many numbers a prediction holds for each coordinate of a point."""
        return 1

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        """Two draws of X_t given x, as negatively dependent as the process allows."""
        return self.corrupt(x, t, generator=generator), self.corrupt(x, t, generator=generator)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """Return log p(x_t | x) for all pairs of states (B, ...) and points (N, ...): (B, N).

        A process without it says `has_kernel = False`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no log_kernel")

    @abstractmethod
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

    @abstractmethod
    def clock(self, t: Tensor | float) -> Tensor:
        """Information clock u(t), (B,) or (B, J), decreasing in t."""
        raise NotImplementedError

    def time(self, u: Tensor | float) -> Tensor:
        """Inverse of `clock` by bisection; of J columns it matches the mean of log u.

        Where the clock starts at 0 it matches u itself.
        """
        clock = float64(u)
        is_log = bool((clock > 0).all())
        goal = _along(clock.reshape(-1) if clock.ndim < 2 else clock, is_log)
        low, high = (torch.full_like(goal, end) for end in self.t_range)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            above = _along(self.clock(middle), is_log) > goal
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return 0.5 * (low + high)

    @abstractmethod
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

        Clock time multiplied by the rate: exact where `steps_exact`, elsewhere the limit of short
        steps, unless the process overrides it.
        """
        batch = state.shape[0]
        now, then = (torch.as_tensor(v, dtype=torch.float64) for v in (t, s))
        rate = self.rate(guess(state, now.expand(batch)), x, state, now).reshape(batch, -1)
        step = (self.clock(then) - self.clock(now)).reshape(-1, rate.shape[1])
        return (step * rate).sum(1)

    @abstractmethod
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

    def expected_charge(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """Mean (B,) in nats of `charge` over clean points drawn from the prediction itself.

        For an exact prediction it is the charge's mean given the state, without the variance of x.
        Only processes with `steps_measured` have it. t and s: one level each.
        """
        raise NotImplementedError(f"{type(self).__name__} has no expected_charge")

    @property
    def slowest(self) -> float:
        """Where noise forgets into one law: exp(-slowest / u) is left of it at clock u; else 0.

        Of the square of the slowest mode's amplitude. Such a process has a `blind_rate`.
        """
        return 0.0

    def blind_rate(self, u: Tensor) -> Tensor:
        """Rates (L,) at clock values (L,) of a guess that knows the law of the noise alone."""
        raise NotImplementedError(f"{type(self).__name__} has no blind_rate")

    def start_kl(self, u: float, second: float) -> float:
        """Bound in nats on the KL from the prior of the state at clock `u`, E|x|^2 = `second`.

        0 where noise starts from the prior itself, as here.
        """
        return 0.0

    def fitted_to(self, points: Tensor) -> Process:
        """This process with what it reads off training points (n, *shape); most read nothing."""
        return self

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


def float64(value: Tensor | float) -> Tensor:
    """Times or clock values as a float64 tensor, on their device."""
    return torch.as_tensor(value).to(torch.float64)


def point_shape(space: Space, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one point: the one asked for, or the space's; InputError where none is."""
    shape = shape if shape is not None else space.shape
    if shape is None:
        raise InputError("this process has no fixed shape: pass shape=(...) of one point")
    return shape


def _along(clock: Tensor, is_log: bool) -> Tensor:
    """What bisection compares (L,): log u, its mean over the columns, or u."""
    level = clock.log() if is_log else clock
    return level.mean(1) if level.ndim > 1 else level
