"""Simulate the reversal of jumps between symbols.

    ancestral       `sample(denoiser, n, plan)`: every site steps on its own, by Bayes' rule
    tau_leap        jumps at the rates of the step's start, with corrector moves (Campbell et al.
                    2022, section 4.3 and 4.4)
    first_hitting   masking only: one site at a time, at its own random time. Exact in law for the
                    exact denoiser (Zheng et al. 2024, section 4)
    gillespie       any chain: one jump at a time at the exact rates, by thinning. Exact in law

All take a denoiser and a number of points and return int64 (n, *sites).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.plan import Plan
from reverie.processes import JumpProcess, Masking, Ordinal
from reverie.processes.site_tables import draw, pick
from reverie.sampling.levels import plan_times

MOST_JUMPS = 1_000_000  # proposals of one run of `gillespie`


@torch.no_grad()
def tau_leap(
    denoiser: Denoiser,
    n: int,
    plan: Plan | Tensor,
    *,
    correctors: int = 0,
    corrector_size: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw n points by tau-leaping along a plan, or process times (K + 1,) from noisy to clean.

    Every site makes a Poisson number of jumps a step. Where symbols are ordered (`Ordinal`) their
    distances add up, within the range; elsewhere a site with more than one jump keeps its first.
    correctors: moves after each step at forward plus backward rates, which keep the level's law;
    each lasts `corrector_size` of the noise at that level. Ends with the last denoise.
    """
    process = _jumps_of(denoiser)
    times = plan_times(plan)
    state = process.sample_prior(n, generator=generator)
    with evaluating(denoiser):
        for t, s in pairwise(times):
            prediction = denoiser(state, t.expand(n))
            state = _leap(process, state, process.jumps(prediction, state, t, s), generator)
            for _ in range(correctors):
                span = corrector_size * float(process.sigma(s))
                both = process.reverse_rates(denoiser(state, s.expand(n)), state, s)
                both = both + process.forward_rates(state)
                state = _leap(process, state, span * both, generator)
        prediction = denoiser(state, times[-1].expand(n))
        return process.finish(prediction, state, times[-1], generator=generator)


