"""The hole that a filter leaves: who keeps samples away from training rows points at them.

A generator that knows no row comes as near to training rows as to others. Refuse its near-copies
of training rows, and no sample lies within a third of the way from a training row to its nearest
other, where a row of neither set has some: whoever holds the samples asks of any row how far the
nearest sample is, and so learns who was in the training set. With S samples about N rows in d
dimensions a ball of that radius holds some S / N (c / 3)^d samples by chance, so that the hole is
plain in the plane and not to be seen in ten dimensions.

The score of a row is its distance to the nearest sample over that to its nearest other row of the
pool. It does not depend on the sides, so that held-out rows are its null; an AUC above 1/2 is a
hole, below it samples crowd around training rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.detection import roc
from reverie.auditing.nulls.rank_tests import THIRD, ratios

LEAST = 2  # rows of each side that a ROC takes
MOST = 2000  # rows of each side that are asked
SEED = 0


@dataclass(frozen=True)
class Hole:
    """How well the emptiness around a row tells training rows from held-out rows.

    auc: P(a training row is farther from the samples than a held-out row), ties 1/2; interval:
    95%. empty, held_empty: shares of the training and of the held-out rows with no sample within a
    third of the way to their nearest other row. samples: among which it was measured; more samples
    show more.
    """

    auc: float
    interval: tuple[float, float]
    empty: float
    held_empty: float
    train: int
    held: int
    samples: int

    @property
    def seen(self) -> bool:
        """Does the interval exclude chance?"""
        return not self.interval[0] <= 0.5 <= self.interval[1]

    def sentence(self) -> str:
        """One sentence for the reader."""
        low, high = self.interval
        told = (
            f"the distance to the nearest of {self.samples:,} samples tells training from "
            f"held-out rows with an AUC of {self.auc:.2f} [{low:.2f}, {high:.2f}]"
        )
        if not self.seen:
            return f"{told}: no hole is seen around training rows"
        if self.auc < 0.5:
            return f"{told}: samples still crowd around training rows"
        return (
            f"{told}: the holes around training rows give them away ({self.empty:.0%} of the "
            f"training and {self.held_empty:.0%} of the held-out rows have no near sample)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"interval": list(self.interval), "seen": self.seen}


def hole(members: np.ndarray, held: np.ndarray, drawn: np.ndarray) -> Hole | None:
    """The hole among samples `drawn` (s, d) about `members` (n, d), beside `held` (m, d).

    Rows in one space; of more than MOST on a side, so many at random are asked. None with fewer
    than two rows on a side, or without samples.
    """
    if min(len(members), len(held)) < LEAST or len(drawn) == 0:
        return None
    pool = np.concatenate([members, held])
    ours = _some(0, len(members))
    theirs = _some(len(members), len(pool))
    score = emptiness(pool, drawn, np.concatenate([ours, theirs]))
    inside, outside = score[: len(ours)], score[len(ours) :]
    found = roc(-inside, -outside)
    empty, held_empty = (float((side >= THIRD).mean()) for side in (inside, outside))
    return Hole(
        found.auc, found.interval, empty, held_empty, len(ours), len(theirs), len(drawn)
    )  # fmt: skip


def emptiness(pool: np.ndarray, drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(R,) distance to the nearest sample over that to the nearest other row of the pool (N, d).

    rows: (R,) indices. A row with an equal in the pool has no room: its score is the greatest.
    """
    to_sample = nearest(pool[rows], drawn, 1)[0][:, 0]
    score = ratios(to_sample, nearest(pool[rows], pool, 2)[0][:, 1])
    finite = score[np.isfinite(score)]
    return np.where(np.isfinite(score), score, 2 * finite.max(initial=1.0))


def _some(start: int, stop: int) -> np.ndarray:
    count = stop - start
    if count <= MOST:
        return np.arange(start, stop)
    return start + np.sort(np.random.default_rng(SEED).choice(count, MOST, replace=False))
