"""Solvers that look ahead once in every step: 2K + 1 evaluations on a plan of K steps.

    heun      Karras et al. 2022, algorithm 2, with its churn; the look ahead is the next level
    dpm++2s   Lu et al. 2022b, algorithm 1; the look ahead is half-way in log(alpha/sigma)

Both are: ahead = p x_t + q xhat, then x_s = a x_t + b xhat + c xhat(ahead).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.sampling.scales import Guess, Scales, Visit, Visits, combine


@dataclass(frozen=True)
class Churn:
    """Extra noise of the Heun sampler: at most `amount` over the run, between two sigmas.

    Source: Karras et al. 2022, algorithm 2 (S_churn, S_tmin, S_tmax, S_noise).

    >>> import torch
    >>> from reverie import sample
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import EDM
    >>> from reverie.sampling import Churn
    >>> rows, times = torch.tensor([[-1.0], [1.0]]), torch.linspace(1, 0, 9)
    >>> denoiser = Memoriser(EDM(0.02, 40, shape=(1,)), rows)
    >>> sample(denoiser, 20, times, "heun", churn=Churn(4.0)).shape
    torch.Size([20, 1])
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0


class Stages(NamedTuple):
    """Coefficients (K, ...) of the sums above and the look ahead's process times (K,)."""

    times: Tensor
    ahead: tuple[Tensor, Tensor]
    then: tuple[Tensor, Tensor, Tensor]


class Lift(NamedTuple):
    """Churn: x_t becomes kept x_t + noise z at process times (K,), noisier than the plan's."""

    times: Tensor
    kept: Tensor
    noise: Tensor


def heun(scales: Scales, state: Tensor, guess: Guess, churn: Churn) -> Visits:
    """With churn, the guess of a visit is the one made just after the noise was added."""
    lift = _lift(scales, churn) if churn.amount > 0 else None
    alpha, spread = scales.alpha[:-1], scales.spread[:-1]
    if lift is not None:
        alpha = scales.process.alpha(lift.times)
        spread = scales.process.sigma(lift.times) / alpha
    new_alpha, new = scales.alpha[1:], scales.spread[1:]
    drop = new - spread
    ahead = (new_alpha / alpha * new / spread, -new_alpha * drop / spread)
    second = -0.5 * new_alpha * drop / new
    kept = new_alpha / alpha * (1 + 0.5 * drop / spread) - second * ahead[0] / new_alpha
    first = -0.5 * new_alpha * drop / spread - second * ahead[1] / new_alpha
    stages = Stages(scales.times[1:], ahead, (kept, first, second))
    return _run(scales, state, guess, stages, lift)


def dpm_2s(scales: Scales, state: Tensor, guess: Guess) -> Visits:
    process, lam, h = scales.process, scales.log_snr, scales.h
    clock = process.clock(scales.times)
    times = process.time((clock[:-1] * clock[1:]).sqrt())
    share = torch.full_like(h, 0.5)
    if process.columns > 1:  # half-way on average only: each mode has its own share
        share = ((process.alpha(times) / process.sigma(times)).log() - lam[:-1]) / h
    alpha, sigma = process.alpha(times), process.sigma(times)
    ahead = (sigma / scales.sigma[:-1], -alpha * torch.expm1(-share * h))
    weight = -scales.alpha[1:] * torch.expm1(-h)
    second = weight * 0.5 / share
    then = (scales.sigma[1:] / scales.sigma[:-1], weight - second, second)
    return _run(scales, state, guess, Stages(times, ahead, then), None)


def _run(scales: Scales, state: Tensor, guess: Guess, stages: Stages, lift: Lift | None) -> Visits:
    """The loop of both."""
    ahead = list(zip(*map(scales.fit, stages.ahead), strict=True))
    then = list(zip(*map(scales.fit, stages.then), strict=True))
    starts, seconds = scales.given[:-1], scales.expand(stages.times)
    if lift is not None:
        starts, raised = scales.expand(lift.times), scales.fit(lift.kept)
        noise = scales.fit_noise(lift.noise)
    for k, start in enumerate(starts):
        here = state
        if lift is not None and (spread := noise[k]) is not None:
            here = combine(state, raised[k], (scales.noise(state), spread))
        clean = guess(here, start)
        yield Visit(scales.t[k], state, clean)
        forward = combine(here, ahead[k][0], (clean, ahead[k][1]))
        second = guess(forward, seconds[k])
        state = combine(here, then[k][0], (clean, then[k][1]), (second, then[k][2]))
    yield Visit(scales.t[-1], state, guess(state, scales.given[-1]))


def _lift(scales: Scales, churn: Churn) -> Lift:
    process = scales.process
    if process.columns > 1:
        raise InputError("churn needs one clock for all coordinates")
    here, alpha = scales.spread[:-1], scales.alpha[:-1]
    grow = min(churn.amount / len(here), math.sqrt(2) - 1)
    chosen = (churn.low <= here) & (here <= churn.high)
    raised = process.time((here * (1 + grow)).pow(-2))
    times = torch.where(chosen, raised, scales.times[:-1])
    new_alpha = process.alpha(times)
    spread = process.sigma(times) / new_alpha
    extra = (spread.square() - here.square()).clamp(min=0).sqrt() * chosen
    return Lift(times, new_alpha / alpha, churn.scale * new_alpha * extra)
