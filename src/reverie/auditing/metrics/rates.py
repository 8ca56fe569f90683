"""Rates of the field that count neighbours, each with the null that belongs to it.

Everywhere `real` (N, d) and `drawn` (M, d) are rows in one common scale. Results come per row, so
that a mean, an interval and a difference with held-out rows in the place of the samples (the null
that needs no formula) can all be taken from them. Equal distances are ties, and a tie is outside.

References: Kynkaanniemi et al. 2019 (precision, recall); Naeem et al. 2020 (density, coverage);
Alaa et al. 2022 (authenticity); Gu et al. 2023 (the 1/3 rule); Levina and Bickel 2004 with the
averaging of MacKay and Ghahramani 2005 (intrinsic dimension).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import THIRD, ratios
from reverie.errors import InputError

TIE = 1e-9  # relative difference of squared distances below which they are equal
BLOCK = 1024

Neighbours = tuple[np.ndarray, np.ndarray]  # distances and indices, as `nearest` gives them


@dataclass(frozen=True, eq=False)
class Prdc:
    """Per-row values whose means are precision, recall, density and coverage.

    precision: (M,) is a sample in the ball of some real row? density: (M,) in how many balls, over
    k. recall: (N,) is a real row in the ball of some sample? coverage: (N,) has its ball a sample?
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray

    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in vars(self).items()}


def prdc(real: np.ndarray, drawn: np.ndarray, k: int = 5) -> Prdc:
    """Precision, recall, density and coverage with balls up to the k-th neighbour of each row.

    Pairs are streamed in float64: memory grows with N + M, not N M. Raises InputError when either
    side has no k-th neighbour.
    """
    if min(len(real), len(drawn)) <= k:
        raise InputError(
            f"precision and recall with {k} neighbours need more than {k} rows on each side, "
            f"not {len(real)} and {len(drawn)}"
        )
    real_ball, drawn_ball = (
        nearest(rows, rows, k, skip_self=True)[0][:, -1] ** 2 * (1 - TIE) for rows in (real, drawn)
    )
    centre = real.mean(0)
    x, y = real - centre, drawn - centre
    x_norm, y_norm = (x**2).sum(1), (y**2).sum(1)
    density, recall = np.zeros(len(drawn)), np.zeros(len(real), bool)
    coverage = np.zeros(len(real), bool)
    for i in range(0, len(x), BLOCK):
        rows = slice(i, i + BLOCK)
        for j in range(0, len(y), BLOCK):
            columns = slice(j, j + BLOCK)
            square = x[rows] @ (-2 * y[columns].T)
            square += x_norm[rows, None]
            square += y_norm[columns]
            inside = square < real_ball[rows, None]
            density[columns] += inside.sum(0)
            coverage[rows] |= inside.any(1)
            recall[rows] |= (square < drawn_ball[columns]).any(1)
    return Prdc(density > 0, recall, density / k, coverage)


def coverage_null(real: int, drawn: int, k: int = 5) -> float:
    """Expected coverage when `drawn` samples and `real` rows have one continuous law.

    1 - prod_{j=1..k} (N - j) / (M + N - j): the ball of a row is empty when its k nearest rows in
    the pool are all real. Tends to 1 - 2^-k for equal sizes, not to 1.
    """
    j = np.arange(1, k + 1)
    return float(1 - np.prod((real - j) / (drawn + real - j)))


def ratio_hits(
    real: np.ndarray,
    drawn: np.ndarray,
    threshold: float = THIRD,
    found: Neighbours | None = None,
) -> np.ndarray:
    """(M,) of bool: is the nearest real row closer than `threshold` times the second nearest?

    Its mean is R_Mem (Gu et al. 2023). A fresh sample passes with probability threshold^d at
    intrinsic dimension d: 11% for d = 2, so the rate means nothing without its null. found: the
    nearest real rows of `drawn`, at least 2, where they are known already.
    """
    distance = (found or nearest(drawn, real, 2))[0]
    return ratios(distance[:, 0], distance[:, min(1, distance.shape[1] - 1)]) < threshold


def intrinsic_dimension(
    queries: np.ndarray, points: np.ndarray, k: int = 10, found: Neighbours | None = None
) -> float:
    """Maximum-likelihood dimension from the distances of `queries` to their k nearest `points`.

    d = [mean over queries and j < k of log(T_k / T_j)]^-1: locally (T_1 / T_2)^d is uniform.
    Queries that coincide with a point carry no scale and are left out; nan when none is left.
    found: the neighbours, where they are known already.
    """
    distance = (found or nearest(queries, points, k))[0][:, :k]
    distance = distance[distance[:, 0] > 0]
    if len(distance) == 0 or distance.shape[1] < 2:
        return float("nan")
    total = np.log(distance[:, -1:] / distance[:, :-1]).mean()
    return float(1 / total) if total > 0 else float("inf")


def authentic(real: np.ndarray, drawn: np.ndarray, found: Neighbours | None = None) -> np.ndarray:
    """(M,) of bool: is a sample farther from its nearest real row than that row's own neighbour?

    The neighbour distance is looked up by the index of the real row. A copy is not authentic; of
    fresh samples neither half nor all are: compare with held-out rows (`authenticity_limit`).
    found: the nearest real rows of `drawn`, where they are known already.
    """
    distance, index = found or nearest(drawn, real, 1)
    asked, place = np.unique(index[:, 0], return_inverse=True)  # often few of many real rows
    if 2 * len(asked) > len(real):
        own = nearest(real, real, 1, skip_self=True)[0][asked, 0]
    else:
        around, which = nearest(real[asked], real, 2)
        own = np.where(which[:, 0] == asked, around[:, -1], around[:, 0])
    return own[place] < distance[:, 0] * (1 - TIE)


def authenticity_limit(dim: int) -> float:
    """Share of authentic fresh samples as N grows: 1 - p_d.

    p_d = 1 / (2 - I_{3/4}((d + 1)/2, 1/2)) is the chance that nearest neighbours are mutual in d
    dimensions. Finite samples lie above it from about d = 5 on.
    """
    return float(1 - 1 / (2 - betainc((dim + 1) / 2, 0.5, 0.75)))
