"""Twisted sequential Monte Carlo: weighted particles that are exact in the limit of many.

Particles follow ancestral steps guided by a twist, an approximate log p(y | x_t); the weights make
up for every approximation, so that the weighted particles follow the K-step model's own law given
y, and the mean weight is an unbiased estimate of its evidence p(y).

    twist(x_t) = log N(y; A(xhat), noise^2 + g r_t^2),    r_t^2 = s^2 v / (s^2 + v)

with s = sigma / alpha, v the data's variance and g the mean squared row of A; at the last level
it is log p(y | xhat). Source: Wu et al. 2023, algorithm 1 (TDS), resampling only when the
effective sample size falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.inverse.guided import (
    differentiable_guess,
    in_modes,
    positive,
    remaining_variance,
)
from reverie.inverse.measurements import log_normal
from reverie.inverse.task import Task
from reverie.sampling.multistep import ddim
from reverie.sampling.scales import Scales


@dataclass(frozen=True)
class Particles:
    """Points (P, *shape) with log-weights (P,) that sum to one; what the run says of itself.

    ess: (K + 1,), effective sample size at each level, before any resampling there.
    log_evidence: log of the unbiased estimate of p(y), in nats. ancestors: how many of the first
    particles have descendants among the points.
    Source: Wu et al. 2023, algorithm 1 (TDS).

    >>> import torch
    >>> from reverie.inverse import Particles
    >>> points, weights = torch.tensor([[0.0], [1.0]]), torch.tensor([0.75, 0.25]).log()
    >>> particles = Particles(points, weights, torch.ones(3), log_evidence=-1.2, ancestors=2)
    >>> particles.draw(8, torch.Generator().manual_seed(0)).mean()
    tensor(0.2500)
    """

    points: Tensor
    log_weights: Tensor
    ess: Tensor
    log_evidence: float
    ancestors: int

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` equally weighted points (n, *shape), by systematic resampling; some are repeated."""
        return self.points[systematic(self.log_weights, n, generator)]


class _Look(NamedTuple):
    """At each particle: xhat, the guided xhat, and the twist in nats, (P,) in float64."""

    clean: Tensor
    guided: Tensor
    twist: Tensor

    def take(self, rows: Tensor) -> _Look:
        return _Look(*(value[rows] for value in self))


def twisted_smc(
    task: Task, particles: int = 256, data_std: float = 1.0, resample_below: float = 0.5
) -> Particles:
    """Run `particles` particles on one observation, the same in every row of `task.y`.

    data_std: the data's deviation per coordinate, for the twist. resample_below: the share of
    particles below which the effective sample size has them resampled. Raises InputError on fewer
    than two particles, or several observations.
    """
    _check(task, particles, resample_below)
    state = task.start(particles)
    twist = _Twist(task, state, positive("data_std", data_std))
    scales = Scales(task.process, task.times, state, task.generator)
    table = ddim(scales, 1.0)
    kept, weight, noise = map(scales.fit, (table.kept, table.weights[0], table.noise))
    to_modes, look = task.process.to_modes, twist(state, 0)
    log_weights, log_evidence, ess = look.twist, 0.0, []
    family = torch.arange(particles, device=state.device)
    for k in range(len(kept)):
        ess.append(effective_size(log_weights))
        if ess[-1] < resample_below * particles:
            log_evidence += _log_mean(log_weights)
            rows = systematic(log_weights, particles, task.generator)
            state, look, family = state[rows], look.take(rows), family[rows]
            log_weights = torch.zeros_like(log_weights)
        z = scales.noise(state)
        modes = kept[k] * to_modes(state) + weight[k] * to_modes(look.guided) + noise[k] * z
        state = task.process.from_modes(modes)
        shift = weight[k] / noise[k] * to_modes(look.guided - look.clean)
        # log p(x_s | x_t) - log q(x_s | x_t, y), two Gaussians of one spread
        odds = -(z * shift + 0.5 * shift.square()).double().flatten(1).sum(1)
        before, look = look.twist, twist(state, k + 1)
        log_weights = log_weights + odds + look.twist - before
    ess.append(effective_size(log_weights))
    return Particles(
        look.clean,
        log_weights.log_softmax(0),
        torch.tensor(ess),
        log_evidence + _log_mean(log_weights),
        len(family.unique()),
    )


class _Twist:
    """The twist and the guess it guides, at level k of a plan."""

    def __init__(self, task: Task, state: Tensor, data_std: float) -> None:
        self.task = task
        alpha, sigma = task.process.alpha(task.times), task.process.sigma(task.times)
        remaining = remaining_variance(sigma / alpha, data_std)
        # one number a level, also where modes are noised at their own speeds
        self.remaining = remaining.reshape(len(task.times), -1).mean(1).tolist()
        self.remaining[-1] = 0.0  # the last guess is the point itself
        first = task.denoiser(state, task.times[0].to(state).expand(len(state)))
        self.gain = task.measurement.gain(first.mean(0))

    def __call__(self, state: Tensor, k: int) -> _Look:
        task, t = self.task, self.task.times[k]
        clean, transposed = differentiable_guess(
            task.denoiser, state, t.to(state).expand(len(state))
        )
        tangent = task.measurement.tangent(clean)
        residual = task.y[:1] - tangent.value
        variance = task.measurement.noise.to(state).square() + self.gain * self.remaining[k]
        alpha, sigma = task.process.scales(t, state)
        towards = transposed(tangent.pull(residual / variance))
        guided = clean + in_modes(task.process, sigma.square() / alpha, towards)
        return _Look(clean, guided, log_normal(residual.double(), variance.double()))


def effective_size(log_weights: Tensor) -> float:
    """(sum w)^2 / sum w^2 of log-weights (P,): between 1 and P."""
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def systematic(log_weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows (n,) drawn with the given log-weights (P,) at equal spacing from one uniform.

    Source: Douc, Cappe & Moulines 2005, section 2.4.
    """
    heights = log_weights.double().softmax(0).cumsum(0)
    start = torch.rand(1, generator=generator, dtype=torch.float64, device=heights.device)
    ticks = (torch.arange(n, device=heights.device) + start) / n * heights[-1]
    return torch.searchsorted(heights, ticks).clamp(max=len(heights) - 1)


def _log_mean(log_weights: Tensor) -> float:
    return float(log_weights.logsumexp(0)) - math.log(len(log_weights))


def _check(task: Task, particles: int, resample_below: float) -> None:
    if particles < 2:
        raise InputError(f"particles is {particles}; twisted-smc needs at least 2")
    if not 0 <= resample_below <= 1:
        raise InputError(f"resample_below is {resample_below}; it is a share from 0 to 1")
    if (task.y != task.y[:1]).any():
        raise InputError("twisted-smc takes one observation at a time: call it for each y")
