"""The memorised share: the ratio rule, and the size up to which a model memorises.

A point is memorised when it is three times as near to its nearest training row as to the second
(Yoon et al. 2023; Gu et al. 2023). For a perfect generator in d dimensions that happens to a share
3^-d of points, so the share of held-out rows is always set beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reverie.auditing.metrics.rates import ratio_hits
from reverie.errors import InputError

MEMORISED = 0.9


def memorised_rows(points: np.ndarray, train: np.ndarray) -> int:
    """How many points (m, d) pass the ratio rule d1 / d2 < 1/3 against training rows (n, d)."""
    return int(ratio_hits(train, points).sum())


@dataclass(frozen=True)
class Emm:
    """Effective model memorisation: about `n` rows, `relation` "=", or only a bound: ">=", "<"."""

    n: float
    relation: str

    def __str__(self) -> str:
        words = {"=": "", ">=": "at least ", "<": "below "}
        return f"{words[self.relation]}{self.n:,.0f}"


def effective_memorisation(
    sizes: Sequence[float], shares: Sequence[float], threshold: float = MEMORISED
) -> Emm:
    """EMM = max{N : share(N) >= threshold} of Gu et al. 2023, linear between the sizes tried.

    sizes: (L,) increasing; shares: (L,), means over data sets. InputError where they disagree.
    """
    if len(sizes) != len(shares) or len(sizes) == 0 or (np.diff(sizes) <= 0).any():
        raise InputError("EMM needs increasing sizes and one share for each")
    kept = np.flatnonzero(np.asarray(shares) >= threshold)
    if len(kept) == 0:
        return Emm(float(sizes[0]), "<")
    last = int(kept[-1])
    if last == len(sizes) - 1:
        return Emm(float(sizes[-1]), ">=")
    fall = (shares[last] - threshold) / (shares[last] - shares[last + 1])
    return Emm(float(sizes[last] + fall * (sizes[last + 1] - sizes[last])), "=")
