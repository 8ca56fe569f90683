"""What every solver stands on: the levels of a plan, what is passed on the way, one step's sum.

States and guesses are those of the process's modes, in which noise is diagonal.

A solver is a generator of `Visit`s along the levels of a plan. Its coefficients are computed once,
in float64, before the first step; from then on a step is a weighted sum of tensors, with no branch
on a tensor's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.plan import PlannedSteps
from reverie.processes import GaussianProcess

Guess = Callable[[Tensor, Tensor], Tensor]  # predictions (B, *shape) of states at times (B,)
Number = float | Tensor


class Visit(NamedTuple):
    """One level as a sampler passes it: process time t, state (B, *shape), the guess made there.

    The guess is the denoiser's prediction (clean data, for Gaussian noise), (B, *shape).

    >>> import torch
    >>> from reverie import sample
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> from reverie.sampling import Visit
    >>> denoiser = Memoriser(VP(shape=(1,)), torch.tensor([[-1.0], [1.0]]))
    >>> visits: list[Visit] = list(sample.trajectory(denoiser, 4, torch.tensor([1.0, 0.5, 0.01])))
    >>> [round(visit.t, 2) for visit in visits], visits[0].guess.shape
    ([1.0, 0.5, 0.01], torch.Size([4, 1]))
    """

    t: float
    state: Tensor
    guess: Tensor


Visits = Iterator[Visit]


@dataclass(frozen=True, eq=False)
class Request:
    """What a sampler is given: where to start, which times to pass, and whom to ask.

    times: (K + 1,) float64, noisy to clean. state: (B, ...) at the first of them. limit: where
    the sampler steps along the noise of a guess before its limit, what the limit is; `guess` is
    then the one before it.
    """

    process: Any
    times: Tensor
    state: Tensor
    guess: Guess
    generator: torch.Generator | None = None
    limit: Callable[[Tensor], Tensor] | None = None


class Scales:
    """alpha and sigma along a plan, in float64, and their form beside states like `state`."""

    def __init__(
        self,
        process: GaussianProcess,
        times: Tensor,
        state: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        self.process, self.times, self.state = process, times, state
        self.generator = generator
        self.alpha, self.sigma = process.alpha(times), process.sigma(times)
        self.spread = self.sigma / self.alpha
        self.log_snr = -self.spread.log()  # lambda = log(alpha / sigma), half of log gamma
        self.h = self.log_snr.diff(dim=0)
        self.t, self.given = times.tolist(), self.expand(times)

    def expand(self, times: Tensor) -> list[Tensor]:
        """Each time as a denoiser wants it: (B,), in the states' type and place."""
        return list(times.to(self.state)[:, None].expand(-1, len(self.state)).unbind())

    def fit(self, values: Tensor) -> list[Number]:
        """A list over levels: floats for one speed, tensors (1, *shape) for one per mode."""
        if values.ndim == 1:
            return values.tolist()
        return [v.to(self.state).reshape(1, *self.state.shape[1:]) for v in values]

    def fit_noise(self, values: Tensor) -> list[Number | None]:
        """As `fit`, with None where there is no noise to draw."""
        drawn = values.reshape(len(values), -1).any(1).tolist()
        fitted = zip(self.fit(values), drawn, strict=True)
        return [value if nonzero else None for value, nonzero in fitted]

    def noise(self, state: Tensor) -> Tensor:
        """Fresh standard normal noise like `state`."""
        return torch.randn(
            state.shape, generator=self.generator, dtype=state.dtype, device=state.device
        )


def combine(state: Tensor, scale: Number, *terms: tuple[Tensor, Number]) -> Tensor:
    """scale state + the sum of weight value over `terms`, a pass a term; zero weights are free."""
    total = state * scale
    for value, weight in terms:
        if isinstance(weight, Tensor):
            total.addcmul_(value, weight)
        elif weight:
            total.add_(value, alpha=weight)
    return total


def plan_times(plan: PlannedSteps | Tensor) -> Tensor:
    """Process times (K + 1,) in float64 of a plan, or as given; InputError if they do not fall."""
    given = plan.times if isinstance(plan, PlannedSteps) else plan
    times = torch.as_tensor(given, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or (times.diff() >= 0).any():
        raise InputError(
            "a plan's times must be a decreasing list of at least two process times, as plan.times"
        )
    return times
