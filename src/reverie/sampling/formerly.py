"""Functions of the release before, each now a word for `sample`; they go with the next release."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.plan import PlannedSteps
from reverie.sampling.run import sample


def _said(name: str, sampler: str) -> None:
    warnings.warn(
        f'reverie.sampling.{name} is now sample(denoiser, n, plan, "{sampler}")',
        DeprecationWarning,
        stacklevel=3,
    )


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
