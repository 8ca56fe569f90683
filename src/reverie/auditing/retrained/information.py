"""How much a generated point tells of the training set: a lower bound on I(x; S) from retrainings.

Train R models on R independent training sets S_1..S_R and let B name, uniformly, the model that
made x. Then, in nats per sample,

    log R - CE(any classifier of B from x, on fresh samples)  <=  E JSD_R  <=  I(x; S)

in expectation: JSD_R = I(x; B | S_1..S_R), and x depends on B only through S_B. (The notion is
that of Yi, Sun & Li 2023; this bound on it is our own.) It saturates at log R, and for small I it
is about (1 - 1/R) I.

The classifier is a softmax over the models of a weighted sum of features f(x, R_b) with one set of
weights for all b. R_b is the training set of model b, or a part of its samples that is set aside:
log kernel densities at several widths, the log density of a Gaussian fit, and the log distance to
the nearest row. It is fitted and chosen on samples that the bound never sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from reverie.errors import InputError

QUANTILES = (0.1, 0.5, 0.9)  # of nearest distances, as widths of the kernels
FAR = 50.0  # nats by which a feature may fall behind its best model: e^-50 is out of the question
RIDGES = (1e-3, 1e-1)
BOOTSTRAPS = 1000
LEAST_SAMPLES = 16


@dataclass(frozen=True)
class InformationBound:
    """A lower bound on I(sample; training set), in nats per sample.

    value: log R - CE on fresh samples. interval: its 95% interval for *these* training sets
    (bootstrap over samples). lower: one-sided 95% bound on I(x; S), over samples and retrainings
    (jackknife over models); None for R = 2, where nothing tells how other training sets would
    differ. p_value: that the models cannot be told apart: the classifier's hits are then binomial
    with chance 1 / R or less dispersed (Hoeffding 1956). chosen: what the classifier looks at.
    most: log R, where the bound saturates.
    """

    value: float
    interval: tuple[float, float]
    lower: float | None
    p_value: float
    models: int
    samples: int  # fresh ones, over all models
    accuracy: float
    chosen: str

    @property
    def most(self) -> float:
        return math.log(self.models)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"most": self.most}


def information_bound(
    training_sets: Sequence[np.ndarray], samples: Sequence[np.ndarray], *, seed: int = 0
) -> InformationBound:
    """Bound I(x; S) from below with R models.

    training_sets: R arrays (n_b, *shape) of independent rows. samples: R arrays (m, *shape), drawn
    independently, the b-th by the model of the b-th set. Half of the samples fits and chooses the
    classifier, the other half is fresh. Raises InputError on fewer than two models, unequal
    numbers of samples, or fewer than 16 of each.
    """
    sets, drawn = _checked(training_sets, samples)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(drawn[0]))
    parts = [drawn[:, rows] for rows in _quarters(order)]
    reference, fitting, choosing, fresh = parts
    chosen, weights, features = _classifier(sets, reference, fitting, choosing)
    scores = features(fresh) @ weights  # (R, m, R)
    gains = _gains(scores)
    means = _bootstrap_means(gains, rng)
    hits = int((scores.argmax(2) == np.arange(len(sets))[:, None]).sum())
    return InformationBound(
        value=float(gains.mean()),
        interval=(float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))),
        lower=_lower(scores, gains, means),
        p_value=float(stats.binom.sf(hits - 1, gains.size, 1 / len(sets))),
        models=len(sets),
        samples=gains.size,
        accuracy=hits / gains.size,
        chosen=chosen,
    )


def _checked(
    training_sets: Sequence[np.ndarray], samples: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Flat float64 training sets and samples (R, m, d), in units of the pooled deviation."""
    if len(training_sets) < 2 or len(training_sets) != len(samples):
        raise InputError(
            f"{len(training_sets)} training sets and {len(samples)} sets of samples: the bound "
            "needs two or more models, with one of each"
        )
    sizes = {len(rows) for rows in samples}
    if len(sizes) > 1 or min(sizes) < LEAST_SAMPLES:
        raise InputError(
            f"the models have {', '.join(map(str, sorted(sizes)))} samples: the bound needs the "
            f"same number of each, at least {LEAST_SAMPLES}"
        )
    sets = [np.asarray(rows, dtype=np.float64).reshape(len(rows), -1) for rows in training_sets]
    drawn = np.stack([np.asarray(r, dtype=np.float64).reshape(len(r), -1) for r in samples])
    pooled = np.concatenate(sets)
    scale = pooled.std(0)
    scale = np.where(scale > 0, scale, scale.max() if scale.any() else 1.0)
    return [rows / scale for rows in sets], drawn / scale


