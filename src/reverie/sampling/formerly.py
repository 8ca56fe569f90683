"""Functions of the release before, each now a word for `sample`; they go with the next release."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.formerly import warn
from reverie.plan import PlannedSteps
from reverie.processes import Process
from reverie.sampling.run import sample
from reverie.sampling.samplers import ANY, SDE

LINEAR_SAMPLERS = tuple(name for name in SDE if name not in ANY)


def _said(name: str, sampler: str) -> None:
    warn(f"reverie.sampling.{name}", f'sample(denoiser, n, plan, "{sampler}")', above=3)


def tau_leap(denoiser: Denoiser, n: int, plan: PlannedSteps | Tensor, **options: Any) -> Tensor:
    """`sample(denoiser, n, plan, "tau-leaping")`."""
    _said("tau_leap", "tau-leaping")
    return sample(denoiser, n, plan, "tau-leaping", **options)


def gillespie(denoiser: Denoiser, n: int, plan: PlannedSteps | Tensor, **options: Any) -> Tensor:
    """`sample(denoiser, n, plan, "gillespie")`."""
    _said("gillespie", "gillespie")
    return sample(denoiser, n, plan, "gillespie", **options)


def first_hitting(denoiser: Denoiser, n: int, **options: Any) -> Tensor:
    """`sample(denoiser, n, plan, "first-hitting")`, which reads no plan."""
    _said("first_hitting", "first-hitting")
    ends = torch.tensor(denoiser.process.t_range[::-1], dtype=torch.float64)
    return sample(denoiser, n, ends, "first-hitting", **options)


def steps_are_measured(process: Process) -> bool:
    """`process.steps_measured`."""
    warn("reverie.readings.steps_are_measured(process)", "process.steps_measured")
    return process.steps_measured
