"""Where a run starts: from the noised data's own moments, where the last level keeps signal.

A table of noise levels may end with much of the data left (alpha^2 = .78 in one public model). The
noise alone, N(0, sigma^2), is then a bad start. The moments of the noised data are known,

    x_t ~ N(alpha m, alpha^2 C + sigma^2)    in the first two moments, exactly,

and as both starts are Gaussian and this one has the moments of p_t,

    KL(p_t | noise) = KL(p_t | moments) + KL(moments | noise)

whatever the data (for symbols: independent sites with p_t's own marginals). The last term is what
a start from the moments saves: closed form, no model. What is left, KL(p_t | moments), is at most
the information that the level keeps of Gaussian data, 1/2 sum log(1 + gamma lambda).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from reverie.calibration.references import SiteMarginals, reference_of
from reverie.denoisers.exact.low_rank import Moments, Seen
from reverie.errors import InputError
from reverie.processes import GaussianProcess, JumpProcess, Process, ProductProcess
from reverie.processes.base import Draw
from reverie.sampling.ends import NATS


@dataclass(frozen=True)
class InitialisationKL:
    """What a run pays before its first step, in nats per sample.

    saved: KL(moments | noise), by which the start from the noise is dearer than that from the
    moments. left_at_most: a bound on what the moments still pay (0 for Gaussian data), or None
    where none is known in closed form. t: the level.
    """

    saved: float
    left_at_most: float | None
    t: float

    def __str__(self) -> str:
        left = "" if self.left_at_most is None else f" (which pay at most {self.left_at_most:.3g})"
        more = f"{self.saved:.3g} nats more than from the moments of the noised data{left}"
        if self.saved > NATS:
            return f"starting from the noise alone would cost {more}: runs start from these"
        return f"runs start from the noise alone, which costs {more}"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"saved": self.saved, "left_at_most": self.left_at_most, "t": self.t}


def initial_states(
    process: Process,
    rows_or_moments: Tensor | np.ndarray | Moments | Seen,
    n: int,
    t: float | None = None,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw n states (n, *shape) at level t (default the noisiest) by the noised data's moments.

    rows_or_moments: data (N, *shape), or their `Moments`. Use as `sample(..., init=states)`.
    dtype: default that of the rows, else float32; symbols stay integers. Raises InputError on
    processes that are neither Gaussian nor of symbols nor a product with such parts, and on fewer
    than two rows.

    >>> import torch
    >>> from reverie import initial_states
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 5
    >>> noise = torch.Generator().manual_seed(1)
    >>> states = initial_states(VP(beta_max=2), rows, 1000, generator=noise)
    >>> states.shape, states.mean().round(decimals=1)  # the noise alone has mean 0
    (torch.Size([1000, 2]), tensor(2.9000))
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n is {n}; draw at least one state, a whole number")
    known = known_law(process, rows_or_moments)
    if dtype is None:
        given = getattr(rows_or_moments, "dtype", None)
        floats = isinstance(given, torch.dtype) and given.is_floating_point
        dtype = given if floats else torch.float32
    return states_of(process, known, n, t=t, generator=generator, dtype=dtype)


def initialisation_kl(
    process: Process, rows_or_moments: Tensor | np.ndarray | Moments | Seen, t: float | None = None
) -> InitialisationKL:
    """Nats that a start from the noise costs at level t (default the noisiest).

    rows_or_moments: data (N, *shape), or their `Moments`. Of a product, the sum over the parts
    that have a closed form. InputError on processes that are neither Gaussian nor of symbols nor a
    product with such parts, and on fewer than two rows.

    >>> import torch
    >>> from reverie import initialisation_kl
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 5
    >>> [round(initialisation_kl(VP(beta_max=beta), rows).saved, 2) for beta in (2, 20)]
    [13.43, 0.0]
    """
    level = process.t_range[1] if t is None else float(t)
    return _kl(process, known_law(process, rows_or_moments), level)


def known_law(process: Process, given: Any) -> Any:
    """What is kept of rows (N, *shape), `Seen` or not, or of `Moments` as they are."""
    if isinstance(given, Moments | SiteMarginals | tuple):
        return given
    if isinstance(given, Seen):
        return _law_seen(process, given)
    points = process.space.check(process.space.as_points(torch.as_tensor(given)))
    return _law(process, points)


@singledispatch
def _law_seen(process: Process, seen: Seen) -> Any:
    return _law(process, seen.points)


@_law_seen.register
def _(process: GaussianProcess, seen: Seen) -> Any:
    return seen.moments  # fitted once


@singledispatch
def _law(process: Process, rows: Tensor) -> Any:
    """What is kept of the rows."""
    raise InputError(
        "initial states are made from moments for Gaussian noise and for symbols; on other "
        "processes the prior is the start"
    )


@_law.register
def _(process: GaussianProcess, rows: Tensor) -> Any:
    return Moments.fit(rows)


@_law.register
def _(process: JumpProcess, rows: Tensor) -> Any:
    return reference_of(process, rows)


@_law.register
def _(process: ProductProcess, rows: Tensor) -> Any:
    """The law of every part, None where its own prior is the start."""
    pieces = process.space.split(rows)
    return tuple(_or_none(part, own) for part, own in zip(process.parts, pieces, strict=True))


def _or_none(part: Process, rows: Tensor) -> Any:
    try:
        return _law(part, rows)
    except InputError:
        return None


@singledispatch
def states_of(process: Process, law: Any, n: int, **draw: Unpack[Draw]) -> Tensor:
    """As `process.sample_prior`, from the noised points of a `known_law` instead of the noise."""
    device, generator, t = draw.get("device", "cpu"), draw.get("generator"), draw.get("t")
    points = _points(law, n, generator, torch.device(device))
    level = process.t_range[1] if t is None else t
    states = process.corrupt(points, level, generator=generator)
    return states.to(draw.get("dtype", states.dtype)) if states.is_floating_point() else states


@states_of.register
def _(process: ProductProcess, law: Any, n: int, **draw: Unpack[Draw]) -> Tensor:
    t = draw.get("t")
    level = process.t_range[1] if t is None else float(t)
    pieces = process.space.split(process.sample_prior(n, **draw))
    for j, (part, own, time) in enumerate(_each_part(process, law, level)):
        if own is not None and math.isfinite(_kl(part, own, time).saved):
            pieces[j] = states_of(part, own, n, **(draw | Draw(t=time)))
    return process.space.join(pieces, torch.empty(0, dtype=draw.get("dtype", torch.float32)))


def _each_part(process: ProductProcess, law: Any, t: float) -> list[tuple[Process, Any, float]]:
    if not isinstance(law, tuple):
        raise InputError("a product starts from the law of each part: give rows, not moments")
    times = (float(time) for time in process.part_times(t))
    return list(zip(process.parts, law, times, strict=True))


def _points(known: Any, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Points (n, *shape) of the law kept: noising them gives the states."""
    if isinstance(known, Moments):
        return known.to(device).draw(n, generator)
    table = known.frequencies.to(device)
    flat = table.reshape(-1, table.shape[-1])
    drawn = torch.multinomial(flat, n, replacement=True, generator=generator)
    return drawn.T.reshape(n, *table.shape[:-1])


