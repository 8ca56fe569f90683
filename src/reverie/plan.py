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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.processes import VP, GaussianProcess
from reverie.staircase import Staircase, best_knots, least_areas, polish

if TYPE_CHECKING:
    from reverie.denoisers.handover import Handover

NODES = 2001
Warp = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Plan:
    """K + 1 finite levels from noise to data; a sampler appends the last denoise itself.

    u: (K + 1,) or (K + 1, J) clock values, increasing. t: (K + 1,) process times, or None when
    the curve has no process. excess: nats, staircase minus area on the model's own curve; charge:
    the same in the plan's clock (equal to `excess` when clock is "nats").
    """

    u: np.ndarray
    t: np.ndarray | None
    method: str
    clock: str
    excess: float
    charge: float
    staircase: float
    curve: LossCurve = field(repr=False)
    places: np.ndarray = field(repr=False)
    warp: Warp | None = field(default=None, repr=False)

    @property
    def steps(self) -> int:
        return len(self.u) - 1

    @property
    def levels(self) -> np.ndarray:
        """Process times (K + 1,), noisiest first."""
        if self.t is None:
            raise InputError("this plan has no process times: plan a curve that has a process")
        return self.t

    def path_kl(self, ideal: LossCurve) -> float:
        """Path KL in nats of the K steps, initialisation apart, given the ideal curve."""
        if self.curve.columns > 1:
            return self.staircase - ideal.area()
        return self.staircase - ideal.area(float(self.u[0]), float(self.u[-1]))

    def on(self, curve: LossCurve) -> Plan:
        """The same levels charged on another curve, as the same model's on other rows."""
        return _charged(curve, self.places, self.method, self.clock, self.warp)

    def compare(self) -> dict[str, Plan]:
        """This plan and every rival on the same ends and number of steps, cheapest first."""
        rivals: dict[str, Plan] = {self.method: self}
        ends = (float(self.places[0]), float(self.places[-1]))
        for method in _methods(self.curve):
            if method != self.method:
                rivals[method] = _build(
                    self.curve, self.steps, method, self.clock, self.warp, ends
                )
        return dict(sorted(rivals.items(), key=lambda item: item[1].excess))

    def to_diffusers(self, scheduler: Any, *, force: bool = False) -> Handover:
        """Make a scheduler of diffusers hold this plan, and verify that it does.

        Use it as `with plan.to_diffusers(pipe.scheduler): pipe()`, or pass its `.call` to
        pipelines that take timesteps or sigmas; see `reverie.denoisers.handover`. force: write
        the arrays of schedulers that take no list. Raises InputError on schedulers that would
        distort the plan, and on plans that are not of Gaussian noise with one level for all
        coordinates.
        """
        from reverie.denoisers.handover import hand_over

        process = self.curve.process
        if not isinstance(process, GaussianProcess) or self.curve.columns > 1:
            raise InputError(
                "only plans of Gaussian noise with one level for all coordinates go to diffusers: "
                "plan a curve that was measured on such a process"
            )
        return hand_over(scheduler, self.u, force=force)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: grid, charges and provenance."""
        return {
            "method": self.method,
            "clock": self.clock,
            "steps": self.steps,
            "u": self.u.tolist(),
            "t": None if self.t is None else self.t.tolist(),
            "excess_nats": self.excess,
            "charge": self.charge,
            "staircase_nats": self.staircase,
        }


# --- where the classic plans put their knots: positions of log gamma between two ends ---------


def _sigma_power(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    start, stop = np.exp(-0.5 * low / 7), np.exp(-0.5 * high / 7)
    return -2 * 7 * np.log(np.linspace(start, stop, steps + 1))


def _log_snr(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    return np.linspace(low, high, steps + 1)


def _arctan(scale: float, low: float, high: float, steps: int) -> np.ndarray:
    start, stop = (math.atan(math.exp(-0.5 * end) / scale) for end in (low, high))
    return -2 * np.log(scale * np.tan(np.linspace(start, stop, steps + 1)))


def _cosine(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    return _arctan(1.0, low, high, steps)


def _tangent(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    return _arctan(math.sqrt(_variance(curve)), low, high, steps)


def _vp_time(power: float) -> Callable[..., np.ndarray]:
    def places(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
        process = VP()
        ends = process.time(torch.tensor([low, high], dtype=torch.float64).exp()) ** (1 / power)
        time = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
        return process.clock(time**power).log().numpy()

    return places


def _density(weight: str) -> Callable[..., np.ndarray]:
    """Knots at equal quantiles of a density read off the curve."""

    def places(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
        axis = np.linspace(low, high, NODES)
        u, rate = (a[:, 0] for a in curve.at(axis))
        if weight == "density":  # sqrt(-rate' du): the many-steps limit of the exact program
            mass = np.sqrt(np.maximum(-np.diff(rate), 0) * np.diff(u))
        elif weight == "entropic":  # equal information: rate du
            mass = 0.5 * (rate[1:] + rate[:-1]) * np.diff(u)
        else:  # rescaled: rate multiplied by d(-1/sqrt(u)) u = sqrt(u) rate dlog u
            middle = 0.5 * (u * rate)[1:] + 0.5 * (u * rate)[:-1]
            mass = middle * np.exp(-0.25 * (axis[1:] + axis[:-1])) * np.diff(axis)
        running = np.concatenate([[0.0], np.cumsum(mass + 1e-12 * mass.sum() + 1e-300)])
        return np.interp(np.linspace(0, running[-1], steps + 1), running, axis)

    return places


def _variance(curve: LossCurve) -> float:
    """Mean data variance per dimension, read off the noisiest level of the curve."""
    if curve.dim is None:
        raise InputError(
            'the "tangent" plan and the "samples" clock need a curve that knows its dim'
        )
    return max(2 * float(curve.rate[0]) / curve.dim, 1e-12)


RIVALS: dict[str, Callable[[LossCurve, float, float, int], np.ndarray]] = {
    "karras": _sigma_power,
    "log-snr": _log_snr,
    "cosine": _cosine,
    "linear": _vp_time(1.0),
    "quadratic": _vp_time(2.0),
    "entropic": _density("entropic"),
    "rescaled-entropic": _density("rescaled"),
    "tangent": _tangent,
    "density": _density("density"),
}
METHODS = ("loss-adaptive", *RIVALS)


def _share_linear(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    return np.linspace(low, high, steps + 1)


def _share_cosine(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    """The masked share falls as sin of a quarter turn (Shi et al. 2024, section 4)."""
    start, stop = math.acos(1 - low), math.acos(1 - high)
    return 1 - np.cos(np.linspace(start, stop, steps + 1))


# on a clock that is a share and starts at 0 (masking): positions of the clock itself
SHARE_RIVALS: dict[str, Callable[[LossCurve, float, float, int], np.ndarray]] = {
    "linear": _share_linear,
    "cosine": _share_cosine,
    "entropic": _density("entropic"),
    "density": _density("density"),
}
CLOCKS = ("nats", "samples")


def plan_steps(
    curve: LossCurve,
    steps: int = 10,
    method: str = "loss-adaptive",
    clock: str | Warp = "nats",
    ends: tuple[float, float] | None = None,
) -> Plan:
    """Choose the K + 1 levels of a K-step sampler from a loss curve.

    steps: K intervals between finite ends. method: one of `METHODS`; "loss-adaptive" is the exact
    program (reconstructed, see the module), optimal in path KL for the ancestral sampler.
    clock: what the exact program charges: "nats", "samples" (-arctan(1/sqrt(u c^2)), c^2 the data
    variance: detail nobody sees weighs less) or an increasing function of u. ends: clock values
    (noisy, clean), default the curve's. Raises InputError on an unknown word or bad ends.
    """
    if not isinstance(steps, int | np.integer) or not 1 <= steps < NODES:
        raise InputError(f"steps is {steps!r}; it must be a whole number from 1 to {NODES - 1}")
    if method not in METHODS:
        raise InputError(f"no plan is called {method!r}; choose one of {', '.join(METHODS)}")
    if curve.process is None or curve.process.monotone:
        curve = curve.monotone()
    if curve.columns > 1 and (method not in ("loss-adaptive", "log-snr") or clock != "nats"):
        raise InputError("with several clocks only loss-adaptive and log-snr plans in nats exist")
    name, warp = (clock, _warp(curve, clock)) if isinstance(clock, str) else ("custom", clock)
    low, high = curve.axis[0], curve.axis[-1]
    if ends is not None:
        low, high = curve._place(ends[0]), curve._place(ends[1])
        if not curve.axis[0] - 1e-9 <= low < high <= curve.axis[-1] + 1e-9:
            raise InputError(
                f"ends {ends} must increase and lie within the curve's own, "
                f"{curve.u[0]:.4g} to {curve.u[-1]:.4g}"
            )
    return _build(curve, steps, method, name, warp, (low, high))


def steps_needed(curve: LossCurve, budgets: Sequence[float], most: int = 500) -> list[int | None]:
    """For each budget in nats the least K whose loss-adaptive plan has at most that excess.

    None where `most` steps do not do. One pass of the exact program serves all budgets.
    """
    if curve.process is None or curve.process.monotone:
        curve = curve.monotone()
    axis = np.linspace(curve.axis[0], curve.axis[-1], max(NODES, 8 * most))
    area = curve.cumulative(axis)[-1]
    excess = [least - area for least in least_areas(*curve.at(axis), most)]
    return [next((k for k, e in enumerate(excess, 1) if e <= nats), None) for nats in budgets]


def _methods(curve: LossCurve) -> tuple[str, ...]:
    """The plans that exist on the clock of this curve."""
    if curve.columns > 1:
        return "loss-adaptive", "log-snr"
    return METHODS if curve.is_log else ("loss-adaptive", *SHARE_RIVALS)


def _warp(curve: LossCurve, clock: str) -> Warp | None:
    if clock == "nats":
        return None
    if clock == "samples":
        variance = _variance(curve)
        return lambda u: -np.arctan(1 / np.sqrt(u * variance))
    raise InputError(f"clock={clock!r}: choose one of {', '.join(CLOCKS)}, or a function of u")


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
        places = _adaptive(curve, steps, warp, low, high)
    elif not curve.is_log:
        if method not in SHARE_RIVALS:
            raise InputError(
                f"the {method} plan needs a clock of signal to noise; on a share choose one of "
                f"loss-adaptive, {', '.join(SHARE_RIVALS)}"
            )
        places = SHARE_RIVALS[method](curve, low, high, steps)
        places[0], places[-1] = low, high
    else:
        places = RIVALS[method](curve, low, high, steps)
        places[0], places[-1] = low, high
    return _charged(curve, places, method, clock, warp)


def _charged(
    curve: LossCurve, places: np.ndarray, method: str, clock: str, warp: Warp | None
) -> Plan:
    """The plan at these places of the axis, with its charges on `curve`."""
    low, high = places[0], places[-1]
    nats = float(Staircase(curve)(places[:-1], places[1:]).sum())
    dense = np.union1d(np.linspace(low, high, NODES), _inside(curve.axis, low, high))
    excess = nats - float(curve.cumulative(dense)[-1])
    charge = excess
    if warp is not None:
        charge = float(Staircase(curve, warp)(places[:-1], places[1:]).sum())
        charge -= float(curve.cumulative(dense, warp)[-1])
    u = curve.at(places)[0]
    times = None
    if curve.process is not None:
        clock_values = torch.as_tensor(u if curve.columns > 1 else u[:, 0])
        times = curve.process.time(clock_values).clamp(*curve.process.t_range).numpy()
    u = u if curve.columns > 1 else u[:, 0]
    return Plan(u, times, method, clock, excess, charge, nats, curve, places, warp)


def _inside(axis: np.ndarray, low: float, high: float) -> np.ndarray:
    return axis[(axis > low) & (axis < high)]


def _adaptive(
    curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float
) -> np.ndarray:
    """Exact program on a dense grid of nodes, then sliding the knots off it."""
    axis = np.linspace(low, high, NODES)
    u, rate = curve.at(axis)
    knots = best_knots(u if warp is None else warp(u), rate, steps)
    return polish(axis[knots], Staircase(curve, warp))
