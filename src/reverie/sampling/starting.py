"""The state of a run before its first step, where nobody gave one.

The prior's noise, where it has drowned the data. Where the first level keeps signal, the moments
of the noised data (`initialisation`), from what is known of the data: what the caller gives, what
the model is made of, or the rows that the plan's curve was measured on. Where nothing is known the
run starts from the noise alone and says what that costs.
"""

from __future__ import annotations

import math
import warnings
from functools import singledispatch
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from reverie.denoisers import Denoiser, Moments, Seen
from reverie.errors import InputError
from reverie.plan import PlannedSteps
from reverie.processes import GaussianProcess, Process
from reverie.processes.base import Draw
from reverie.sampling.ends import NATS  # that a start from the noise may cost
from reverie.sampling.initialisation import initialisation_kl, known_law, states_of

PAIRED = 512  # rows whose products tell the square of a covariance


def first_states(
    process: Process, law: Any, n: int, plan: PlannedSteps | Tensor, **draw: Unpack[Draw]
) -> Tensor:
    """States (n, *shape) at level draw["t"] from a law of `start_law`, or from the prior's noise.

    plan: what it tells of the data's deviation is used where the noise alone is a bad start.
    """
    if law is not None:
        return states_of(process, law, n, **draw)
    states = process.sample_prior(n, **draw)
    _complain(process, states, draw.get("t"), plan)
    return states


def start_law(
    denoiser: Denoiser,
    plan: PlannedSteps | Tensor,
    t: float,
    given: Tensor | np.ndarray | Moments | Seen | None = None,
    *,
    seen: Moments | Seen | None = None,
) -> Any:
    """What the first states at level t are drawn from (see `states_of`); None is the noise alone.

    given: rows (N, *shape) or their moments, which are then used whatever they save. seen: what is
    known where the model itself knows nothing; by default what the plan knows.
    InputError on rows that have no moments on this process.
    """
    process = denoiser.process
    if given is not None:
        return known_law(process, given)
    for known in (denoiser.seen, seen, getattr(plan, "seen", None)):
        if known is not None:
            return _where_it_saves(process, known, t)
    return None


def _where_it_saves(process: Process, seen: Moments | Seen, t: float) -> Any:
    """The law of what is known, where noise alone costs more than NATS."""
    if _drowned(process, seen, t):
        return None
    try:
        law = known_law(process, seen)
        saved = initialisation_kl(process, law, t).saved
    except InputError:  # no closed form, or too few rows: the prior is the start
        return None
    # infinite where no noised point can be of the prior: a mask is a start at any level
    return law if NATS < saved < math.inf else None


@singledispatch
def _drowned(process: Process, seen: Any, t: float) -> bool:
    """Whether the noise alone is certainly a good start, told without a covariance."""
    return False


@_drowned.register
def _(process: GaussianProcess, seen: Any, t: float) -> bool:
    """2 KL = u |m|^2 + sum (r - log(1 + r)), r = u lambda; the sum is at most u^2 tr(C^2) / 2."""
    if not isinstance(seen, Seen) or len(seen.rows) < 2:
        return False
    rows = seen.points.flatten(1)
    u = float(process.clock(t).max())
    if 0.5 * u * float(rows.double().square().sum(1).mean()) <= NATS:
        return True
    some = rows[:PAIRED].double()
    centred = some - some.mean(0)
    square = float((centred @ centred.T / len(some)).square().sum())
    return 0.5 * (u * float(some.mean(0).square().sum()) + 0.5 * u**2 * square) <= 0.5 * NATS


@singledispatch
def _complain(
    process: Process, states: Tensor, t: float | None, plan: PlannedSteps | Tensor
) -> None:
    """Say that the noise is a bad start and nothing better is known."""


@_complain.register
def _(
    process: GaussianProcess, states: Tensor, t: float | None, plan: PlannedSteps | Tensor
) -> None:
    """Where noise has modes, by its widest: data are taken to fall off as the noise does."""
    variance = getattr(getattr(plan, "curve", None), "variance", None) or 1.0
    alpha, sigma = process.scales(process.t_range[1] if t is None else t, states[:1])
    ratio = float((alpha / sigma).square().min()) * variance
    cost = 0.5 * states[0].numel() * (ratio - math.log1p(ratio))
    if cost <= NATS:
        return
    share = ratio / (1 + ratio)
    warnings.warn(
        f"the first level still holds {share:.0%} of signal for data of deviation "
        f"{math.sqrt(variance):.3g}, and nothing is known of the data: the run starts from the "
        f"noise alone, which costs about {cost:.2g} nats and comes out too narrow. Give rows, "
        "sample(..., start=rows), or a plan on a curve that was measured",
        stacklevel=2,
    )