@singledispatch
def _kl(process: Process, known: Any, t: float) -> InitialisationKL:
    raise InputError("initialisation is charged in closed form for Gaussian noise and for symbols")


@_kl.register
def _(process: GaussianProcess, known: Any, t: float) -> InitialisationKL:
    """1/2 [tr G C G + |G m|^2 - log det(1 + G C G)], G = alpha / sigma in the noise's modes."""
    shape = known.mean.shape
    mean = process.to_modes(known.mean[None]).flatten(1)[0]
    basis = process.to_modes(known.basis.T.reshape(-1, *shape)).flatten(1).T
    alpha, sigma = process.scales(t, known.mean[None])
    ratio = (alpha / sigma).flatten(1)[0].expand(known.dim)
    extra = known.spectrum - known.rest
    scaled = ratio[:, None] * basis
    trace = known.rest * ratio.square().sum() + (scaled.square().sum(0) * extra).sum()
    own = 1 + known.rest * ratio.square()
    inner = scaled.T @ (scaled / own[:, None])
    eye = torch.eye(len(extra), dtype=inner.dtype, device=inner.device)
    volume = own.log().sum() + torch.linalg.slogdet(eye + extra[:, None] * inner).logabsdet
    saved = 0.5 * (trace + (ratio * mean).square().sum() - volume)
    return InitialisationKL(max(float(saved), 0.0), 0.5 * float(volume), t)


@_kl.register
def _(process: JumpProcess, known: Any, t: float) -> InitialisationKL:
    """Sum over sites of KL(marginal at t | stationary law)."""
    table = known.frequencies.reshape(-1, process.symbols)
    law = table @ process.kernel(t)[0].to(table)
    gap = torch.xlogy(law, law) - torch.xlogy(law, process.stationary.to(law))
    return InitialisationKL(max(float(gap.sum()), 0.0), None, t)


@_kl.register
def _(process: ProductProcess, known: Any, t: float) -> InitialisationKL:
    """Parts are noised alone, so that what the starts save adds up."""
    each = [_kl(part, own, time).saved for part, own, time in _each_part(process, known, t) if own]
    return InitialisationKL(sum(saved for saved in each if math.isfinite(saved)), None, t)
