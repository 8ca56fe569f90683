"""Plans: the levels of a K-step sampler, and what they cost in nats.

For the ancestral sampler (DDPM's small variance) the path KL of a K-step run is exact:

    KL = KL_init + sum_k (u_{k+1} - u_k) rate(u_k) - I(u_0 -> u_K)

the left staircase over the model's own loss curve less the area under the *ideal* curve. Against
the model's own curve the difference is the `excess`: what the plan causes; the rest of the path KL
is the denoiser's own error. The least staircase is the loss-adaptive plan: a reconstruction of the
schedule of Aghapour, Bayraktar & Zhang 2026 (arXiv 2601.21943) from its abstract, derived and
verified here but not checked against the authors' code or tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.diffusers.handover import Handover, hand_over
from reverie.errors import InputError
from reverie.formerly import Formerly
from reverie.plan.default import default_method, default_plan, mean_guess, worthless
from reverie.plan.excess import NODES, Warp, checked_clock, has_samples_clock, priced, warp_of
from reverie.plan.program import adaptive, needed
from reverie.plan.rising import (
    rises,
    rising_knots,
    rising_steps_needed,
    staircase_of,
    swelling_knots,
    swells,
)
from reverie.plan.rivals import LOG_RIVALS, NEED_DIM, RIVALS, SHARE_RIVALS
from reverie.plan.steps import PlannedSteps
from reverie.processes.gaussian import require_gaussian

DEAD_ZONE = 2.0  # a density plan this many times dearer than the exact program is warned of


@dataclass(frozen=True, eq=False, repr=False)
class Plan(PlannedSteps):
    """A plan read off a loss curve.

    clock_excess: the excess in the plan's own clock (equal to `excess` when clock is "nats").
    staircase: nats of the K steps on the model's own curve; the excess is its surplus.
    u: (K + 1,) or (K + 1, J) clock values, t: (K + 1,) process times, places: (K + 1,) on the axis
    of the curve.

    >>> import numpy as np
    >>> from reverie import LossCurve, Plan, plan_steps
    >>> u = np.geomspace(1e-2, 1e4, 129)
    >>> plan = plan_steps(LossCurve(u, 0.5 / (1 + u)), steps=10, clock="nats")
    >>> isinstance(plan, Plan), plan.levels.shape, round(plan.excess, 2)  # nats
    (True, (11,), 2.95)
    >>> round(plan.compare()["karras"].excess, 2)
    7.27
    """

    clock_excess: float
    staircase: float
    curve: LossCurve = field(repr=False)
    places: np.ndarray = field(repr=False)
    warp: Warp | None = field(default=None, repr=False)

    charge = Formerly("clock_excess")
    charges = Formerly("excesses")

    @property
    def seen(self) -> Any:
        return self.curve.seen

    def path_kl(self, ideal: LossCurve) -> float:
        """Path KL in nats of the K steps, initialisation apart, given the ideal curve."""
        if self.curve.columns > 1:
            return self.staircase - ideal.area()
        return self.staircase - ideal.area(float(self.u[0]), float(self.u[-1]))

    def on(self, curve: LossCurve) -> Plan:
        """The same levels charged on another curve, as the same model's on other rows."""
        return _charged(curve, self.places, self.method, self.clock, self.warp)

    @cached_property
    def excesses(self) -> dict[str, float]:  # type: ignore[override]
        """Excess in nats, in the "samples" clock (where the curve has it), and in its own."""
        result = {"nats": self.excess, self.clock: self.clock_excess}
        if "samples" not in result and has_samples_clock(self.curve):
            result["samples"] = priced(
                self.curve, self.places, warp_of(self.curve, "samples")
            ).excess
        return result

    @property
    def approximation(self) -> str:
        if swells(self.curve):
            return (
                "the process does not tell how its noise forgets (`slowest`): a step is charged "
                "clock times the majorant of the rate, and kept short up to its peak"
            )
        if not rises(self.curve):
            return ""
        return (
            "a step is charged clock times rate, and near the uniform law what the noise tells "
            "there less what the guess explains"
        )

    @cached_property
    def warning(self) -> str:  # type: ignore[override]
        """What is dangerous about this plan in one sentence, or nothing.

        A noisy end at which the model is worse than a guess of the mean. And the density plan
        takes no steps where the loss has died out, and so may jump over a zone where little loss
        times a long clock is much: it is told by its price.
        """
        bad = worthless(self.curve)
        if len(bad):
            times = float(self.curve.rate[bad].max()) / mean_guess(self.curve)
            return (
                f"down to sigma = {self.curve.u[bad[-1]] ** -0.5:.3g} this model is worse than a "
                f"guess of the mean (by up to {times:.3g} times): calibrate it, and plan on the "
                "calibrated curve"
            )
        if self.method != "density":
            return ""
        ends = (float(self.places[0]), float(self.places[-1]))
        least = _build(self.curve, self.steps, "loss-adaptive", "nats", None, ends).excess
        if self.excess <= DEAD_ZONE * least:
            return ""
        steps = staircase_of(self.curve)(self.places[:-1], self.places[1:])
        worst = int(np.argmax(steps - np.diff(self.curve.cumulative(self.places))))
        return (
            f"the density plan costs {self.excess:.3g} nats, the exact program {least:.3g}: step "
            f"{worst + 1} jumps over a zone where the loss has died out, from u = "
            f"{self.u[worst]:.3g} to {self.u[worst + 1]:.3g}; use loss-adaptive or a noisier end"
        )

    def compare(self) -> dict[str, Plan]:
        """This plan and every rival on the same ends and number of steps, cheapest first.

        Rivals that need the dimension, or a clock of another kind, are left out.
        """
        rivals: dict[str, Plan] = {self.method: self}
        ends = (float(self.places[0]), float(self.places[-1]))
        for method in _methods(self.curve):
            known = self.curve.dim is not None or method not in NEED_DIM
            if method != self.method and known:
                rivals[method] = _build(
                    self.curve, self.steps, method, self.clock, self.warp, ends
                )
        return dict(sorted(rivals.items(), key=lambda item: item[1].excess))

    def to_diffusers(self, scheduler: Any, *, force: bool = False) -> Handover:
        """Make a scheduler of diffusers hold this plan, and verify that it does.

        Use it as `with plan.to_diffusers(pipe.scheduler): pipe()`, or pass its `.call` to
        pipelines that take timesteps or sigmas; see `reverie.diffusers.handover`. force: write
        the arrays of schedulers that take no list. Raises InputError on schedulers that would
        distort the plan, and on plans that are not of Gaussian noise with one level for all
        coordinates.
        """
        process = self.curve.process
        if process is None:
            raise InputError("a plan for diffusers needs a curve that was measured on a process")
        require_gaussian(process, "a plan for diffusers", one_level=True)
        return hand_over(scheduler, self.u, force=force, process=process)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: grid, excesses and provenance."""
        return super().to_json() | {
            "charge": self.clock_excess,
            "charges": self.excesses,
            "staircase_nats": self.staircase,
        }


METHODS = ("loss-adaptive", *RIVALS)
MANY_CLOCKS = ("loss-adaptive", "log-snr")  # what curves with several clocks can have


def plan_steps(
    curve: LossCurve,
    steps: int = 10,
    method: str | None = None,
    clock: str | Warp | None = None,
    ends: tuple[float, float] | None = None,
    *,
    sampler: str = "ancestral",
    deviation: float | None = None,
) -> Plan:
    """Choose the K + 1 levels of a K-step sampler from a loss curve.

    steps: K intervals between finite ends. method: one of `METHODS`; "loss-adaptive" is the exact
    program (reconstructed, see the module); by default, where no clock is asked for,
    `default_method`'s for the curve and the `sampler`. clock: what the exact program charges:
    "nats" (optimal in path KL for the ancestral sampler), "samples" (detail nobody sees weighs
    less, see `plan.excess`) or an increasing function of u; by default `default_plan`'s for the
    curve and the `sampler`, and `.clock` says which (other methods need none and are charged in
    nats).
    ends: clock values (noisy, clean), default the curve's. deviation: the data's, per coordinate,
    which the samples clock and the tangent plan use; by default the curve's own reading of it.
    Raises InputError on an unknown word, bad ends, or a clock that does not increase.
    Source: Aghapour, Bayraktar & Zhang 2026 (arXiv 2601.21943), from its abstract.

    >>> import numpy as np
    >>> from reverie import LossCurve, plan_steps
    >>> u = np.geomspace(1e-2, 1e4, 129)
    >>> curve = LossCurve(u, 0.5 / (1 + u))
    >>> [round(plan_steps(curve, k, clock="nats").excess, 2) for k in (5, 10, 20)]  # nats
    [8.64, 2.95, 1.24]
    """
    if not isinstance(steps, int | np.integer) or not 1 <= steps < NODES:
        raise InputError(f"steps is {steps!r}; it must be a whole number from 1 to {NODES - 1}")
    if method is not None and method not in METHODS:
        raise InputError(f"no plan is called {method!r}; choose one of {', '.join(METHODS)}")
    if deviation is not None:
        if not 0 < deviation < np.inf:
            raise InputError(f"the data's deviation is {deviation}; it must be a positive number")
        curve = replace(curve, variance=float(deviation) ** 2)
    curve = _repaired(curve)
    if method is None:
        method = default_method(curve, sampler) if clock is None else "loss-adaptive"
    if clock is None:
        clock = default_plan(curve, sampler) if method == "loss-adaptive" else "nats"
    if curve.columns > 1 and (method not in MANY_CLOCKS or not _charges(curve, clock)):
        raise InputError(
            "with several clocks only loss-adaptive and log-snr plans exist, in nats and for "
            "products in the samples clock"
        )
    name, warp = (clock, warp_of(curve, clock)) if isinstance(clock, str) else ("custom", clock)
    low, high = curve.axis[0], curve.axis[-1]
    if ends is not None:
        low, high = curve._place(ends[0]), curve._place(ends[1])
        if not curve.axis[0] - 1e-9 <= low < high <= curve.axis[-1] + 1e-9:
            raise InputError(
                f"ends {ends} must increase and lie within the curve's own, "
                f"{curve.u[0]:.4g} to {curve.u[-1]:.4g}"
            )
    if warp is not None:
        checked_clock(curve, warp, low, high)
    return _build(curve, steps, method, name, warp, (low, high))


def plan_at(curve: LossCurve, u: np.ndarray, method: str, clock: str = "nats") -> Plan:
    """The plan with levels of one's own: clock values (K + 1,), increasing, within the curve's.

    method: the name it goes by. Raises InputError on levels that do not increase or lie outside.

    >>> import numpy as np
    >>> from reverie import LossCurve, plan_at
    >>> u = np.geomspace(1e-2, 1e4, 129)
    >>> plan = plan_at(LossCurve(u, 0.5 / (1 + u)), np.array([0.01, 1.0, 100.0, 1e4]), "mine")
    >>> plan.steps, round(plan.excess, 1)
    (3, 69.7)
    """
    levels = np.asarray(u, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) > 0).all():
        raise InputError("a plan's levels must be an increasing list of at least two clock values")
    places = np.array([curve._place(float(value)) for value in levels])
    if not curve.axis[0] - 1e-9 <= places[0] < places[-1] <= curve.axis[-1] + 1e-9:
        raise InputError(
            f"levels from {levels[0]:.4g} to {levels[-1]:.4g} must lie within the curve's own, "
            f"{curve.u[0]:.4g} to {curve.u[-1]:.4g}"
        )
    return _charged(_repaired(curve), places, method, clock, warp_of(curve, clock))


def steps_needed(curve: LossCurve, budgets: Sequence[float], most: int = 500) -> list[int | None]:
    """For each budget in nats the least K whose loss-adaptive plan has at most that excess.

    None where `most` steps do not do. One pass of the exact program serves all budgets.
    Raises InputError on budgets that are not positive, or `most` below 1.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.plan import steps_needed
    >>> u = np.geomspace(1e-2, 1e4, 129)
    >>> steps_needed(LossCurve(u, 0.5 / (1 + u)), budgets=[1.0, 0.5, 0.001], most=50)
    [25, 46, None]
    """
    for nats in budgets:
        if not nats > 0:
            raise InputError(f"the budget is {nats} nats; it must be a positive number")
    if not isinstance(most, int | np.integer) or most < 1:
        raise InputError(f"most is {most!r}; it must be a whole number of at least one step")
    curve = _repaired(curve)
    if rises(curve):
        return rising_steps_needed(curve, budgets, most)
    ends = float(curve.axis[0]), float(curve.axis[-1])

    def excess(steps: int) -> float:
        return _build(curve, steps, "loss-adaptive", "nats", None, ends).excess

    return needed(curve, budgets, int(most), excess)


def _charges(curve: LossCurve, clock: str | Warp) -> bool:
    """Whether a curve of several clocks can be charged in this one."""
    return clock == "nats" or (clock == "samples" and has_samples_clock(curve))


def _methods(curve: LossCurve) -> tuple[str, ...]:
    """The plans that exist on the clock of this curve."""
    if curve.columns > 1:
        return MANY_CLOCKS if curve.is_log else MANY_CLOCKS[:1]
    if not curve.is_log:
        return ("loss-adaptive", *SHARE_RIVALS)
    of_noise = curve.process is None or curve.process.clock_is_snr
    return METHODS if of_noise else ("loss-adaptive", *LOG_RIVALS)


def _repaired(curve: LossCurve) -> LossCurve:
    """Isotonic where the ideal curve never increases; elsewhere its majorant.

    Near the uniform law a score tells nothing and its rate is almost 0, but a long step from there
    is not free: a rate that is still to come is charged at once. Where more is known of what such
    a step leaves (`plan.rising`), the curve stays as it is.
    """
    if rises(curve):
        return curve
    return (
        curve.monotone() if curve.process is None or curve.process.monotone else curve.majorant()
    )


def _build(
    curve: LossCurve,
    steps: int,
    method: str,
    clock: str,
    warp: Warp | None,
    ends: tuple[float, float],
) -> Plan:
    low, high = ends
    if method == "loss-adaptive":
        solve = rising_knots if rises(curve) else swelling_knots if swells(curve) else adaptive
        places = solve(curve, steps, warp, low, high)
    elif not curve.is_log:
        if method not in SHARE_RIVALS:
            raise InputError(
                f"the {method} plan needs a clock of signal to noise; on a share choose one of "
                f"loss-adaptive, {', '.join(SHARE_RIVALS)}"
            )
        places = SHARE_RIVALS[method](curve, low, high, steps)
        places[0], places[-1] = low, high
    elif method not in _methods(curve):
        raise InputError(
            f"the {method} plan is made for the signal-to-noise ratio of Gaussian noise, which is "
            f"not the clock of {type(curve.process).__name__}: choose one of "
            f"{', '.join(_methods(curve))}"
        )
    else:
        places = RIVALS[method](curve, low, high, steps)
        places[0], places[-1] = low, high
    return _charged(curve, places, method, clock, warp)


def _charged(
    curve: LossCurve, places: np.ndarray, method: str, clock: str, warp: Warp | None
) -> Plan:
    """The plan at these places of the axis, with its charges on `curve`."""
    nats, excess = priced(curve, places)
    own = excess if warp is None else priced(curve, places, warp).excess
    u = curve.at(places)[0]
    times = None
    if curve.process is not None:
        clock_values = torch.as_tensor(u if curve.columns > 1 else u[:, 0])
        times = curve.process.time(clock_values).clamp(*curve.process.t_range).numpy()
    u = u if curve.columns > 1 else u[:, 0]
    return Plan(u, times, method, clock, excess, own, nats, curve, places, warp)
