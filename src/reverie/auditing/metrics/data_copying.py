"""The data-copying test C_T of Meehan, Chaudhuri and Dasgupta (2020), with its true null.

Within cells of the training data, are samples nearer to training rows than held-out rows are?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reverie.auditing.facts.neighbours import nearest
from reverie.errors import InputError

CELLS, LEAST = 3, 20


@dataclass(frozen=True, eq=False)
class CopyingTest:
    """C_T and its null. value: far below 0 is copying, far above is underfitting.

    deviation: of `value` under the null. p_value: one-sided, small for copying. z, weights: (C,)
    of the cells used. unused: cells with too few samples or held-out rows.
    """

    value: float
    deviation: float
    p_value: float
    z: np.ndarray
    weights: np.ndarray
    unused: int


def copying_test(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, cells: int = CELLS, seed: int = 0
) -> CopyingTest:
    """C_T = sum_c w_c Z_c over the k-means cells c of `members`, w_c the share of held-out rows.

    Z_c is the standardised Mann-Whitney statistic of the distances to the nearest training row of
    the cell, samples against held-out rows, with the variance corrected for ties. Given the cells
    the Z_c are independent, so the null deviation is sqrt(sum w_c^2), not 1. A cell counts when
    it has at least 20 samples and a held-out row. Raises InputError when none does.
    """
    from sklearn.cluster import KMeans  # slow to import, and of audits alone

    clusters = KMeans(min(cells, len(members)), n_init="auto", random_state=seed).fit(members)
    labels = [clusters.predict(np.asarray(rows, members.dtype)) for rows in (members, held, drawn)]
    z, counts = [], []
    for cell in range(clusters.n_clusters):
        near, test, sample = (
            rows[label == cell] for rows, label in zip((members, held, drawn), labels, strict=True)
        )
        if len(sample) < LEAST or len(test) == 0 or len(near) == 0:
            continue
        z.append(rank_z(nearest(sample, near)[0][:, 0], nearest(test, near)[0][:, 0]))
        counts.append(len(test))
    if not z:
        raise InputError(
            f"C_T needs a cell with at least {LEAST} samples and a held-out row; none of "
            f"{clusters.n_clusters} has: give more samples"
        )
    weights = np.array(counts) / sum(counts)
    value, deviation = float(weights @ z), math.sqrt(float(weights @ weights))
    return CopyingTest(
        value,
        deviation,
        float(stats.norm.cdf(value / deviation)),
        np.array(z),
        weights,
        clusters.n_clusters - len(z),
    )


def rank_z(sample: np.ndarray, test: np.ndarray) -> float:
    """Standardised count of pairs in which `sample` (m,) exceeds `test` (n,), ties counted half.

    The variance is m n / 12 [(m + n + 1) - sum (t^3 - t) / ((m + n)(m + n - 1))] over groups of t
    equal values; 0 when all are equal.
    """
    m, n = len(sample), len(test)
    both = np.concatenate([sample, test])
    u = stats.rankdata(both)[:m].sum() - m * (m + 1) / 2
    ties = np.unique(both, return_counts=True)[1].astype(float)
    total = m + n
    variance = m * n / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    return float((u - m * n / 2) / math.sqrt(variance)) if variance > 1e-9 * m * n else 0.0
