"""Plans over curves that rise: noise that forgets, and what a long step from its end leaves.

On a compact space the score dies out near the uniform law, and the rate with it. A step from
there is not free: the sampler is told almost nothing, stays almost uniform, and misses what the
data have become by the step's end. With r(u) the model's rate and b(u) the rate of a guess that
knows nothing (`Process.blind_rate`), b - r is what the guess explains, and its area is the KL of
the noised data from the uniform law (de Bruijn's identity). A step from u with the guess frozen
keeps explaining b(u) - r(u) while the stakes rise to b(v), and is charged

    c(v) = max(r(v), r(u) + max(b(v) - b(u), 0))          per unit of clock at v > u.

Where b falls, this is clock times rate, exact on flat space. From the uniform end, b = r = 0, the
charge less the area is int (b - r) = KL(q_v | uniform), all that is left undone. The excess of
every step is at least int [(b - r)(v) - (b - r)(u)] dv and never negative, so that no plan claims
less than the KL of its first step. In between c is an approximation, to be named so.

Nats alone weigh a wrong share of clusters lightly: .001 of them move it by a per cent. Shares are
decided while x = slowest / u falls from FROM, where e^-x = .1% of the square of the slowest mode
is left, to TO; a frozen score holds that mode's growth to first order only. So a step there may
take x by no more than a reach (below 1 log x, since the kernel is as on flat space there): REACH,
or more where K is so small that such steps would take more than half of it. This is a rule, found
on circles, spheres and rotations; what it costs in nats is in the plan's price.

A process of one's own that does not tell its `slowest` has no blind rate either. Where its curve
swells, from a noisy end that tells little to a peak, the same reach is kept: near a uniform law
b ~ u^-2 e^-(slowest/u), whose peak is at slowest = 2 u.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.plan.paths import cheapest_path
from reverie.plan.staircase import Staircase
from reverie.processes import Process

FROM, TO, REACH = 7.0, 0.25, 0.75
SWELLS = 2.5  # times the first clock value: a later peak is no accident of sampling
NODES, INNER = 401, 65
BLIND_LEVELS = 48
Warp = Callable[[np.ndarray], np.ndarray]


def rises(curve: LossCurve) -> bool:
    """Whether the noise of this curve forgets into a uniform law."""
    return curve.process is not None and curve.process.slowest > 0


def swells(curve: LossCurve) -> float:
    """`slowest` of a curve that rises to a peak, where its process does not tell; else 0.

    Read off the curve's majorant, which is flat up to the peak.
    """
    process = curve.process
    told = process is None or process.monotone or process.steps_exact or process.steps_measured
    if told or rises(curve) or curve.columns > 1 or not curve.is_log:
        return 0.0
    rate = curve.rate.reshape(-1)
    peak = float(curve.u.reshape(-1)[np.flatnonzero(rate >= rate.max() * (1 - 1e-9))[-1]])
    return 2 * peak if peak > SWELLS * float(curve.u.reshape(-1)[0]) else 0.0


class RisingStaircase(Staircase):
    """Charges of steps over a curve that rises, with the rate c(v) of the module."""

    def __init__(self, curve: LossCurve, warp: Warp | None = None) -> None:
        super().__init__(curve, warp)
        assert curve.process is not None
        ends = float(curve.axis[0]), float(curve.axis[-1])
        self.blind_axis, self.blind = _blind(curve.process, *ends)

    def read_all(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clock W(u), rate and blind rate, each like places."""
        flat = places.reshape(-1)
        clock, rate = self.read(flat)
        blind = np.interp(flat, self.blind_axis, self.blind)
        found = (clock[:, 0], np.maximum(rate[:, 0], 0.0), blind)
        return tuple(value.reshape(places.shape) for value in found)  # type: ignore[return-value]

    def __call__(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        places = np.linspace(start, stop, INNER, axis=-1)
        clock, rate, blind = self.read_all(places)
        cost = _rate(rate, blind, rate[:, :1], blind[:, :1])
        return (0.5 * (cost[:, 1:] + cost[:, :-1]) * np.diff(clock)).sum(1)

    def table(self, axis: np.ndarray) -> np.ndarray:
        """Charges (N, N) of all steps i -> j between places of the axis, read where j > i."""
        clock, rate, blind = self.read_all(axis)
        table = np.zeros((len(axis), len(axis)))
        for i in range(len(axis) - 1):
            cost = _rate(rate[i:], blind[i:], rate[i], blind[i])
            table[i, i + 1 :] = np.cumsum(0.5 * (cost[1:] + cost[:-1]) * np.diff(clock[i:]))
        return table


@lru_cache(maxsize=16)
def _blind(process: Process, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the axis and the blind rate there; every plan of a curve asks for it."""
    axis = np.linspace(low, high, BLIND_LEVELS)
    return axis, process.blind_rate(torch.as_tensor(np.exp(axis))).numpy()


def _rate(
    rate: np.ndarray, blind: np.ndarray, rate_at: np.ndarray, blind_at: np.ndarray
) -> np.ndarray:
    return np.maximum(rate, rate_at + np.maximum(blind - blind_at, 0.0))


def staircase_of(curve: LossCurve, warp: Warp | None = None) -> Staircase:
    """What steps over this curve are charged."""
    return RisingStaircase(curve, warp) if rises(curve) else Staircase(curve, warp)


def rising_knots(
    curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float
) -> np.ndarray:
    """Places (K + 1,) of the cheapest K steps among those within reach."""
    assert curve.process is not None
    axis = np.linspace(low, high, max(NODES, 2 * steps + 1))
    table = RisingStaircase(curve, warp).table(axis)
    return axis[_cheapest(table, axis, steps, curve.process.slowest)]


def swelling_knots(
    curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float
) -> np.ndarray:
    """As `rising_knots`, at clock times rate, where the curve alone tells the `slowest`."""
    axis = np.linspace(low, high, max(NODES, 2 * steps + 1))
    clock, rate = (value[:, 0] for value in Staircase(curve, warp).read(axis))
    return axis[_cheapest(rate[:, None] * (clock - clock[:, None]), axis, steps, swells(curve))]


def _cheapest(table: np.ndarray, axis: np.ndarray, steps: int, slowest: float) -> np.ndarray:
    return cheapest_path(_within_reach(table, axis, slowest, reach_of(steps)), steps)


def reach_of(steps: int) -> float:
    """The longest fall of x while the shares are decided: see the module."""
    return max(REACH, 2 * (FROM - 1 - math.log(TO)) / steps)


def least_excesses(curve: LossCurve, most: int) -> Iterator[float]:
    """Yield the least excess in nats of 1, 2, ... `most` steps; infinite where none reaches."""
    assert curve.process is not None
    axis = np.linspace(curve.axis[0], curve.axis[-1], max(NODES, 2 * most + 1))
    table = RisingStaircase(curve).table(axis)
    table = _within_reach(table, axis, curve.process.slowest, REACH)
    table = np.where(np.tri(len(axis), dtype=bool), np.inf, table)
    value, area = table[:, -1], float(curve.cumulative(axis)[-1])
    for _ in range(most):
        yield float(value[0]) - area
        value = (table + value).min(1)


def rising_steps_needed(curve: LossCurve, budgets: Sequence[float], most: int) -> list[int | None]:
    """`steps_needed` of a curve that rises."""
    excess = list(least_excesses(curve, most))
    return [next((k for k, e in enumerate(excess, 1) if e <= nats), None) for nats in budgets]


def _within_reach(table: np.ndarray, axis: np.ndarray, slowest: float, reach: float) -> np.ndarray:
    """The table with infinite charges for steps that go too far while shares are decided."""
    left = slowest / np.exp(axis)
    stage = np.where(left > 1, left, 1 + np.log(np.minimum(left, 1)))
    fall = np.minimum(stage, FROM)[:, None] - stage
    # a neighbour is always within reach, however coarse the nodes
    near = np.arange(len(axis))[None] - np.arange(len(axis))[:, None] <= 1
    far = (fall > reach) & (left[:, None] > TO) & ~near
    return np.where(far, np.inf, table)
