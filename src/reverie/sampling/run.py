"""`sample`: draw points, or follow a sampler level by level."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, condition_rows, evaluating
from reverie.denoisers.base import state_type
from reverie.errors import InputError
from reverie.plan import PlannedSteps
from reverie.processes import Process
from reverie.processes.base import Draw
from reverie.sampling.er_sde import Phi
from reverie.sampling.samplers import sampler_named, settings_of
from reverie.sampling.scales import Request, Visit, Visits, plan_times
from reverie.sampling.starting import first_states, start_law
from reverie.sampling.two_stage import Churn

ROUNDING = 1e-6  # of times that float32 has seen


class Options(TypedDict, total=False):
    """Keywords of `sample` and its generators; all may be left out.

    init: (n, *shape). Samples come back as (n, *shape).

    >>> import torch
    >>> from reverie import sample
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> from reverie.sampling import Options
    >>> options: Options = {"eta": 0.5, "generator": torch.Generator().manual_seed(0)}
    >>> denoiser = Memoriser(VP(shape=(1,)), torch.tensor([[-1.0], [1.0]]))
    >>> sample(denoiser, 4, torch.linspace(1, 0.01, 9), "ddim", **options).shape
    torch.Size([4, 1])
    """

    shape: tuple[int, ...] | None  # of one point, where the process has none
    generator: torch.Generator | None
    condition: Any  # an array (n, ...) or (1, ...), or whatever the denoiser takes
    init: Tensor | None  # states to start from instead of the prior
    # rows (N, *shape) of data, or their `Moments`, whose noised moments the run starts from; by
    # default what the model or the plan knows, where the first level keeps signal
    start: Any
    device: torch.device | str
    dtype: torch.dtype  # of the states; default the parameters', and float32 at least
    eta: float  # of ddim: 0 (default) is deterministic, 1 ancestral; of sde-dpm++2m: 1 (default)
    # of ddim: step along the noise of the guess before its limit, as diffusers' own does
    unlimited_noise: bool
    churn: Churn | None  # of heun
    phi: str | Phi  # of er-sde: "default", "sde", "ode" or a function of sigma/alpha
    snr: float  # of predictor-corrector
    corrections: int  # of predictor-corrector: Langevin steps a level
    tolerance: float  # of ode: relative and absolute
    correctors: int  # of tau-leaping: corrector moves a step
    corrector_size: float  # of tau-leaping: of the noise at the level


class Sampling:
    """Draw points on a plan: `sample(...)`, or `sample.trajectory(...)` and `sample.states(...)`.

    plan: a Plan, or process times (K + 1,) from noisy to clean. sampler: one of
    `samplers_of(denoiser.process)`. Keywords: `Options`. Raises InputError on a sampler that the
    process does not have, a setting it does not take, or a plan without times.

    >>> import torch
    >>> from reverie import sample
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> denoiser = Memoriser(VP(shape=(1,)), torch.tensor([[-1.0], [1.0]]))
    >>> points = sample(denoiser, 4, torch.linspace(1, 0.001, 33))  # or a Plan
    >>> points.abs().round(decimals=1).flatten()
    tensor([1., 1., 1., 1.])
    """

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        n: int,
        plan: PlannedSteps | Tensor,
        sampler: str = "ancestral",
        **options: Unpack[Options],
    ) -> Tensor:
        """Draw `n` points, (n, *shape): from the guess at the cleanest level."""
        visits = _visits(denoiser, n, plan, sampler, options)
        return _finish(denoiser, deque(visits, maxlen=1).pop(), options)

    @torch.no_grad()
    def states(
        self,
        denoiser: Denoiser,
        n: int,
        plan: PlannedSteps | Tensor,
        sampler: str = "ancestral",
        **options: Unpack[Options],
    ) -> Iterator[Tensor]:
        """Yield the state (n, *shape) after every step, and last what `sample` returns."""
        visits = _visits(denoiser, n, plan, sampler, options)
        visit = next(visits)
        for visit in visits:
            yield visit.state
        yield _finish(denoiser, visit, options)

    @torch.no_grad()
    def trajectory(
        self,
        denoiser: Denoiser,
        n: int,
        plan: PlannedSteps | Tensor,
        sampler: str = "ancestral",
        **options: Unpack[Options],
    ) -> Iterator[Visit]:
        """Yield a `Visit` (t, state, guess) at each of the K + 1 levels, noisiest first.

        The first state is the prior's, and the last guess is what `sample` returns, or draws from
        where data are symbols. With unipc the guess was made at the predicted state, before its
        correction; ode visits the two ends.
        """
        yield from _visits(denoiser, n, plan, sampler, options)


def _finish(denoiser: Denoiser, visit: Visit, options: Options) -> Tensor:
    """The last denoise, from the visit of the cleanest level."""
    generator = options.get("generator")
    return denoiser.process.finish(visit.guess, visit.state, visit.t, generator=generator)


def _visits(
    denoiser: Denoiser, n: int, plan: PlannedSteps | Tensor, sampler: str, options: Options
) -> Visits:
    process, generator = denoiser.process, options.get("generator")
    chosen = sampler_named(process, sampler)
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise InputError(
            f"sample takes no {unknown.pop()!r}; it takes {', '.join(Options.__annotations__)}"
        )
    settings = settings_of(process, sampler, options)
    times, state = plan_times(plan), options.get("init")
    _check_range(times, process)
    if state is None and n < 1:
        raise InputError(f"n is {n}; draw at least one sample")
    if state is None:
        draw = Draw(
            shape=options.get("shape"), t=float(times[0]), generator=generator,
            dtype=options.get("dtype", state_type(denoiser)), device=options.get("device", "cpu"),
        )  # fmt: skip
        law = start_law(denoiser, plan, float(times[0]), options.get("start"))
        state = first_states(process, law, n, plan, **draw)
    condition = condition_rows(options.get("condition"), len(state), state)

    ask: Any = denoiser
    limit = getattr(denoiser, "limit", None) if settings.unlimited_noise else None
    if limit is not None:
        ask = ask.unlimited

    def guess(state: Tensor, t: Tensor) -> Tensor:
        return ask(state, t, condition)

    with evaluating(denoiser):
        yield from chosen.run(Request(process, times, state, guess, generator, limit), settings)


def _check_range(times: Tensor, process: Process) -> None:
    low, high = process.t_range
    if times[0] > high + ROUNDING or times[-1] < low - ROUNDING:
        raise InputError(
            f"the plan's times run from {float(times[0]):.4g} to {float(times[-1]):.4g}, but the "
            f"process's from {high:.4g} to {low:.4g}: give process times, not sigmas"
        )


sample = Sampling()
