"""The names of the processes that come with reverie, where their text is more than numbers.

edm:sigma_min=.02            and every schedule of the field
modes:basis=haar,shape=8x8   functions:kernel=matern-3/2,length=0.1     damped
masking    uniform    ordinal:reach=2    rates:[[-1, 1], [1, -1]]      of symbols
brownian:tau_min=1e-5                                                  of manifolds
product:schedule=vp          (Gaussian noise on numbers, masking on symbols)      of tables
bridge:sigma=1               (bridges into the domain of numbers and symbols)     of tables
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import torch

from reverie.errors import InputError
from reverie.processes.base import Process
from reverie.processes.chains import Ordinal, RateMatrix, Uniform
from reverie.processes.covariance import covariance_named
from reverie.processes.functional import NUGGET, FunctionNoise
from reverie.processes.gaussian import GaussianProcess
from reverie.processes.into_domain import DomainBridges
from reverie.processes.langevin import CriticallyDamped
from reverie.processes.log_ratios import LogRatios
from reverie.processes.masking import Masking
from reverie.processes.modes import ModalProcess
from reverie.processes.product import ProductProcess
from reverie.processes.registry import (
    ENTRIES,
    GAUSSIAN,
    name_of,
    number_of,
    numbers_of,
    pairs_of,
    process_on,
    register,
    text_of,
)
from reverie.processes.riemannian import Brownian
from reverie.processes.schedules import PROCESSES
from reverie.processes.wright_fisher import WrightFisher
from reverie.spaces import (
    Bounded,
    Euclidean,
    FiniteSet,
    Functions,
    Manifold,
    Mixed,
    Simplex,
    Space,
)

FUNCTION_SETTINGS = ("schedule", "kernel", "shape", "length", "variance", "nugget")
MODAL_SETTINGS = ("schedule", "basis", "shape", "speed", "spectrum", "from", "to")


def build(
    spec: str, *, shape: tuple[int, ...] | None = None, **settings: float
) -> GaussianProcess:
    """Gaussian noise from its name, or `name:key=value,...` as in `edm:sigma_min=.02`.

    `modes:schedule=vp,basis=haar,shape=8x8,speed=1/2/4/4` makes a ModalProcess: speed and spectrum
    hold one number per band, from and to are the ends of its t_range, and the other settings are
    its schedule's. `functions:kernel=matern-3/2,length=0.1,shape=64` makes a FunctionNoise on a
    regular grid, of edm where no schedule is named. shape: of a point, where the text has none.
    InputError names the choices.

    >>> from reverie.processes import build
    >>> build("edm:sigma_min=.02,sigma_max=40").settings()
    {'sigma_min': 0.02, 'sigma_max': 40.0, 'rho': 7.0}
    >>> build("modes:schedule=vp,basis=haar/1,shape=4x4,speed=1/2").clock(0.5).shape
    torch.Size([1, 2])
    """
    name, _, rest = spec.partition(":")
    entry = ENTRIES.get(name)
    if entry is None or not issubclass(entry.kind, GaussianProcess):
        known = [n for n, e in ENTRIES.items() if issubclass(e.kind, GaussianProcess)]
        raise InputError(f"no process is called {name!r}; choose one of {', '.join(known)}")
    extra = text_of(settings)
    joined = ",".join(filter(None, (rest, extra)))
    return process_on(Euclidean(shape), f"{name}:{joined}")  # type: ignore[return-value]


def _schedule(name: str, kind: type[GaussianProcess], space: Space, text: str) -> GaussianProcess:
    known = kind().settings()  # type: ignore[call-arg]
    return kind(**numbers_of(name, text, known))  # type: ignore[arg-type]


for name, kind in PROCESSES.items():
    register(
        name, space=Euclidean, read=partial(_schedule, name, kind),
        write=lambda process: text_of(process.settings()),
    )(kind)  # fmt: skip


# --- modes and functions -----------------------------------------------------------------------


def _modal(space: Space, text: str) -> ModalProcess:
    pairs = pairs_of(text)
    own = {key: pairs.pop(key) for key in MODAL_SETTINGS if key in pairs}
    schedule = _named(own.get("schedule", "vp"), pairs)
    lists = {
        key: [number_of(key, value) for value in own[key].split("/")]
        for key in ("speed", "spectrum")
        if key in own
    }
    low, high = schedule.t_range
    ends = (
        number_of("from", own.get("from", repr(low))),
        number_of("to", own.get("to", repr(high))),
    )
    shape = _shape(own, space, "modes:basis=haar,shape=8x8")
    basis = own.get("basis", "identity")
    return ModalProcess(schedule, shape=shape, basis=basis, t_range=ends, **lists)


def _functions(space: Space, text: str) -> FunctionNoise:
    pairs = pairs_of(text)
    own = {key: pairs.pop(key) for key in FUNCTION_SETTINGS if key in pairs}
    schedule = _named(own.pop("schedule"), pairs) if "schedule" in own else None
    if schedule is None and pairs:
        raise InputError(f"functions: {', '.join(pairs)} belong to a schedule; name it")
    shape = _shape(own, space, "functions:kernel=exponential,shape=64")
    numbers = {key: number_of(key, own[key]) for key in ("length", "variance") if key in own}
    covariance = covariance_named(own.get("kernel", "exponential"), **numbers)
    nugget = number_of("nugget", own["nugget"]) if "nugget" in own else NUGGET
    return FunctionNoise(Functions.regular(shape), covariance, schedule, nugget)


def _named(name: str, pairs: dict[str, str]) -> GaussianProcess:
    return build(f"{name}:" + ",".join(f"{key}={value}" for key, value in pairs.items()))


def _written_modes(process: ModalProcess) -> str:
    schedule, _, rest = name_of(process.schedule).partition(":")
    own = [f"{key}={value}" for key, value in process.spec().items()]
    return ",".join([f"schedule={schedule}", *own, rest])


def _shape(own: dict[str, str], space: Space, example: str) -> tuple[int, ...]:
    """The shape that the text names, or else the space's."""
    if "shape" not in own:
        if space.shape is None:
            raise InputError(f"this process needs the shape of a point, as in {example}")
        return space.shape
    sizes = own["shape"].split("x")
    if not all(size.isdigit() for size in sizes):
        raise InputError(f"process setting shape={own['shape']} is not of the form 8x8")
    return tuple(map(int, sizes))


