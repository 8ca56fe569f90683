"""The simplex as a domain: isotropic Gaussians cut to {x >= 0, sum x = 1}.

On the simplex N(z, v) does not change when all of z is shifted alike, and it is the law of
independent half-line Gaussians N(z_i + c, v), x_i >= 0, given that they sum to 1. The shift c is
chosen so that their means do; then all but one coordinate are drawn, the last one is what is left,
and it is taken with the chance of its own density there: exact by rejection, at every variance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.domains import LEAST, Box, Domain

NEWTON = 30  # steps to the shift; it sets how many are rejected, not the law
TRIES = 1000  # rounds of rejection
QUIET = 128  # quasi-random trials of a mean
ROUNDING = 1e-5  # of a sum of shares


class Simplex(Domain):
    """Shares of `dim` parts: {x >= 0, sum x = 1}. InputError on fewer than two.

    Draws are exact. Means are those of 128 quasi-random trials, weighted, and so the rougher the
    more parts there are: up to .07 of a deviation off at three, .4 at six. They lie inside, and
    their gradient is the covariance of these trials.
    States are (B, dim). Source: Liu, Wu, Ye & Liu 2022, 2023; draws and means are derived here.

    >>> import torch
    >>> from reverie.bridges import DomainBridge, Simplex
    >>> draw = torch.Generator().manual_seed(0)
    >>> shares = DomainBridge(Simplex(3)).generate(100, steps=5, generator=draw)
    >>> bool((shares >= 0).all()), shares.sum(1).std().round(decimals=6)
    (True, tensor(0., dtype=torch.float64))
    """

    def __init__(self, dim: int) -> None:
        if dim < 2:
            raise InputError(f"a simplex of {dim} parts; it has at least two")
        self.dim = dim
        self.half = Box([0.0] * dim, [float("inf")] * dim)
        places = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(QUIET)
        self.places = places.double().clamp(1e-6, 1 - 1e-6)

    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        v = variance.double().clamp(min=LEAST)
        centre = self._shifted(z.double(), v)
        x, open_ = self._nearest(centre, v), torch.arange(len(z))
        for _ in range(TRIES):
            chance = torch.rand((len(open_), self.dim), generator=generator, dtype=torch.float64)
            tried, log_chance = self._tries(centre[open_], v[open_], chance)
            unit = torch.rand(len(open_), generator=generator, dtype=torch.float64)
            taken = unit.log() < log_chance
            x[open_[taken]] = tried[taken]
            open_ = open_[~taken]
            if len(open_) == 0:
                break
        return x.to(z)

    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        v = variance.double().clamp(min=LEAST).repeat_interleave(QUIET)
        with torch.no_grad():
            centre = self._shifted(z.double(), variance.double().clamp(min=LEAST))
            many = centre.repeat_interleave(QUIET, 0)
            tried, log_chance = self._tries(many, v, self.places.repeat(len(z), 1))
            tried = tried.reshape(len(z), QUIET, self.dim)
            weight = log_chance.reshape(len(z), QUIET).softmax(1)
            middle = (weight[..., None] * tried).sum(1)
        if not z.requires_grad:
            return middle.to(z)
        off = tried - middle[:, None]
        spread = torch.einsum("bn,bni,bnj->bij", weight, off, off) / v[::QUIET, None, None]
        return (middle + torch.einsum("bij,bj->bi", spread, z - z.detach())).to(z)

    def contains(self, x: Tensor) -> Tensor:
        return (x >= 0).all(1) & ((x.double().sum(1) - 1).abs() <= ROUNDING)

    def _shifted(self, z: Tensor, v: Tensor) -> Tensor:
        """z (B, dim) and its shift, by Newton's steps on the sum of the half-line means."""
        centre = z + (1 - z.sum(1, keepdim=True)) / self.dim
        centre = centre + (1 / self.dim - centre.amax(1, keepdim=True)).clamp(min=0)
        for _ in range(NEWTON):
            mean = self.half.mean(centre, v)
            # of a cut Gaussian: variance = v - mean (mean - centre)
            slope = (1 - mean * (mean - centre) / v[:, None]).clamp(min=1e-6).sum(1, keepdim=True)
            off = mean.sum(1, keepdim=True) - 1
            step = (off / slope).clamp(-1e3, 1e3)
            centre = centre - step
        return centre

    def _tries(self, centre: Tensor, v: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, dim) that sum to 1, of uniform chances (B, dim), and the log of the chance
        with which each is taken."""
        last = self.half.mean(centre, v).argmax(1, keepdim=True)  # what is left over
        x = self.half.quantile(centre, v, chance).scatter(1, last, 0.0)
        rest, middle = 1 - x.sum(1), centre.gather(1, last)[:, 0]
        best = middle.clamp(min=0)
        log = ((best - middle).square() - (rest - middle).square()) / (2 * v)
        log_chance = torch.where(rest >= 0, log, -torch.inf)
        return x.scatter(1, last, rest.clamp(min=0)[:, None]), log_chance

    def _nearest(self, centre: Tensor, v: Tensor) -> Tensor:
        """The half-line means, made to sum to 1: for a row that no round has taken."""
        mean = self.half.mean(centre, v).clamp(min=0)
        return mean / mean.sum(1, keepdim=True)
