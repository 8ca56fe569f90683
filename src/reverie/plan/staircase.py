"""The exact program: the staircase over a non-increasing curve with the least area.

Minimise sum_k W-step(n_k -> n_k+1) . rate(n_k) over K + 1 knots among N nodes with fixed ends. The
cost is Monge where the rate never increases, so the best predecessor is monotone in the node and
in the number of steps (Aggarwal et al. 1987); each layer is solved by halving, all rows of one
depth at once. The loss-adaptive schedule built on it is a reconstruction (see `plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import solve_banded

from reverie.curve import LossCurve

POLISH_SWEEPS, GOLDEN_ROUNDS = 12, 10
NEWTON_ROUNDS, SETTLED = 12, 1e-13  # steps at most, and a gain in the area that ends them
SLOPE, BEND = 1e-5, 1e-3  # of the axis, over which differences are taken
STENCIL = (-SLOPE, SLOPE, -BEND, 0.0, BEND)
GOLDEN = (np.sqrt(5) - 1) / 2


class Staircase:
    """Charge of a step between places of a curve's axis: W-step times the rate at its start."""

    def __init__(
        self, curve: LossCurve, warp: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.curve, self.warp = curve, warp

    def read(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clock W(u) (M, J) and rate (M, J) at places of the axis."""
        clock, rate = self.curve.at(places)
        return (clock if self.warp is None else self.warp(clock)), rate

    def __call__(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        clock, rate = self.read(start)
        return ((self.read(stop)[0] - clock) * rate).sum(1)


def best_knots(clock: np.ndarray, rate: np.ndarray, steps: int) -> np.ndarray:
    """Indices (K + 1,) of the optimal knots; clock and rate are (N, J), the rate non-increasing.

    steps must be at most N - 1.
    """
    choices = [best for _, best in _layers(clock, rate, steps)]
    knots = [len(clock) - 1]
    for best in reversed(choices):
        knots.append(int(best[knots[-1]]))
    return np.array(knots[::-1])


def least_areas(clock: np.ndarray, rate: np.ndarray, most: int) -> Iterator[float]:
    """Yield the least staircase area of 1, 2, ... `most` steps over the whole grid."""
    for value, _ in _layers(clock, rate, most):
        yield float(value[-1])


def _layers(
    clock: np.ndarray, rate: np.ndarray, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For 1, 2, ... steps: the least area (N,) up to each node, and its predecessor (N,)."""
    own = (clock * rate).sum(1)
    value = clock @ rate[0] - own[0]
    best = np.zeros(len(clock), dtype=np.int64)
    yield value, best
    for layer in range(2, steps + 1):
        # node j is reached in `layer` steps only if j >= layer
        value, best = _layer(value - own, rate, clock, best, layer)
        yield value, best


def _layer(
    intercept: np.ndarray, rate: np.ndarray, clock: np.ndarray, before: np.ndarray, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every node j the predecessor i in [layer - 1, j - 1] of least cost, and that cost.

    Bounds from monotonicity: best(left) <= best(j) <= best(right), best(j) >= before(j).
    """
    nodes = len(clock)
    value, best = np.full(nodes, np.inf), np.full(nodes, nodes, dtype=np.int64)
    best[:layer] = layer - 1
    stride = 1 << max(nodes - layer - 1, 1).bit_length()
    while stride >= 1:
        rows = np.arange(layer - 1 + stride, nodes, 2 * stride)
        if len(rows):
            left = best[rows - stride]
            right = best[np.minimum(rows + stride, nodes - 1)]
            right = np.where(rows + stride < nodes, right, nodes)
            low = np.maximum(np.maximum(left, before[rows]), layer - 1)
            high = np.minimum(right, rows - 1)
            low = np.minimum(low, high)
            value[rows], best[rows] = _row_minima(intercept, rate, clock[rows], low, high)
        stride //= 2
    return value, best


def _row_minima(
    intercept: np.ndarray, rate: np.ndarray, clock: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """min and argmin over i in [low, high] of intercept_i + rate_i . clock, for each row."""
    length = high - low + 1
    starts = np.concatenate([[0], np.cumsum(length)[:-1]])
    index = np.arange(length.sum()) + np.repeat(low - starts, length)
    if rate.shape[1] == 1:
        cost = intercept[index] + rate[index, 0] * np.repeat(clock[:, 0], length)
    else:
        cost = intercept[index] + (rate[index] * np.repeat(clock, length, axis=0)).sum(1)
    least = np.minimum.reduceat(cost, starts)
    hits = np.flatnonzero(cost == np.repeat(least, length))
    first = hits[np.searchsorted(hits, starts)]
    return least, index[first]


def settle(knots: np.ndarray, cost: Staircase) -> np.ndarray:
    """Newton's method on the area of polished knots (K + 1,): its Hessian has three diagonals.

    With f = sum_k (W_k+1 - W_k) . r_k, df/dp_k = W'_k . (r_k-1 - r_k) + r'_k . (W_k+1 - W_k).
    A step that does not lower the area is halved, and in the end not taken.
    """
    area = float(cost(knots[:-1], knots[1:]).sum())
    for _ in range(NEWTON_ROUNDS if len(knots) > 2 else 0):
        move = _newton(knots, cost)
        room = 0.4 * np.minimum(np.diff(knots)[:-1], np.diff(knots)[1:])
        move = np.clip(np.nan_to_num(move), -room, room)
        for share in (1.0, 0.5, 0.25, 0.125):
            trial = knots.copy()
            trial[1:-1] += share * move
            less = float(cost(trial[:-1], trial[1:]).sum())
            if less < area:
                break
        else:
            return knots
        gained, knots, area = area - less, trial, less
        if gained <= SETTLED * abs(area):
            return knots
    return knots


def _newton(knots: np.ndarray, cost: Staircase) -> np.ndarray:
    """The step (K - 1,) of the interior knots to the minimum of the area's quadratic."""
    (w, r), (w1, r1), (w2, r2) = _derivatives(knots, cost)
    rise, fall = np.diff(w, axis=0)[1:], -np.diff(r, axis=0)[:-1]  # W_k+1 - W_k, r_k-1 - r_k
    inner = slice(1, -1)
    slope = (w1[inner] * fall + r1[inner] * rise).sum(1)
    bend = (w2[inner] * fall - 2 * w1[inner] * r1[inner] + r2[inner] * rise).sum(1)
    beside = (r1[inner] * w1[2:]).sum(1)[:-1]
    # a dead zone is flat, and a kink of the interpolant may bend the wrong way
    bend = np.maximum(bend, np.abs(np.r_[0, beside]) + np.abs(np.r_[beside, 0]) + 1e-300)
    bands = np.stack([np.r_[0, beside], bend, np.r_[beside, 0]])
    with np.errstate(all="ignore"):
        return solve_banded((1, 1), bands, -slope, check_finite=False)


def _derivatives(places: np.ndarray, cost: Staircase) -> list[tuple[np.ndarray, np.ndarray]]:
    """W and the rate, their first and their second derivatives along the axis, each (M, J)."""
    inside = np.clip(places, places[0] + BEND, places[-1] - BEND)
    near, found = {step: cost.read(inside + step) for step in STENCIL}, [cost.read(places)]
    first = [(near[SLOPE][j] - near[-SLOPE][j]) / (2 * SLOPE) for j in (0, 1)]
    second = [(near[BEND][j] - 2 * near[0.0][j] + near[-BEND][j]) / BEND**2 for j in (0, 1)]
    return [*found, (first[0], first[1]), (second[0], second[1])]


def polish(knots: np.ndarray, cost: Staircase) -> np.ndarray:
    """Slide interior knots (K + 1,) on the axis, alternating odd and even, to lower the area."""
    knots = knots.copy()
    for sweep in range(2 * POLISH_SWEEPS):
        move = np.arange(1 + sweep % 2, len(knots) - 1, 2)
        if len(move):
            knots[move] = _golden(knots, move, cost)
    return knots


def _golden(knots: np.ndarray, move: np.ndarray, cost: Staircase) -> np.ndarray:
    """Golden-section search of each moving knot, near where it stands, all at once."""
    here = knots[move]
    before, height = cost.read(knots[move - 1])
    after, _ = cost.read(knots[move + 1])

    def areas(*places: np.ndarray) -> list[np.ndarray]:
        clock, rate = cost.read(np.concatenate(places))  # one reading costs what two do
        parts = zip(np.split(clock, len(places)), np.split(rate, len(places)), strict=True)
        return [((c - before) * height + (after - c) * r).sum(1) for c, r in parts]

    low = here - 0.25 * (here - knots[move - 1])
    high = here + 0.25 * (knots[move + 1] - here)
    for _ in range(GOLDEN_ROUNDS):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        first, second = areas(a, b)
        left = first < second
        low, high = np.where(left, low, a), np.where(left, b, high)
    place = 0.5 * (low + high)
    moved, stayed = areas(place, here)
    return np.where(moved < stayed, place, here)
