"""How surely a noised training row comes back to itself under the exact memoriser.

Noise row x_i to X_t = y, and draw from the posterior over the training rows, w_j(y): that is where
the memoriser's exact ancestral reversal ends. So with P_ij = E[w_j(y) | x_i]

    one cycle   P_ii                M cycles    (P^M)_ii >= P_ii^M

and, by the arithmetic-geometric mean, on every space

    1 - P_ii <= A_i = 1/2 sum_{j != i} int sqrt(k(y | x_i) k(y | x_j)) dy

Gaussian noise of variance q per coordinate (in units of the data) gives exp(-d_ij^2 / 8q) under
the sum; from anywhere within r of x_i the nearest row is still x_i with probability at least
1 - A_i(r), A_i(r) = 1/2 sum exp(-d_ij (d_ij - 4r) / 8q), for 4r below the nearest distance (Verma
et al. 2026, Theorem 1, which is Euclidean). A row with A_i = 0 stands alone at that level; A_i = 1
says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reverie.curve import level_times
from reverie.data import some_rows
from reverie.errors import InputError
from reverie.processes import Process

DRAWS = 64
LEVELS, ROWS = 32, 512
SHARES = (0.995, 0.98, 0.9)  # mean weights of a noised row: basins are narrower than cells
REACHES = (0.15, 0.3, 0.5)  # lengths of the noise, of the distance between neighbours
CLEAN = 4  # levels at the clean end that are no use
COSTLY = 64  # rows, where every pair sums a series
LOWEST = 700.0  # of log ratios, whose hyperbolic cosine is still finite
CHUNK = 2**20  # pairs at once


def transitions(
    process: Process,
    points: Tensor,
    t: float,
    *,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """P (N, N) in float64 of points (N, *shape) at noise level t, by `draws` noises of each row.

    Rows sum to 1. InputError for a process without a kernel.
    """
    total = torch.zeros(len(points), len(points), dtype=torch.float64)
    for logs in _log_kernels(process, points, t, draws, generator):
        total += logs.softmax(2).sum(0)
    return total / draws


def affinities(
    process: Process,
    points: Tensor,
    t: float,
    *,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """int sqrt(k(y | x_i) k(y | x_j)) dy of all pairs (N, N), in [0, 1], the diagonal 1.

    Closed form for Gaussian noise; else the mean over `draws` noises of both rows of a pair of
    2 sqrt(k_i k_j) / (k_i + k_j), which lies in [0, 1]: the ratio alone has heavy tails.
    """
    gaussian = process.gaussian
    if gaussian is not None:
        level = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = gaussian.scales(level, points.double())
        modes = (gaussian.to_modes(points.double()) * (alpha / sigma)).flatten(1)
        square = torch.cdist(
            modes, modes, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()  # products cancel where noise is low
        return (-square / 8).exp()
    total = torch.zeros(len(points), len(points), dtype=torch.float64)
    for logs in _log_kernels(process, points, t, draws, generator):
        own = logs.diagonal(dim1=1, dim2=2)
        half = 0.5 * (logs - own[:, :, None]).clamp(-LOWEST, LOWEST)
        total += half.cosh().reciprocal().sum(0)
    return (total + total.T) / (2 * draws)


def lonely(
    process: Process,
    points: Tensor,
    t: float,
    *,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A_i (N,) in [0, 1]: at most so often a row noised to t ends elsewhere (see the module)."""
    pairs = affinities(process, points, t, draws=draws, generator=generator)
    return (0.5 * (pairs.sum(1) - pairs.diagonal())).clamp(0, 1)


