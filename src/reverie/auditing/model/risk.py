"""Which rows are at risk of being memorised, before any training: read off their neighbours.

    alone       -log of 1/2 sum_j exp(-d_ij^2 / 8q), the bound A_i of `returning` before it is cut
                at 1, over the nearest rows; q is the noise variance at which the mean A_i is 1/2,
                about where the memoriser collapses onto single rows
    coverage    log of the kernel density of the other rows at the row, at the median distance
                between neighbours (local coverage: Merger and Goldt 2026)
    dimension   local intrinsic dimension (Levina and Bickel 2004) of the row's neighbours
    twins       rows nearer than TWIN of that median distance: what stands twice is learned twice

Rows are listed by `alone`, and shown with `coverage`, which says the same with the other sign.
AUCs of the four, one fit a set (100 digits; 100 rows of an 8-D mixture; 80 of breast-cancer; all
are in `reverie reproduce risk`, with intervals of about .12 either way):

    rows that samples and cycles gave away      mixture .80 .83 .57 .50,
                                                breast-cancer .56 .56 .43 .50
    the quarter whose loss fell most below      digits .74 .76 .59 .50, mixture .76 .76 .65 .50,
    that of its held-out neighbours             breast-cancer .84 .83 .62 .50
    rows that one threshold catches             digits .36 .35 .49 .50,
                                                breast-cancer .99 .98 .63 .50

`dimension` and `twins` told too little to be shown (no row of these sets has a twin). What one
threshold catches depends on how hard a row is, and on the set. It is a forecast: exposure is
measured by membership and the cyclic probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import root_scalar

from reverie.auditing.facts.neighbours import nearest
from reverie.templates import render

NEIGHBOURS = 16
TWIN = 0.25  # of the median distance between neighbours
LISTED = 10
MEASURES = ("alone", "coverage", "dimension", "twins")
MOST = 20_000  # rows, above which neighbours of all of them cost too much beside the rest
TABLE = Path(__file__).parent.parent / "risk.html"


@dataclass(frozen=True, eq=False)
class RowRisk:
    """Measures (n,) of every row, and the `riskiest` rows first (LISTED,), by `alone`.

    spread: sqrt(q), in the units of the coordinates.
    """

    alone: np.ndarray
    coverage: np.ndarray
    dimension: np.ndarray
    twins: np.ndarray
    spread: float

    @property
    def riskiest(self) -> list[int]:
        """Rows that stand alone most; the first in the file where they tie."""
        return np.argsort(-self.alone, kind="stable")[:LISTED].tolist()

    def rows(self) -> list[dict[str, Any]]:
        """The riskiest rows with their measures, as a table shows them."""
        return [
            {
                "row": row,
                "alone": float(self.alone[row]),
                "coverage": float(self.coverage[row]),
            }
            for row in self.riskiest
        ]

    def sentence(self) -> str:
        """The riskiest rows, in words."""
        named = ", ".join(map(str, self.riskiest))
        twins = int((self.twins > 0).sum())
        return (
            f"Rows that stand most alone, which models store first: {named}; {twins:,} of "
            f"{len(self.twins):,} rows have near-twins. A forecast from the data alone."
        )

    def to_html(self) -> str:
        """The riskiest rows as a table, with what the measures are."""
        return render(TABLE, risk=self)

    def to_json(self) -> dict[str, Any]:
        """Plain values of the riskiest rows."""
        return {"riskiest": self.rows(), "spread": self.spread, "sentence": self.sentence()}


def row_risk(points: np.ndarray) -> RowRisk | None:
    """Risk of rows (n, d) in a space where distances mean something; None for under 4 rows or
    over MOST, or rows that are all equal."""
    if not 4 <= len(points) <= MOST:
        return None
    flat = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    distance = nearest(flat, flat, NEIGHBOURS, skip_self=True)[0]
    other = np.where(distance > 0, distance, np.inf).min(1)
    if not np.isfinite(other).any():
        return None
    typical = float(np.median(other[np.isfinite(other)]))
    variance = _collapse(distance)
    return RowRisk(
        -_log_sum(-(distance**2) / (8 * variance)) + math.log(2),
        _log_sum(-0.5 * (distance / typical) ** 2),
        _dimension(distance),
        (distance < TWIN * typical).sum(1),
        math.sqrt(variance),
    )


def _collapse(distance: np.ndarray) -> float:
    """The variance q at which the mean of A_i = min(1, 1/2 sum exp(-d^2 / 8q)) is 1/2."""
    square = distance**2

    def excess(log_q: float) -> float:
        bound = 0.5 * np.exp(-square / (8 * math.exp(log_q))).sum(1)
        return float(np.minimum(bound, 1).mean() - 0.5)

    typical = math.log(float(np.median(square[square > 0])))
    low, high = typical - 20, typical + 20
    if excess(low) > 0 or excess(high) < 0:  # most rows have equal twins
        return math.exp(typical)
    return math.exp(float(root_scalar(excess, bracket=(low, high)).root))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    top = logs.max(1, keepdims=True)
    return np.log(np.exp(logs - top).sum(1)) + top[:, 0]


def _dimension(distance: np.ndarray) -> np.ndarray:
    """Levina and Bickel's estimate (n,): (k - 2) / sum log(r_k / r_j), unbiased; 0 of twins."""
    far = distance[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(far / distance[:, :-1])
        total = np.where(np.isfinite(logs), logs, np.inf).sum(1)
        found = (distance.shape[1] - 2) / total
    return np.where(np.isfinite(found), found, 0.0)
