"""Tail of a sum of scores over a random subset, by a double saddlepoint.

T = sum of the scores of n_S labels drawn without replacement from N. A normal null errs where a
few rows hold most of the score (hubs) or the splits are unequal; the saddlepoint of Robinson
(1982), in the conditional form of Skovgaard (1987), keeps its relative accuracy far into the tail.
With very few hubs it errs too, and the sums are counted out or simulated (`subset_sums`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from reverie.auditing.nulls.subset_sums import DRAWS, exact_tail, simulated_tail

STEPS = 60
ENOUGH = 30  # effective rows: attained sizes at 5% then lie within a point of it


def permutation_z(scores: np.ndarray, is_member: np.ndarray) -> tuple[float, float]:
    """(T - its permutation mean) / deviation, and the deviation.

    Mean n_S mean(a), variance n_S n_H / (N (N - 1)) sum (a_j - mean)^2.
    """
    total, members = len(scores), int(is_member.sum())
    spread = np.square(scores - scores.mean()).sum()
    deviation = float(np.sqrt(members * (total - members) / (total * (total - 1)) * spread))
    if deviation <= 1e-12 * np.abs(scores).sum():
        return 0.0, 0.0
    excess = scores[is_member].sum() - members * scores.mean()
    return float(excess / deviation), deviation


@dataclass(frozen=True)
class Tail:
    """A permutation p-value, how it was found, and its standard error where it was simulated."""

    p_value: float
    how: str  # "exact", "simulated" or "saddlepoint"
    error: float = 0.0

    def __str__(self) -> str:
        drawn = f", {DRAWS:,} times (standard error {self.error:.2g})"
        return self.how + (drawn if self.how == "simulated" else "")


def permutation_p(scores: np.ndarray, is_member: np.ndarray) -> float:
    """P(T >= observed) over random relabellings of scores (N,); labels (N,) of bool."""
    return permutation_tail(scores, is_member).p_value


def permutation_tail(scores: np.ndarray, is_member: np.ndarray) -> Tail:
    """P(T >= observed) over random relabellings of scores (N,); labels (N,) of bool.

    By the saddlepoint where enough rows share the score; where a few hold most of it, T takes few
    values and has no smooth tail: all its values are counted out, or labels drawn at random.
    """
    if permutation_z(scores, is_member)[1] == 0:
        return Tail(1.0, "exact")
    if effective_rows(scores, is_member) >= ENOUGH:
        return Tail(saddlepoint_p(scores, is_member), "saddlepoint")
    p = exact_tail(scores, is_member)
    if p is not None:
        return Tail(p, "exact")
    p, error = simulated_tail(scores, is_member)
    return Tail(p, "simulated", error)


def effective_rows(scores: np.ndarray, is_member: np.ndarray) -> float:
    """How many rows the score is spread over: (sum c^2)^2 / sum c^4 of centred scores, less where
    the split is unequal (times 4 f (1 - f), f the share of members)."""
    square, share = (scores - scores.mean()) ** 2, is_member.mean()
    return float(4 * share * (1 - share) * square.sum() ** 2 / np.square(square).sum())


def saddlepoint_p(scores: np.ndarray, is_member: np.ndarray) -> float:
    """P(T >= observed) by the double saddlepoint.

    P(T >= x) = 1 - Phi(w) - phi(w) (1/w - 1/v), w the signed root of twice the exponent and v the
    saddlepoint times the ratio of curvatures (Skovgaard 1987, eq. 3.3), half a step below x where
    scores are whole numbers. Where the equation has no solution (an outcome at the end of the
    range), or next to the mean, the normal limit.
    """
    z, deviation = permutation_z(scores, is_member)
    half = _step(scores) / 2
    z -= half / deviation
    if abs(z) < 0.05:
        return float(stats.norm.sf(z))
    value, count = np.unique((scores - scores.mean()) / scores.std(), return_counts=True)
    share = is_member.mean()
    excess = float((scores[is_member] - scores.mean()).sum()) - half
    goal = np.array([excess / scores.std(), is_member.sum()])
    point = np.zeros(2)
    for _ in range(STEPS):
        mean, curvature = _derivatives(point, value, count, share)
        if np.linalg.det(curvature) <= 1e-12 * np.prod(np.diag(curvature)):
            return float(stats.norm.sf(z))
        step = np.linalg.solve(curvature, goal - mean)
        point = point + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-10:
            return _skovgaard(point, goal, value, count, share, z)
    return float(stats.norm.sf(z))


def _step(scores: np.ndarray) -> float:
    """By how much sums of whole scores differ at least; 0 where scores are no whole numbers."""
    if (scores != np.round(scores)).any() or np.abs(scores).max() > 2**31:
        return 0.0
    return float(np.gcd.reduce((scores - scores[0]).astype(np.int64)))


def _derivatives(
    point: np.ndarray, value: np.ndarray, count: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of sum_j log(1 - share + share exp(t a_j + u)) at (t, u)."""
    chance = expit(point[0] * value + point[1] + np.log(share / (1 - share)))
    first, second = count * chance, count * chance * (1 - chance)
    mixed = second @ value
    return (
        np.array([first @ value, first.sum()]),
        np.array([[second @ value**2, mixed], [mixed, second.sum()]]),
    )


def _skovgaard(
    point: np.ndarray, goal: np.ndarray, value: np.ndarray, count: np.ndarray,
    share: float, z: float,
) -> float:  # fmt: skip
    exponent = point[0] * value + point[1]
    cumulant = count @ np.logaddexp(np.log1p(-share), np.log(share) + exponent)
    curvature = _derivatives(point, value, count, share)[1]
    w = np.sign(point[0]) * np.sqrt(max(2 * (point @ goal - cumulant), 0.0))
    v = point[0] * np.sqrt(np.linalg.det(curvature) / (count.sum() * share * (1 - share)))
    if w == 0 or v == 0:
        return float(stats.norm.sf(z))
    p = stats.norm.sf(w) - stats.norm.pdf(w) * (1 / w - 1 / v)
    return float(np.clip(p, 0.0, 1.0))
