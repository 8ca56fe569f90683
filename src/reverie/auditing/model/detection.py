"""How well a score tells training rows from held-out rows: AUC, true positives at few false ones.

Small scores mean "member". Every figure carries its interval: DeLong, DeLong & Clarke-Pearson 1988
on the logit scale for the AUC (with Newcombe 2006 near its ends), Clopper & Pearson 1934 for
rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from reverie.errors import InputError

FALSE_POSITIVES = (0.001, 0.01)
FEW = 50  # rows that lose a comparison
EXACT_PAIRS = 10_000  # up to so many pairs without ties the exact law of the U statistic is cheap


@dataclass(frozen=True)
class OperatingPoint:
    """Members caught below the held-out score of rank `allowed` + 1, at most `fpr` of them."""

    fpr: float
    allowed: int  # held-out rows that may lie below the threshold
    held: int
    hits: int  # members below it
    members: int

    @property
    def tpr(self) -> float:
        return self.hits / self.members

    @property
    def interval(self) -> tuple[float, float]:
        """95% Clopper-Pearson interval of the true-positive rate."""
        return self.least_tpr(0.025), _most(self.hits, self.members, 0.025)

    def least_tpr(self, error: float) -> float:
        """Lower confidence limit of the true-positive rate, wrong with probability `error`."""
        return float(stats.beta.ppf(error, self.hits, self.members - self.hits + 1)) \
            if self.hits else 0.0  # fmt: skip

    def most_fpr(self, error: float) -> float:
        """Upper confidence limit of the false-positive rate.

        The threshold is the (allowed + 1)-th smallest of the held-out scores themselves, so its
        true rate is Beta(allowed + 1, held - allowed): the Clopper-Pearson limit stays exact.
        """
        return _most(self.allowed, self.held, error)


def _most(hits: int, count: int, error: float) -> float:
    """Upper Clopper-Pearson limit of a proportion."""
    return float(stats.beta.ppf(1 - error, hits + 1, count - hits)) if hits < count else 1.0


@dataclass(frozen=True)
class Roc:
    """Members against held-out rows by one score. auc: P(member's score is the smaller), ties 1/2.

    interval: 95% (`auc_interval`); p_value: one-sided Mann-Whitney.
    """

    auc: float
    interval: tuple[float, float]
    p_value: float
    points: tuple[OperatingPoint, ...]
    members: int
    held: int

    def epsilon(self, delta: float = 1e-5, tests: int = 1, error: float = 0.05) -> float:
        """A lower bound on the epsilon of any (epsilon, delta) differential-privacy claim.

        max over points of log((TPR - delta) / FPR) (Kairouz, Oh & Viswanath 2015; Jagielski,
        Ullman & Oprea 2020), from confidence limits that hold together with probability
        1 - `error`, over the points and over `tests` scores tried. 0 when nothing is shown.
        Records of one training run are taken as independent (Steinke, Nasr & Jagielski 2023 treat
        the case where they are not). It never shows that a model *is* private.
        """
        share = error / (2 * len(self.points) * tests)
        ratios = [(p.least_tpr(share) - delta) / p.most_fpr(share) for p in self.points]
        return math.log(max([1.0, *ratios]))

    def at(self, fpr: float) -> OperatingPoint:
        """The operating point of that false-positive rate, among those measured."""
        return next(point for point in self.points if point.fpr == fpr)

    def sentence(self) -> str:
        """True-positive rates with their intervals, in words."""
        return "; ".join(
            f"{p.tpr:.1%} of members [{p.interval[0]:.1%}, {p.interval[1]:.1%}] at "
            f"{p.fpr:.1%} false positives ({p.allowed} of {p.held})"
            for p in self.points
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        points = [asdict(p) | {"tpr": p.tpr, "interval": p.interval} for p in self.points]
        return asdict(self) | {"points": points}


def roc(
    members: np.ndarray, held: np.ndarray, false_positives: tuple[float, ...] = FALSE_POSITIVES
) -> Roc:
    """The ROC of a score that is small for members. members: (n,); held: (m,) scores.

    false_positives: rates, fixed beforehand, at which members are counted. InputError on fewer
    than two rows on a side, scores that are not finite, or a rate outside (0, 1).
    """
    members, held = (np.asarray(a, dtype=np.float64) for a in (members, held))
    if min(len(members), len(held)) < 2:
        raise InputError("a ROC needs at least two members and two held-out rows")
    if not (np.isfinite(members).all() and np.isfinite(held).all()):
        raise InputError("a membership score is not finite")
    if not all(0 < rate < 1 for rate in false_positives):
        raise InputError(f"false-positive rates are {false_positives}; they must lie in (0, 1)")
    wins, losses = placements(members, held), 1 - placements(held, members)
    auc = float(wins.mean())
    return Roc(
        auc,
        auc_interval(wins, losses),
        _mann_whitney(members, held),
        tuple(_point(members, np.sort(held), rate) for rate in false_positives),
        len(members),
        len(held),
    )


def placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` above each score, ties counted half: (len(scores),)."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return 1 - 0.5 * below / len(others)


def auc_interval(wins: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """95% interval of an AUC from the placements (n,) of members and (m,) of held-out rows.

    DeLong's variance on the logit scale, where the interval stays within [0, 1] and is as lopsided
    as the estimate's law. Where fewer than FEW rows of a side lose any comparison at all, that
    variance is itself mostly chance (it covers 83% at an AUC of .99 with 100 rows): then the hull
    with Newcombe's score interval (2006, method 5), whose variance comes from the AUC, and with
    the Clopper-Pearson interval of the number of losing rows.
    """
    auc = float(wins.mean())
    if auc < 0.5:
        low, high = auc_interval(1 - wins, 1 - losses)
        return 1 - high, 1 - low
    found = [_logit(auc, wins, losses)]
    side = min((wins, losses), key=lambda rows: ((rows < 1).sum(), len(rows)))
    if (side < 1).sum() < FEW:
        found += [_newcombe(auc, len(wins), len(losses)), _losing(auc, side)]
    return min(low for low, _ in found), max(high for _, high in found)


def _logit(auc: float, wins: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    deviation = math.sqrt(wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses))
    if auc == 1 or deviation == 0:
        return auc, auc
    middle, half = special.logit(auc), 1.96 * deviation / (auc * (1 - auc))
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def _newcombe(auc: float, members: int, held: int) -> tuple[float, float]:
    """Where |auc - t| = 1.96 deviations, of the variance that scores of one shape would have."""
    extra = (members + held) / 2 - 1

    def outside(t: float) -> float:
        shape = 1 + extra * ((1 - t) / (2 - t) + t / (1 + t))
        return (auc - t) ** 2 - 1.96**2 * t * (1 - t) / (members * held) * shape

    low = _root(outside, 1e-9, auc) if outside(1e-9) > 0 else 0.0
    if auc == 1 or outside(1 - 1e-12) <= 0:
        return low, 1.0
    return low, _root(outside, auc, 1 - 1e-12)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.root_scalar(function, bracket=(low, high)).root)


def _losing(auc: float, side: np.ndarray) -> tuple[float, float]:
    """1 - AUC is the share of rows that lose times what each loses: the interval of the share."""
    lose, count = int((side < 1).sum()), len(side)
    if lose == 0:
        return 0.025 ** (1 / count), 1.0
    least = float(stats.beta.ppf(0.025, lose, count - lose + 1))
    each = (1 - auc) / lose * count
    return max(1 - each * _most(lose, count, 0.025), 0.0), 1 - each * least


def _mann_whitney(members: np.ndarray, held: np.ndarray) -> float:
    """One-sided p: exact for few pairs without ties, else normal with ties and continuity."""
    pooled = np.concatenate([members, held])
    if pooled.min() == pooled.max():
        return 1.0
    few = len(members) * len(held) <= EXACT_PAIRS and len(np.unique(pooled)) == len(pooled)
    method = "exact" if few else "asymptotic"
    return float(stats.mannwhitneyu(members, held, alternative="less", method=method).pvalue)


def _point(members: np.ndarray, held: np.ndarray, rate: float) -> OperatingPoint:
    allowed = math.floor(rate * len(held) + 1e-9)
    hits = int((members < held[allowed]).sum())
    return OperatingPoint(rate, allowed, len(held), hits, len(members))
