"""Which samplers a process has, by name: one registry, open to processes of a user's own.

`samplers_of(process)` is a `functools.singledispatch` registry: register a function for a class
of processes, from the process to its samplers by name. A process that nobody registered has the
ancestral sampler, its own `reverse` step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial, singledispatch
from typing import Any

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import (
    Brownian,
    DomainBridges,
    GaussianProcess,
    JumpProcess,
    LinearSDE,
    Masking,
    Process,
    ProductProcess,
)
from reverie.sampling import multistep
from reverie.sampling.er_sde import Phi, er_sde
from reverie.sampling.jumps import first_hitting, gillespie, tau_leap
from reverie.sampling.langevin import predictor_corrector
from reverie.sampling.manifold_langevin import manifold_predictor_corrector
from reverie.sampling.mixed import flow_beside_jumps
from reverie.sampling.multistep import Table, walk
from reverie.sampling.probability_flow import ode
from reverie.sampling.scales import Guess, Request, Scales, Visit, Visits
from reverie.sampling.splitting import euler_maruyama, sscs
from reverie.sampling.two_stage import Churn, dpm_2s, heun
from reverie.sampling.unipc import unipc


@dataclass(frozen=True)
class Settings:
    """What a sampler may be told; each takes only its own (see `Sampler.takes`)."""

    eta: float | None = None
    unlimited_noise: bool = False
    churn: Churn = field(default_factory=Churn)
    phi: str | Phi = "default"
    snr: float = 0.16
    corrections: int = 1
    tolerance: float = 1e-5
    correctors: int = 0
    corrector_size: float = 0.1


@dataclass(frozen=True)
class Sampler:
    """A sampler, the names of the settings it takes, and whether it keeps times of its own.

    >>> from reverie.processes import VP
    >>> from reverie.sampling import Sampler, samplers_of
    >>> heun = samplers_of(VP())["heun"]
    >>> isinstance(heun, Sampler), heun.takes
    (True, ('churn',))
    """

    run: Callable[[Request, Settings], Visits]
    takes: tuple[str, ...] = ()
    own_times: bool = False


Solve = Callable[[Scales, Tensor, Guess, Settings], Visits]


def _solver(solve: Solve, *takes: str) -> Sampler:
    """A solver of the modes of Gaussian noise, where its coefficients are diagonal."""

    def run(request: Request, settings: Settings) -> Visits:
        process, guess = request.process, request.guess

        def modal(modes: Tensor, t: Tensor) -> Tensor:
            return process.to_modes(guess(process.from_modes(modes), t))

        scales = Scales(process, request.times, request.state, request.generator)
        for t, modes, clean in solve(scales, process.to_modes(request.state), modal, settings):
            yield Visit(t, process.from_modes(modes), process.from_modes(clean))

    return Sampler(run, takes)


def _table(make: Callable[[Scales, Settings], Table], *takes: str) -> Sampler:
    return _solver(lambda scales, x, guess, s: walk(scales, x, guess, make(scales, s)), *takes)


def _unipc(order: int) -> Sampler:
    return _solver(lambda scales, x, guess, s: unipc(scales, x, guess, order))


def _er_sde(order: int) -> Sampler:
    return _table(lambda scales, s: er_sde(scales, order, s.phi), "phi")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _ddim(request: Request, settings: Settings) -> Visits:
    """Along the noise of the limited guess, or of the guess before its limit."""
    process, limit, eta = request.process, request.limit, _or(settings.eta, 0.0)
    if limit is None:
        return _table(lambda scales, s: multistep.ddim(scales, eta)).run(request, settings)

    def modal(modes: Tensor) -> Tensor:
        return process.to_modes(limit(process.from_modes(modes)))

    own = _solver(
        lambda scales, x, guess, s: multistep.ddim_along_own_noise(scales, x, guess, eta, modal)
    )
    return own.run(request, settings)


def markov(request: Request, settings: Settings) -> Visits:
    """Ancestral steps of any process, through its own `reverse`."""
    state = request.state
    # symbols are integers, but time is not
    kind = state.dtype if state.is_floating_point() else torch.float64
    given = [t.expand(len(state)) for t in request.times.to(state.device, kind)]
    for k, t in enumerate(request.times):
        prediction = request.guess(state, given[k])
        yield Visit(float(t), state, prediction)
        if k + 1 < len(given):
            state = request.process.reverse(
                prediction, state, t, request.times[k + 1], generator=request.generator
            )


ANY = {"ancestral": Sampler(markov)}
GAUSSIAN: dict[str, Sampler] = {
    "ancestral": _table(lambda scales, s: multistep.ddim(scales, 1.0)),
    "ddim": Sampler(_ddim, ("eta", "unlimited_noise")),
    "heun": _solver(lambda scales, x, guess, s: heun(scales, x, guess, s.churn), "churn"),
    "dpm++2m": _table(lambda scales, s: multistep.dpm_2m(scales, 0.0)),
    "dpm++2s": _solver(lambda scales, x, guess, s: dpm_2s(scales, x, guess)),
    "sde-dpm++2m": _table(lambda scales, s: multistep.dpm_2m(scales, _or(s.eta, 1.0)), "eta"),
    "unipc-1": _unipc(1),
    "unipc-2": _unipc(2),
    "unipc-3": _unipc(3),
    "er-sde-1": _er_sde(1),
    "er-sde-2": _er_sde(2),
    "er-sde-3": _er_sde(3),
    "exponential-euler": _table(lambda scales, s: multistep.exponential_euler(scales)),
    "predictor-corrector": _solver(
        lambda scales, x, guess, s: predictor_corrector(scales, x, guess, s.snr, s.corrections),
        "snr", "corrections",
    ),
    "ode": _solver(lambda scales, x, guess, s: ode(scales, x, guess, s.tolerance), "tolerance"),
}  # fmt: skip
SDE = ANY | {
    "sscs": Sampler(lambda request, s: sscs(request)),
    "sscs-midpoint": Sampler(lambda request, s: sscs(request, midpoint=True)),
    "euler-maruyama": Sampler(lambda request, s: euler_maruyama(request)),
}
MANIFOLD = ANY | {
    "predictor-corrector": Sampler(
        lambda request, s: manifold_predictor_corrector(request, s.snr, s.corrections),
        ("snr", "corrections"),
    )
}
LEAPS = Sampler(
    lambda request, s: tau_leap(request, s.correctors, s.corrector_size),
    ("correctors", "corrector_size"),
)
JUMPS = ANY | {
    "tau-leaping": LEAPS,
    "gillespie": Sampler(lambda request, s: gillespie(request), own_times=True),
}
REVEALS = Sampler(lambda request, s: first_hitting(request), own_times=True)
# one masked site revealed at a time is Gillespie's algorithm
MASKS = ANY | {"tau-leaping": LEAPS, "gillespie": REVEALS, "first-hitting": REVEALS}
PRODUCTS = ANY | {
    "ddim": Sampler(lambda request, s: flow_beside_jumps(request)),
    "heun": Sampler(lambda request, s: flow_beside_jumps(request, second_order=True)),
}


def _on_vectors(sampler: Sampler) -> Sampler:
    """A sampler of Gaussian noise for a process that is such noise on vectors of its points."""

    def run(request: Request, settings: Settings) -> Visits:
        return sampler.run(replace(request, process=request.process.base), settings)

    return Sampler(run, sampler.takes, sampler.own_times)


VECTORS = {name: _on_vectors(sampler) for name, sampler in GAUSSIAN.items()}


@singledispatch
def samplers_of(process: Process) -> Mapping[str, Sampler]:
    """The samplers of a process by name, the ancestral one first.

    >>> from reverie.processes import Masking
    >>> from reverie.sampling import samplers_of
    >>> sorted(samplers_of(Masking(4, sites=8)))
    ['ancestral', 'first-hitting', 'gillespie', 'tau-leaping']
    """
    return ANY


for kind, table in {
    GaussianProcess: GAUSSIAN,
    LinearSDE: SDE,
    Brownian: MANIFOLD,
    JumpProcess: JUMPS,
    Masking: MASKS,
    ProductProcess: PRODUCTS,
    DomainBridges: VECTORS,
}.items():
    samplers_of.register(kind, partial(lambda table, process: table, table))


@singledispatch
def default_sampler(process: Process) -> str:
    """The sampler by which runs are drawn from where none is named.

    >>> from reverie.processes import VP, Masking
    >>> from reverie.sampling import default_sampler
    >>> default_sampler(VP()), default_sampler(Masking(4, sites=8))
    ('ancestral', 'ancestral')
    """
    return "ancestral"


# ancestral steps narrow the laws of numbers by far more (see `mixed`), which a table shows
default_sampler.register(ProductProcess, lambda process: "heun")
default_sampler.register(DomainBridges, lambda process: "heun")

SAMPLERS = tuple(GAUSSIAN)
NAMES = tuple(dict.fromkeys([*GAUSSIAN, *SDE, *MANIFOLD, *JUMPS, *MASKS]))  # of any process


def sampler_named(process: Process, name: str) -> Sampler:
    """The sampler of that name; InputError that lists those of the process."""
    known = samplers_of(process)
    if name in known:
        return known[name]
    choices = ", ".join(known)
    if name in NAMES:
        raise InputError(f"{name} is no sampler of {type(process).__name__}: use {choices}")
    raise InputError(f"no sampler is called {name!r}; choose {choices}")


def settings_of(process: Process, name: str, options: Mapping[str, Any]) -> Settings:
    """The settings among a call's options; InputError on one that the sampler does not take."""
    names = {entry.name for entry in fields(Settings)}
    given = {k: v for k, v in options.items() if k in names and v is not None}
    known = samplers_of(process)
    for setting in given:
        if setting not in known[name].takes:
            takers = [key for key, sampler in known.items() if setting in sampler.takes]
            belongs = f"it belongs to {', '.join(takers)}" if takers else "no sampler here does"
            raise InputError(f"{name} takes no {setting}; {belongs}")
    return Settings(**given)
