"""Solvers whose step is one weighted sum of the state, the latest guesses and fresh noise.

From level t to the cleaner s, with lambda = log(alpha/sigma) and h = lambda_s - lambda_t:

    ancestral           x_s ~ p(x_s | x_t, xhat): the sampler whose path KL a plan knows exactly
    ddim                Song, Meng & Ermon 2021, eq. 12; eta = 0 is deterministic, 1 is ancestral
    dpm++2m             Lu et al. 2022b, algorithm 2
    sde-dpm++2m         the same for the reverse SDE (ibid., section 5); eta scales its noise
    exponential-euler   SDE-DPM-Solver-1, in the noise prediction (ibid., section 5): it is
                        Euler-Maruyama for the reverse SDE in sigma/alpha, with exact noise
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.sampling.scales import Guess, Scales, Visit, Visits, combine


class Table(NamedTuple):
    """x_s = kept x_t + sum_j weights[j] xhat_{k-j} + noise z for every step k, in float64.

    Each tensor is (K,), or (K, *shape) for one speed per coordinate. In the first steps the
    weights of guesses that do not exist yet are not used.
    """

    kept: Tensor
    weights: tuple[Tensor, ...]
    noise: Tensor


def walk(
    scales: Scales,
    state: Tensor,
    guess: Guess,
    table: Table,
    correct: Callable[[Tensor, int], Tensor] | None = None,
) -> Visits:
    """Follow a table; `correct(state, k)` may move the state at level k before it is visited."""
    kept, noise = scales.fit(table.kept), scales.fit_noise(table.noise)
    weights = list(zip(*map(scales.fit, table.weights), strict=True))
    guesses: deque[Tensor] = deque(maxlen=len(table.weights))
    for k, time in enumerate(scales.given):
        if correct is not None:
            state = correct(state, k)
        guesses.appendleft(guess(state, time))
        yield Visit(scales.t[k], state, guesses[0])
        if k == len(kept):
            return
        terms = list(zip(guesses, weights[k], strict=False))
        spread = noise[k]
        if spread is not None:
            terms.append((scales.noise(state), spread))
        state = combine(state, kept[k], *terms)


def ddim(scales: Scales, eta: float) -> Table:
    if not 0 <= eta <= 1:
        raise InputError(f"eta is {eta}; ddim needs 0 (deterministic) to 1 (ancestral)")
    kept, clean, noise = scales.process.step(scales.times[:-1], scales.times[1:], eta)
    return Table(kept, (clean,), noise)


def ddim_along_own_noise(
    scales: Scales, state: Tensor, guess: Guess, eta: float, limit: Callable[[Tensor], Tensor]
) -> Visits:
    """ddim towards the limited guess c, along the noise of the guess g before its limit.

    x_s = kept x_t + alpha_s c - kept alpha_t g + noise z, which with c = g is `ddim`: the step of
    diffusers' DDIMScheduler unless it is told `use_clipped_model_output`.
    """
    table = ddim(scales, eta)
    kept, noise = scales.fit(table.kept), scales.fit_noise(table.noise)
    towards, back = scales.fit(scales.alpha[1:]), scales.fit(-table.kept * scales.alpha[:-1])
    for k, time in enumerate(scales.given):
        own = guess(state, time)
        seen = limit(own)
        yield Visit(scales.t[k], state, seen)
        if k == len(kept):
            return
        terms = [(seen, towards[k]), (own, back[k])]
        spread = noise[k]
        if spread is not None:
            terms.append((scales.noise(state), spread))
        state = combine(state, kept[k], *terms)


def dpm_2m(scales: Scales, eta: float) -> Table:
    """Midpoint rule in lambda on a line through the last two guesses."""
    if eta < 0:
        raise InputError(f"eta is {eta}; it must not be negative")
    h, sigma = scales.h, scales.sigma
    weight = -scales.alpha[1:] * torch.expm1(-(1 + eta) * h)
    bent = torch.zeros_like(weight)
    bent[1:] = weight[1:] * 0.5 * h[1:] / h[:-1]
    return Table(
        sigma[1:] / sigma[:-1] * (-eta * h).exp(),
        (weight + bent, -bent),
        sigma[1:] * (-torch.expm1(-2 * eta * h)).sqrt(),
    )


def exponential_euler(scales: Scales) -> Table:
    alpha, sigma = scales.alpha, scales.sigma
    kept = 2 * sigma[1:] / sigma[:-1] - alpha[1:] / alpha[:-1]
    clean = 2 * sigma[1:] * torch.expm1(scales.h) / scales.spread[:-1]
    return Table(kept, (clean,), sigma[1:] * torch.expm1(2 * scales.h).sqrt())
