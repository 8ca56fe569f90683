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

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.calibration.references import SiteMarginals, reference_of
from reverie.denoisers.exact.low_rank import Moments
from reverie.errors import InputError
from reverie.processes import GaussianProcess, JumpProcess, Process


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
        said = f"starting from the noise alone costs {self.saved:.3g} nats"
        left = "" if self.left_at_most is None else f" (which pay at most {self.left_at_most:.3g})"
        return f"{said} more than from the moments of the noised data{left}"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"saved": self.saved, "left_at_most": self.left_at_most, "t": self.t}


def moments_of(process: Process, rows: Tensor | np.ndarray) -> Moments:
    """Mean and covariance of rows (n, *shape) of data, as `initial_states` takes them."""
    points = process.space.check(process.space.as_points(torch.as_tensor(rows)))
    return Moments.fit(points)


def initial_states(
    process: Process,
    rows_or_moments: Tensor | np.ndarray | Moments,
    n: int,
    t: float | None = None,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw n states (n, *shape) at level t (default the noisiest) by the noised data's moments.

    rows_or_moments: data (N, *shape), or their `Moments`. Use as `sample(..., init=states)`.
    dtype: default that of the rows, else float32; symbols stay integers. Raises InputError on
    processes that are neither Gaussian nor of symbols, and on fewer than two rows.

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
    known = _known(process, rows_or_moments)
    if dtype is None:
        given = getattr(rows_or_moments, "dtype", None)
        floats = isinstance(given, torch.dtype) and given.is_floating_point
        dtype = given if floats else torch.float32
    points = _draw(process, known, n, generator)
    level = process.t_range[1] if t is None else t
    states = process.corrupt(points, level, generator=generator)
    return states.to(dtype) if states.is_floating_point() else states


def initialisation_kl(
    process: Process, rows_or_moments: Tensor | np.ndarray | Moments, t: float | None = None
) -> InitialisationKL:
    """Nats that a start from the noise costs at level t (default the noisiest).

    rows_or_moments: data (N, *shape), or their `Moments`. InputError on processes that are neither
    Gaussian nor of symbols, and on fewer than two rows.

    >>> import torch
    >>> from reverie import initialisation_kl
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 5
    >>> [round(initialisation_kl(VP(beta_max=beta), rows).saved, 2) for beta in (2, 20)]
    [13.43, 0.0]
    """
    level = process.t_range[1] if t is None else float(t)
    return _kl(process, _known(process, rows_or_moments), level)


def _known(process: Process, given: Any) -> Any:
    if isinstance(given, Moments | SiteMarginals):
        return given
    points = process.space.check(process.space.as_points(torch.as_tensor(given)))
    return _law(process, points)


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


def _draw(process: Process, known: Any, n: int, generator: torch.Generator | None) -> Tensor:
    """Points (n, *shape) of the law kept: noising them gives the states."""
    if isinstance(known, Moments):
        return known.draw(n, generator)
    table = known.frequencies
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
