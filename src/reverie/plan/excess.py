"""What a plan costs on a curve, in any clock: staircase less area.

The charge of a staircase in the clock W is sum_k (W_{k+1} - W_k) rate(u_k) - int rate dW. W = u
is nats. In "samples", W = -arctan(1/sqrt(u c^2)), fine detail, which nobody sees, weighs less: c^2
is the geometric mean of the data's mean variance per dimension and of its leading scale, 1 / u at
which half of the guess is decided (for isotropic data both are the variance). The form of W is our
own, found on real data, not derived.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan.rising import staircase_of

NODES = 2001
CLOCKS = ("nats", "samples")
Warp = Callable[[np.ndarray], np.ndarray]


class Priced(NamedTuple):
    """Area of a staircase, and by how much it passes the area under the curve."""

    staircase: float
    excess: float


def priced(curve: LossCurve, places: np.ndarray, warp: Warp | None = None) -> Priced:
    """Charge of the staircase with knots at `places` (K + 1,) of the curve's axis."""
    low, high = places[0], places[-1]
    inner = curve.axis[(curve.axis > low) & (curve.axis < high)]
    dense = np.union1d(np.linspace(low, high, NODES), inner)
    total = float(staircase_of(curve, warp)(places[:-1], places[1:]).sum())
    return Priced(total, total - float(curve.cumulative(dense, warp)[-1]))


def warp_of(curve: LossCurve, clock: str) -> Warp | None:
    """The clock W(u) of a name in `CLOCKS`; None is nats. InputError on another name."""
    if clock == "nats":
        return None
    if clock == "samples":
        if not has_samples_clock(curve):
            raise InputError(
                "the samples clock is that of Gaussian noise with one clock and a known "
                f"dimension{_of(curve)}: plan in nats"
            )
        scale = math.sqrt(variance_of(curve) / _half_decided(curve))
        return lambda u: -np.arctan(1 / np.sqrt(u * scale))
    raise InputError(f"clock={clock!r}: choose one of {', '.join(CLOCKS)}, or a function of u")


def variance_of(curve: LossCurve) -> float:
    """Mean data variance per dimension, read off the noisiest level of the curve."""
    if curve.dim is None:
        raise InputError(
            'the "tangent" and "score-optimal" plans and the "samples" clock need a curve that '
            "knows its dim"
        )
    return max(2 * float(curve.rate[0]) / curve.dim, 1e-12)


def _half_decided(curve: LossCurve) -> float:
    """The clock at which the rate has fallen to half its noisiest value; the last one if never."""
    rate = np.minimum.accumulate(curve.rate.reshape(-1))
    place = np.interp(-0.5 * rate[0], -rate, curve.axis)
    return float(curve.at(np.array([place]))[0][0, 0])


def _of(curve: LossCurve) -> str:
    return "" if curve.process is None else f", not of {type(curve.process).__name__}"


def has_samples_clock(curve: LossCurve) -> bool:
    """Whether the "samples" charge exists: Gaussian noise of one clock, and a known dimension."""
    of_noise = curve.process is None or curve.process.clock_is_snr
    return of_noise and curve.columns == 1 and curve.is_log and curve.dim is not None
