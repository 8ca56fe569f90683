"""Likelihoods of a score on a manifold: by the probability flow, and by a variational bound.

Both are of the model's law at its cleanest duration tau_min, in nats with respect to the volume.
The flow (De Bortoli et al. 2022; Song et al. 2021): dx/dtau = -1/2 s, and

    log p(x) = log p_T(x_T) - 1/2 int div s dtau.

The bound (Huang et al. 2022, Theorem 2 with fixed inference; here with exact increments):

    -log p(x) <= E[-log p_T(Y_T) + int (1/2 |s|^2 + div s) dtau | Y = x],

tight for the exact score. Its integral over tau is one draw tau ~ q, divided by q: the least
variance has q proportional to the root mean square of the integrand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.information.flow import LogLikelihood, integrate
from reverie.objectives.score_matching import implicit_integrand
from reverie.processes import Brownian
from reverie.processes.riemannian import require_manifold_noise
from reverie.spaces.divergence import divergence, probes


@torch.no_grad()
def manifold_flow_density(
    denoiser: Denoiser,
    x: Tensor,
    *,
    directions: int | None = None,
    tolerance: float = 1e-5,
    generator: torch.Generator | None = None,
) -> LogLikelihood:
    """Log-density in nats of points x (B, *shape) under the model's probability flow.

    directions: how many random directions estimate the divergence (Hutchinson 1989), fixed along
        a path up to the choice of frame; None (default) is exact, `dim` gradients an evaluation.
    The standard error is 0 when exact and nan otherwise. Raises InputError on points off the
    manifold, without torchdiffeq, or on another process than Brownian.
    """
    process = require_manifold_noise(denoiser.process, "this likelihood")
    space, kind, evaluations = process.space, x.dtype, 0
    space.check(x)
    seeds = torch.Generator(device=x.device)
    seed = int(torch.randint(2**31, (), generator=generator))

    def slope(log_tau: Tensor, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal evaluations
        evaluations += 1
        tau = log_tau.exp()
        y = space.project(both[0]).to(kind)
        t = process.time(1 / tau).to(kind).expand(len(y))
        along = None
        if directions is not None:
            along = probes(space, y, directions, generator=seeds.manual_seed(seed))
        score, spread = divergence(space, lambda state: denoiser(state, t), y, along)
        return -0.5 * tau * score.double(), 0.5 * tau * spread.double()

    ends = torch.tensor([process.tau_min, process.tau_max], dtype=torch.float64).log()
    start = (x.double(), x.new_zeros(len(x), dtype=torch.float64))
    with evaluating(denoiser):
        end, spent = integrate(slope, start, ends, tolerance)
    nats = process.log_prior(space.project(end)) - spent
    error = torch.full_like(nats, 0.0 if directions is None else math.nan)
    return LogLikelihood(nats, error, evaluations)


class DurationLaw:
    """Draws durations for the bound: constant density per bin of log tau, learned from integrands.

    At the start every bin is alike; `learn` makes the density follow sqrt(E[(tau l)^2]) with a
    tenth kept uniform, so that no bin dies out.
    """

    def __init__(self, process: Brownian, bins: int = 32) -> None:
        low, high = math.log(process.tau_min), math.log(process.tau_max)
        self.low, self.width = low, (high - low) / bins
        self.mass = torch.full((bins,), 1 / bins, dtype=torch.float64)

    def draw(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Durations (n,) and 1 / density per unit of tau (n,)."""
        bins = torch.multinomial(self.mass, n, replacement=True, generator=generator)
        place = torch.rand(n, generator=generator, dtype=torch.float64)
        tau = (self.low + (bins + place) * self.width).exp()
        return tau, tau * self.width / self.mass[bins]

    def learn(self, tau: Tensor, integrand: Tensor) -> None:
        """Set the masses from integrands l(tau) (n,) of a pilot."""
        place = (tau.log() - self.low) / self.width
        bins = place.long().clamp(0, len(self.mass) - 1)
        square = (tau * integrand.double()).square()
        count = torch.bincount(bins, minlength=len(self.mass)).clamp(min=1)
        size = (torch.bincount(bins, square, minlength=len(self.mass)) / count).sqrt()
        if float(size.sum()) > 0:
            self.mass = 0.9 * size / size.sum() + 0.1 / len(self.mass)


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    x: Tensor,
    *,
    draws: int = 64,
    law: DurationLaw | None = None,
    directions: int | None = None,
    generator: torch.Generator | None = None,
) -> LogLikelihood:
    """Lower bound in nats (B,) of the log-density of points x (B, *shape), and its standard error.

    draws: durations a point (at least 2). law: a `DurationLaw` to draw them from; by default one
    is learned from a pilot of 2,048 draws. directions: as in `manifold_flow_density`.
    """
    process = require_manifold_noise(denoiser.process, "this likelihood")
    if draws < 2:
        raise InputError(f"draws is {draws}; the bound needs at least 2 durations a point")
    process.space.check(x)
    with evaluating(denoiser):
        if law is None:
            law = DurationLaw(process)
            rows = torch.randint(len(x), (2048,), generator=generator)
            tau, _ = law.draw(len(rows), generator=generator)
            law.learn(tau, _integrand(denoiser, x[rows], tau, directions, generator))
        values = []
        for _ in range(draws):
            tau, spread = law.draw(len(x), generator=generator)
            cost = spread * _integrand(denoiser, x, tau, directions, generator).double()
            last = torch.full_like(tau, process.tau_max - process.tau_min)
            end = process.spread(x.double(), last, generator=generator)
            values.append(process.log_prior(end) - cost)
    each = torch.stack(values)
    return LogLikelihood(each.mean(0), each.std(0) / math.sqrt(draws), draws)


def _integrand(
    denoiser: Denoiser,
    x: Tensor,
    tau: Tensor,
    directions: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    process = require_manifold_noise(denoiser.process, "this likelihood")
    state = process.spread(x, tau - process.tau_min, generator=generator)
    t = process.time(1 / tau)
    return implicit_integrand(denoiser, state, t, directions=directions, generator=generator)
