"""Every schedule that a loss curve alone can place, by name.

A function takes the curve, two positions of log gamma (noisy, clean) and K, and returns K + 1
positions between them. Those of `classic` ignore the curve; the others read it:

    tangent            arctan(sigma / c) linear, c the data's deviation
    entropic-log-snr   half of the steps as rescaled-entropic's, half even in log sigma: fine where
                       data are decided, and none so long that a line through two guesses misleads
                       (our own, found on exact laws)
    entropic           equal information (Stancevic et al. 2025); rescaled: multiplied by sigma
    density            equal integrals of sqrt(-rate' du): the limit of many loss-adaptive steps
    score-optimal      Williams et al. 2024, equal cost of a corrector; a reconstruction in which
                       the change of the score is read off the curve as if the data were Gaussian
    step-optimised, align-your-steps, ays-*: see their files
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reverie.curve import LossCurve
from reverie.plan import classic
from reverie.plan.align import TABLES, aligned, table_places
from reverie.plan.excess import NODES, variance_of
from reverie.plan.step_optimised import step_optimised

Places = Callable[[LossCurve, float, float, int], np.ndarray]


def _tangent(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    return classic.arctan(low, high, steps, math.sqrt(variance_of(curve)))


def equal_parts(mass: np.ndarray, axis: np.ndarray, steps: int) -> np.ndarray:
    """Positions (K + 1,) on `axis` (N,) that cut the mass (N - 1,) between nodes equally."""
    running = np.concatenate([[0.0], np.cumsum(mass + 1e-12 * mass.sum() + 1e-300)])
    return np.interp(np.linspace(0, running[-1], steps + 1), running, axis)


def _density(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    axis = np.linspace(low, high, NODES)
    u, rate = (a[:, 0] for a in curve.at(axis))
    return equal_parts(np.sqrt(np.maximum(-np.diff(rate), 0) * np.diff(u)), axis, steps)


def _entropic(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    axis = np.linspace(low, high, NODES)
    u, rate = (a[:, 0] for a in curve.at(axis))
    return equal_parts(0.5 * (rate[1:] + rate[:-1]) * np.diff(u), axis, steps)


def _rescaled_entropic(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    axis = np.linspace(low, high, NODES)
    return equal_parts(_rescaled_mass(curve, axis), axis, steps)


def _entropic_log_snr(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    axis = np.linspace(low, high, NODES)
    mass = _rescaled_mass(curve, axis)
    return equal_parts(mass / mass.sum() + 1 / len(mass), axis, steps)


def _rescaled_mass(curve: LossCurve, axis: np.ndarray) -> np.ndarray:
    """Information times sigma between nodes: rate d(-1/sqrt(u)) u."""
    u, rate = (a[:, 0] for a in curve.at(axis))
    middle = 0.5 * ((u * rate)[1:] + (u * rate)[:-1])
    return middle * np.exp(-0.25 * (axis[1:] + axis[:-1])) * np.diff(axis)


def _score_optimal(curve: LossCurve, low: float, high: float, steps: int) -> np.ndarray:
    """Equal parts of sqrt(L), L = sigma^2 E|score' - score|^2 of a small step.

    J = E|score|^2 = gamma d - 2 gamma^2 rate is exact for any law and grows with gamma = 1/tau.
    For a Gaussian E|d score/d tau|^2 >= (dJ/dtau)^2 / J, with equality where it is isotropic;
    taken as equality, sqrt(L) = sqrt(tau / J) dJ.
    """
    variance_of(curve)
    assert curve.dim is not None
    axis = np.linspace(low, high, NODES)
    u, rate = (a[:, 0] for a in curve.at(axis))
    energy = np.maximum.accumulate(np.maximum(u * (curve.dim - 2 * u * rate), 0)) + 1e-300
    middle = 0.5 * (axis[1:] + axis[:-1])
    mass = np.exp(-0.5 * middle) * np.diff(energy) / np.sqrt(0.5 * (energy[1:] + energy[:-1]))
    return equal_parts(mass, axis, steps)


RIVALS: dict[str, Places] = {
    "karras": lambda _, *ends: classic.karras(*ends),
    "log-snr": lambda _, *ends: classic.log_snr(*ends),
    "cosine": lambda _, *ends: classic.arctan(*ends),
    "linear": lambda _, *ends: classic.vp_time(*ends),
    "quadratic": lambda _, *ends: classic.vp_time(*ends, power=2.0),
    "entropic": _entropic,
    "rescaled-entropic": _rescaled_entropic,
    "entropic-log-snr": _entropic_log_snr,
    "tangent": _tangent,
    "density": _density,
    "score-optimal": _score_optimal,
    "step-optimised": lambda _, *ends: step_optimised(*ends),
    "align-your-steps": aligned,
    **{name: table_places(name) for name in TABLES},
}
# where the clock is a share that starts at 0 (masking): positions of the clock itself
SHARE_RIVALS: dict[str, Places] = {
    "linear": lambda _, low, high, steps: np.linspace(low, high, steps + 1),
    "cosine": lambda _, *ends: classic.share_cosine(*ends),
    "entropic": _entropic,
    "density": _density,
}
# what any clock that starts above 0 can have: even in its logarithm, or in information
LOG_RIVALS = ("log-snr", "entropic", "density")
NEED_DIM = ("tangent", "score-optimal")