register("modes", space=Euclidean, read=_modal, write=_written_modes)(ModalProcess)
register("functions", space=Euclidean, read=_functions, write=_written_modes)(FunctionNoise)


def _damped(space: Space, text: str) -> CriticallyDamped:
    return CriticallyDamped(**numbers_of("damped", text, CriticallyDamped().settings()))  # type: ignore[arg-type]


register("damped", space=Euclidean, read=_damped)(CriticallyDamped)


# --- symbols -------------------------------------------------------------------------------------


def _symbols(space: FiniteSet) -> int | str:
    return space.alphabet or space.symbols


def _masking(space: Any, text: str) -> Masking:
    numbers_of("masking", text, ())
    return Masking(_symbols(space), space.shape, space.sizes)


def _noised(name: str, space: Any, text: str) -> Uniform | Ordinal:
    known = ["sigma_min", "sigma_max", *(["reach"] if name == "ordinal" else [])]
    given = numbers_of(name, text, known)
    low, high = given.get("sigma_min"), given.get("sigma_max")
    if (low is None) != (high is None):
        raise InputError(f"{name}: give sigma_min and sigma_max, or neither")
    span = None if low is None or high is None else (low, high)
    if name == "ordinal":
        return Ordinal(_symbols(space), space.shape, given.get("reach"), span)
    return Uniform(_symbols(space), space.shape, span)


def _written_noise(process: Uniform | Ordinal) -> str:
    low, high = process.sigma_range
    reach = {"reach": process.reach} if isinstance(process, Ordinal) else {}
    return text_of(reach | {"sigma_min": low, "sigma_max": high})


def _rates(space: Any, text: str) -> RateMatrix:
    return RateMatrix(_matrix(text), space.shape, _symbols(space))


