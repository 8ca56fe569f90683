"""Sequential Monte Carlo: annealed particles that are resampled, in independent islands.

Each island's Z-hat is unbiased for any temperatures, steps and thresholds that were fixed before
(Del Moral, Doucet & Jasra 2006): a pilot adapts them, and is thrown away. An island is the n = 1
of the contract: `rollout(count)` returns a point and the log Z-hat of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.targets.annealing import Annealing, Progress, resampled
from reverie.targets.kernels import reversible
from reverie.targets.pair import PathPair, Rollout, direction_is_forward
from reverie.targets.starts import GaussianStart
from reverie.targets.target import Point, Target

THRESHOLD = 0.5  # effective share of an island below which it is resampled
BLOCK = 1 << 18  # numbers of a state that are moved at once


@dataclass(eq=False)
class Islands:
    """Particles x (R, n, dim) with log weights (R, n), of sum 1 in an island, and log Z (R,).

    roots: (R,), how many particles of the start, in effect, an island descends from. kept: (R, K),
    rank correlation of U = log gamma - log pi_0 before and after the moves of each temperature.

    >>> import torch
    >>> from reverie.targets import SMC, Gaussian, Islands, Target, anneal
    >>> target, noise = Target(Gaussian([1.0], [[0.25]]), 1), torch.Generator().manual_seed(0)
    >>> found = SMC(target, anneal(target, n=256, generator=noise), size=64).islands(8, noise)
    >>> isinstance(found, Islands), found.x.shape, found.log_z.shape, found.drawn(100, noise).shape
    (True, torch.Size([8, 64, 1]), torch.Size([8]), torch.Size([100, 1]))
    """

    x: Tensor
    log_weight: Tensor
    log_z: Tensor
    roots: Tensor
    kept: Tensor
    resamplings: int = 0

    @property
    def memory(self) -> float:
        """The most that moves leave of U's order at a temperature, over all islands: 0 to 1."""
        alive = self.kept[torch.isfinite(self.log_z)]
        return float(alive.mean(0).max().clamp(min=0)) if alive.numel() else 0.0

    def only(self, which: slice) -> Islands:
        """Some of the islands."""
        return Islands(*(getattr(self, name)[which] for name in _TENSORS))

    def drawn(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n particles (n, dim) of equal weight, over all islands."""
        logs = self.log_weight + self.log_z[:, None]
        share = torch.softmax(logs.reshape(-1), 0)
        rows = _spread(share, n, generator)
        return self.x.reshape(-1, self.x.shape[2])[rows]

    def effective(self) -> float:
        """Effective particles of the final weights, islands weighed by their Z."""
        share = torch.softmax((self.log_weight + self.log_z[:, None]).reshape(-1), 0)
        return float(1 / share.square().sum())


class SMC(PathPair):
    """Islands of particles along a frozen annealing path.

    size: particles of an island. moves: of the kernel at each temperature. InputError on a
    path of ULA, which is not reversible.

    >>> import torch
    >>> from reverie.targets import SMC, Target, anneal
    >>> target = Target(lambda x: -0.5 * x.square().sum(1), 1)
    >>> noise = torch.Generator().manual_seed(0)
    >>> pair = SMC(target, anneal(target, n=256, generator=noise), size=64)
    >>> z = pair.rollout(32, generator=noise).log_weight.exp()  # one of each island
    >>> round(float(z.mean()), 1)  # sqrt(2 pi)
    2.5
    """

    def __init__(
        self, target: Target, annealing: Annealing, *, size: int = 256, moves: int = 1
    ) -> None:
        super().__init__()
        if annealing.kernel == "ula":
            raise InputError("SMC moves by kernels that are reversible: hmc, mala, random-walk")
        self.target, self.annealing, self.size, self.moves = target, annealing, size, moves

    def rollout(
        self,
        n: int,
        *,
        direction: str = "forward",
        ends: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """n islands: a particle drawn from each, and its log Z-hat. There is no backward chain."""
        if not direction_is_forward(direction, ends):
            raise InputError("islands have no backward chain: their upper bound is not known")
        found = self.islands(n, generator)
        pick = torch.multinomial(found.log_weight.exp(), 1, generator=generator)
        states = found.x.gather(1, pick[:, :, None].expand(-1, 1, found.x.shape[2]))[:, 0]
        return Rollout(states, found.log_z, True)

    @torch.no_grad()
    def islands(
        self,
        count: int,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Islands:
        """`count` independent islands, as many at once as memory is kept bounded with."""
        most = max(1, BLOCK // (self.size * self.target.dim))
        parts, done = [], 0
        while done < count:
            some = min(most, count - done)
            parts.append(self._together(some, generator, progress if some == count else None))
            done += some
            if progress is not None and some != count:
                progress(done, count)
        joined = [torch.cat([getattr(p, k) for p in parts]) for k in _TENSORS]
        return Islands(*joined, resamplings=sum(p.resamplings for p in parts))

    def _together(
        self, count: int, generator: torch.Generator | None, progress: Progress | None
    ) -> Islands:
        path, start = self.annealing, self.annealing.start
        crowd = Population(self.target.at(start.sample(count * self.size, generator)), count)
        gain, kept = _gain(crowd.point, start), []
        for k, bath in enumerate(path.baths):
            delta = float(path.temperatures[k + 1] - path.temperatures[k])
            crowd.weigh(delta * gain)
            crowd.resample(generator)
            before = _gain(crowd.point, start)
            for _ in range(self.moves):
                crowd.point = reversible(path.kernel, bath, crowd.point, generator).point
            gain = _gain(crowd.point, start)
            kept.append(crowd.correlation(before, gain))
            if progress is not None:
                progress(k + 1, path.steps)
        return crowd.islands(torch.stack(kept, 1))


class Population:
    """Weighted particles of several islands on their way."""

    def __init__(self, point: Point, count: int) -> None:
        n = len(point) // count
        self.point, self.count, self.size, self.resamplings = point, count, n, 0
        self.logs = torch.full((count, n), -math.log(n), dtype=point.x.dtype)
        self.log_z = torch.zeros(count, dtype=point.x.dtype)
        self.roots = torch.arange(n).expand(count, n).clone()

    def weigh(self, gain: Tensor) -> None:
        """Add log weights (count * size,) and normalise them island by island."""
        logs = self.logs + gain.reshape(self.count, self.size)
        total = torch.logsumexp(logs, 1, keepdim=True)
        self.log_z = self.log_z + total[:, 0]
        # an island without weight keeps -inf, and its Z is 0
        self.logs = torch.where(torch.isfinite(total), logs - total, logs)

    def resample(self, generator: torch.Generator | None = None) -> None:
        """Resample the islands whose effective share is below `THRESHOLD`."""
        n, share = self.size, self.logs.exp()
        alive = torch.isfinite(self.log_z)
        low = (1 / share.square().sum(1).clamp(min=1e-300) < THRESHOLD * n) & alive
        if not bool(low.any()):
            return
        self.resamplings += int(low.sum())
        index = torch.arange(n).expand(self.count, n).clone()
        index[low] = resampled(share[low], generator)
        offset = (torch.arange(self.count) * n)[:, None]
        self.point = self.point.taken((index + offset).reshape(-1))
        self.roots = self.roots.gather(1, index)
        self.logs = torch.where(low[:, None], -math.log(n), self.logs)

    def correlation(self, before: Tensor, after: Tensor) -> Tensor:
        """Spearman's correlation (count,) of two values (count * size,) of the particles."""
        share = self.logs.exp()
        first, second = (
            v.reshape(self.count, self.size).argsort(1).argsort(1).to(share)
            for v in (before, after)
        )
        first, second = (v - (share * v).sum(1, keepdim=True) for v in (first, second))
        both = (share * first * second).sum(1)
        square = (share * first.square()).sum(1) * (share * second.square()).sum(1)
        return both / square.sqrt().clamp(min=1e-12)

    def islands(self, kept: Tensor | None = None) -> Islands:
        """What they are now; kept: see `Islands`, by default of no temperature."""
        x = self.point.x.reshape(self.count, self.size, -1)
        families = _families(self.roots, self.logs.exp())
        kept = x.new_zeros(self.count, 0) if kept is None else kept
        return Islands(x, self.logs, self.log_z, families, kept, self.resamplings)


_TENSORS = ("x", "log_weight", "log_z", "roots", "kept")


def _gain(point: Point, start: GaussianStart) -> Tensor:
    """U (n,), whose mean the path raises."""
    return point.log_density - start.log_prob(point.x)


def _families(roots: Tensor, share: Tensor) -> Tensor:
    """1 / sum of squared shares of families with one root, island by island."""
    whole = torch.zeros_like(share).scatter_add_(1, roots, share)
    return 1 / whole.square().sum(1).clamp(min=1e-300)


def _spread(share: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """n systematic draws (n,) of shares (m,), in random order."""
    shift = torch.rand(1, dtype=share.dtype, generator=generator)
    law = torch.cumsum(share, 0)
    places = (shift + torch.arange(n, dtype=share.dtype)) / n
    rows = torch.searchsorted(law / law[-1], places).clamp(max=len(share) - 1)
    return rows[torch.randperm(n, generator=generator)]
