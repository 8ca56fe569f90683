"""The law of the number of members among the first K rows of an order, jointly over a ladder of K.

Walk down the order; at each step the next row is a member with probability

    odds * (members left) / (odds * (members left) + (others left)).

odds = 1 is the exchange of labels: the counts are hypergeometric, and every p-value is exact.
Other odds are the urn of Wallenius (1963), which is exact when every training row is `odds` times
as likely as a held-out row to come next, whatever the place in the order (proportional hazards).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np

DENSE = 48
ROUNDING = 1e-9  # p-values that differ by less are the same value of the statistic


class TailNull:
    """Exact joint null of the least one-sided p of the counts at several K."""

    def __init__(self, members: int, others: int, ks: tuple[int, ...], odds: float = 1.0) -> None:
        self.members, self.total, self.ks, self.odds = members, members + others, ks, odds
        self._critical: dict[float, float] = {}

    @cached_property
    def tails(self) -> dict[int, np.ndarray]:
        """tails[k][s] = P(at least s members among the first k), s = 0, ..., k."""
        found: dict[int, np.ndarray] = {}
        self._walk(lambda k, law: found.update({k: law[::-1].cumsum()[::-1]}))
        return found

    def _walk(self, visit: Callable[[int, np.ndarray], None]) -> None:
        """Carry the law of the count along the order; `visit(k, law[: k + 1])` may change it."""
        top, rungs = max(self.ks), set(self.ks)
        law = np.zeros(top + 1)
        law[0] = 1.0
        seen = np.arange(top + 1)
        for k in range(1, top + 1):
            pull = self.odds * np.maximum(self.members - seen, 0)
            left = np.maximum(self.total - self.members - (k - 1 - seen), 0)
            chance = pull / np.maximum(pull + left, 1e-300)
            step = law * chance
            law -= step
            law[1:] += step[:-1]
            if k in rungs:
                visit(k, law[: k + 1])

    def least_p(self, is_member: np.ndarray) -> float:
        """Smallest p over the ladder for labels in the order of closeness, (N,) of bool."""
        counts = np.cumsum(is_member[: max(self.ks)])
        return min(float(self.tails[k][counts[k - 1]]) for k in self.ks)

    def corrected(self, least: float) -> float:
        """P(least p over the ladder <= `least`) under the null."""
        return float(min(max(self._reached(least * (1 + ROUNDING)), least), 1.0))

    def randomised(self, least: float, u: float) -> float:
        """P(least p < `least`) + u P(least p = `least`): uniform on [0, 1] when u is."""
        below = self._reached(least * (1 - ROUNDING))
        return float(min(below + u * (self._reached(least * (1 + ROUNDING)) - below), 1.0))

    def _reached(self, bound: float) -> float:
        rejected = 0.0

        def absorb(k: int, law: np.ndarray) -> None:
            nonlocal rejected
            now = self.tails[k] <= bound
            rejected += law[now].sum()  # summed, not 1 - the rest: no lost digits
            law[now] = 0.0

        self._walk(absorb)
        return rejected

    def critical(self, alpha: float) -> float:
        """The largest attainable least p whose corrected value is at most `alpha`; 0 if none."""
        if alpha in self._critical:
            return self._critical[alpha]
        values = np.unique(np.concatenate([tail[tail <= alpha] for tail in self.tails.values()]))
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            if self.corrected(values[middle]) <= alpha:
                low = middle + 1
            else:
                high = middle
        self._critical[alpha] = float(values[low - 1]) if low else 0.0
        return self._critical[alpha]

    def size(self, alpha: float) -> float:
        """The exact chance to reject at `alpha` under the null; below it, as counts are whole."""
        value = self.critical(alpha)
        return self.corrected(value) if value > 0 else 0.0


def fewest_visible(members: int, others: int, alpha: float = 0.05, odds: float = 1.0) -> int:
    """The fewest copied records that any rank test at level `alpha` could see.

    The least K with P(first K in the pool's order are all members) <= alpha; `members` + 1 when
    even all of them would not do. About log(alpha) / log(share of members).
    """
    left = odds * (members - np.arange(members))
    log_p = np.cumsum(np.log(left / (left + others)))
    seen = np.flatnonzero(log_p <= np.log(alpha))
    return int(seen[0]) + 1 if len(seen) else members + 1


def ladder(members: int, others: int, alpha: float = 0.05) -> tuple[int, ...]:
    """The K of the tail test: from the fewest rows that could reject to 32 times that.

    So they follow the imbalance of the splits. At most a quarter of the pool.
    """
    least = fewest_visible(members, others, alpha)
    largest = max((members + others) // 4, 1)
    return rungs(min(least, members + others), min(32 * least, largest))


def rungs(first: int, last: int) -> tuple[int, ...]:
    """Every K from `first` to 4 times that (in steps, where it is large), then a quarter more each
    time, up to `last`.

    Closely set rungs bring the exact size of the test, which is discrete, close to its level.
    """
    dense = max(min(last, max(4 * first, DENSE)), first)
    ks = list(range(first, dense + 1, max(first // DENSE, 1)))
    while ks[-1] * 5 // 4 <= last:
        ks.append(ks[-1] * 5 // 4)
    return tuple(ks)


@lru_cache(maxsize=64)
def tail_null(members: int, others: int, ks: tuple[int, ...], odds: float = 1.0) -> TailNull:
    """A `TailNull`, kept: audits of the same sizes share it."""
    return TailNull(members, others, ks, odds)
