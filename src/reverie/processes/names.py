"""Gaussian processes by name: `build(spec_of(process))` is the same process again."""

from __future__ import annotations

import math
from collections.abc import Collection

from reverie.errors import InputError
from reverie.processes.covariance import covariance_named
from reverie.processes.functional import NUGGET, FunctionNoise
from reverie.processes.gaussian import GaussianProcess
from reverie.processes.modes import ModalProcess
from reverie.processes.schedules import PROCESSES
from reverie.spaces import Functions

MODES = "modes"
FUNCTIONS = "functions"
FUNCTION_SETTINGS = ("schedule", "kernel", "shape", "length", "variance", "nugget")
MODAL_SETTINGS = ("schedule", "basis", "shape", "speed", "spectrum", "from", "to")


def build(
    spec: str, *, shape: tuple[int, ...] | None = None, **settings: float
) -> GaussianProcess:
    """Build a process from its name, or `name:key=value,...` as in `edm:sigma_min=.02`.

    `modes:schedule=vp,basis=haar,shape=8x8,speed=1/2/4/4` makes a ModalProcess: speed and spectrum
    hold one number per band, from and to are the ends of its t_range, and the other settings are
    its schedule's. `functions:kernel=matern-3/2,length=0.1,shape=64` makes a FunctionNoise on a
    regular grid, of edm where no schedule is named. shape: of a point, where the text has none.
    InputError names the choices.
    """
    name, _, rest = spec.partition(":")
    pairs = dict(_pair(part) for part in filter(None, rest.split(",")))
    if name == MODES:
        return _modal(pairs, shape, settings)
    if name == FUNCTIONS:
        return _functions(pairs, shape, settings)
    if name not in PROCESSES:
        known = ", ".join([*PROCESSES, MODES, FUNCTIONS])
        raise InputError(f"no process is called {name!r}; choose one of {known}")
    kind = PROCESSES[name]
    known = kind().settings()  # type: ignore[call-arg]
    return kind(**(settings_of(spec, known) | settings))  # type: ignore[arg-type]


def settings_of(spec: str, known: Collection[str]) -> dict[str, float]:
    """The settings in `name:key=value,...`; InputError on one that is not `known`."""
    name, _, rest = spec.partition(":")
    pairs = dict(_pair(part) for part in filter(None, rest.split(",")))
    unknown = sorted(set(pairs) - set(known))
    if unknown:
        only = f"only {', '.join(sorted(known))}" if known else "and takes none"
        raise InputError(f"{name} has no setting {', '.join(unknown)}, {only}")
    return {key: _number(key, value) for key, value in pairs.items()}


def spec_of(process: GaussianProcess) -> str:
    """The text from which `build` makes this process again; InputError for a custom one."""
    if type(process) in (ModalProcess, FunctionNoise):
        assert isinstance(process, ModalProcess)
        schedule, _, rest = spec_of(process.schedule).partition(":")
        own = [f"{key}={value}" for key, value in process.spec().items()]
        name = FUNCTIONS if isinstance(process, FunctionNoise) else MODES
        return f"{name}:" + ",".join([f"schedule={schedule}", *own, rest])
    for name, kind in PROCESSES.items():
        if type(process) is kind:
            settings = ",".join(f"{k}={v!r}" for k, v in process.settings().items())
            return f"{name}:{settings}"
    known = ", ".join([*PROCESSES, MODES, FUNCTIONS])
    raise InputError(f"{type(process).__name__} cannot be written to a run: use one of {known}")


def _modal(
    pairs: dict[str, str], shape: tuple[int, ...] | None, settings: dict[str, float]
) -> ModalProcess:
    own = {key: pairs.pop(key) for key in MODAL_SETTINGS if key in pairs}
    settings |= {key: _number(key, value) for key, value in pairs.items()}
    schedule = build(own.get("schedule", "vp"), shape=None, **settings)
    shape = _shape(own, shape, "modes:basis=haar,shape=8x8")
    lists = {
        key: [_number(key, value) for value in own[key].split("/")]
        for key in ("speed", "spectrum")
        if key in own
    }
    low, high = schedule.t_range
    ends = (_number("from", own.get("from", repr(low))), _number("to", own.get("to", repr(high))))
    return ModalProcess(
        schedule, shape=shape, basis=own.get("basis", "identity"), t_range=ends, **lists
    )


def _functions(
    pairs: dict[str, str], shape: tuple[int, ...] | None, settings: dict[str, float]
) -> FunctionNoise:
    own = {key: pairs.pop(key) for key in FUNCTION_SETTINGS if key in pairs}
    settings |= {key: _number(key, value) for key, value in pairs.items()}
    schedule = build(own.pop("schedule"), shape=None, **settings) if "schedule" in own else None
    if schedule is None and settings:
        raise InputError(f"functions: {', '.join(settings)} belong to a schedule; name it")
    shape = _shape(own, shape, "functions:kernel=exponential,shape=64")
    numbers = {key: _number(key, own[key]) for key in ("length", "variance") if key in own}
    covariance = covariance_named(own.get("kernel", "exponential"), **numbers)
    nugget = _number("nugget", own["nugget"]) if "nugget" in own else NUGGET
    return FunctionNoise(Functions.regular(shape), covariance, schedule, nugget)


def _shape(own: dict[str, str], shape: tuple[int, ...] | None, example: str) -> tuple[int, ...]:
    """The shape that the text names, or else the one given."""
    if "shape" not in own:
        if shape is None:
            raise InputError(f"this process needs the shape of a point, as in {example}")
        return shape
    sizes = own["shape"].split("x")
    if not all(size.isdigit() for size in sizes):
        raise InputError(f"process setting shape={own['shape']} is not of the form 8x8")
    return tuple(map(int, sizes))


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key.strip(), value.strip()


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"process setting {key}={value!r} is not of the form key=number")
    return number
