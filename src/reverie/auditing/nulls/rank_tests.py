"""Tests that are exact when training and held-out rows are exchangeable.

Pool the n_S training and n_H held-out rows. If the generator had never seen which is which, every
relabelling of the pool would be equally likely; so whatever is computed from (pool, samples) alone
has a permutation null. The null is conditional on the samples: it needs no model of the data.

    tail    r_j = dist(j, samples) / dist(j, its 5th pool neighbour). Among the K smallest r, the
            number of members is Hypergeometric; the least p over a ladder of K is corrected by its
            exact joint null (a walk over the order of labels), not by Bonferroni.
    share   T = number of samples whose nearest pool row is a member, against the exact permutation
            law (a binomial null, which takes the pool as fixed, rejects 15 to 34% of perfect
            generators).
    near    rows with a sample within a third of the way to their nearest pool row. An honest fit
            lies a little denser at its training rows, by about the same factor at every distance;
            a copier's factor grows without bound as the distance shrinks. So its null is not that
            labels are exchangeable but that members are at most HONEST_ODDS times as likely to
            come next in the order of closeness: rejecting it is what separates copies from
            dependence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reverie.auditing.nulls.saddlepoint import permutation_tail, permutation_z
from reverie.auditing.nulls.tail_null import TailNull, fewest_visible, ladder, tail_null

THIRD = 1 / 3
HONEST_ODDS = 1.5  # a Gaussian fitted on 200 rows has 1.14 in 8 and 1.27 in 16 dimensions
MOST_NEAR = 500  # near rows looked at: a walk over more is slow and tells no more


@dataclass(frozen=True)
class RankTest:
    """One test: its statistic, its null in words, and its p-value."""

    name: str
    statistic: float
    null: str
    p_value: float
    interval: tuple[float, float] | None = None
    detail: str = ""


def tail_order(ratio: np.ndarray, seed: int = 0) -> np.ndarray:
    """Order (N,) of pool rows by their ratio, ties broken at random with a seed."""
    return np.lexsort((np.random.default_rng(seed).random(len(ratio)), ratio))


def ratios(to_samples: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """to_samples / spacing, where 0 / 0 is 1: a tie that the pool shares is no evidence."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = to_samples / spacing
    return np.where((spacing == 0) & (to_samples == 0), 1.0, ratio)


def tail_test(
    ratio: np.ndarray,
    is_member: np.ndarray,
    seed: int = 0,
    alpha: float = 0.05,
    randomised: bool = False,
) -> RankTest:
    """The headline test: are members crowded among the rows that samples come closest to?

    ratio: (N,) distances of pool rows to their nearest sample over those to their 5th pool
    neighbour. is_member: (N,) of bool. Exact, one-sided. The counts are whole numbers, so the
    exact size is below `alpha` (see `TailNull.size`); randomised: add a seeded uniform within the
    attained step, which makes the size `alpha` itself.

    >>> import numpy as np
    >>> from reverie.auditing import tail_test
    >>> is_member = np.arange(100) < 50
    >>> tail_test(np.where(is_member, 0.1, 1.0), is_member).p_value < 0.001  # only members are met
    True
    """
    members = int(is_member.sum())
    ks = ladder(members, len(is_member) - members, alpha)
    null = tail_null(members, len(is_member) - members, ks)
    labels = is_member[tail_order(ratio, seed)]
    least = null.least_p(labels)
    if randomised:
        p_value = null.randomised(least, np.random.default_rng((seed, 1)).random())
    else:
        p_value = null.corrected(least)
    counts = ", ".join(f"{labels[:k].sum()} of {k}" for k in shown(ks))
    return RankTest(
        "tail",
        float(labels[: ks[-1]].mean()),
        f"exact, joint over K = {ks[0]} to {ks[-1]}; expects {is_member.mean():.1%}",
        p_value,
        detail=f"training rows among the K closest: {counts}; exact size at {alpha:.3g}: "
        + (f"{alpha:.3g} (randomised)" if randomised else f"{null.size(alpha):.3f}"),
    )


def shown(ks: tuple[int, ...]) -> list[int]:
    """A few of the K, each at least twice the one before."""
    kept = [ks[0]]
    for k in ks[1:]:
        if k >= 2 * kept[-1]:
            kept.append(k)
    return kept


