"""What a plan costs on a curve, in any clock: staircase less area.

The charge of a staircase in the clock W is sum_k (W_{k+1} - W_k) rate(u_k) - int rate dW. W = u
is nats; "samples" is W = -arctan(1/sqrt(u c^2)), c^2 the mean variance of the data: fine detail,
which nobody sees, weighs less there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.staircase import Staircase

NODES = 2001
CLOCKS = ("nats", "samples")
Warp = Callable[[np.ndarray], np.ndarray]


class Charge(NamedTuple):
    """Area of a staircase, and by how much it passes the area under the curve."""

    staircase: float
    excess: float


def charge(curve: LossCurve, places: np.ndarray, warp: Warp | None = None) -> Charge:
    """Charge of the staircase with knots at `places` (K + 1,) of the curve's axis."""
    low, high = places[0], places[-1]
    inner = curve.axis[(curve.axis > low) & (curve.axis < high)]
    dense = np.union1d(np.linspace(low, high, NODES), inner)
    total = float(Staircase(curve, warp)(places[:-1], places[1:]).sum())
    return Charge(total, total - float(curve.cumulative(dense, warp)[-1]))


def warp_of(curve: LossCurve, clock: str) -> Warp | None:
    """The clock W(u) of a name in `CLOCKS`; None is nats. InputError on another name."""
    if clock == "nats":
        return None
    if clock == "samples":
        variance = variance_of(curve)
        return lambda u: -np.arctan(1 / np.sqrt(u * variance))
    raise InputError(f"clock={clock!r}: choose one of {', '.join(CLOCKS)}, or a function of u")


def variance_of(curve: LossCurve) -> float:
    """Mean data variance per dimension, read off the noisiest level of the curve."""
    if curve.dim is None:
        raise InputError(
            'the "tangent" and "score-optimal" plans and the "samples" clock need a curve that '
            "knows its dim"
        )
    return max(2 * float(curve.rate[0]) / curve.dim, 1e-12)


def has_samples_clock(curve: LossCurve) -> bool:
    """Whether the "samples" charge exists: one positive clock, and a known dimension."""
    return curve.columns == 1 and curve.is_log and curve.dim is not None
