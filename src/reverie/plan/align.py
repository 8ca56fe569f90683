"""Align Your Steps: the coordinate search, and the schedules that were published with it.

The paper minimises sum_i int s^2 sigma'/sigma^3 E|D(x_t) - D(x_{t_i})|^2 dt over the steps by
a coordinate search on Monte Carlo estimates. For the exact denoiser that sum is the excess path
KL of the first-order stochastic solver, which the loss curve gives without a single new call; so
the search runs here on the staircase over the curve. It is a local search for what the exact
program finds globally. Search details are a reconstruction; the tables are the published values.

Source: Sabour, Fidler & Kreis 2024 (arXiv 2404.14507).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reverie.curve import LossCurve
from reverie.plan.staircase import Staircase

CANDIDATES, SWEEPS, FIRST = 17, 200, 10
TABLES = {  # sigma / alpha, noisy to clean; the first two as quickstart tables of ten steps
    "ays-sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays-sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "ays-svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def resampled(places: np.ndarray, steps: int) -> np.ndarray:
    """Another number of steps by interpolating log sigma linearly in the step's index."""
    old = np.linspace(0, 1, len(places))
    return np.interp(np.linspace(0, 1, steps + 1), old, places)


def table_places(name: str) -> Callable[[LossCurve, float, float, int], np.ndarray]:
    """Knots of a published table: log-linear in between, log sigma stretched onto the ends.

    Where the curve has the table's own ends, and K = 10, the levels are the published ones.
    """

    def places(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
        table = resampled(-2 * np.log(TABLES[name]), steps)
        share = (table - table[0]) / (table[-1] - table[0])
        return low + share * (high - low)

    return places


def aligned(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    """Coordinate search from uniform log-SNR; beyond 10 steps by doubling the last solution."""
    count = min(steps, FIRST)
    places = _search(np.linspace(low, high, count + 1), curve)
    while count < steps:
        count = min(2 * count, steps)
        places = _search(resampled(places, count), curve)
    return places


def _search(places: np.ndarray, curve: LossCurve) -> np.ndarray:
    """Move every other knot to the best of evenly spaced candidates between its neighbours."""
    cost = Staircase(curve)
    share = np.linspace(0, 1, CANDIDATES + 2)[1:-1, None]
    places, still = places.copy(), 0
    for sweep in range(SWEEPS):
        move = np.arange(1 + sweep % 2, len(places) - 1, 2)
        if len(move):
            before, after = places[move - 1], places[move + 1]
            choices = np.concatenate([before + share * (after - before), places[move][None]])
            shape = choices.shape
            area = cost(np.broadcast_to(before, shape).ravel(), choices.ravel())
            area = area + cost(choices.ravel(), np.broadcast_to(after, shape).ravel())
            area = area.reshape(shape)
            best, here = np.argmin(area, axis=0), np.arange(len(move))
            # where the curve is flat every place costs the same: what gains nothing stays
            gains = area[best, here] < area[-1] * (1 - 1e-12)
            moved = np.where(gains, choices[best, here], places[move])
            still = still + 1 if np.array_equal(moved, places[move]) else 0
            places[move] = moved
        else:
            still += 1
        if still >= 2:
            break
    return places
