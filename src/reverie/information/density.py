"""`log_density`: log p(x) in nats, by whatever the process allows.

    immse   Gaussian noise of one level, given a `reference`: the least variance (see `immse`)
    flow    Gaussian noise and manifolds: the probability-flow ODE (see `flow`, `manifolds`)

Two models: that of the first is the density by the chain of guesses; that of the second is of the
points that the deterministic sampler draws. For the exact denoiser they agree.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from torch import Tensor

from reverie.curve import as_points
from reverie.denoisers import Denoiser, Linear
from reverie.errors import InputError
from reverie.information.estimates import Estimate
from reverie.information.flow import LogLikelihood, flow_density
from reverie.information.immse import density_by_immse
from reverie.information.manifolds import manifold_flow_density
from reverie.processes import Brownian, GaussianProcess, Process


def log_density(
    denoiser: Denoiser,
    points: Tensor | np.ndarray,
    reference: Linear | None = None,
    *,
    method: str | None = None,
    **options: Any,
) -> Estimate:
    """log p(x) in nats of `points` (B, *shape), with standard errors; manifolds: by volume.

    reference: `Linear.fit` of data on the same process, for the method `immse`, of full rank; the
    closer the model is to it the smaller the error. method: `immse` (default with a reference) or
    `flow`. options: those of `density_by_immse`, `flow_density` or `manifold_flow_density`, among
    them generator and condition. Raises InputError where the process has no such density; symbols
    have a `bound`.


    >>> import torch
    >>> from reverie import log_density
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> prior = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> log_density(prior, x, method="flow").nats.round(2)  # -log(2 pi), and one less
    array([-1.84, -2.84])
    """
    rows = as_points(denoiser, points)
    return density_of(denoiser.process, denoiser, rows, reference, method, options)


@singledispatch
def density_of(
    process: Process,
    denoiser: Denoiser,
    points: Tensor,
    reference: Linear | None,
    method: str | None,
    options: dict[str, Any],
) -> Estimate:
    """The density on one process; register a function of these arguments for a class of them.

    points: (B, *shape); log p(x) in nats. InputError where no function is registered.

    >>> from reverie.information import density_of
    >>> from reverie.processes import VP, GaussianProcess
    >>> density_of.dispatch(VP) is density_of.dispatch(GaussianProcess)
    True
    """
    raise InputError(
        f"{type(process).__name__} has no log-density here: reverie.information.bound bounds it"
    )


@density_of.register(GaussianProcess)
def _gaussian(
    process: GaussianProcess,
    denoiser: Denoiser,
    points: Tensor,
    reference: Linear | None,
    method: str | None,
    options: dict[str, Any],
) -> Estimate:
    chosen = method or ("flow" if reference is None else "immse")
    if chosen == "immse":
        if reference is None:
            raise InputError(
                "log_density by immse needs a reference, as Linear.fit(process, data)"
            )
        return density_by_immse(denoiser, points, reference, **options)
    if chosen != "flow":
        raise InputError(f"no density is found by {chosen!r}; choose immse or flow")
    return _estimate(flow_density(denoiser, points, **options))


@density_of.register(Brownian)
def _manifold(
    process: Brownian,
    denoiser: Denoiser,
    points: Tensor,
    reference: Linear | None,
    method: str | None,
    options: dict[str, Any],
) -> Estimate:
    if reference is not None or method not in (None, "flow"):
        raise InputError("on a manifold the density is found by the flow, without a reference")
    return _estimate(manifold_flow_density(denoiser, points, **options))


def _estimate(found: LogLikelihood) -> Estimate:
    return Estimate(found.nats.cpu().numpy(), found.stderr.cpu().numpy())
