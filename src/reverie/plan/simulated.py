"""Plans that ask the model itself: GITS and score-optimal, by simulation of a denoiser.

Both work on y = x_t / alpha at s = sigma / alpha, where the probability flow is dy/ds = (y - D)/s
and the score is (D - y)/s^2. They return a Plan on the curve that is given, so that it is charged
and compared like every other.

    GITS            Chen et al. 2024 (arXiv 2405.11326): the levels of a teacher run between which
                    the errors of Euler jumps add up least. The teacher here is Heun's method.
    score-optimal   Williams et al. 2024 (arXiv 2412.07877): equal cost of a corrector,
                    s'^2 E|score(y, s') - score(y, s)|^2. Reconstructed from secondary sources.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from reverie.curve import LossCurve
from reverie.denoisers import Denoiser, condition_rows, evaluating
from reverie.errors import InputError
from reverie.plan.classic import karras, log_snr
from reverie.plan.paths import cheapest_path
from reverie.plan.plans import Plan, plan_at
from reverie.processes.gaussian import require_gaussian

LATER = 1.15  # how much more an error counts one jump later (GITS)


@torch.no_grad()
def gits_plan(
    denoiser: Denoiser,
    curve: LossCurve,
    steps: int = 10,
    *,
    shape: tuple[int, ...] | None = None,
    n: int = 256,
    nodes: int = 61,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Plan:
    """Choose K + 1 of the `nodes` Karras levels of a teacher run of `n` samples.

    shape: of one point, where the process has none. The teacher takes 2 nodes - 2 evaluations.
    cost(j -> i) is the mean distance of one Euler jump from the teacher's state; the program is
    V_k(j) = min_i cost(j -> i) + 1.15 V_{k-1}(i). Raises InputError on more steps than nodes.
    Source: Chen et al. 2024 (GITS; arXiv 2405.11326).

    >>> import torch
    >>> from reverie import gits_plan, measure
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import EDM
    >>> rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> denoiser, noise = Memoriser(EDM(0.02, 40), rows), torch.Generator().manual_seed(0)
    >>> curve = measure(denoiser, rows, levels=16, generator=noise)
    >>> gits_plan(denoiser, curve, 5, shape=(2,), n=16, nodes=21, generator=noise).times.shape
    (6,)
    """
    if not 1 <= steps < nodes:
        raise InputError(
            f"steps is {steps}; GITS chooses among {nodes} levels: give 1 to {nodes - 1}"
        )
    axis = karras(float(curve.axis[0]), float(curve.axis[-1]), nodes - 1)
    axis[0], axis[-1] = curve.axis[0], curve.axis[-1]
    spread = np.exp(-0.5 * axis)
    flow = _Flow(denoiser, condition)
    process = denoiser.process
    start = process.sample_prior(n, shape=shape, t=flow.time(spread[0]), generator=generator)
    alpha, _ = process.scales(flow.time(spread[0]), start)  # type: ignore[operator]
    with evaluating(denoiser):
        states, slopes = _teacher(flow, start / alpha, spread)
    cost = np.full((nodes, nodes), np.inf)
    for j in range(nodes - 1):
        for i in range(j + 1, nodes):
            jump = states[j] + slopes[j] * (spread[i] - spread[j])
            cost[j, i] = float((jump - states[i]).flatten(1).norm(dim=1).mean())
    return plan_at(curve, np.exp(axis[cheapest_path(cost, steps, LATER)]), "gits")


@torch.no_grad()
def score_optimal_plan(
    denoiser: Denoiser,
    data: Tensor,
    curve: LossCurve,
    steps: int = 10,
    *,
    nodes: int = 65,
    previous: Plan | None = None,
    blend: float = 1.0,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Plan:
    """Levels at equal parts of the measured cost of a corrector, on `data` (n, *shape).

    The score is asked twice per interval of a fine log-SNR grid, at the noisier state. With
    `previous` and blend < 1 the log-levels move only that share of the way from those of a plan
    of as many steps. Raises InputError on a blend outside (0, 1].
    Source: Williams et al. 2024 (arXiv 2412.07877).

    >>> import torch
    >>> from reverie import measure, score_optimal_plan
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import EDM
    >>> rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> denoiser, noise = Memoriser(EDM(0.02, 40), rows), torch.Generator().manual_seed(0)
    >>> curve = measure(denoiser, rows, levels=16, generator=noise)
    >>> score_optimal_plan(denoiser, rows, curve, 5, nodes=17, generator=noise).times.shape
    (6,)
    """
    if not 0 < blend <= 1:
        raise InputError(f"blend is {blend}; it must lie in (0, 1]")
    axis = log_snr(float(curve.axis[0]), float(curve.axis[-1]), nodes - 1)
    spread = np.exp(-0.5 * axis)
    flow, process = _Flow(denoiser, condition), denoiser.process
    mass = np.empty(nodes - 1)
    with evaluating(denoiser):
        for j in range(nodes - 1):
            time = flow.time(spread[j])
            state = process.corrupt(data, time, generator=generator)
            state = state / process.scales(time, state)[0]  # type: ignore[operator]
            change = flow.slope(state, spread[j]) / spread[j]
            change = change - flow.slope(state, spread[j + 1]) / spread[j + 1]
            square = change.double().flatten(1).square().sum(1).mean()
            mass[j] = spread[j + 1] * float(square.sqrt())
    running = np.concatenate([[0.0], np.cumsum(mass + 1e-9 * mass.sum() + 1e-300)])
    places = PchipInterpolator(running, axis)(np.linspace(0, running[-1], steps + 1))
    places[0], places[-1] = axis[0], axis[-1]
    if previous is not None:
        if previous.steps != steps:
            raise InputError(f"the previous plan has {previous.steps} steps, this one {steps}")
        places = blend * places + (1 - blend) * np.log(previous.u)
    return plan_at(curve, np.exp(places), "score-optimal, measured")


class _Flow:
    """The probability flow of a denoiser in y = x / alpha and s = sigma / alpha."""

    def __init__(self, denoiser: Denoiser, condition: Any) -> None:
        process = require_gaussian(denoiser.process, "this plan", one_level=True)
        self.denoiser, self.process, self.condition = denoiser, process, condition

    def time(self, spread: float) -> float:
        low, high = self.process.t_range
        return min(max(float(self.process.time(spread**-2.0)), low), high)

    def slope(self, y: Tensor, spread: float) -> Tensor:
        """(y - D(y, s)) / s."""
        t = torch.tensor(self.time(spread), dtype=torch.float64)
        alpha, _ = self.process.scales(t, y)
        told = condition_rows(self.condition, len(y), y)
        guess = self.denoiser(y * alpha, t.to(y).expand(len(y)), told)
        return (y - guess) / spread


def _teacher(flow: _Flow, y: Tensor, spread: np.ndarray) -> tuple[list[Tensor], list[Tensor]]:
    """States and slopes of Heun's method at every level."""
    states, slopes = [y], []
    for now, then in itertools.pairwise(spread.tolist()):
        slope = flow.slope(y, now)
        ahead = flow.slope(y + slope * (then - now), then)
        y = y + 0.5 * (slope + ahead) * (then - now)
        states.append(y)
        slopes.append(slope)
    return states, slopes
