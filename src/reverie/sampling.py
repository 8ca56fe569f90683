"""Simulate the reversal on a plan.

A solver is a generator of (state, prediction) along the levels of a plan; its coefficients are
computed once, in float64, before the first step. With lambda = log(alpha/sigma), h = lambda_s -
lambda_t, a step goes from t to s < t. The last denoise at the cleanest level is appended here, so
that K steps take K + 1 evaluations (2K + 1 for Heun).

    ancestral   x_s ~ p(x_s | x_t, xhat): the sampler for which the path KL of a plan is exact
    ddim        Song, Meng & Ermon 2021, eq. 12; eta = 0 is deterministic, 1 is ancestral
    heun        Karras et al. 2022, algorithm 2, with its churn
    dpm++2m     Lu et al. 2022b, algorithm 2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.plan import Plan
from reverie.processes import GaussianProcess

Guess = Callable[[Tensor, int], Tensor]
Steps = Iterator[Tensor]
Number = float | Tensor


@dataclass(frozen=True)
class Churn:
    """Extra noise of the Heun sampler: at most `amount` over the run, between two sigmas."""

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0


class _Levels:
    """alpha and sigma along a plan, in float64, as numbers or tensors that fit the states."""

    def __init__(self, process: GaussianProcess, times: Tensor, state: Tensor) -> None:
        self.process, self.times, self.state = process, times, state
        self.alpha, self.sigma = process.alpha(times), process.sigma(times)

    def fit(self, values: Tensor) -> list[Number]:
        """A list over levels: floats for one speed, tensors (1, *shape) for one per coordinate."""
        if values.ndim == 1:
            return values.tolist()
        return [v.to(self.state).reshape(1, *self.state.shape[1:]) for v in values]


def _noise(state: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(state.shape, generator=generator, dtype=state.dtype, device=state.device)


def _is_zero(value: Number) -> bool:
    return not (value.any() if isinstance(value, Tensor) else value)


def _combine(state: Tensor, a: Number, guess: Tensor, b: Number) -> Tensor:
    """a state + b guess in as few passes as torch allows."""
    if isinstance(b, Tensor):
        return torch.addcmul(state * a, guess, b)
    return torch.add(state * a, guess, alpha=b)


def _ddim(
    levels: _Levels, state: Tensor, guess: Guess, generator: torch.Generator | None, eta: float
) -> Steps:
    steps = levels.process.step(levels.times[:-1], levels.times[1:], eta)
    kept, clean, spread = (levels.fit(c) for c in steps)
    for k, (a, b, c) in enumerate(zip(kept, clean, spread, strict=True)):
        state = _combine(state, a, guess(state, k), b)
        if not _is_zero(c):
            state = _combine(state, 1.0, _noise(state, generator), c)
        yield state


def _dpm_2m(
    levels: _Levels, state: Tensor, guess: Guess, generator: torch.Generator | None
) -> Steps:
    log_snr = (levels.alpha / levels.sigma).log()
    h = log_snr[1:] - log_snr[:-1]
    ratio = h[:-1] / h[1:]
    weight = -levels.alpha[1:] * torch.expm1(-h)
    kept = levels.fit(levels.sigma[1:] / levels.sigma[:-1])
    now = levels.fit(torch.cat([weight[:1], weight[1:] * (1 + 0.5 / ratio)]))
    past = levels.fit(torch.cat([torch.zeros_like(weight[:1]), -weight[1:] * 0.5 / ratio]))
    before: Tensor | None = None
    for k in range(len(h)):
        clean = guess(state, k)
        state = _combine(state, kept[k], clean, now[k])
        if before is not None:
            state = _combine(state, 1.0, before, past[k])
        before = clean
        yield state


def _heun(
    levels: _Levels,
    state: Tensor,
    guess: Guess,
    generator: torch.Generator | None,
    churn: Churn,
    at: Callable[[Tensor, float], Tensor],
) -> Steps:
    """Second order in s = sigma / alpha on y = x / alpha; `at` denoises y at any s."""
    alpha, spread = levels.fit(levels.alpha), levels.fit(levels.sigma / levels.alpha)
    count = len(alpha) - 1
    y = state / alpha[0]
    for k in range(count):
        here, then = spread[k], spread[k + 1]
        clean: Tensor | None = None
        if churn.amount > 0:
            assert isinstance(here, float)
            grow = min(churn.amount / count, math.sqrt(2) - 1)
            if churn.low <= here <= churn.high:
                raised = here * (1 + grow)
                extra = churn.scale * math.sqrt(raised**2 - here**2)
                y, here = _combine(y, 1.0, _noise(y, generator), extra), raised
                clean = at(y, here)
        if clean is None:
            clean = guess(y * alpha[k], k)
        slope = (y - clean) / here
        ahead = y + slope * (then - here)
        second = (ahead - guess(ahead * alpha[k + 1], k + 1)) / then
        y = y + (slope + second) * (0.5 * (then - here))
        yield y * alpha[k + 1]


SAMPLERS = ("ancestral", "ddim", "heun", "dpm++2m")


class Options(TypedDict, total=False):
    """Keywords of `sample` and `sample.states`; all may be left out."""

    shape: tuple[int, ...] | None  # of one point, where the process has none
    generator: torch.Generator | None
    condition: Any
    eta: float  # of ddim: 0 (default) is deterministic, 1 is ancestral
    churn: Churn | None  # of heun
    init: Tensor | None  # states to start from instead of the prior
    device: torch.device | str
    dtype: torch.dtype


class Sampling:
    """`sample(denoiser, n, plan)` draws n points; `sample.states(...)` yields on the way.

    plan: a Plan, or process times (K + 1,) from noisy to clean. sampler: one of `SAMPLERS`; other
    processes than Gaussian take "ancestral". Keywords: `Options`. Returns (n, *shape). Raises
    InputError on an unknown sampler or a plan without times.
    """

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        n: int,
        plan: Plan | Tensor,
        sampler: str = "ancestral",
        **options: Unpack[Options],
    ) -> Tensor:
        last = None
        for state in self.states(denoiser, n, plan, sampler, **options):
            last = state
        assert last is not None
        return last

    @torch.no_grad()
    def states(
        self,
        denoiser: Denoiser,
        n: int,
        plan: Plan | Tensor,
        sampler: str = "ancestral",
        **options: Unpack[Options],
    ) -> Iterator[Tensor]:
        """Yield the state after every step, and last the readout of the final denoise."""
        process, generator = denoiser.process, options.get("generator")
        times, state = _times(plan), options.get("init")
        if state is None and n < 1:
            raise InputError(f"n is {n}; draw at least one sample")
        if state is None:
            state = process.sample_prior(
                n,
                shape=options.get("shape"),
                t=float(times[0]),
                generator=generator,
                dtype=options.get("dtype", torch.float32),
                device=options.get("device", "cpu"),
            )
        # symbols are integers, but time is not
        kind = state.dtype if state.is_floating_point() else torch.float64
        given = [t.expand(len(state)) for t in times.to(state.device, kind)]
        condition = options.get("condition")

        def guess(state: Tensor, k: int) -> Tensor:
            return denoiser(state, given[k], condition)

        eta, churn = options.get("eta", 0.0), options.get("churn")
        steps = self._solver(denoiser, times, state, guess, sampler, generator, eta, churn)
        with evaluating(denoiser):
            for state in steps:
                yield state
            clean = guess(state, len(times) - 1)
            yield process.finish(clean, state, times[-1], generator=generator)

    def _solver(
        self,
        denoiser: Denoiser,
        times: Tensor,
        init: Tensor,
        guess: Guess,
        sampler: str,
        generator: torch.Generator | None,
        eta: float,
        churn: Churn | None,
    ) -> Steps:
        process = denoiser.process
        if sampler not in SAMPLERS:
            raise InputError(f"no sampler is called {sampler!r}; choose {', '.join(SAMPLERS)}")
        if not isinstance(process, GaussianProcess):
            if sampler != "ancestral":
                raise InputError(f"{sampler} needs a Gaussian process: use ancestral")
            return _markov(process, times, init, guess, generator)
        levels = _Levels(process, times, init)
        if sampler == "dpm++2m":
            return _dpm_2m(levels, init, guess, generator)
        if sampler == "heun":
            churn = churn or Churn()
            if churn.amount > 0 and process.columns > 1:
                raise InputError("churn needs one noise level for all coordinates")
            return _heun(levels, init, guess, generator, churn, _off_grid(denoiser))
        return _ddim(levels, init, guess, generator, 1.0 if sampler == "ancestral" else eta)


def _markov(
    process: Any, times: Tensor, state: Tensor, guess: Guess, generator: torch.Generator | None
) -> Steps:
    """Ancestral steps of any process, through its own `reverse`."""
    for k in range(len(times) - 1):
        state = process.reverse(
            guess(state, k), state, times[k], times[k + 1], generator=generator
        )
        yield state


def _off_grid(denoiser: Denoiser) -> Callable[[Tensor, float], Tensor]:
    """Denoise y = x / alpha at a level s = sigma / alpha that is not on the plan."""

    def at(y: Tensor, spread: float) -> Tensor:
        process = denoiser.process
        t = process.time(spread**-2.0)
        alpha, _ = process.levels(t, y)  # type: ignore[operator]
        return denoiser(y * alpha, t.to(y).expand(len(y)))

    return at


def _times(plan: Plan | Tensor) -> Tensor:
    times = torch.as_tensor(plan.levels if isinstance(plan, Plan) else plan, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or (times.diff() >= 0).any():
        raise InputError("a plan's times must be a decreasing list of at least two levels")
    return times


sample = Sampling()
