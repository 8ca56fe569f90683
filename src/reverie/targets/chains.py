"""A long run of Markov chains: reference draws where nobody ships them, and whether they agree.

Chains start from particles of an annealed path and move by the kernel at the target itself. R-hat
compares halves of chains with one another, on ranks and on folded ranks, coordinate by coordinate
(Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, arXiv 1903.08008): below 1.01 they agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from reverie.errors import InputError
from reverie.targets.annealing import Annealing, Progress
from reverie.targets.kernels import reversible
from reverie.targets.smc import SMC
from reverie.targets.target import Target


@dataclass(eq=False)
class LongRun:
    """Draws (chains, kept, dim) and R-hat of each coordinate (dim,).

    >>> import torch
    >>> from reverie.targets import Gaussian, LongRun, Target, anneal, long_run
    >>> target, noise = Target(Gaussian([1.0], [[0.25]]), 1), torch.Generator().manual_seed(0)
    >>> path = anneal(target, n=256, generator=noise)
    >>> found = long_run(target, path, chains=8, moves=200, generator=noise)
    >>> isinstance(found, LongRun), found.points.shape
    (True, torch.Size([800, 1]))
    """

    draws: Tensor
    r_hat: np.ndarray

    @property
    def points(self) -> Tensor:
        """All draws (chains * kept, dim)."""
        return self.draws.reshape(-1, self.draws.shape[2])


@torch.no_grad()
def long_run(
    target: Target,
    annealing: Annealing,
    *,
    chains: int = 32,
    moves: int = 2000,
    every: int = 1,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> LongRun:
    """Chains of `moves` moves each at the target; the first half is left out.

    annealing: a path whose last kernel moves them, and whose particles they start from. every: of
    the moves that are kept. InputError on fewer than two chains, or too few moves to judge.

    >>> import torch
    >>> from reverie.targets import Gaussian, Target, anneal, long_run
    >>> target, noise = Target(Gaussian([1.0], [[0.25]]), 1), torch.Generator().manual_seed(0)
    >>> path = anneal(target, n=256, generator=noise)
    >>> found = long_run(target, path, chains=8, moves=400, generator=noise)
    >>> found.draws.shape, bool(found.r_hat.max() < 1.05)
    (torch.Size([8, 200, 1]), True)
    """
    if chains < 2 or moves < 8 * every:
        raise InputError("a long run needs at least two chains, of eight kept moves each")
    begun = SMC(target, annealing, size=chains).islands(1, generator)
    point = target.at(begun.drawn(chains, generator))
    kept = []
    for k in range(moves):
        point = reversible(annealing.kernel, annealing.baths[-1], point, generator).point
        if k >= moves // 2 and (k + 1) % every == 0:
            kept.append(point.x)
        if progress is not None:
            progress(k + 1, moves)
    draws = torch.stack(kept, 1)
    return LongRun(draws, r_hat(draws))


def r_hat(draws: Tensor) -> np.ndarray:
    """Rank-normalised split R-hat (dim,) of draws (chains, kept, dim)."""
    half = draws.shape[1] // 2
    parts = torch.cat([draws[:, :half], draws[:, -half:]]).double().numpy()
    folded = np.abs(parts - np.median(parts, axis=(0, 1)))
    return np.maximum(_ratio(_normal_scores(parts)), _ratio(_normal_scores(folded)))


def _normal_scores(parts: np.ndarray) -> np.ndarray:
    chains, kept, dim = parts.shape
    ranks = stats.rankdata(parts.reshape(-1, dim), axis=0)
    scores = stats.norm.ppf((ranks - 0.375) / (chains * kept + 0.25))
    return scores.reshape(parts.shape)


def _ratio(parts: np.ndarray) -> np.ndarray:
    kept = parts.shape[1]
    within = parts.var(1, ddof=1).mean(0)
    between = parts.mean(1).var(0, ddof=1)
    return np.sqrt((kept - 1) / kept + between / np.maximum(within, 1e-300))
