"""`sample`: draw points, or follow a sampler level by level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, condition_rows, evaluating
from reverie.errors import InputError
from reverie.plan import Plan
from reverie.processes import Brownian, GaussianProcess, LinearSDE, Process
from reverie.sampling import multistep
from reverie.sampling.er_sde import Phi, er_sde
from reverie.sampling.langevin import predictor_corrector
from reverie.sampling.levels import Guess, Levels, Visit, Visits, plan_times
from reverie.sampling.manifold_langevin import manifold_predictor_corrector
from reverie.sampling.multistep import Table, walk
from reverie.sampling.probability_flow import ode
from reverie.sampling.splitting import euler_maruyama, sscs
from reverie.sampling.two_stage import Churn, dpm_2s, heun
from reverie.sampling.unipc import unipc


@dataclass(frozen=True)
class Settings:
    """What a sampler may be told; each takes only its own (see `SOLVERS`)."""

    eta: float | None = None
    churn: Churn = field(default_factory=Churn)
    phi: str | Phi = "default"
    snr: float = 0.16
    corrections: int = 1
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Solver:
    """A solver and the names of the settings it takes."""

    run: Callable[[Levels, Tensor, Guess, Settings], Visits]
    takes: tuple[str, ...] = ()


def _table(make: Callable[[Levels, Settings], Table], *takes: str) -> Solver:
    return Solver(lambda levels, x, guess, s: walk(levels, x, guess, make(levels, s)), takes)


def _unipc(order: int) -> Solver:
    return Solver(lambda levels, x, guess, s: unipc(levels, x, guess, order))


def _er_sde(order: int) -> Solver:
    return _table(lambda levels, s: er_sde(levels, order, s.phi), "phi")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


SOLVERS: dict[str, Solver] = {
    "ancestral": _table(lambda levels, s: multistep.ddim(levels, 1.0)),
    "ddim": _table(lambda levels, s: multistep.ddim(levels, _or(s.eta, 0.0)), "eta"),
    "heun": Solver(lambda levels, x, guess, s: heun(levels, x, guess, s.churn), ("churn",)),
    "dpm++2m": _table(lambda levels, s: multistep.dpm_2m(levels, 0.0)),
    "dpm++2s": Solver(lambda levels, x, guess, s: dpm_2s(levels, x, guess)),
    "sde-dpm++2m": _table(lambda levels, s: multistep.dpm_2m(levels, _or(s.eta, 1.0)), "eta"),
    "unipc-1": _unipc(1),
    "unipc-2": _unipc(2),
    "unipc-3": _unipc(3),
    "er-sde-1": _er_sde(1),
    "er-sde-2": _er_sde(2),
    "er-sde-3": _er_sde(3),
    "exponential-euler": _table(lambda levels, s: multistep.exponential_euler(levels)),
    "predictor-corrector": Solver(
        lambda levels, x, guess, s: predictor_corrector(levels, x, guess, s.snr, s.corrections),
        ("snr", "corrections"),
    ),
    "ode": Solver(lambda levels, x, guess, s: ode(levels, x, guess, s.tolerance), ("tolerance",)),
}
SAMPLERS = tuple(SOLVERS)
LINEAR: dict[str, Callable[..., Visits]] = {
    "sscs": sscs,
    "sscs-midpoint": partial(sscs, midpoint=True),
    "euler-maruyama": euler_maruyama,
}
LINEAR_SAMPLERS = tuple(LINEAR)  # of linear SDEs, beside "ancestral"


class Options(TypedDict, total=False):
    """Keywords of `sample` and its generators; all may be left out."""

    shape: tuple[int, ...] | None  # of one point, where the process has none
    generator: torch.Generator | None
    condition: Any  # an array (n, ...) or (1, ...), or whatever the denoiser takes
    init: Tensor | None  # states to start from instead of the prior
    device: torch.device | str
    dtype: torch.dtype
    eta: float  # of ddim: 0 (default) is deterministic, 1 ancestral; of sde-dpm++2m: 1 (default)
    churn: Churn | None  # of heun
    phi: str | Phi  # of er-sde: "default", "sde", "ode" or a function of sigma/alpha
    snr: float  # of predictor-corrector
    corrections: int  # of predictor-corrector: Langevin steps a level
    tolerance: float  # of ode: relative and absolute


class Sampling:
    """Draw points on a plan: `sample(...)`, or `sample.trajectory(...)` and `sample.states(...)`.

    plan: a Plan, or process times (K + 1,) from noisy to clean. sampler: one of `SAMPLERS`; other
    processes than Gaussian take "ancestral", linear SDEs `LINEAR_SAMPLERS` too. Keywords:
    `Options`. Raises InputError on an unknown sampler, a setting it does not take, or a plan
    without times.
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
        """Draw `n` points, (n, *shape): from the guess at the cleanest level."""
        visits = _visits(denoiser, n, plan, sampler, options)
        return _finish(denoiser, deque(visits, maxlen=1).pop(), options)

    @torch.no_grad()
    def states(
        self,
        denoiser: Denoiser,
        n: int,
        plan: Plan | Tensor,
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
        plan: Plan | Tensor,
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
    denoiser: Denoiser, n: int, plan: Plan | Tensor, sampler: str, options: Options
) -> Visits:
    if sampler not in SOLVERS and sampler not in LINEAR:
        names = ", ".join((*SAMPLERS, *LINEAR_SAMPLERS))
        raise InputError(f"no sampler is called {sampler!r}; choose {names}")
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise InputError(
            f"sample takes no {unknown.pop()!r}; it takes {', '.join(Options.__annotations__)}"
        )
    settings = _settings(sampler, options)
    process, generator = denoiser.process, options.get("generator")
    times, state = plan_times(plan), options.get("init")
    _check_range(times, process)
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
    condition = condition_rows(options.get("condition"), len(state), state)

    def guess(state: Tensor, t: Tensor) -> Tensor:
        return denoiser(state, t, condition)

    if isinstance(process, LinearSDE) and sampler in LINEAR:
        visits = LINEAR[sampler](process, times, state, guess, generator)
    elif sampler in LINEAR:
        raise InputError(f"{sampler} needs a linear SDE: use ancestral")
    elif isinstance(process, GaussianProcess):
        visits = _modal(process, times, state, guess, SOLVERS[sampler], settings, generator)
    elif sampler == "ancestral":
        visits = _markov(process, times, state, guess, generator)
    elif sampler == "predictor-corrector" and isinstance(process, Brownian):
        visits = manifold_predictor_corrector(
            process, times, state, guess, settings.snr, settings.corrections, generator
        )
    else:
        raise InputError(f"{sampler} needs a Gaussian process: use ancestral")
    with evaluating(denoiser):
        yield from visits


