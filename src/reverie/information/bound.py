"""A bound on -log p(x), for every process: the prior, the path and the last denoise, in nats.

    -log p(x) <= KL(p(x_1 | x) || prior) + int rate(u) du + (cost of the last denoise)

    Gaussian noise      continuous time, or a sampler's steps; densities, or values on a grid
                        (Kingma et al. 2021, eq. 11 and 15)
    jumps               for masking both ends are 0 and the bound is tight for the exact denoiser
    products            the sum over the parts' clocks, along the one path that they take
    bridges             Gaussian noise on numbers and one-hot symbols; at the end their chance
    linear SDEs         path by 1/2 e^T (-dGamma/dt) e, decoder N(y, Gamma_0^-1)
    manifolds           Huang et al. 2022, Theorem 2; with respect to the volume

`bound` asks one registry by process, `bound_of`, which is open: `@bound_of.register`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import Z95, as_points, measure
from reverie.denoisers import Denoiser, condition_rows
from reverie.denoisers.rates import block_rows
from reverie.errors import InputError
from reverie.information.manifolds import elbo
from reverie.objectives.variational import state_bound
from reverie.processes import (
    Brownian,
    DomainBridges,
    GaussianProcess,
    JumpProcess,
    LinearSDE,
    Process,
    ProductProcess,
)
from reverie.processes.base import Guess
from reverie.processes.gaussian import require_gaussian
from reverie.processes.times import bound_rate, low_discrepancy

# of a process, a guess, rows and a generator: nats before the first level, and after the last
Ends = Callable[[Any, Guess, Tensor, Any], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Bound:
    """Mean upper bound on -log p(x) in nats per sample, by its three parts; dim coordinates.

    each: the total of every row, one unbiased estimate.
    each: (n,).

    >>> import torch
    >>> from reverie import bound
    >>> from reverie.denoisers import Linear
    >>> from reverie.information import Bound
    >>> from reverie.processes import VP
    >>> rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> found = bound(Linear.fit(VP(), rows), rows, generator=torch.Generator().manual_seed(1))
    >>> isinstance(found, Bound), found.each.shape, round(found.nats, 1)  # 2.84 for N(0, I)
    (True, (500,), 2.9)
    """

    prior: float
    diffusion: float
    reconstruction: float
    stderr: float  # of the total, over rows
    dim: int
    each: np.ndarray = field(repr=False, compare=False)  # (n,) totals of the rows, in nats

    @property
    def nats(self) -> float:
        return self.prior + self.diffusion + self.reconstruction

    @property
    def bits_per_dim(self) -> float:
        return self.nats / (self.dim * math.log(2))

    def __str__(self) -> str:
        half = Z95 * self.stderr / (self.dim * math.log(2))
        return f"{self.bits_per_dim:.4f} +- {half:.4f} bits per dimension ({self.nats:.4g} nats)"


def bound(
    denoiser: Denoiser,
    data: Tensor | np.ndarray,
    *,
    condition: Any = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Bound:
    """Bound -log p of data (n, *shape), in the units of the denoiser, whatever its process.

    options, of Gaussian noise: values, the grid (V,) that discrete data lie on (the bound is then
    on probabilities); steps, of a sampler even in t (None is continuous time, from a curve of
    `levels`, default 128). Of jumps and manifolds: draws, noise levels a row. condition: as in
    `measure`. Raises InputError on a process that nobody registered, fewer than two rows, points
    outside the space, and options that the process does not have.
    Source: Kingma et al. 2021, eq. 11 and 15 (Gaussian noise); Huang et al. 2022, theorem 2
    (manifolds, with respect to the volume).

    >>> import torch
    >>> from reverie import bound
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> found = bound(Linear.fit(VP(), rows), rows, generator=torch.Generator().manual_seed(1))
    >>> round(found.nats, 1), round(found.bits_per_dim, 1)  # N(0, I): log(2 pi) + 1 nats
    (2.9, 2.1)
    """
    rows = denoiser.process.space.check(as_points(denoiser, data))
    if len(rows) < 2:
        raise InputError(f"an error bar needs at least two rows, not {len(rows)}")
    told = condition_rows(condition, len(rows), rows)
    try:
        return bound_of(denoiser.process, denoiser, rows, told, generator, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        name = str(error).rpartition(" ")[2].strip("'")
        kind = type(denoiser.process).__name__
        raise InputError(f"the bound on {kind} takes no option {name}") from error


@singledispatch
def bound_of(
    process: Process,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
) -> Bound:
    """The bound on one process; register a function of these arguments for a class of them.

    rows: (n, *shape); a bound of -log p(x) in nats. InputError where no function is registered.

    >>> from reverie.information import bound_of
    >>> from reverie.processes import VP, GaussianProcess
    >>> bound_of.dispatch(VP) is bound_of.dispatch(GaussianProcess)
    True
    """
    raise InputError(
        f"no bound is known for {type(process).__name__}: register one with "
        "reverie.information.bound_of.register"
    )


@bound_of.register(GaussianProcess)
@torch.no_grad()
def _gaussian(
    process: GaussianProcess,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    *,
    values: Tensor | None = None,
    steps: int | None = None,
    levels: int = 128,
) -> Bound:
    require_gaussian(process, "this bound", one_level=True)
    at: int | np.ndarray = levels
    if steps is not None:
        low, high = process.t_range
        times = torch.linspace(high, low, steps + 1, dtype=torch.float64)
        at = process.clock(times).numpy()
    curve = measure(
        denoiser, rows, at, generator=generator, keep_samples=True, condition=condition
    )
    assert curve.per_sample is not None
    if steps is None:
        path, weights = curve.area(), curve.weights
    else:
        weights = np.append(np.diff(curve.u), 0.0)
        path = float((weights * curve.rate).sum())
    each = (curve.per_sample.astype(np.float64) * weights).reshape(len(rows), -1).sum(1)
    prior = process.prior_kl(rows).double().cpu().numpy()
    decoded = process.reconstruction(rows, values, generator=generator).double().cpu().numpy()
    return _bound(rows, prior, each, decoded, path)


@bound_of.register(JumpProcess)
@torch.no_grad()
def _jumps(
    process: JumpProcess,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    *,
    draws: int = 64,
) -> Bound:
    """draws: noise levels, shared by the rows, two in each of draws / 2 equal strata of t."""
    return _of_draws(process, denoiser, rows, condition, generator, draws, _jump_ends)


@bound_of.register(ProductProcess)
@torch.no_grad()
def _products(
    process: ProductProcess,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    *,
    values: Tensor | None = None,
    draws: int = 64,
) -> Bound:
    """values: the grid that all numbers lie on; None for densities. draws: as for jumps."""

    def ends(process: Any, guess: Guess, block: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
        state, at = _cleanest(process, block, noise)
        last = process.reconstruction(guess(state, at), block, state, values, generator=noise)
        return process.opening(guess, block, generator=noise), last

    return _of_draws(process, denoiser, rows, condition, generator, draws, ends)


@bound_of.register(DomainBridges)
@torch.no_grad()
def _bridges(
    process: DomainBridges,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    *,
    values: Tensor | None = None,
    draws: int = 64,
) -> Bound:
    """values: the grid that all numbers lie on; None for densities. draws: as for jumps."""

    def ends(process: Any, guess: Guess, block: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
        state, at = _cleanest(process, block, noise)
        last = process.reconstruction(guess(state, at), block, values, generator=noise)
        return torch.zeros_like(at), last

    return _of_draws(process, denoiser, rows, condition, generator, draws, ends)


def _jump_ends(process: Any, guess: Guess, rows: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
    """What of the path lies before the first level (nothing), and the last denoise (B,)."""
    state, at = _cleanest(process, rows, noise)
    return torch.zeros_like(at), process.reconstruction(guess(state, at), rows, state)


def _cleanest(process: Process, rows: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
    """States of rows at the cleanest level, and its time (B,)."""
    low = process.t_range[0]
    at = torch.full((len(rows),), low, dtype=torch.float64, device=rows.device)
    return process.corrupt(rows, low, generator=noise), at


def _of_draws(
    process: Any,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    draws: int,
    ends: Ends,
) -> Bound:
    """The bound on a process whose path is summed over `draws` times, block by block of rows."""
    times = low_discrepancy((draws + 1) // 2, process.t_range, generator)
    size = block_rows(process, rows)
    blocks = rows.split(size)
    given = [None] * len(blocks) if condition is None else condition.split(size)
    parts = [
        _path_and_ends(process, denoiser, block, told, times, generator, ends)
        for block, told in zip(blocks, given, strict=True)
    ]
    path, last = (torch.cat(part) for part in zip(*parts, strict=True))
    return _bound(rows, *_arrays(process.prior_kl(rows), path, last))


def _path_and_ends(
    process: Process,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    times: Tensor,
    generator: torch.Generator | None,
    ends: Ends,
) -> tuple[Tensor, Tensor]:
    """Path and last denoise (B,) in nats of one block of rows."""

    def guess(state: Tensor, t: Tensor) -> Tensor:
        told = None if condition is None else condition.repeat(len(state) // len(rows), *extra)
        return denoiser(state, t, told)

    extra = () if condition is None else (1,) * (condition.ndim - 1)
    low, high = process.t_range
    path = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    # with their mirror images, so that the offset the rows share costs nothing to first order
    for t in torch.cat([times, low + high - times]):
        rate = bound_rate(process, guess, rows, t, generator=generator)
        path = path + rate * (high - low) / (2 * len(times))
    before, last = ends(process, guess, rows, generator)
    return path + before, last


@bound_of.register(LinearSDE)
@torch.no_grad()
def _states(
    process: LinearSDE,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
) -> Bound:
    parts = state_bound(denoiser, rows, condition=condition, generator=generator)
    return _bound(rows, *_arrays(*parts))


@bound_of.register(Brownian)
def _manifold(
    process: Brownian,
    denoiser: Denoiser,
    rows: Tensor,
    condition: Any,
    generator: torch.Generator | None,
    *,
    draws: int = 64,
    directions: int | None = None,
) -> Bound:
    """draws: durations a row. directions: of the divergence; None is exact."""
    if condition is not None:
        raise InputError("the bound on a manifold takes no condition")
    found = elbo(denoiser, rows, draws=draws, directions=directions, generator=generator)
    none = np.zeros(len(rows))
    return _bound(rows, none, -found.nats.cpu().numpy(), none)


def _arrays(
    prior: Tensor, path: Tensor, last: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prior, path, last = (part.double().cpu() for part in (prior, path, last))
    return prior.numpy(), path.numpy(), last.numpy()


def _bound(
    rows: Tensor,
    prior: np.ndarray,
    path: np.ndarray,
    last: np.ndarray,
    area: float | None = None,
) -> Bound:
    """The mean of the rows' parts (n,); area: of the path, where it is known better."""
    each = prior + path + last
    error = float(each.std(ddof=1) / math.sqrt(len(rows)))
    diffusion = float(path.mean()) if area is None else area
    dim = math.prod(rows.shape[1:])
    return Bound(float(prior.mean()), diffusion, float(last.mean()), error, dim, each)