def _leap(
    process: JumpProcess, state: Tensor, expected: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Make Poisson numbers of jumps with means (B, *sites, M)."""
    if isinstance(process, Ordinal):
        counts = torch.poisson(expected.double(), generator=generator)
        places = torch.arange(process.states, device=state.device)
        shift = (counts * (places - state[..., None])).sum(-1).long()
        return (state + shift).clamp(0, process.states - 1)
    total = expected.double().sum(-1)
    stays = (-total).exp()[..., None]
    # the first jump of a site: none with probability e^-total, else to y in proportion
    moves = expected.double() / total.clamp(min=torch.finfo(torch.float64).tiny)[..., None]
    goal = draw(torch.cat([stays, (1 - stays) * moves], -1), generator) - 1
    return torch.where(goal < 0, state, goal)


@torch.no_grad()
def first_hitting(
    denoiser: Denoiser, n: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw n points of a masking process, one site at a time at the times of the true reversal.

    The times at which the sites of a point are revealed are independent and uniform: with m masked
    sites the next stands at t U^(1/m). Takes as many evaluations as there are sites.
    """
    process = denoiser.process
    if not isinstance(process, Masking):
        raise InputError("first-hitting sampling reveals masked sites: use ancestral")
    state = process.sample_prior(n, generator=generator)
    time = torch.ones(n, dtype=torch.float64)
    with evaluating(denoiser):
        for masked in range(process.space.dim, 0, -1):
            time = time * torch.rand(n, generator=generator, dtype=torch.float64) ** (1 / masked)
            prediction = denoiser(state, time.to(state.device))
            site = draw((state == process.mask).flatten(1).double(), generator)
            symbol = draw(_rows(prediction, site), generator)
            state = _put(state, site, symbol)
    return state


@torch.no_grad()
def gillespie(
    denoiser: Denoiser,
    n: int,
    plan: Plan | Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw n points by single jumps at the reversal's rates, which change between them.

    Between two levels of the plan the rates are bounded; jumps are proposed at the bound and kept
    with the probability of the true rate (Lewis & Shedler 1979), so that the plan decides the work
    but not the law. Starts at the plan's noisy end from the stationary law, ends with the last
    denoise at its clean end. For masking it is `first_hitting`. Meant for small sets: a proposal
    is an evaluation of the denoiser. Raises InputError past a million of them.
    """
    process = _jumps_of(denoiser)
    if isinstance(process, Masking):
        return first_hitting(denoiser, n, generator=generator)
    times = plan_times(plan)
    levels = process.sigma(times)
    state = process.sample_prior(n, generator=generator)
    proposals = 0
    with evaluating(denoiser):
        for k in range(len(times) - 1):
            bounds = _rate_bounds(process, times[k], times[k + 1])
            here = torch.full((n,), float(levels[k]), dtype=torch.float64)
            active = torch.arange(n)
            while True:
                bound = bounds[state[active]].flatten(1).sum(1)
                wait = -torch.rand(len(active), generator=generator, dtype=torch.float64).log()
                here[active] -= wait / bound
                active = active[here[active] > levels[k + 1]]
                if len(active) == 0:
                    break
                proposals += 1
                if proposals > MOST_JUMPS:
                    raise InputError(f"more than {MOST_JUMPS} proposals: use a finer plan")
                now = _time_of(process, here[active])
                state[active] = _propose(denoiser, state[active], now, bounds, generator)
        prediction = denoiser(state, times[-1].expand(n))
        return process.finish(prediction, state, times[-1], generator=generator)


def _propose(
    denoiser: Denoiser,
    state: Tensor,
    time: Tensor,
    bounds: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """One jump at the true rates, or none with what the bound exceeds them by."""
    process = _jumps_of(denoiser)
    rates = process.reverse_rates(denoiser(state, time), state, time).flatten(1)
    spare = bounds[state].flatten(1).sum(1) - rates.sum(1)
    if (spare < 0).any():
        raise InputError("the denoiser's guess is no posterior: its reversal exceeds the bound")
    choice = draw(torch.cat([rates, spare[:, None]], 1), generator)
    jumped = choice < rates.shape[1]
    site, symbol = choice // process.states, choice % process.states
    moved = _put(state[jumped], site[jumped], symbol[jumped])
    state = state.clone()
    state[jumped] = moved
    return state


def _rate_bounds(process: JumpProcess, t: Tensor, s: Tensor) -> Tensor:
    """Bound (M,) on the rate at which the reversal leaves each state of a site, between t and s.

    The ratio of a posterior is an average of K[x, y] / K[x, z]. A chain may always wait, so that
    K_tau[x, y] <= K_t[x, y] e^(q_y h) and K_tau[x, z] >= K_s[x, z] e^(-q_z h), h the span.
    """
    span = process.sigma(t) - process.sigma(s)
    leave = -process.rates.diagonal()
    most = process.kernel(t)[0] * (leave * span).exp()
    least = process.kernel(s)[0] * (-leave * span).exp()
    ratio = (most[:, None, :] / least[:, :, None]).amax(0)  # [z, y]
    inward = (process.rates - process.rates.diagonal().diag()).T
    return (inward * ratio).where(inward > 0, 0.0).sum(1)


def _time_of(process: JumpProcess, sigma: Tensor) -> Tensor:
    return process.time(1 / torch.expm1(sigma))


def _rows(values: Tensor, site: Tensor) -> Tensor:
    """Values (B, *sites, C) at one site (B,) each: (B, C)."""
    return pick(values.flatten(1, -2), site[:, None])[:, 0]


def _put(state: Tensor, site: Tensor, symbol: Tensor) -> Tensor:
    """The state (B, *sites) with `symbol` (B,) at `site` (B,), counted row by row."""
    return state.flatten(1).scatter(1, site[:, None], symbol[:, None]).reshape(state.shape)


def _jumps_of(denoiser: Denoiser) -> JumpProcess:
    if not isinstance(denoiser.process, JumpProcess):
        raise InputError("this sampler needs a process of jumps on a finite set")
    return denoiser.process
