"""A kernel estimate whose durations follow the data: short where rows crowd, long elsewhere.

Rows are grouped by the distance to their NEIGHBOUR-th nearest row, and every group has its own
weights over the durations (a sample-point estimator, Breiman, Meisel & Purcell 1977, with a
mixture in the place of one width). The weights are those that make held-out rows most likely, by
expectation maximisation: the rows are dealt into folds, and each fold is scored by an estimate
that never saw it, its grouping included.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.denoisers.exact.kernel_mixture import KernelMixture
from reverie.errors import InputError
from reverie.processes import Brownian
from reverie.spaces import Manifold

FOLDS, GROUPS, NEIGHBOUR = 10, 8, 4
LISTED = 24  # neighbours to choose among once a tenth of the rows is left out
LEAST_GROUP = 40  # rows; fewer cannot carry weights of their own
EM_STEPS = 150
LEAST_MASS = 1e-9  # so that no logarithm is infinite
FIT_ROWS = 4096  # more of them hardly move the weights
CHUNK = 512


class Fold(NamedTuple):
    """Rows (B, *shape) that were left out, and the estimate over all others."""

    rows: Tensor
    rest: KernelMixture


class AdaptiveMixture(KernelMixture):
    """The estimate over `data` (N, *shape) with durations `taus` (H,), its weights fitted.

    Durations that the fit gives a weight below `least` are dropped. `folds` are what the weights
    were fitted on: in each, some rows and the estimate without them. groups: how many groups of
    rows have weights of their own (fewer where rows are few; 1: all rows alike). Raises InputError
    on fewer than two rows, and what `KernelMixture` raises.
    Source: after Breiman, Meisel & Purcell 1977 (a sample-point estimator).

    >>> import torch
    >>> from reverie.denoisers import AdaptiveMixture
    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Sphere
    >>> rows = Sphere(2).uniform(60, generator=torch.Generator().manual_seed(0))
    >>> estimate = AdaptiveMixture(Brownian(Sphere(2)), rows, taus=[0.1, 1.0], groups=1)
    >>> estimate.log_density(rows[:3], 0.5).shape  # nats
    torch.Size([3])
    """

    def __init__(
        self,
        process: Brownian,
        data: Tensor,
        taus: list[float],
        groups: int = GROUPS,
        least: float = 1e-3,
    ) -> None:
        data = process.space.check(data.double())
        if len(data) < 2:
            raise InputError(f"an estimate over {len(data)} row cannot leave one out")
        groups = max(1, min(groups, len(data) // LEAST_GROUP))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        near, everyone = nearest(process.space, data), torch.ones(len(data), dtype=torch.bool)
        parts = []
        for out in order.chunk(min(FOLDS, len(data))):
            kept = everyone.clone()
            kept[out] = False
            parts.append((data[out], data[kept], crowding(near, kept, groups)))
        some = math.ceil(FIT_ROWS / len(parts))
        log_parts = torch.cat(
            [_log_parts(process, taus, groups, rows[:some], *rest) for rows, *rest in parts]
        )
        masses = _maximise(log_parts)
        heavy = masses[:, :-1].sum(0) > least
        if heavy.any() and not heavy.all():
            taus = [tau for tau, kept in zip(taus, heavy.tolist(), strict=True) if kept]
            masses = _maximise(log_parts[:, :, [*heavy.tolist(), True]])
        group = crowding(near, everyone, groups)
        super().__init__(process, data, taus, groups * masses[group])
        self.folds = [
            Fold(rows, KernelMixture(process, rest, taus, groups * masses[group]))
            for rows, rest, group in parts
        ]


@torch.no_grad()
def nearest(space: Manifold, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N, K) of points (N, *shape) to their K = LISTED nearest others, and which."""
    count, found = min(LISTED, len(points) - 1), []
    for rows in torch.arange(len(points)).split(CHUNK):
        far = space.distances(points[rows], points)
        far[torch.arange(len(rows)), rows] = math.inf
        found.append(far.topk(count, largest=False))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def crowding(near: tuple[Tensor, Tensor], kept: Tensor, groups: int) -> Tensor:
    """The group (n,) of each of the rows `kept` (N,) of them: 0 the most crowded, all of one size.

    By the distance to the NEIGHBOUR-th nearest kept row, ties in the order of the rows. near:
    what `nearest` found among all rows.
    """
    distance, index = (part[kept] for part in near)
    counted = kept[index].cumsum(1)
    place = (counted < NEIGHBOUR).sum(1).clamp(max=distance.shape[1] - 1)
    reach = distance.gather(1, place[:, None])[:, 0]
    rank = reach.argsort(stable=True).argsort()
    return rank * groups // len(rank)


@torch.no_grad()
def _log_parts(
    process: Brownian, taus: list[float], groups: int, rows: Tensor, rest: Tensor, group: Tensor
) -> Tensor:
    """Log-densities (B, G, H + 1) at `rows` of every group of `rest` and duration, and uniform."""
    even, start, each = torch.ones(len(taus) + 1), torch.zeros(()), []
    for g in range(groups):
        bare = KernelMixture(process, rest[group == g], taus, even)
        parts = rows.to(bare.kind).split(CHUNK)
        each.append(torch.cat([bare.read(part, start)[0] for part in parts]))
    return torch.stack(each, 1).double() + math.log(len(even))


def _maximise(log_parts: Tensor) -> Tensor:
    """Masses (G, H + 1), sum 1, of highest likelihood for log-densities (B, G, H + 1)."""
    masses = torch.full(log_parts.shape[1:], 1 / log_parts[0].numel(), dtype=torch.float64)
    for _ in range(EM_STEPS):
        logits = (log_parts + masses.log()).flatten(1)
        masses = logits.softmax(1).mean(0).clamp(min=LEAST_MASS).reshape(masses.shape)
    return masses / masses.sum()
