"""Solvers of Schrodinger bridges by name: how each is fitted, and how it is read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.chain import ChainBridge
from reverie.bridges.coupling import Coupling, Independent, MinibatchSinkhorn, Paired
from reverie.bridges.gaussian import GaussianBridge
from reverie.bridges.light import LightSB
from reverie.bridges.matching import NetworkBridge, fit_matching, fit_online
from reverie.bridges.reference import Reference
from reverie.bridges.sinkhorn import SinkhornBridge
from reverie.errors import InputError

SOLVERS = ("lightsb", "dsbm", "alpha-dsbm", "sf2m", "dsb", "gaussian", "sinkhorn")
POINTS = 5000  # rows of an end that the Sinkhorn solver holds
MINIBATCH, ROUNDS, ITERATIONS, STEPS = 256, 4, 10, 2000
Progress = Callable[[int, int], None]


def coupling_for(
    solver: str, x0: Tensor, x1: Tensor, reference: Reference, paired: bool
) -> Coupling:
    """Where a solver's pairs come from at first."""
    if paired:
        return Paired(x0, x1)
    if solver == "sf2m":
        return MinibatchSinkhorn(x0, x1, reference, MINIBATCH)
    return Independent(x0, x1)


def solve(
    solver: str,
    ends: Coupling,
    reference: Reference,
    steps: int | None,
    rounds: int | None,
    seed: int,
    progress: Progress | None,
) -> Bridge:
    """Fit a bridge by the solver of this name; steps, rounds: None takes the defaults above."""
    generator = torch.Generator().manual_seed(seed)
    if solver == "gaussian":
        return GaussianBridge.fit(ends.a, ends.b, reference)
    if solver == "sinkhorn":
        if max(len(ends.a), len(ends.b)) > POINTS:
            raise InputError(f"the sinkhorn solver holds {POINTS:,} rows an end; choose another")
        return SinkhornBridge(ends.a, ends.b, reference)
    if solver == "lightsb":
        return LightSB.fit(
            ends, reference, steps=steps or STEPS, generator=generator, progress=progress
        )
    if solver == "dsb":
        fits = ITERATIONS if rounds is None else max(rounds, 1)
        return ChainBridge.fit(
            ends, reference, iterations=fits, generator=generator, progress=progress
        )
    told_start = isinstance(ends, Paired)
    refits = 0 if solver == "sf2m" or told_start else (ROUNDS if rounds is None else rounds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if solver == "alpha-dsbm":
            return fit_online(
                ends, reference, steps=2 * (steps or STEPS), generator=generator, progress=progress
            )
        return fit_matching(
            ends,
            reference,
            rounds=refits,
            steps=steps or STEPS,
            told_start=told_start,
            generator=generator,
            progress=progress,
        )


def rebuilt(
    solver: str, settings: dict[str, Any], tensors: dict[str, Tensor], reference: Reference
) -> Bridge:
    """The bridge of a folder. KeyError, RuntimeError where its pieces do not fit."""
    if solver == "gaussian":
        m = reference.last_scale
        mean, cov = tensors["mean1"] * m, tensors["cov1"] * m**2
        return GaussianBridge(tensors["mean0"], tensors["cov0"], mean, cov, reference)
    if solver == "sinkhorn":
        return SinkhornBridge.of(tensors, reference, settings["error"])
    if solver == "lightsb":
        made: Bridge = LightSB(
            settings["dim"], reference, settings["components"], settings["unit"]
        )
    elif solver == "dsb":
        own = {k: settings[k] for k in ("steps", "radial", "frozen", "power")}
        made = ChainBridge(settings["dim"], reference, **own)
    elif solver in SOLVERS:
        own = {k: settings[k] for k in ("width", "depth", "told_start")}
        shared = settings.get("shared", False)  # folders of the release before have none
        made = NetworkBridge(settings["dim"], reference, **own, shared=shared)
    else:
        raise KeyError(f"no solver is called {solver!r}")
    made.load_state_dict(tensors)
    return made.eval()
