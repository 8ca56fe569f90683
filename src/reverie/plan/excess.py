"""What a plan costs on a curve, in any clock: staircase less area.

The charge of a staircase in the clock W is sum_k (W_{k+1} - W_k) rate(u_k) - int rate dW. W = u
is nats. In "samples", W = -arctan(1/sqrt(u c^2)), fine detail, which nobody sees, weighs less: c^2
is the geometric mean of the data's mean variance per dimension and of its leading scale, 1 / u at
which half of the guess is decided (for isotropic data both are the variance). The form of W is our
own, found on real data, not derived.

In a product each part of numbers has that clock, W_j = -(4 / c_j^2) arctan(1/sqrt(u c_j^2)), whose
slope is 1 at u = 1 / c_j^2: a nat of a number that is half decided weighs as much as one of a
symbol. Symbols stay in nats, for every wrong one is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan.rising import staircase_of

NODES = 2001
CLOCKS = ("nats", "samples")
WITHOUT_SIGNAL = 0.9  # share of the noise's own variance that a guess may miss and be a guess
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
                f"dimension, and of products with such noise{_of(curve)}: plan in nats"
            )
        if curve.u.ndim > 1:
            return _of_parts(curve)
        scale = math.sqrt(variance_of(curve) / _half_decided(curve))
        return lambda u: -np.arctan(1 / np.sqrt(u * scale))
    raise InputError(f"clock={clock!r}: choose one of {', '.join(CLOCKS)}, or a function of u")


def _of_parts(curve: LossCurve) -> Warp:
    """The samples clock (M, J) of a product: numbers in their own, all other parts in nats."""
    scales = np.zeros(curve.columns)
    for j, part in _noisy_parts(curve):
        scales[j] = math.sqrt(variance_of(part) / _half_decided(part))
    noisy = scales > 0

    def warp(u: np.ndarray) -> np.ndarray:
        clock, scale = np.array(u, dtype=np.float64), scales[noisy]
        clock[:, noisy] = -4 / scale * np.arctan(1 / np.sqrt(clock[:, noisy] * scale))
        return clock

    return warp


def _noisy_parts(curve: LossCurve) -> Iterator[tuple[int, LossCurve]]:
    """The columns of a product's curve that belong to Gaussian noise, each as a curve alone."""
    assert curve.process is not None
    for j, size in enumerate(curve.process.snr_sizes):
        if size:
            yield j, LossCurve(curve.u[:, j], curve.rate[:, j], dim=size)


def variance_of(curve: LossCurve) -> float:
    """Mean data variance per dimension: the data's own where it was seen, or less where a model
    that is told conditions leaves less to guess.

    From the curve alone it is v = m / (1 - u m), m = 2 rate / dim at the noisiest level: exact for
    isotropic Gaussian data, and at most the variance wherever the model is no worse than linear.
    """
    if curve.dim is None:
        raise InputError(
            'the "tangent" and "score-optimal" plans and the "samples" clock need a curve that '
            "knows its dim"
        )
    read = max(2 * float(curve.rate[0]) / curve.dim, 1e-12)
    signal = float(curve.u[0]) * read
    if curve.is_log and signal < WITHOUT_SIGNAL:
        read /= 1 - signal
    return read if curve.variance is None else min(read, curve.variance)


def _half_decided(curve: LossCurve) -> float:
    """The clock at which half of the guess of the mean's rate is left; the last one if never.

    Where even the noisiest level knows more, that of isotropic data.
    """
    rate = np.minimum.accumulate(curve.rate.reshape(-1))
    assert curve.dim is not None
    variance = variance_of(curve)
    half = 0.25 * curve.dim * variance
    if rate[0] <= half:
        return 1 / variance
    place = np.interp(-half, -rate, curve.axis)
    return float(curve.at(np.array([place]))[0][0, 0])


def _of(curve: LossCurve) -> str:
    return "" if curve.process is None else f", not of {type(curve.process).__name__}"


def has_samples_clock(curve: LossCurve) -> bool:
    """Whether the "samples" charge exists: Gaussian noise of one clock, and a known dimension; or
    a product that has such noise among its parts."""
    if curve.u.ndim > 1:
        return curve.process is not None and any(curve.process.snr_sizes)
    of_noise = curve.process is None or curve.process.clock_is_snr
    return of_noise and curve.columns == 1 and curve.is_log and curve.dim is not None


def checked_clock(curve: LossCurve, warp: Warp, low: float, high: float) -> None:
    """InputError where a clock W(u) is not finite, or does not increase, between two places."""
    u = curve.at(np.linspace(low, high, NODES))[0]
    with np.errstate(all="ignore"):
        values = np.asarray(warp(u), dtype=np.float64)
    if values.shape != u.shape:
        raise InputError(f"a clock gives one value for each u: {u.shape}, not {values.shape}")
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(f"the clock is not finite at u = {u[bad][0]:.4g}")
    falls = np.flatnonzero((np.diff(values, axis=0) <= 0).any(1))
    if len(falls):
        where = float(u[falls[0], 0])
        raise InputError(f"a clock must increase with u; this one does not at u = {where:.4g}")
