"""Processes by name on a given space: the text of `--process` and of a run's config.json."""

from __future__ import annotations

import json

import numpy as np
import torch

from reverie.errors import InputError
from reverie.processes.base import Process
from reverie.processes.chains import Ordinal, RateMatrix, Uniform
from reverie.processes.gaussian import GaussianProcess
from reverie.processes.jump import JumpProcess
from reverie.processes.langevin import CriticallyDamped
from reverie.processes.masking import Masking
from reverie.processes.names import build, settings_of, spec_of
from reverie.processes.riemannian import Brownian
from reverie.spaces import FiniteSet, Manifold, Space

GAUSSIAN = "edm:sigma_min=0.02,sigma_max=40"
JUMPS = ("masking", "uniform", "ordinal", "rates")


def default_process(space: Space) -> str:
    """What `process_on` makes of no name at all."""
    if isinstance(space, FiniteSet):
        return "masking"
    return "brownian" if isinstance(space, Manifold) else GAUSSIAN


def process_on(space: Space, spec: str) -> Process:
    """The process of a name, or `name:key=value,...`, on `space`.

    On finite sets masking, uniform, ordinal or `rates:[[...], ...]`; on manifolds brownian; else
    damped and those of `build`. Raises InputError that names the choices.
    """
    if isinstance(space, FiniteSet):
        return _jumps(space, spec)
    if isinstance(space, Manifold):
        return _brownian(space, spec)
    name = spec.partition(":")[0]
    if name == "damped":
        return CriticallyDamped(**settings_of(spec, CriticallyDamped().settings()))  # type: ignore[arg-type]
    if name in (*JUMPS, "brownian"):
        fit = "symbols" if name in JUMPS else "sphere, torus, rotations or hyperbolic"
        raise InputError(f"{name} is no process on vectors: say where the data live, space {fit}")
    return build(spec, shape=space.shape)


def name_of(process: Process) -> str:
    """The text from which `process_on` makes this process again; InputError for a custom one."""
    if isinstance(process, GaussianProcess):
        return spec_of(process)
    if isinstance(process, Masking):
        return "masking"
    if isinstance(process, RateMatrix):
        return f"rates:{json.dumps(process.rates.tolist())}"
    if isinstance(process, Uniform | Ordinal):
        low, high = process.sigma_range
        reach = f"reach={process.reach!r}," if isinstance(process, Ordinal) else ""
        kind = type(process).__name__.lower()
        return f"{kind}:{reach}sigma_min={low!r},sigma_max={high!r}"
    if isinstance(process, CriticallyDamped):
        return "damped:" + ",".join(f"{k}={v!r}" for k, v in process.settings().items())
    if isinstance(process, Brownian):
        settings = process.settings()
        return "brownian:" + ",".join(f"{k}={v}" for k, v in settings.items() if k != "space")
    raise InputError(f"{type(process).__name__} cannot be written to a run: it has no name")


def _jumps(space: FiniteSet, spec: str) -> JumpProcess:
    name, _, rest = spec.partition(":")
    symbols = space.alphabet or space.symbols
    if name == "rates":
        return RateMatrix(_matrix(rest), space.shape, symbols)
    if name == "masking":
        settings_of(spec, {})
        return Masking(symbols, space.shape)
    if name not in JUMPS:
        raise InputError(f"no process on symbols is called {name!r}; choose {', '.join(JUMPS)}")
    known = {"sigma_min", "sigma_max"} | ({"reach"} if name == "ordinal" else set())
    given = settings_of(spec, known)
    ends = given.get("sigma_min"), given.get("sigma_max")
    if (ends[0] is None) != (ends[1] is None):
        raise InputError(f"{name}: give sigma_min and sigma_max, or neither")
    span = None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    if name == "ordinal":
        return Ordinal(symbols, space.shape, given.get("reach"), span)
    return Uniform(symbols, space.shape, span)


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


def _brownian(space: Manifold, spec: str) -> Brownian:
    name = spec.partition(":")[0]
    if name != "brownian":
        raise InputError(f"no process on {space} is called {name!r}; choose brownian")
    bare, _, centre = spec.partition(",centre=")
    if not centre:
        return Brownian(space, **settings_of(spec, {"tau_min", "tau_max"}))  # type: ignore[arg-type]
    place, _, rest = centre.partition(",")
    given = settings_of(f"{bare},{rest}", {"tau_min", "tau_max", "dispersion"})
    spread = given.pop("dispersion", 0.0)
    return Brownian(space, **given, centre=place, dispersion=spread)  # type: ignore[arg-type]
