"""Do the samples resemble held-out data? A question apart from copying: a poor generator copies
nothing, and a copycat resembles, though samples that repeat one another give it away here too.

Two tests that need no model of the data, and one distance:
    energy      2 E|x - y| - E|x - x'| - E|y - y'|, with a permutation p-value.
    classifier  can a classifier tell samples from held-out rows, on rows it was not fitted on?
    Frechet     distance of means and covariances, beside that of two halves of the held-out rows.

References: Szekely and Rizzo 2004 (energy); Lopez-Paz and Oquab 2017 (classifier).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from reverie.auditing.metrics.feature_metrics import frechet_distance as frechet_distance
from reverie.auditing.metrics.principal import principal
from reverie.auditing.nulls.rank_tests import wilson
from reverie.auditing.row import Row
from reverie.errors import InputError

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

ROWS = 4000  # rows a side that the tests look at,
MANY = 10  # and so many times those of the other side: more tell no more
PERMUTATIONS = 199
BLOCK = 512
LEAST = 20
COLUMNS = 256  # up to which a classifier looks at the rows themselves
PRINCIPAL = 64  # else at so many principal coordinates of both sides together


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of rows (n, d) and (m, d).

    0 in expectation for equal laws (and then it may be negative), above 0 for all others. Pairs
    are streamed: memory grows with n + m.
    """
    _enough(x, y)
    return float(_energies(x, y, np.arange(len(x) + len(y))[:, None])[0])