ROUNDING = 1e-6  # of times that float32 has seen


def _check_range(times: Tensor, process: Process) -> None:
    low, high = process.t_range
    if times[0] > high + ROUNDING or times[-1] < low - ROUNDING:
        raise InputError(
            f"the plan's times run from {float(times[0]):.4g} to {float(times[-1]):.4g}, but the "
            f"process's from {high:.4g} to {low:.4g}: give process times, not sigmas"
        )


def _settings(sampler: str, options: Options) -> Settings:
    names = {entry.name for entry in fields(Settings)}
    given = {k: v for k, v in options.items() if k in names and v is not None}
    taken = SOLVERS[sampler].takes if sampler in SOLVERS else ()
    for name in given:
        if name not in taken:
            takers = [key for key, solver in SOLVERS.items() if name in solver.takes]
            raise InputError(f"{sampler} takes no {name}; it belongs to {', '.join(takers)}")
    return Settings(**given)  # type: ignore[arg-type]


def _modal(
    process: GaussianProcess,
    times: Tensor,
    state: Tensor,
    guess: Guess,
    solver: Solver,
    settings: Settings,
    generator: torch.Generator | None,
) -> Visits:
    """Follow a solver in the process's modes, where its coefficients are diagonal."""

    def modal(modes: Tensor, t: Tensor) -> Tensor:
        return process.to_modes(guess(process.from_modes(modes), t))

    levels = Levels(process, times, state, generator)
    for t, modes, clean in solver.run(levels, process.to_modes(state), modal, settings):
        yield Visit(t, process.from_modes(modes), process.from_modes(clean))


def _markov(
    process: Process,
    times: Tensor,
    state: Tensor,
    guess: Guess,
    generator: torch.Generator | None,
) -> Visits:
    """Ancestral steps of any process, through its own `reverse`."""
    # symbols are integers, but time is not
    kind = state.dtype if state.is_floating_point() else torch.float64
    given = [t.expand(len(state)) for t in times.to(state.device, kind)]
    for k, t in enumerate(times):
        prediction = guess(state, given[k])
        yield Visit(float(t), state, prediction)
        if k + 1 < len(times):
            state = process.reverse(prediction, state, t, times[k + 1], generator=generator)


sample = Sampling()
