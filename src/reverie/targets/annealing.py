"""The annealed path as a loss curve, and its temperatures as a plan.

Along log gamma_b = log pi_0 + b U, U = log gamma - log pi_0, the mean of U under gamma_b grows
with b: its slope is Var_b U, the thermodynamic charge. Annealing in K steps with kernels that mix
loses

    log Z - ELBO = int E_b U db - sum_k (b_{k+1} - b_k) E_{b_k} U

so with the clock u = b and the rate c - E_b U, which never increases, the loss is the left
staircase over a loss curve less the area under it: our `excess`, in nats. `plan_steps` places the
temperatures. c is the last mean, so that the curve ends at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan import Plan, plan_steps
from reverie.targets.kernels import ACCEPTANCE, KERNELS, SMALLEST, Bath, reversible
from reverie.targets.starts import GaussianStart
from reverie.targets.target import Target

KEPT = 0.9  # conditional effective share of a pilot's step
MOVES = 5  # of the pilot at each temperature, while the step settles
WIDENED, TAILS = 1.5, 10.0  # of a start that is fitted to a pilot: all its tails, and more
MOST_LEVELS = 400
STEP_NATS = 0.05  # excess of one step of the final run, where the number of steps is not given
MOST_STEPS, LEAST_STEPS = 256, 4
Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Pilot:
    """What a first adaptive run learned: levels b (J + 1,), mean U there, steps and scales."""

    start: GaussianStart
    kernel: str
    points: Tensor
    b: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    stderr: list[float] = field(default_factory=list)
    log_step: list[float] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)

    def curve(self) -> LossCurve:
        """The thermodynamic curve: rate c - E_b U, nats per unit of temperature.

        The clock is b shifted by a little, so that it is read on a logarithmic axis and the first
        temperatures are resolved; neither staircase nor area know of a shift.
        """
        b, mean = np.array(self.b), np.maximum.accumulate(self.mean)
        shift = max(0.1 * b[1], 1e-9)
        return LossCurve(
            b + shift, mean[-1] - mean, np.array(self.stderr), label="annealing",
            dim=self.points.shape[1], count=len(self.points),
        )  # fmt: skip

    def bath(self, b: float) -> Bath:
        """The temperature b with the step and scale of the nearest level of the pilot."""
        step = math.exp(float(np.interp(b, self.b, self.log_step)))
        near = int(np.searchsorted(self.b, b).clip(0, len(self.b) - 1))
        return Bath(self.start, b, step, self.scales[near], smallest=_smallest(self.kernel))


@dataclass(eq=False)
class Annealing:
    """A frozen path: temperatures (K + 1,) from 0 to 1, a bath for each step, where it is from.

    >>> import torch
    >>> from reverie.targets import Annealing, Gaussian, Target, anneal
    >>> near = Target(Gaussian([1.0], [[0.25]]), 1)
    >>> path = anneal(near, steps=4, n=256, generator=torch.Generator().manual_seed(0))
    >>> isinstance(path, Annealing), path.steps, path.temperatures.round(1).tolist()
    (True, 4, [0.0, 0.3, 0.5, 0.7, 1.0])
    """

    start: GaussianStart
    kernel: str
    temperatures: np.ndarray
    baths: list[Bath]
    curve: LossCurve
    plan: Plan

    @property
    def steps(self) -> int:
        return len(self.baths)


def anneal(
    target: Target,
    *,
    start: GaussianStart | None = None,
    kernel: str = "hmc",
    steps: int | None = None,
    n: int = 1024,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Annealing:
    """Learn a path to the target with an adaptive pilot of n particles, and plan its temperatures.

    start: pi_0; None takes N(0, I), runs a pilot from there, and starts again from a Gaussian
    somewhat wider than what it found. steps: K, by default so many that a step costs `STEP_NATS`.
    Raises InputError on an unknown kernel, or a start that the target gives no mass.

    >>> import torch
    >>> from reverie.targets import Funnel, GaussianStart, Target, anneal
    >>> funnel, wide = Target(Funnel(2), 2), GaussianStart.of(2, deviation=4.0)
    >>> path = anneal(funnel, start=wide, n=256, generator=torch.Generator().manual_seed(0))
    >>> path.steps, round(path.plan.excess, 1)  # nats that the steps lose, if kernels mix
    (15, 0.7)
    """
    if kernel not in KERNELS:
        raise InputError(f"no kernel is called {kernel!r}; choose one of {', '.join(KERNELS)}")
    if start is None:
        first = _pilot(target, GaussianStart.of(target.dim), kernel, n, generator)
        start = GaussianStart.fitted(first.points, WIDENED, TAILS)
    found = _pilot(target, start, kernel, n, generator, progress)
    curve = found.curve()
    plan = plan_steps(curve, steps, clock="nats") if steps else _enough(curve)
    shift = curve.u[0]
    temperatures = np.clip(plan.u - shift, 0.0, 1.0)
    temperatures[0], temperatures[-1] = 0.0, 1.0
    baths = [found.bath(float(b)) for b in temperatures[1:]]
    if kernel == "ula":
        baths = [bath.stepped(_ula_step(bath.step)) for bath in baths]
    return Annealing(start, kernel, temperatures, baths, curve, plan)


def _enough(curve: LossCurve) -> Plan:
    """The plan whose steps cost `STEP_NATS` each, within bounds."""
    low, high = LEAST_STEPS, MOST_STEPS
    while low < high:
        middle = (low + high) // 2
        plan = plan_steps(curve, middle, clock="nats")
        low, high = (low, middle) if plan.excess <= STEP_NATS * middle else (middle + 1, high)
    return plan_steps(curve, low, clock="nats")


def _smallest(kernel: str) -> float:
    """ULA takes one step and no smaller ones, so that its pilot does not either."""
    return 1.0 if kernel == "ula" else SMALLEST


def _ula_step(step: float) -> float:
    """h of x' = x + h grad + sqrt(2 h) xi from a leapfrog step: h = step^2 / 2."""
    return 0.5 * step**2