def energy_test(
    x: np.ndarray, y: np.ndarray, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Energy distance and its permutation p-value, (1 + #{permuted >= observed}) / (1 + R).

    Exact for any number R of permutations. All of them share one pass over the pairs: each is a
    quadratic form in its labels.
    """
    _enough(x, y)
    rng = np.random.default_rng(seed)
    total = len(x) + len(y)
    orders = np.stack(
        [np.arange(total), *(rng.permutation(total) for _ in range(permutations))], 1
    )
    energies = _energies(x, y, orders)
    tie = 1e-9 * abs(energies[0])  # the same split in another order is no smaller
    return float(energies[0]), float((energies >= energies[0] - tie).mean())


def _energies(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Energy distances (R,) when the first n of each column of `orders` (n + m, R) are x."""
    n, m = len(x), len(y)
    pool = np.concatenate([x, y]).astype(np.float64)
    pool -= pool.mean(0)
    norms = (pool**2).sum(1)
    label = np.zeros(orders.shape)
    np.put_along_axis(label, orders[:n], 1.0, axis=0)
    within, from_row = np.zeros(orders.shape[1]), np.zeros(n + m)
    for i in range(0, n + m, BLOCK):
        rows, rest = slice(i, i + BLOCK), slice(i, None)  # a pair once, whatever its order
        distance = pool[rows] @ (-2 * pool[rest]).T
        distance += norms[rows, None]
        distance += norms[rest]
        np.sqrt(distance.clip(0, out=distance), out=distance)
        np.fill_diagonal(distance, 0.0)  # not the root of a rounding error
        size = len(distance)
        from_row[rows] += distance.sum(1)
        from_row[i + size :] += distance[:, size:].sum(0)
        sums = 2 * (distance[:, size:] @ label[i + size :])
        sums += distance[:, :size] @ label[rows]
        within += np.einsum("ir,ir->r", label[rows], sums)
    reach, everything = from_row @ label, from_row.sum()
    across, other = reach - within, everything - 2 * reach + within
    return 2 * across / (n * m) - within / (n * (n - 1)) - other / (m * (m - 1))


@dataclass(frozen=True)
class TwoSample:
    """Accuracy on `count` unseen rows, half of each kind, where 1/2 is chance; p is one-sided."""

    accuracy: float
    p_value: float
    interval: tuple[float, float]
    count: int


def classifier_two_sample(x: np.ndarray, y: np.ndarray, seed: int = 0) -> TwoSample:
    """Can boosted trees tell x from y? Fitted on one half, counted on the other.

    Equal numbers of each are taken. The p-value is exact: given its guesses on the unseen half,
    the number of right ones is hypergeometric when the labels are exchangeable (cross-validation
    would reuse rows and lose that). Rows of over 256 columns are seen in 64 principal coordinates
    of both sides together, which the labels do not enter. Raises InputError below 20 rows on a
    side.
    """
    _enough(x, y)
    rng = np.random.default_rng(seed)
    half = min(len(x), len(y)) // 2
    sides = [rows[rng.permutation(len(rows))[: 2 * half]] for rows in (x, y)]
    label = np.repeat([0, 1], half)
    if x.shape[1] > COLUMNS:
        sides = principal(sides, PRINCIPAL, 2, seed)
    model = sorter(np.concatenate([rows[:half] for rows in sides]), label, seed)
    guess = model.predict(np.concatenate([rows[half:] for rows in sides]))
    hits = int((guess[half:] == 1).sum())  # y rows called y, out of all calls of y
    p_value = float(stats.hypergeom.sf(hits - 1, 2 * half, half, int((guess == 1).sum())))
    right = int((guess == label).sum())
    return TwoSample(right / (2 * half), p_value, wilson(right, 2 * half), 2 * half)


def sorter(
    rows: np.ndarray, label: np.ndarray, seed: int = 0, **settings: Any
) -> HistGradientBoostingClassifier:
    """Boosted trees fitted to tell the labels (n,) of rows (n, d); NaN is a value of its own."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    model = HistGradientBoostingClassifier(random_state=seed, **settings)
    model.fit(rows, label)
    return model


def fidelity(held: np.ndarray, drawn: np.ndarray, seed: int = 0) -> list[Row]:
    """Does it resemble held-out data? Energy and classifier tests and the Frechet distance.

    held, drawn: rows (N, d) in one common scale; at most 4000 of each are looked at,
    and at most 10 times as many as of the other. The p-values
    are against a perfect generator and stand apart from those of copying. Raises InputError below
    20 rows on a side.
    """
    _enough(held, drawn)
    rng = np.random.default_rng(seed)
    most = min(ROWS, MANY * min(len(held), len(drawn)))
    held, drawn = (rows[rng.permutation(len(rows))[:most]] for rows in (held, drawn))
    energy, p_value = energy_test(drawn, held, seed)
    told = classifier_two_sample(held, drawn, seed)
    size = min(len(held) // 2, len(drawn))
    distance = frechet_distance(drawn[:size], held[size : 2 * size])
    between = frechet_distance(held[:size], held[size : 2 * size])
    return [
        Row(
            "energy distance",
            energy,
            f"permutation, {PERMUTATIONS} times; expects 0",
            None,
            p_value,
            None,
            len(held) + len(drawn),
        ),
        Row(
            "told apart by a classifier",
            told.accuracy,
            "hypergeometric; expects 50%",
            told.interval,
            told.p_value,
            None,
            told.count,
            "share of unseen rows that boosted trees rightly call sample or held-out"
            + (f", by {PRINCIPAL} principal coordinates" if held.shape[1] > COLUMNS else ""),
        ),
        Row(
            "Frechet distance to held-out",
            distance,
            f"two halves of the held-out rows: {between:.3g}",
            None,
            None,
            None,
            size,
        ),
    ]


def fidelity_sentence(rows: list[Row], alpha: float = 0.05) -> str:
    """The rows of `fidelity` in one sentence; two tests, so each is held to alpha / 2."""
    told = next(row for row in rows if row.statistic == "told apart by a classifier")
    least = min(row.p_value for row in rows if row.p_value is not None)
    share = f"a classifier rightly sorts {told.value:.0%} of unseen rows, where guessing gets 50%"
    if least <= alpha / 2:
        return f"The samples can be told from held-out data: {share}."
    return f"The samples could not be told from held-out data: {share}."


def _enough(x: np.ndarray, y: np.ndarray) -> None:
    if min(len(x), len(y)) < LEAST:
        raise InputError(
            f"a test of fidelity needs at least {LEAST} rows on each side, "
            f"not {len(x)} and {len(y)}"
        )
