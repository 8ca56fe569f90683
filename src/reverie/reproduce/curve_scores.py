"""How samples of curves are scored: five pointwise statistics, beside a Gaussian and a bootstrap.

Tables of generative models for curves give the mean square error of the pointwise mean, variance,
skewness, kurtosis and autocorrelation. No code for them is published with the tables; these are
ours, so that only columns made here compare exactly. A sample of the data themselves is the best
that copying does, and a Gaussian of the data's moments costs one line: both stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reverie.auditing.metrics.rates import ratio_hits
from reverie.reproduce.tables import Row

DRAWS, REPEATS = 500, 20
Draw = Callable[[np.random.Generator], np.ndarray]


def autocorrelation(curves: np.ndarray) -> np.ndarray:
    """Autocorrelation (n,) at lags 0, ..., n - 1 of curves (N, n), each centred; the mean of N."""
    count = curves.shape[1]
    centred = curves - curves.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * count, axis=1)) ** 2
    products = np.fft.irfft(power, axis=1)[:, :count]
    return (products / products[:, :1]).mean(0)


def statistics(curves: np.ndarray) -> dict[str, np.ndarray]:
    """The five statistics (n,) of curves (N, n); the kurtosis is 0 for Gaussian values."""
    mean = curves.mean(0)
    centred = curves - mean
    variance = (centred**2).mean(0)
    return {
        "mean": mean,
        "variance": variance,
        "skewness": (centred**3).mean(0) / variance**1.5,
        "kurtosis": (centred**4).mean(0) / variance**2 - 3,
        "autocorrelation": autocorrelation(curves),
    }


def curve_scores(samples: np.ndarray, curves: np.ndarray) -> dict[str, float]:
    """Mean square error of each statistic of samples (M, n) against those of curves (N, n)."""
    ours, theirs = statistics(samples), statistics(curves)
    return {name: float(((ours[name] - theirs[name]) ** 2).mean()) for name in ours}


def score_rows(
    name: str,
    samples: np.ndarray,
    fitted: np.ndarray,
    curves: np.ndarray,
    seed: int,
    known: dict[tuple[str, str], tuple[float, str]] | None = None,
) -> list[Row]:
    """Scores against `curves` of an operator's samples, of a Gaussian and a bootstrap of `fitted`.

    known: (row, statistic) to a reference and its tag. The errors are the spread over draws of
    500, for the operator over samples taken again with replacement.
    """
    rng = np.random.default_rng(seed)
    mean, covariance = fitted.mean(0), np.cov(fitted.T, bias=True)
    draws: dict[str, Draw] = {
        "operator": lambda rng: samples[rng.integers(len(samples), size=DRAWS)],
        "Gaussian": lambda rng: rng.multivariate_normal(mean, covariance, DRAWS, method="eigh"),
        "bootstrap": lambda rng: fitted[rng.integers(len(fitted), size=DRAWS)],
    }
    rows = []
    for kind, draw in draws.items():
        repeats = [curve_scores(draw(rng), curves) for _ in range(REPEATS)]
        once = curve_scores(samples, curves) if kind == "operator" else None
        for statistic in repeats[0]:
            values = [scores[statistic] for scores in repeats]
            ours = float(np.mean(values)) if once is None else once[statistic]
            reference, tag = (known or {}).get((kind, statistic), (None, ""))
            quantity = f"{name}, {kind}: mean square error of the {statistic}"
            rows.append(Row(quantity, ours, reference, tag, float(np.std(values, ddof=1))))
    return rows


def copied_rows(
    name: str, sets: Sequence[tuple[str, np.ndarray]], fitted: np.ndarray
) -> list[Row]:
    """Share of each set three times nearer to its nearest fitted curve than to the second."""
    return [
        Row(f"{name}, {kind}: share that copies a curve", float(ratio_hits(fitted, points).mean()))
        for kind, points in sets
    ]
