"""Is a learned posterior right? Ranks, coverage, and a classifier against reference draws.

All are exact for the true posterior whatever the network: parameters drawn from the prior and
their own posterior draws are then exchangeable.

- ranks of theta among L draws of p(theta | x), uniform on 0..L (Talts et al. 2018);
- the highest-density region of level a that covers a share a of parameters (Hermans et al. 2022);
- the accuracy of a classifier between two sets of draws, 1/2 for one law (Lopez-Paz & Oquab 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from reverie.auditing.nulls.rank_tests import holm
from reverie.errors import InputError
from reverie.simulation.pairs import as_rows, check_pairs
from reverie.simulation.posterior import Posterior


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of truths among their posterior draws, and whether they are uniform.

    ranks: (n, columns) in 0..draws. p_values: of uniformity (chi-square), one a column, corrected
    over the columns (Holm). coverage: of levels, see the function that made it.

    >>> import numpy as np
    >>> from reverie.simulation import Calibration
    >>> ranks = np.arange(100)[:, None]  # even: as right posteriors give
    >>> calibration = Calibration(ranks, draws=99, p_values=[1.0], centred=True)
    >>> calibration.p_value, calibration.coverage(0.8)
    (1.0, array([0.8]))
    """

    ranks: np.ndarray
    draws: int
    p_values: list[float]
    centred: bool

    @property
    def p_value(self) -> float:
        """Chance of ranks at least as uneven under the right posterior, in some column."""
        return min(self.p_values)

    def coverage(self, level: float) -> np.ndarray:
        """Share (columns,) of truths inside the region of probability `level`.

        Right posteriors have coverage `level`; a lower one is overconfident. The region is the
        central interval of a parameter's ranks, or that of highest density.
        """
        place = (self.ranks + 0.5) / (self.draws + 1)
        outer = np.abs(2 * place - 1) if self.centred else 1 - place
        return (outer <= level).mean(0)


def _calibration(ranks: np.ndarray, draws: int, centred: bool) -> Calibration:
    """Chi-square tests on bins of equal chance, wide enough to expect at least 10 ranks each."""
    bins = _bins(len(ranks), draws)
    p_values = []
    for column in ranks.T:
        counts = np.bincount(column * bins // (draws + 1), minlength=bins)
        p_values.append(float(stats.chisquare(counts).pvalue))
    return Calibration(ranks, draws, holm(p_values), centred)


def _bins(count: int, draws: int) -> int:
    """The most bins that divide the draws + 1 ranks evenly and expect at least 10 each."""
    most = min(20, count // 10)
    even = [b for b in range(2, most + 1) if (draws + 1) % b == 0]
    if not even:
        raise InputError(
            f"{count} pairs and {draws} draws give no test: use at least 20 pairs, and draws = 99"
        )
    return even[-1]


def rank_calibration(
    posterior: Posterior, theta: Any, x: Any, *, draws: int = 99, steps: int = 40, seed: int = 0
) -> Calibration:
    """Simulation-based calibration on fresh pairs theta (n, d), x (n, m) of prior and simulator.

    One column for each parameter. Raises InputError on bad pairs or fewer than one draw.
    Source: Talts et al. 2018.

    >>> import torch
    >>> from reverie.simulation import posterior, rank_calibration
    >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1), 1)
    >>> found = posterior(lambda theta: theta + 1, prior, n=200, steps=20)
    >>> theta = prior.sample((20,))
    >>> rank_calibration(found, theta, theta + 1, draws=9, steps=5).ranks.shape
    (20, 1)
    """
    points, rows = check_pairs(theta, x)
    drawn = posterior.sample_each(draws, rows, steps=steps, seed=seed)
    ranks = (drawn < points[:, None]).sum(1).numpy()
    return _calibration(ranks, draws, centred=True)


def density_calibration(
    posterior: Posterior,
    theta: Any,
    x: Any,
    *,
    draws: int = 49,
    steps: int = 40,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Calibration:
    """Expected coverage of highest-density regions on fresh pairs theta (n, d), x (n, m).

    One rank a pair: how many of its posterior draws are less probable than the truth. Costs n
    (draws + 1) densities by the probability flow. Raises InputError as `rank_calibration` does.
    Source: Hermans et al. 2022.

    >>> import torch
    >>> from reverie.simulation import density_calibration, posterior
    >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1), 1)
    >>> found = posterior(lambda theta: theta + 1, prior, n=200, steps=20)
    >>> theta = prior.sample((20,))
    >>> density_calibration(found, theta, theta + 1, draws=5, steps=5).ranks.shape
    (20, 1)
    """
    points, rows = check_pairs(theta, x)
    drawn = posterior.sample_each(draws, rows, steps=steps, seed=seed)
    given = rows.repeat_interleave(draws, 0)
    densities = posterior.log_prob(drawn.flatten(0, 1), given, tolerance=tolerance)
    truth = posterior.log_prob(points, rows, tolerance=tolerance)
    less = densities.reshape(len(points), draws) < truth[:, None]
    return _calibration(less.sum(1, keepdim=True).numpy(), draws, centred=False)


def classifier_accuracy(reference: Any, drawn: Any, seed: int = 1) -> float:
    """Accuracy of telling posterior draws (n, d) from reference draws (n, d): 1/2 is best (C2ST).

    As sbibm scores posteriors (Lueckmann et al. 2021): both sets standardised by the reference, a
    perceptron with two layers of 10 d units, five-fold cross-validation. Raises InputError where
    the sets differ in size or width, or hold values that are not finite.

    >>> import numpy as np
    >>> from reverie.simulation import classifier_accuracy
    >>> rng = np.random.default_rng(0)
    >>> near, far = rng.normal(size=(40, 1)), rng.normal(size=(40, 1)) + 9
    >>> round(classifier_accuracy(near, far), 2)
    1.0
    """
    from sklearn.model_selection import KFold, cross_val_score  # slow to import
    from sklearn.neural_network import MLPClassifier

    first, second = (
        as_rows(v, n).numpy() for v, n in ((reference, "reference"), (drawn, "drawn"))
    )
    if first.shape != second.shape:
        raise InputError(
            f"reference has shape {first.shape} and drawn {second.shape}: give as many"
        )
    mean, std = first.mean(0), first.std(0, ddof=1)
    rows = (np.concatenate([first, second]) - mean) / std
    labels = np.repeat([0, 1], len(first))
    width = 10 * first.shape[1]
    network = MLPClassifier((width, width), max_iter=10_000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(cross_val_score(network, rows, labels, cv=folds, scoring="accuracy").mean())