def reach_bound(points: Tensor, variance: float, reach: float = 0.0) -> Tensor:
    """A_i(r) (N,) in flat space for additive noise of `variance`, from within `reach` of each row.

    InputError where 4 `reach` is not below the least distance between two rows.
    """
    distance = torch.cdist(points.double().flatten(1), points.double().flatten(1))
    distance.fill_diagonal_(math.inf)
    if reach and not 4 * reach < float(distance.min()):
        raise InputError(
            f"reach is {reach:g}; it must be below a quarter of the least distance, "
            f"{float(distance.min()) / 4:.3g}"
        )
    terms = (-distance * (distance - 4 * reach) / (8 * variance)).exp()
    terms.fill_diagonal_(0)
    return (0.5 * terms.sum(1)).clamp(max=1)


def probe_levels(
    process: Process, rows: Tensor, shares: tuple[float, ...] = SHARES, seed: int = 0
) -> list[float]:
    """Noise levels t at which a row of `rows` is told from all others with these mean weights.

    A function of the rows alone, whatever the model: the levels at which the memoriser's curve
    leaves that of the law. Smaller shares are noisier. For a process without a kernel, levels at
    tenths of the clock's range near its clean end.
    """
    times = level_times(process, LEVELS)
    if not process.has_kernel:
        return [float(times[round((LEVELS - 1) * place)]) for place in (0.9, 0.8, 0.7)]
    few = some_rows(rows, COSTLY if process.costly_kernel else ROWS, seed)
    few = few.double() if few.is_floating_point() else few
    few = torch.unique(few, dim=0)
    generator = torch.Generator().manual_seed(seed)
    own = [
        float(transitions(process, few, float(t), draws=1, generator=generator).diagonal().mean())
        for t in times
    ]
    rising = np.maximum.accumulate(own)
    place = np.arange(LEVELS)
    # at the cleanest levels no noise is left to go round with
    found = [min(float(np.interp(share, rising, place)), LEVELS - CLEAN) for share in shares]
    return [float(np.interp(p, place, times)) for p in found]


def basin_levels(process: Process, rows: Tensor, seed: int = 0) -> list[float]:
    """Noise levels t that move a row (of `rows`) by REACHES of the way to its nearest other row.

    For Gaussian noise: sqrt(d) sigma / alpha = reach x median distance of nearest neighbours. In
    many dimensions the memoriser tells rows apart far noisier than this, but the basins of a
    network are no wider than its rows are near (on digits, d = 64, cycling extracts rows at
    reaches of .2 to .6, and nothing where the memoriser's weights begin to fall, at 1.2 to 1.9).
    Elsewhere `probe_levels`.
    """
    if process.gaussian is None:
        return probe_levels(process, rows, seed=seed)
    few = torch.unique(some_rows(rows, ROWS, seed).double(), dim=0)
    flat = process.gaussian.to_modes(few).flatten(1)
    distance = torch.cdist(flat, flat).fill_diagonal_(math.inf).min(1).values
    width = float(distance.median()) / math.sqrt(flat.shape[1])
    times = level_times(process, LEVELS)  # from noise to data
    spread = process.clock(torch.as_tensor(times)).reshape(LEVELS, -1).log().mean(1).mul(-0.5)
    log = spread.numpy()[::-1]
    least = LEVELS - CLEAN
    found = [float(np.interp(math.log(reach * width), log, times[::-1])) for reach in REACHES]
    return [max(t, float(times[least])) for t in found]


def _log_kernels(
    process: Process, points: Tensor, t: float, draws: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """log k(y_i | x_j) (k, N, N) of k noises of each row at a time, `draws` in all."""
    if not process.has_kernel:
        raise InputError(
            f"{type(process).__name__} has no kernel: nothing is known of its returns"
        )
    level, count = torch.as_tensor(t, dtype=torch.float64), len(points)
    at_once = max(1, min(draws, CHUNK // count**2))
    for start in range(0, draws, at_once):
        many = min(at_once, draws - start)
        state = process.corrupt(
            points.repeat(many, *(1,) * (points.ndim - 1)), level, generator=generator
        )
        logs = process.log_kernel(state, points, level).double()
        yield logs.reshape(many, count, count)
