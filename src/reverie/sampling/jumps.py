"""Simulate the reversal of jumps between symbols, beside the ancestral steps of any process.

    tau-leaping     jumps at the rates of the step's start, with corrector moves (Campbell et al.
                    2022, section 4.3 and 4.4)
    first-hitting   masking only: one site at a time, at its own random time. Exact in law for the
                    exact denoiser (Zheng et al. 2024, section 4)
    gillespie       any chain: one jump at a time at the exact rates, by thinning. Exact in law

All are generators of visits along a plan, for `sample(denoiser, n, plan, "tau-leaping")`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import JumpProcess
from reverie.processes.site_tables import drawn_from, pick
from reverie.sampling.scales import Request, Visit, Visits

MOST_JUMPS = 1_000_000  # proposals of one run of `gillespie`
SHORT = 0.2  # of a piece on which rates are bounded


def tau_leap(request: Request, correctors: int = 0, corrector_size: float = 0.1) -> Visits:
    """Leap along the plan: every site makes a Poisson number of jumps a step.

    Where symbols are ordered (`JumpProcess.ordered`) their distances add up, within the range;
    elsewhere a site with more than one jump keeps its first. correctors: moves after each step at
    forward plus backward rates, which keep the level's law; each lasts `corrector_size` of the
    noise at that level.
    """
    process, times, state = request.process, request.times, request.state
    generator = request.generator
    for t, s in pairwise(times):
        prediction = request.guess(state, t.expand(len(state)))
        yield Visit(float(t), state, prediction)
        state = _leap(process, state, process.jumps(prediction, state, t, s), generator)
        for _ in range(correctors):
            span = corrector_size * float(process.sigma(s))
            again = request.guess(state, s.expand(len(state)))
            both = process.reverse_rates(again, state, s) + process.forward_rates(state)
            state = _leap(process, state, span * both, generator)
    yield Visit(float(times[-1]), state, request.guess(state, times[-1].expand(len(state))))


def _leap(
    process: JumpProcess, state: Tensor, expected: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Make Poisson numbers of jumps with means (B, *sites, M)."""
    if process.ordered:
        counts = torch.poisson(expected.double(), generator=generator)
        places = torch.arange(process.states, device=state.device)
        shift = (counts * (places - state[..., None])).sum(-1).long()
        return (state + shift).clamp(0, process.states - 1)
    total = expected.double().sum(-1)
    stays = (-total).exp()[..., None]
    # the first jump of a site: none with probability e^-total, else to y in proportion
    moves = expected.double() / total.clamp(min=torch.finfo(torch.float64).tiny)[..., None]
    goal = drawn_from(torch.cat([stays, (1 - stays) * moves], -1), generator) - 1
    return torch.where(goal < 0, state, goal)


def first_hitting(request: Request) -> Visits:
    """Reveal one masked site at a time, at the times of the true reversal; the plan is not read.

    The times at which the sites of a point are revealed are independent and uniform: with m masked
    sites the next stands at t U^(1/m). Takes as many evaluations as there are sites, and a last
    one where nothing is masked.
    """
    process, state, generator = request.process, request.state, request.generator
    n = len(state)
    time = torch.ones(n, dtype=torch.float64)
    prediction = None
    for masked in range(process.space.dim, 0, -1):
        time = time * torch.rand(n, generator=generator, dtype=torch.float64) ** (1 / masked)
        prediction = request.guess(state, time.to(state.device))
        yield Visit(float(time.mean()), state, prediction)
        site = drawn_from((state == process.mask).flatten(1).double(), generator)
        symbol = drawn_from(_rows(prediction, site), generator)
        state = _put(state, site, symbol)
    assert prediction is not None
    yield Visit(0.0, state, prediction)  # all is revealed: the last denoise keeps every site


def gillespie(request: Request) -> Visits:
    """Single jumps at the reversal's rates, which change between them; visits the plan's levels.

    The rates are bounded on pieces so short that the bounds are tight, whatever the plan; jumps
    are proposed at the bound and kept with the probability of the true rate (Lewis & Shedler
    1979), so that neither decides the law. Meant for small sets: a proposal is an evaluation of
    the denoiser, for all points that wait for one. Raises InputError past a million of them.
    """
    process, times, state = request.process, request.times, request.state
    n, proposals = len(state), 0
    for t, s in pairwise(times):
        yield Visit(float(t), state, request.guess(state, t.expand(n)))
        ends = _pieces(process, t, s)
        bounds = torch.stack([_rate_bounds(process, a, b) for a, b in pairwise(ends)])
        here, piece = ends[0].expand(n).clone(), torch.zeros(n, dtype=torch.long)
        state = state.clone()
        while True:
            _wait(here, piece, state, ends, bounds, request.generator)
            active = (piece < len(bounds)).nonzero()[:, 0]
            if len(active) == 0:
                break
            proposals += 1
            if proposals > MOST_JUMPS:
                raise InputError(f"more than {MOST_JUMPS} proposals: this set is too large")
            now = process.time(1 / torch.expm1(here[active]))
            state[active] = _propose(request, state[active], now, bounds[piece[active]])
    yield Visit(float(times[-1]), state, request.guess(state, times[-1].expand(n)))


