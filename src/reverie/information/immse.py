"""Density and divergence of denoisers by I-MMSE: integrals over the signal-to-noise ratio.

With gamma = alpha^2/sigma^2 and the pointwise loss mmse(x, gamma) = E|x - xhat|^2 over the noise:

    -log p(x) = -log N(x) + 1/2 int [mmse(x, .) - mmse_N(x, .)] dgamma    any Gaussian N
    -log P(x) = 1/2 int mmse(x, .) dgamma                                 discrete x
    I(x; c)   = 1/2 int E|xhat(x_t) - xhat(x_t, c)|^2 dgamma
    KL(p|q)   = 1/2 int E_p |xhat_p - xhat_q|^2 dgamma

Sources: Guo, Shamai & Verdu 2005; Verdu 2010 (mismatched estimation); Kong, Brekelmans & Ver Steeg
2023, whose Gaussian base with the data's eigenvalues the reference generalises: sharing the noise
with an exact Gaussian denoiser removes most of the variance, and both tails beyond the process's
levels. Everything is in nats, with standard errors; a network's error biases all of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve, as_points, level_times
from reverie.denoisers import Denoiser, Linear, condition_rows, evaluating
from reverie.denoisers.rates import level_rates
from reverie.errors import InputError
from reverie.information.estimates import Estimate
from reverie.processes.gaussian import require_gaussian

BLOCK = 1024  # rows in flight


class _Grid(NamedTuple):
    """Times (L,) noisy to clean, clock (L,) and weights (L,) that sum a rate to its area.

    The first weight holds the rate constant from clock 0 on.
    """

    times: np.ndarray
    clock: np.ndarray
    weights: np.ndarray


def density_by_immse(
    denoiser: Denoiser,
    points: Tensor,
    reference: Linear,
    *,
    levels: int = 128,
    draws: int = 16,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """log p(x) in nats of `points` (B, *shape); errors are over `draws` antithetic noise paths.

    reference: `Linear.fit` of data on the same process, of full rank; the closer the model is to
    it the smaller the error. Raises InputError on processes that are not Gaussian, or a singular
    reference.
    """
    if not isinstance(reference, Linear):
        raise InputError(
            "the reference must be a Linear denoiser, as of Linear.fit(process, data)"
        )
    _same_clock(denoiser, reference)
    points = _checked(denoiser, points)
    extra = _over_draws(denoiser, reference, points, levels, draws, condition, generator)
    base = reference.log_density(points).cpu().numpy()
    return Estimate(base - extra.nats, extra.stderr)


def log_mass(
    denoiser: Denoiser,
    points: Tensor,
    *,
    levels: int = 128,
    draws: int = 16,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """log P(x) in nats of points (B, *shape) of discrete data; errors are over `draws`.

    The cleanest level must resolve the points: what lies beyond it is left out.
    Source: Kong, Brekelmans & Ver Steeg 2023. InputError on fewer than two draws, or no points.

    >>> import torch
    >>> from reverie import log_mass
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import EDM
    >>> points = torch.tensor([[-1.0], [1.0]])  # two points of chance 1/2
    >>> denoiser = Memoriser(EDM(0.02, 40), points)
    >>> log_mass(denoiser, points, generator=torch.Generator().manual_seed(0)).nats.round(1)
    array([-0.8, -0.8])
    """
    cost = _over_draws(denoiser, None, points, levels, draws, condition, generator)
    return Estimate(-cost.nats, cost.stderr)


def guess_gap(
    first: Denoiser,
    second: Denoiser,
    data: Tensor,
    *,
    levels: int = 64,
    condition: Any = None,
    conditions: tuple[Any, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """1/2 int E|xhat_1 - xhat_2|^2 dgamma in nats over rows (n, *shape), with shared noise.

    For two models it is KL(p | q) on data of p (how far one checkpoint drifted from another);
    with `conditions` (of the first, of the second), as in (None, labels), the mutual information
    I(x; c). Never negative, and of lower variance than a difference of curves; a network's error
    biases it up. `condition` goes to both.
    InputError where the two processes differ, or on fewer than two rows.

    >>> import torch
    >>> from reverie import guess_gap
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    >>> p = Linear(VP(), torch.zeros(1), torch.ones(1), torch.eye(1))
    >>> q = Linear(VP(), torch.ones(1), torch.ones(1), torch.eye(1))
    >>> gap = guess_gap(p, q, rows, generator=torch.Generator().manual_seed(0))
    >>> round(gap.nats, 2)  # KL = 1/2
    0.5
    """
    given = conditions if conditions is not None else (condition, condition)
    grid = _grid(first, levels)
    _same_clock(first, second)
    data = _checked(first, data)
    given = [condition_rows(c, len(data), data) for c in given]
    totals = []
    for start in range(0, len(data), BLOCK):
        rows = data[start : start + BLOCK]
        extra = [c if c is None else c[start : start + BLOCK] for c in given]
        totals.append(_gaps(first, second, rows, grid, extra, generator) @ grid.weights)
    total = np.concatenate(totals)
    if len(total) < 2:
        raise InputError(f"an error bar needs at least two rows, not {len(total)}")
    return Estimate(float(total.mean()), float(total.std(ddof=1) / np.sqrt(len(total))))


@torch.no_grad()
def _gaps(
    first: Denoiser,
    second: Denoiser,
    rows: Tensor,
    grid: _Grid,
    conditions: list[Any],
    generator: torch.Generator | None,
) -> np.ndarray:
    """1/2 |xhat_1 - xhat_2|^2 (B, L) on common states."""
    process, out = first.process, []
    with evaluating(first), evaluating(second):
        for time in grid.times:
            t = torch.tensor(time, dtype=torch.float64)
            state = process.corrupt(rows, t, generator=generator)
            given = t.to(state).expand(len(state))
            a, b = (d(state, given, c) for d, c in zip((first, second), conditions, strict=True))
            out.append(process.rate(a, b, state, t).double().cpu().numpy())
    return np.stack(out, axis=1)


def _grid(denoiser: Denoiser, levels: int) -> _Grid:
    process = require_gaussian(denoiser.process, "information by I-MMSE", one_level=True)
    times = level_times(process, levels)
    clock = process.clock(torch.as_tensor(times)).numpy()
    weights = LossCurve(clock, np.ones_like(clock)).weights
    weights[0] += clock[0]
    return _Grid(times, clock, weights)


def _same_clock(first: Denoiser, second: Denoiser) -> None:
    low, high = first.process.t_range
    times = torch.linspace(low, high, 17, dtype=torch.float64)
    same = type(first.process) is type(second.process)
    same = same and first.process.t_range == second.process.t_range
    if not (same and torch.allclose(first.process.clock(times), second.process.clock(times))):
        raise InputError("two denoisers are compared on one process: give both the same")


@torch.no_grad()
def _checked(denoiser: Denoiser, points: Any) -> Tensor:
    """Rows as the denoiser takes them: arrays, integers and other precisions too."""
    rows = as_points(denoiser, points)
    if len(rows) == 0:
        raise InputError("information about no points: give at least one row")
    return rows


def _over_draws(
    denoiser: Denoiser,
    reference: Denoiser | None,
    points: Tensor,
    levels: int,
    draws: int,
    condition: Any,
    generator: torch.Generator | None,
) -> Estimate:
    """Area (B,) under the pointwise rate of `points`, less the reference's on the same noise."""
    if draws < 2:
        raise InputError(f"draws is {draws}; an error bar needs at least two")
    grid, points = _grid(denoiser, levels), _checked(denoiser, points)
    copies = points.repeat(draws, *(1,) * (points.ndim - 1))
    condition = condition_rows(condition, len(points), points)
    given = None if condition is None else condition.repeat(draws, *(1,) * (condition.ndim - 1))
    areas = []
    for start in range(0, len(copies), BLOCK):
        rows = copies[start : start + BLOCK]
        extra = None if given is None else given[start : start + BLOCK]
        seed = int(torch.randint(2**31, (), generator=generator))
        rates = _path(denoiser, rows, grid, extra, seed)
        if reference is not None:
            rates = rates - _path(reference, rows, grid, None, seed)
        areas.append(rates @ grid.weights)
    values = np.concatenate(areas).reshape(draws, len(points))
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(draws))


def _path(denoiser: Denoiser, rows: Tensor, grid: _Grid, condition: Any, seed: int) -> np.ndarray:
    """Rates (B, L) along the levels, the mean of an antithetic pair; the seed is the noise."""
    noise = torch.Generator(rows.device).manual_seed(seed)
    with evaluating(denoiser):
        return level_rates(denoiser, rows, grid.times, condition, noise)