def _pilot(
    target: Target,
    start: GaussianStart,
    kernel: str,
    n: int,
    generator: torch.Generator | None,
    progress: Progress | None = None,
) -> Pilot:
    """Adaptive SMC: temperatures by conditional effective size, steps by acceptance."""
    point = target.at(start.sample(n, generator))
    pilot = Pilot(start, kernel, point.x)
    gain = point.log_density - start.log_prob(point.x)
    if not bool(torch.isfinite(gain).any()):
        raise InputError(
            "the log density is -inf at every draw of the start: give a start where the target "
            "has mass"
        )
    log_step = math.log(0.5 if kernel == "random-walk" else 0.8) - 0.25 * math.log(target.dim)
    b = 0.0
    _record(pilot, b, gain, log_step, start.scale)
    while b < 1:
        if len(pilot.b) > MOST_LEVELS:
            raise InputError(
                f"the path needs more than {MOST_LEVELS} temperatures (it is at {b:.3g} of 1): "
                "give a start nearer to the target"
            )
        delta = _next(gain, 1 - b)
        b = 1.0 if b + delta > 1 - 1e-12 else b + delta
        point = point.taken(resampled(torch.softmax(delta * gain, 0)[None], generator)[0])
        scale = GaussianStart.fitted(point.x).scale
        bath = Bath(start, b, math.exp(log_step), scale, smallest=_smallest(kernel))
        for _ in range(MOVES):
            move = reversible(kernel, bath, point, generator)
            point = move.point
            log_step += 1.5 * (float(move.accepted.mean()) - ACCEPTANCE[kernel])
            bath = bath.stepped(math.exp(log_step))
        gain = point.log_density - start.log_prob(point.x)
        _record(pilot, b, gain, log_step, scale)
        if progress is not None:
            progress(min(int(1000 * b**0.25), 999), 1000)
    pilot.points = point.x
    if progress is not None:
        progress(1000, 1000)
    return pilot


def _record(pilot: Pilot, b: float, gain: Tensor, log_step: float, scale: Tensor) -> None:
    finite = gain[torch.isfinite(gain)]
    pilot.b.append(b)
    pilot.mean.append(float(finite.mean()))
    pilot.stderr.append(float(finite.std()) / math.sqrt(max(len(finite), 1)))
    pilot.log_step.append(log_step)
    pilot.scales.append(scale)


def _next(gain: Tensor, most: float) -> float:
    """The largest step of temperature that keeps `KEPT` of the effective size, at most `most`."""

    def share(delta: float) -> float:
        weight = torch.exp(delta * (gain - gain.max()))
        return float(weight.mean() ** 2 / weight.square().mean())

    if share(most) >= KEPT:
        return most
    # a part of the start may lie outside the support: what remains there is kept in full
    goal = KEPT * share(1e-300)
    low, high = -300.0, math.log10(most)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(10.0**middle) >= goal else (low, middle)
    return 10.0**low


def resampled(share: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Systematic resampling within rows: indices (R, n) of shares (R, n) that sum to 1."""
    rows, n = share.shape
    shift = torch.rand(rows, 1, dtype=share.dtype, device=share.device, generator=generator)
    places = (shift + torch.arange(n, dtype=share.dtype, device=share.device)) / n
    law = torch.cumsum(share, 1)
    return torch.searchsorted(law / law[:, -1:], places).clamp(max=n - 1)
