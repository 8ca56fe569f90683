"""Tail of a sum of scores over a random subset where few rows hold most of the score (hubs).

All sums are counted out where that is cheap: rows of equal score form a group, and walking through
the groups the law of (members so far, sum so far) is carried along, each group's number of members
being hypergeometric given those before. Otherwise labels are drawn at random, which keeps the
p-value valid whatever the number of draws (Phipson and Smyth 2010).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

WORK = 100_000  # steps of the walk that are worth an exact answer
DRAWS = 4_999
BLOCK = 2_000_000  # random numbers at once
PER_GROUP = 20  # rows of a group from which on drawing by groups is cheaper
TIE = 1e-9  # sums that differ by less, relative to all scores, are equal


def groups_of(
    scores: np.ndarray, is_member: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Distinct scores (V,) less the most frequent one, their counts (V,), the sum observed, and
    the most frequent score.

    The number of members is fixed, so a shift of all scores changes nothing.
    """
    value, count = np.unique(scores, return_counts=True)
    base = value[count.argmax()]
    return value - base, count, float((scores[is_member] - base).sum()), float(base)


def exact_tail(scores: np.ndarray, is_member: np.ndarray) -> float | None:
    """P(sum of a random subset >= that of the members); scores (N,), labels (N,) of bool.

    None where it would take more than WORK steps.
    """
    value, count, observed, _ = groups_of(scores, is_member)
    tie = TIE * float(np.abs(scores).sum())
    # the largest groups last, when the labels that are left leave no choice
    order = np.argsort(count, kind="stable")
    value, count = value[order], count[order]
    used, total, law = np.zeros(1, int), np.zeros(1), np.ones(1)
    left, members, work = len(scores), int(is_member.sum()), 0
    log_factorial = gammaln(np.arange(len(scores) + 1) + 1.0)
    for v, c in zip(value[:-1], count[:-1], strict=True):
        work += len(law) * (c + 1)
        if work > WORK:
            return None
        chosen = np.arange(c + 1)
        chance = _hypergeometric(chosen, left, (members - used)[:, None], c, log_factorial)
        used = (used[:, None] + chosen).ravel()
        total = (total[:, None] + v * chosen).ravel()
        used, total, law = _merged(used, total, (law[:, None] * chance).ravel(), tie)
        left -= c
    total = total + value[-1] * (members - used)
    return float(min(law[total >= observed - tie].sum(), 1.0))


def _hypergeometric(
    chosen: np.ndarray, total: int, members: np.ndarray, size: int, log_factorial: np.ndarray
) -> np.ndarray:
    """P(`chosen` of a group of `size` are members, where `members` of `total` rows are)."""
    others = total - members

    def choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
        return log_factorial[n] - log_factorial[k] - log_factorial[np.subtract(n, k)]

    possible = (chosen <= members) & (size - chosen <= others)
    k = np.where(possible, chosen, np.clip(size - others, 0, size))
    log_p = choose(members, np.minimum(k, members)) + choose(others, np.clip(size - k, 0, others))
    return np.where(possible, np.exp(log_p - choose(total, size)), 0.0)


def _merged(
    used: np.ndarray, total: np.ndarray, law: np.ndarray, tie: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States that are equal, as one; impossible ones dropped."""
    here = law > 0
    used, total, law = used[here], total[here], law[here]
    order = np.lexsort((total, used))
    used, total, law = used[order], total[order], law[order]
    new = np.append(True, (np.diff(used) > 0) | (np.diff(total) > tie))
    first = np.flatnonzero(new)
    return used[first], total[first], np.add.reduceat(law, first)


def simulated_tail(
    scores: np.ndarray, is_member: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """(1 + #{random subsets whose sum is as large}) / (1 + `draws`), and its standard error."""
    value, count, observed, base = groups_of(scores, is_member)
    tie = TIE * float(np.abs(scores).sum())
    members, rng, reached, done = int(is_member.sum()), np.random.default_rng(seed), 0, 0
    grouped = PER_GROUP * len(value) < len(scores)
    shifted = scores - base
    while done < draws:
        now = min(draws - done, max(1, BLOCK // (len(value) if grouped else len(scores))))
        if grouped:
            drawn = rng.multivariate_hypergeometric(count, members, now, method="marginals")
            sums = drawn @ value
        else:
            place = rng.random((now, len(scores)), dtype=np.float32)
            sums = shifted[np.argpartition(place, members, axis=1)[:, :members]].sum(1)
        reached += int((sums >= observed - tie).sum())
        done += now
    p = (1 + reached) / (1 + draws)
    return p, float(np.sqrt(p * (1 - p) / draws))
