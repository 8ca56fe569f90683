"""Which records: the training rows that samples give away, at a stated false discovery rate.

The conformal p-value of a training row is the share of held-out rows that samples come as close to
(+1 smoothing). Benjamini-Hochberg on these keeps the false discovery rate at its level when the
rows nobody copied are exchangeable with held-out rows (Bates et al. 2023). No such p-value is
below 1 / (n_H + 1): with few held-out rows, only many records together can be named.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.auditing.facts.closeness import Closeness
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import THIRD, benjamini_hochberg, ratios, tail_order

DISCOVERY_RATE = 0.1
LISTED = 24


@dataclass(frozen=True)
class Record:
    """A training row and the sample nearest to it; indices count from 0 in the files given."""

    train_row: int
    sample: int
    distance: float
    ratio: float  # distance over the row's spacing (its 5th pool neighbour)
    share_of_holdout: float  # share of held-out rows that have as small a ratio (+1 smoothing)
    adjusted_p: float  # of share_of_holdout over all training rows (Benjamini-Hochberg)
    near_copy: bool
    source_row: int | None = None  # the row in the data file, where the split is known

    @property
    def named(self) -> bool:
        return self.adjusted_p <= DISCOVERY_RATE

    def to_json(self) -> dict[str, Any]:
        """Plain values; the ratio is None where equal rows leave no spacing to divide by."""
        ratio = self.ratio if math.isfinite(self.ratio) else None
        return {**asdict(self), "ratio": ratio, "named": self.named}


def records(close: Closeness, seed: int) -> list[Record]:
    """All named training records, and the closest LISTED in any case; closest first.

    With groups, each group stands once, by its closest row.
    """
    rows, ratio = close.closest_rows(), close.unit_ratio(-1)
    near = close.unit_ratio(0) < THIRD
    score = np.where(near, ratio, np.inf)  # on both sides: only near-copies compete for a name
    held = np.sort(score[~close.is_member])
    share = (1 + np.searchsorted(held, score, "right")) / (1 + len(held))
    adjusted = np.ones(len(ratio))
    adjusted[close.is_member] = benjamini_hochberg(share[close.is_member])
    order = [u for u in tail_order(ratio, seed) if close.is_member[u]]
    count = max(LISTED, int((adjusted[order] <= DISCOVERY_RATE).sum()))
    return [
        Record(
            train_row=int(rows[u]),
            sample=int(close.nearest_sample[rows[u]]),
            distance=float(close.to_samples[rows[u]]),
            ratio=float(ratio[u]),
            share_of_holdout=float(share[u]),
            adjusted_p=float(adjusted[u]),
            near_copy=bool(near[u]),
        )
        for u in order[:count]
    ]


def fewest_named(members: int, others: int) -> int:
    """The fewest training records that can be named at all, for want of held-out rows."""
    return max(math.ceil(members / ((others + 1) * DISCOVERY_RATE)), 1)


def flagged_samples(close: Closeness, found: list[Record], drawn: np.ndarray) -> list[int]:
    """Every sample within a third of the way from a named row to its nearest row.

    Of a named group, all rows that are so close to a sample count.
    """
    units = close.unit[np.array([r.train_row for r in found if r.named], dtype=int)]
    rows = np.flatnonzero(np.isin(close.unit, units) & (close.row_ratio(0) < THIRD))
    if len(rows) == 0:
        return []
    distance, place = (a[:, 0] for a in nearest(drawn, close.pool[rows], 1))
    # the nearest named row decides: two such thirds never meet, as each is under its row's gap
    return np.flatnonzero(ratios(distance, close.spacing[rows, 0][place]) < THIRD).tolist()