def _quarters(order: np.ndarray) -> list[np.ndarray]:
    """Sample indices: reference, fitting, choosing (together a half), fresh."""
    m = len(order)
    return np.split(order, [m // 4, 3 * m // 8, m // 2])


# --- features ------------------------------------------------------------------------------------


class _Features:
    """f(x, R_b) for every model b: (R, m, R, F) from samples (R, m, d); columns standardised."""

    def __init__(self, references: Sequence[np.ndarray], fitting: np.ndarray) -> None:
        self.references = [np.asarray(rows) for rows in references]
        flat = fitting.reshape(-1, fitting.shape[-1])
        near = np.stack([_squares(flat, rows).min(1) for rows in self.references], 1).min(1)
        least = max(float(near.max()), 1e-12) * 1e-8
        widths = np.quantile(near, QUANTILES) / flat.shape[1]
        self.widths = np.unique(np.maximum(widths, least))
        self.floor = least
        raw = self._raw(fitting)
        spread = raw.reshape(-1, raw.shape[-1]).std(0)
        self.scale = np.where(spread > 0, spread, 1.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._raw(x) / self.scale

    def _raw(self, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1, x.shape[-1])
        columns = np.stack([self._of(flat, rows) for rows in self.references], 1)
        columns = np.maximum(columns - columns.max(1, keepdims=True), -FAR)
        return columns.reshape(*x.shape[:2], *columns.shape[1:])

    def _of(self, flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(M, F): kernel densities, the Gaussian fit, the nearest row."""
        square = _squares(flat, rows)
        kernels = [
            _log_total(-0.5 * square / width, 1) - math.log(len(rows)) for width in self.widths
        ]
        nearest = -0.5 * np.log(square.min(1) + self.floor)
        return np.stack([*kernels, _gaussian(flat, rows), nearest], 1)


def _squares(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distances (M, n)."""
    square = (x**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * x @ rows.T
    return np.maximum(square, 0.0)


def _log_total(scores: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(special.logsumexp(scores, axis=axis))


def _gaussian(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Log density, up to a constant, of a Gaussian with the rows' mean and shrunk variances.

    The variances (1 in pooled units) count as d + 2 rows beside the data, so that few rows do not
    make a sharp law of their own.
    """
    prior = rows.shape[1] + 2
    centred = rows - rows.mean(0)
    variance = ((centred**2).sum(0) + prior) / (len(rows) + prior)
    return -0.5 * ((x - rows.mean(0)) ** 2 / variance + np.log(variance)).sum(1)


# --- the classifier ------------------------------------------------------------------------------


def _classifier(
    sets: list[np.ndarray], reference: np.ndarray, fitting: np.ndarray, choosing: np.ndarray
) -> tuple[str, np.ndarray, Any]:
    """The best of: nothing, the training rows, set-aside samples, both; by CE on `choosing`."""
    rows, drawn = _Features(sets, fitting), _Features(list(reference), fitting)
    views = {
        "training rows": rows,
        "samples": drawn,
        "training rows and samples": lambda x: np.concatenate([rows(x), drawn(x)], -1),
    }
    best_gain, best = 0.0, ("nothing", np.zeros(1), lambda x: np.zeros((*x.shape[:2], len(x), 1)))
    for name, view in views.items():
        inputs, held = view(fitting), view(choosing)
        for ridge in RIDGES:
            weights = _fit(inputs, ridge)
            gain = float(_gains(held @ weights).mean())
            if gain > best_gain:
                best_gain, best = gain, (name, weights, view)
    return best


def _fit(features: np.ndarray, ridge: float) -> np.ndarray:
    """Weights (F,) of the softmax over models, by penalised maximum likelihood (convex)."""
    models, _, _, width = features.shape
    own = np.stack([features[b, :, b] for b in range(models)]).reshape(-1, width)
    others = features.reshape(-1, models, width)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = others @ weights
        total = _log_total(scores, 1)
        share = np.exp(scores - total[:, None])
        loss = float((total - own @ weights).mean()) + 0.5 * ridge * float(weights @ weights)
        slope = (np.einsum("mb,mbf->mf", share, others) - own).mean(0) + ridge * weights
        return loss, slope

    return optimize.minimize(objective, np.zeros(width), jac=True, method="L-BFGS-B").x


def _gains(scores: np.ndarray) -> np.ndarray:
    """log R + log q(b | x) in nats, (R, m), from scores (R, m, R)."""
    own = np.stack([scores[b, :, b] for b in range(len(scores))])
    return math.log(len(scores)) + own - _log_total(scores, 2)


# --- errors --------------------------------------------------------------------------------------


def _bootstrap_means(gains: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (BOOTSTRAPS,) of resampled gains, within every model."""
    models, count = gains.shape
    total = np.zeros(BOOTSTRAPS)
    for own in gains:
        total += own[rng.integers(count, size=(BOOTSTRAPS, count))].mean(1)
    return total / models


def _lower(scores: np.ndarray, gains: np.ndarray, means: np.ndarray) -> float | None:
    """One-sided 95% bound over retrainings: a jackknife over models, or the samples' if lower.

    Leaving a model out restricts the softmax to the others; the sum of squares of the R values
    so found overestimates the variance on average (Efron & Stein 1981).
    """
    models = len(scores)
    if models == 2:
        return None
    left = []
    for b in range(models):
        keep = np.delete(np.arange(models), b)
        left.append(_gains(scores[np.ix_(keep, np.arange(scores.shape[1]), keep)]).mean())
    deviation = math.sqrt(((np.array(left) - np.mean(left)) ** 2).sum())
    jackknife = gains.mean() - stats.t.ppf(0.95, models - 1) * deviation
    return float(max(min(jackknife, np.quantile(means, 0.05)), 0.0))