def _matrix(text: str) -> torch.Tensor:
    """A rate matrix written out, or in a .npy file."""
    try:
        if text.endswith(".npy"):
            return torch.from_numpy(np.load(text, allow_pickle=False).astype(np.float64))
        return torch.tensor(json.loads(text), dtype=torch.float64)
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise InputError(
            f"rates {text[:40]!r}: write a rate matrix as [[-1, 1], [1, -1]], or name a .npy file "
            "that holds one"
        ) from error


register("masking", space=FiniteSet, read=_masking, write=lambda process: "")(Masking)
for name, chain in (("uniform", Uniform), ("ordinal", Ordinal)):
    register(name, space=FiniteSet, read=partial(_noised, name), write=_written_noise)(chain)
register(
    "rates", space=FiniteSet, read=_rates, is_on_file=True,
    write=lambda process: json.dumps(process.rates.tolist()),
)(RateMatrix)  # fmt: skip


# --- tables --------------------------------------------------------------------------------------


def _product(space: Any, text: str) -> ProductProcess:
    """Gaussian noise on the numbers of a product of spaces, masking on its symbols."""
    pairs = pairs_of(text)
    name = pairs.pop("schedule", "edm")
    rest = ",".join(f"{key}={value}" for key, value in pairs.items())
    spec = f"{name}:{rest}" if text else GAUSSIAN
    parts: list[Process] = []
    for part in space.parts:
        noise = process_on(part, "masking" if isinstance(part, FiniteSet) else spec)
        noise.space = part  # a schedule is of any shape
        parts.append(noise)
    return ProductProcess(*parts)


def _written_product(process: ProductProcess) -> str:
    noises = [part for part in process.parts if not isinstance(part, Masking)]
    if len({name_of(part) for part in noises}) > 1:
        raise InputError("only a product of masking and of one Gaussian noise has a name")
    if not noises:
        return ""
    schedule, _, rest = name_of(noises[0]).partition(":")
    return ",".join(filter(None, (f"schedule={schedule}", rest)))


register("product", space=Mixed, read=_product, write=_written_product)(ProductProcess)


def _bridges(space: Any, text: str) -> DomainBridges:
    return DomainBridges(space, **numbers_of("bridge", text, ("sigma",)))


register("bridge", space=Bounded, read=_bridges)(DomainBridges)


# --- curved spaces and shares ------------------------------------------------------------------


def _brownian(space: Any, text: str) -> Brownian:
    pairs = pairs_of(text)
    centre = pairs.pop("centre", None)
    known = ("tau_min", "tau_max", *(() if centre is None else ("dispersion",)))
    rest = ",".join(f"{key}={value}" for key, value in pairs.items())
    return Brownian(space, **numbers_of("brownian", rest, known), centre=centre)  # type: ignore[arg-type]


def _written_brownian(process: Brownian) -> str:
    settings = process.settings()
    return ",".join(f"{key}={value}" for key, value in settings.items() if key != "space")


register("brownian", space=Manifold, read=_brownian, write=_written_brownian)(Brownian)


def _wright_fisher(space: Any, text: str) -> WrightFisher:
    pairs = pairs_of(text)
    rates = [number_of("mutation", v) for v in pairs.pop("mutation", "1").split("/")]
    rates = rates * space.shape[0] if len(rates) == 1 else rates
    rest = ",".join(f"{key}={value}" for key, value in pairs.items())
    return WrightFisher(rates, **numbers_of("wright-fisher", rest, ("tau_min", "tau_max")))


def _written_shares(process: WrightFisher) -> str:
    settings: dict[str, Any] = process.settings()
    rates = "/".join(repr(rate) for rate in settings.pop("mutation"))
    return f"mutation={rates},{text_of(settings)}"


def _log_ratios(space: Any, text: str) -> LogRatios:
    pairs = pairs_of(text)
    return LogRatios(space.shape[0], _named(pairs.pop("schedule", "vp"), pairs))


def _written_ratios(process: LogRatios) -> str:
    schedule, _, rest = name_of(process.base).partition(":")
    return ",".join(filter(None, (f"schedule={schedule}", rest)))


register("wright-fisher", space=Simplex, read=_wright_fisher, write=_written_shares)(WrightFisher)
register("log-ratios", space=Simplex, read=_log_ratios, write=_written_ratios)(LogRatios)
