"""The exact program on enough nodes: uniform ones, and for many steps finer where steps crowd.

Knots on fixed nodes are late or early by up to half a node. That costs little while there are many
nodes a step, and more than the plan itself when there are few: on 2,001 nodes the optimum of a
Gaussian was missed by .5% at K = 250 and by 57% at K = 2,000. Beyond `FEW` steps the nodes are
joined by those that cut each step of the density plan, the limit of many steps, into `PARTS`; and
where nodes are few the density plan itself is polished beside it, so that it never is the cheaper
one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reverie.curve import LossCurve
from reverie.plan.excess import NODES, Warp
from reverie.plan.rivals import equal_parts
from reverie.plan.staircase import Staircase, best_knots, least_areas, polish, settle

FEW = 20  # steps that the uniform nodes serve
PARTS = 8
MANY = 32  # nodes a step, from which sliding starts close enough to the optimum


def adaptive(
    curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float
) -> np.ndarray:
    """Places (K + 1,) of the axis with the least staircase: the program, then knots slid off."""
    axis = nodes(curve, steps, warp, low, high)
    u, rate = curve.at(axis)
    knots = axis[best_knots(u if warp is None else warp(u), rate, steps)]
    cost = Staircase(curve, warp)
    found = settle(polish(knots, cost), cost)
    if steps <= FEW or curve.columns > 1 or len(axis) > MANY * steps:
        return found
    rival = settle(polish(_dense(curve, steps, warp, low, high), cost), cost)
    return min((found, rival), key=lambda places: float(cost(places[:-1], places[1:]).sum()))


def nodes(curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float) -> np.ndarray:
    """Increasing places among which the program chooses; the ends are `low` and `high`."""
    even = np.linspace(low, high, NODES)
    if steps <= FEW:
        return even
    if curve.columns > 1:
        return np.linspace(low, high, max(NODES, PARTS * steps + 1))
    return np.union1d(even, _dense(curve, PARTS * steps, warp, low, high))


def _dense(curve: LossCurve, steps: int, warp: Warp | None, low: float, high: float) -> np.ndarray:
    """The density plan in the clock W: equal integrals of sqrt(-rate' dW)."""
    axis = np.linspace(low, high, max(NODES, 4 * steps + 1))
    u, rate = curve.at(axis)
    clock = u if warp is None else warp(u)
    mass = np.sqrt(np.maximum(-np.diff(rate[:, 0]), 0) * np.diff(clock[:, 0]))
    # a part of every step goes where the loss is flat, so that no two places coincide
    places = equal_parts(mass + 1e-3 * mass.mean(), axis, steps)
    places[0], places[-1] = low, high
    return places


def needed(
    curve: LossCurve, budgets: Sequence[float], most: int, excess: Callable[[int], float]
) -> list[int | None]:
    """For each budget in nats the least K with at most that excess, or None beyond `most`.

    One pass of the program counts for all budgets; the plans beside its answers, which have been
    polished, decide.
    """
    axis = nodes(curve, most, None, float(curve.axis[0]), float(curve.axis[-1]))
    area = curve.cumulative(axis)[-1]
    passes = np.array([least - area for least in least_areas(*curve.at(axis), most)])
    found: list[int | None] = []
    for nats in budgets:
        within = np.flatnonzero(passes <= nats)
        count = int(within[0]) + 1 if len(within) else most + 1
        while count > 1 and excess(count - 1) <= nats:
            count -= 1
        while count <= most and excess(count) > nats:
            count += 1
        found.append(count if count <= most else None)
    return found
