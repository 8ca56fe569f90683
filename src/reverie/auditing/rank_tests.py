"""Tests that are exact when training and held-out rows are exchangeable.

Pool the n_S training and n_H held-out rows. If the generator had never seen which is which, every
relabelling of the pool would be equally likely; so whatever is computed from (pool, samples) alone
has a permutation null. The null is conditional on the samples: it needs no model of the data.

    tail    r_j = dist(j, samples) / dist(j, its 5th pool neighbour). Among the K smallest r, the
            number of members is Hypergeometric; the least p over a ladder of K is corrected by its
            exact joint null (a walk over the order of labels), not by Bonferroni.
    share   T = number of samples whose nearest pool row is a member, with the exact permutation
            mean and variance (a binomial null, which takes the pool as fixed, rejects 15 to 34% of
            perfect generators).
    close   rows with a sample within a third of the way to their nearest pool row: how many of
            them are members (Hypergeometric). Rare unless records are nearly reproduced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

LADDER = (10, 20, 50, 100, 200)


@dataclass(frozen=True)
class RankTest:
    """One test: its statistic, its null in words, and its p-value."""

    name: str
    statistic: float
    null: str
    p_value: float
    interval: tuple[float, float] | None = None
    detail: str = ""


def ladder(members: int, others: int, alpha: float = 0.05) -> tuple[int, ...]:
    """The K of the tail test: the fewest that could reject at `alpha`, then 10, 20, 50, ..."""
    least = fewest_visible(members, others, alpha)
    largest = max((members + others) // 4, 1)
    ks = {k for k in LADDER if least < k <= largest}
    return tuple(sorted(ks | {min(least + 1, members + others)}))


def fewest_visible(members: int, others: int, alpha: float = 0.05) -> int:
    """The fewest copied records that any rank test at level `alpha` could see.

    The least K with P(first K in the pool's order are all members) <= alpha; `members` + 1 when
    even all of them would not do. About log(alpha) / log(share of members).
    """
    log_p = 0.0
    for k in range(members):
        log_p += math.log((members - k) / (members + others - k))
        if log_p <= math.log(alpha):
            return k + 1
    return members + 1


def tail_order(to_samples: np.ndarray, spacing: np.ndarray, seed: int = 0) -> np.ndarray:
    """Order (N,) of pool rows by r = to_samples / spacing, ties broken at random with a seed."""
    return np.lexsort(
        (np.random.default_rng(seed).random(len(spacing)), ratios(to_samples, spacing))
    )


def ratios(to_samples: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """to_samples / spacing, where 0 / 0 is 1: a tie that the pool shares is no evidence."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = to_samples / spacing
    return np.where((spacing == 0) & (to_samples == 0), 1.0, ratio)


class TailNull:
    """Exact joint null of the least hypergeometric p over a ladder of K."""

    def __init__(self, members: int, others: int, ks: tuple[int, ...]) -> None:
        self.members, self.total, self.ks = members, members + others, ks
        self.tails = {
            k: stats.hypergeom.sf(np.arange(-1, k), self.total, members, k) for k in ks
        }  # tails[k][s] = P(S_k >= s)

    def least_p(self, is_member: np.ndarray) -> float:
        """Smallest p over the ladder for labels in the order of r, (N,) of bool."""
        counts = np.cumsum(is_member[: max(self.ks)])
        return min(float(self.tails[k][counts[k - 1]]) for k in self.ks)

    def corrected(self, least: float) -> float:
        """P(least p over the ladder <= `least`) when labels are exchangeable."""
        top = max(self.ks)
        alive = np.zeros(top + 1)  # law of the number of members so far, not yet rejected
        alive[0] = 1.0
        seen, rejected = np.arange(top + 1), 0.0
        bound = least * (1 + 1e-9)
        for k in range(1, top + 1):
            chance = np.clip((self.members - seen) / (self.total - k + 1), 0, 1)
            alive = alive * (1 - chance) + np.concatenate([[0.0], (alive * chance)[:-1]])
            if k in self.tails:
                now = self.tails[k] <= bound
                rejected += alive[: k + 1][now].sum()  # summed, not 1 - the rest: no lost digits
                alive[: k + 1][now] = 0.0
        return float(min(max(rejected, least), 1.0))

    def critical(self, alpha: float) -> float:
        """The largest attainable least p whose corrected value is at most `alpha`; 0 if none."""
        values = np.unique(np.concatenate([tail[tail <= alpha] for tail in self.tails.values()]))
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            if self.corrected(values[middle]) <= alpha:
                low = middle + 1
            else:
                high = middle
        return float(values[low - 1]) if low else 0.0


def tail_test(
    to_samples: np.ndarray,
    spacing: np.ndarray,
    is_member: np.ndarray,
    seed: int = 0,
    alpha: float = 0.05,
) -> RankTest:
    """The headline test: are members crowded among the rows that samples come closest to?

    to_samples: (N,) distances of pool rows to their nearest sample. spacing: (N,) distances to
    their 5th pool neighbour. is_member: (N,) of bool. Exact, one-sided.
    """
    members = int(is_member.sum())
    ks = ladder(members, len(is_member) - members, alpha)
    null = TailNull(members, len(is_member) - members, ks)
    labels = is_member[tail_order(to_samples, spacing, seed)]
    least = null.least_p(labels)
    counts = ", ".join(f"{labels[:k].sum()} of {k}" for k in ks)
    return RankTest(
        "tail",
        float(labels[: ks[-1]].mean()),
        f"exact, joint over K = {', '.join(map(str, ks))}; expects {is_member.mean():.1%}",
        null.corrected(least),
        detail=f"training rows among the K closest: {counts}",
    )


def share_test(counts: np.ndarray, is_member: np.ndarray) -> RankTest:
    """Are samples nearer to members? counts: (N,) samples whose nearest pool row is j, ties split.

    Permutation mean m n_S / N and variance n_S n_H / (N (N - 1)) sum (c_j - mean)^2; one-sided
    normal p-value; the interval is the estimate +- 1.96 permutation deviations.
    """
    total, members = len(counts), int(is_member.sum())
    others, m = total - members, counts.sum()
    statistic = counts[is_member].sum()
    spread = ((counts - counts.mean()) ** 2).sum()
    deviation = math.sqrt(members * others / (total * (total - 1)) * spread)
    z = (statistic - m * members / total) / deviation if deviation > 0 else 0.0
    share, width = statistic / m, 1.96 * deviation / m
    return RankTest(
        "share",
        float(share),
        f"permutation; expects {members / total:.1%}",
        float(stats.norm.sf(z)),
        (float(max(share - width, 0)), float(min(share + width, 1))),
        detail=f"z = {z:.2f}",
    )


def close_test(
    to_samples: np.ndarray, own_spacing: np.ndarray, is_member: np.ndarray, third: float = 1 / 3
) -> RankTest:
    """Are rows with a sample within `third` of the way to their own nearest pool row members?

    own_spacing: (N,) distances to the nearest other pool row.
    """
    close = ratios(to_samples, own_spacing) < third
    hits, members, total = int(close[is_member].sum()), int(is_member.sum()), len(close)
    count = int(close.sum())
    p = float(stats.hypergeom.sf(hits - 1, total, members, count)) if count else 1.0
    return RankTest(
        "close pairs",
        float(hits),
        f"hypergeometric; expects {count * members / total:.1f} of {count}",
        p,
        detail=f"{hits} training and {count - hits} held-out rows have a sample within a third "
        "of the way to their nearest row",
    )


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