def _pieces(process: JumpProcess, t: Tensor, s: Tensor) -> Tensor:
    """Noise levels (P + 1,) from t down to s, so close that `_rate_bounds` are tight between.

    The bounds are off by e^(2 q h) on a piece of length h, and where the noise is low by the ratio
    of its ends: no piece is longer than SHORT of the fastest state's stay, or of its noisier end.
    """
    top, low = float(process.sigma(t)), float(process.sigma(s))
    stay = 1 / float(-process.rates.diagonal().min())
    levels = [top]
    while levels[-1] > low:
        levels.append(max(low, levels[-1] - SHORT * min(stay, levels[-1])))
    return torch.tensor(levels, dtype=torch.float64)


def _wait(
    here: Tensor,
    piece: Tensor,
    state: Tensor,
    ends: Tensor,
    bounds: Tensor,
    generator: torch.Generator | None,
) -> None:
    """Move every point to its next proposal, or past the last piece; in place.

    A wait that outlasts a piece starts again at its end: exponential waits have no memory.
    """
    moving = (piece < len(bounds)).nonzero()[:, 0]
    while len(moving):
        rate = bounds[piece[moving][:, None], state[moving].flatten(1)].sum(1)
        wait = -torch.rand(len(moving), generator=generator, dtype=torch.float64).log() / rate
        goal, end = here[moving] - wait, ends[piece[moving] + 1]
        over = goal <= end
        here[moving] = torch.where(over, end, goal)
        piece[moving] += over.long()
        moving = moving[over & (piece[moving] < len(bounds))]


def _propose(request: Request, state: Tensor, time: Tensor, bounds: Tensor) -> Tensor:
    """One jump at the true rates, or none with what the bounds (B, M) exceed them by."""
    process, generator = request.process, request.generator
    rates = process.reverse_rates(request.guess(state, time), state, time).flatten(1)
    spare = bounds.gather(1, state.flatten(1)).sum(1) - rates.sum(1)
    if (spare < 0).any():
        raise InputError("the denoiser's guess is no posterior: its reversal exceeds the bound")
    choice = drawn_from(torch.cat([rates, spare[:, None]], 1), generator)
    jumped = choice < rates.shape[1]
    site, symbol = choice // process.states, choice % process.states
    moved = _put(state[jumped], site[jumped], symbol[jumped])
    state = state.clone()
    state[jumped] = moved
    return state


def _rate_bounds(process: JumpProcess, noisy: Tensor, clean: Tensor) -> Tensor:
    """Bound (M,) on the rate at which the reversal leaves each state, between two noise levels.

    The ratio of a posterior is an average of K[x, y] / K[x, z]. A chain may always wait, so that
    K_tau[x, y] <= K_t[x, y] e^(q_y h) and K_tau[x, z] >= K_s[x, z] e^(-q_z h), h the span.
    """
    leave = -process.rates.diagonal()
    kernels = process.transition(torch.stack([noisy, clean])).clamp(min=0)[:, : process.symbols]
    most = kernels[0] * (leave * (noisy - clean)).exp()
    least = kernels[1] * (-leave * (noisy - clean)).exp()
    ratio = (most[:, None, :] / least[:, :, None]).amax(0)  # [z, y]
    inward = (process.rates - process.rates.diagonal().diag()).T
    return (inward * ratio).where(inward > 0, 0.0).sum(1)


def _rows(values: Tensor, site: Tensor) -> Tensor:
    """Values (B, *sites, C) at one site (B,) each: (B, C)."""
    return pick(values.flatten(1, -2), site[:, None])[:, 0]


def _put(state: Tensor, site: Tensor, symbol: Tensor) -> Tensor:
    """The state (B, *sites) with `symbol` (B,) at `site` (B,), counted row by row."""
    return state.flatten(1).scatter(1, site[:, None], symbol[:, None]).reshape(state.shape)