def share_test(counts: np.ndarray, is_member: np.ndarray) -> RankTest:
    """Are samples nearer to members? counts: (N,) samples whose nearest pool row is j, ties split.

    One-sided p-value of the permutation law (`permutation_tail`); the interval is the estimate +-
    1.96 permutation deviations.
    is_member: (N,) of bool.

    >>> import numpy as np
    >>> from reverie.auditing import share_test
    >>> is_member = np.arange(100) < 50
    >>> found = share_test(np.where(is_member, 3.0, 1.0), is_member)
    >>> found.statistic, found.p_value < 0.01
    (0.75, True)
    """
    z, deviation = permutation_z(counts, is_member)
    tail = permutation_tail(counts, is_member)
    m = counts.sum()
    share, width = counts[is_member].sum() / m, 1.96 * deviation / m
    return RankTest(
        "share",
        float(share),
        f"permutation, {tail}; expects {is_member.mean():.1%}",
        tail.p_value,
        (float(max(share - width, 0)), float(min(share + width, 1))),
        detail=f"z = {z:.2f}",
    )


def near_test(own_ratio: np.ndarray, is_member: np.ndarray, seed: int = 0) -> RankTest:
    """Do members have near-copies beyond what an honest fit's odds (HONEST_ODDS) explain?

    own_ratio: (N,) distances of pool rows to their nearest sample over those to their nearest
    other pool row. Only rows under a third count. Exact if the hazard of a member's distance to
    the samples is HONEST_ODDS times a held-out row's at every distance, conservative if it is
    less.
    is_member: (N,) of bool.

    >>> import numpy as np
    >>> from reverie.auditing import near_test
    >>> is_member = np.arange(100) < 50
    >>> ratio = np.where(np.arange(100) < 20, 0.01, 1.0)  # 20 members have near-copies
    >>> near_test(ratio, is_member).p_value < 0.01
    True
    """
    close = int((own_ratio < THIRD).sum())
    hits = int((own_ratio[is_member] < THIRD).sum())
    null = near_null(int(is_member.sum()), int((~is_member).sum()), close)
    p_value = 1.0
    if null is not None:
        p_value = null.corrected(null.least_p(is_member[tail_order(own_ratio, seed)]))
    return RankTest(
        "near-copies",
        float(hits),
        f"a training row at most {HONEST_ODDS:g} times as likely as a held-out row; expects at "
        f"most {expected_near(is_member.mean(), close):.1f} of {close}",
        p_value,
        detail=f"{hits} training and {close - hits} held-out rows have a sample within a third "
        "of the way to their nearest row",
    )


def expected_near(share: float, close: int) -> float:
    """Members among `close` rows at HONEST_ODDS (before the urn runs low)."""
    return close * HONEST_ODDS * share / (HONEST_ODDS * share + 1 - share)


def near_null(members: int, others: int, close: int) -> TailNull | None:
    """The null of `near_test` for `close` rows under a third; None if too few to tell."""
    least = fewest_visible(members, others, 0.05, HONEST_ODDS)
    if close < least:
        return None
    ks = [least]  # few rungs, and ladders that begin alike: plantings share their nulls
    while ks[-1] * 5 // 4 + 1 <= min(close, MOST_NEAR):
        ks.append(ks[-1] * 5 // 4 + 1)
    return tail_null(members, others, tuple(ks), HONEST_ODDS)


@dataclass(frozen=True)
class Effect:
    """How much nearer samples are to training rows: share of samples minus the expected share."""

    excess: float
    low: float  # ends of the 95% interval
    high: float
    tolerance: float
    p_within: float  # of "the excess is at least the tolerance": small means surely within it

    @property
    def place(self) -> str:
        """`within`, `beyond` or `unsure`: the 95% interval beside the tolerance."""
        if self.p_within <= 0.025:  # the 95% interval lies within
            return "within"
        return (
            "beyond"
            if min(abs(self.low), abs(self.high)) > self.tolerance and (self.low * self.high > 0)
            else "unsure"
        )


def share_effect(counts: np.ndarray, is_member: np.ndarray, tolerance: float) -> Effect:
    """Size of the dependence, with two one-sided tests against +-`tolerance` (Schuirmann 1987)."""
    _, deviation = permutation_z(counts, is_member)
    m = counts.sum()
    excess, error = counts[is_member].sum() / m - is_member.mean(), deviation / m
    if error == 0:
        p_within = float(abs(excess) >= tolerance)
    else:
        p_within = float(stats.norm.cdf((abs(excess) - tolerance) / error))
    half = 1.96 * error
    return Effect(float(excess), float(excess - half), float(excess + half), tolerance, p_within)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95% Wilson interval of a proportion."""
    if count == 0:
        return 0.0, 1.0
    z2, p = 1.96**2, hits / count
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == count else middle + half)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    order = np.argsort(p_values)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(running, 1.0)
    return adjusted


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values (n,): rejecting those <= q keeps the false discovery rate at most q."""
    order = np.argsort(p_values)[::-1]
    scaled = p_values[order] * len(p_values) / np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted
