"""Distances between sets of features: Frechet, kernel (KID) and feature likelihood (FLD).

A distance to the training rows is blind to copying (a copycat is at 0), so each comes with
held-out rows in the place of the samples. Rows are features (N, d) of any extractor, in one common
scale.

References: Heusel et al. 2017 (FID); Binkowski et al. 2018 (KID); Jiralerspong et al. 2023 (FLD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reverie.errors import InputError

SUBSET, SUBSETS = 1000, 10  # KID: rows of a subset at most, and subsets at least
FLD_ROWS = 1000
BACKGROUND = 0.1  # weight of the one wide Gaussian that keeps every likelihood finite
LEAST_VARIANCE = 1e-6  # in units of the test variance
STEPS, SETTLED = 50, 1e-4  # of expectation-maximisation; nats per dimension


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the means and covariances of two sets.

    FID when the features are Inception's. Its bias grows with d and falls with the rows: compare
    only at equal sizes. With fewer rows than columns no matrix (d, d) is formed: if S = A^T A and
    S' = B^T B, the trace of the root is the sum of the singular values of A B^T. Raises InputError
    below two rows.
    """
    if min(len(x), len(y)) < 2:
        raise InputError("a Frechet distance needs at least 2 rows on each side")
    x, y = np.asarray(x, float), np.asarray(y, float)
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum()
    if min(len(x), len(y)) < x.shape[1]:
        a, b = ((rows - rows.mean(0)) / math.sqrt(len(rows) - 1) for rows in (x, y))
        cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        return float(gap + (a**2).sum() + (b**2).sum() - 2 * cross)
    first, second = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (x, y))
    value, vector = np.linalg.eigh(first)
    root = vector * np.sqrt(value.clip(0))  # root root^T = first
    cross = np.sqrt(np.linalg.eigvalsh(root.T @ second @ root).clip(0)).sum()
    return float(gap + np.trace(first) + np.trace(second) - 2 * cross)


def kid(x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Kernel distance and its standard error: unbiased MMD^2 with kernel (x.y / d + 1)^3.

    The mean over disjoint random subsets of at most 1000 rows, at least 10 of them, so that the
    error comes from independent values. 0 in expectation for equal laws, and may be negative.
    Raises InputError below 20 rows on a side.
    """
    rows = min(len(x), len(y))
    if rows < 2 * SUBSETS:
        raise InputError(f"KID needs at least {2 * SUBSETS} rows on each side, not {rows}")
    count = max(SUBSETS, -(-rows // SUBSET))
    rng = np.random.default_rng(seed)
    parts = [np.array_split(rng.permutation(len(side))[:rows], count) for side in (x, y)]
    values = [mmd2(x[i], y[j]) for i, j in zip(*parts, strict=True)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(count))


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD^2 of two sets with kernel (x.y / d + 1)^3; needs two rows on each side."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    within = 0.0
    for rows in (x, y):
        gram = (rows @ rows.T / x.shape[1] + 1) ** 3
        within += (gram.sum() - np.trace(gram)) / (len(rows) * (len(rows) - 1))
    return float(within - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())


@dataclass(frozen=True)
class Fld:
    """100 x nats per dimension. value: over the baseline, low is good. gap: train minus test.

    gap_stderr: of the gap, over the rows evaluated and given the fitted mixture.
    """

    value: float
    gap: float
    gap_stderr: float


def fld(train: np.ndarray, test: np.ndarray, drawn: np.ndarray, seed: int = 0) -> Fld:
    """Feature likelihood divergence of samples, and its gap between training and test rows.

    All rows are scaled by the mean and deviation of the test rows. Isotropic Gaussians stand at
    the samples, and their variances maximise the likelihood of the training rows; a sample that is
    a copy gets a tiny variance, and test rows a low likelihood. value = 100 [NLL(test) / d -
    baseline], where the baseline puts Gaussians at half of the training rows and fits them on the
    other half; gap = 100 [NLL(train) - NLL(test)] / d, far below 0 when memorised.

    Ours differs from the published code in three ways, so that values stay finite: variances by
    expectation-maximisation with a floor of 1e-6; the background, one Gaussian at the mean of the
    training rows with weight 0.1, stays in the evaluation; at most 1000 rows of each set.
    """
    rng = np.random.default_rng(seed)
    train, test, drawn = (
        np.asarray(rows, float)[rng.permutation(len(rows))[:FLD_ROWS]]
        for rows in (train, test, drawn)
    )
    centre, scale = test.mean(0), test.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    train, test, drawn = ((rows - centre) / scale for rows in (train, test, drawn))
    half = len(train) // 2
    ours = _Mixture(drawn, train)
    on_test, on_train = 100 * ours.nll(test), 100 * ours.nll(train)
    baseline = 100 * _Mixture(train[:half], train[half:]).nll(test)
    error = math.sqrt(on_test.var() / len(test) + on_train.var() / len(train))
    return Fld(
        float(on_test.mean() - baseline.mean()), float(on_train.mean() - on_test.mean()), error
    )


class _Mixture:
    """Isotropic Gaussians at given centres (M, d) and a background, variances fitted to `rows`."""

    def __init__(self, centres: np.ndarray, rows: np.ndarray) -> None:
        self.centres = np.concatenate([centres, rows.mean(0, keepdims=True)])
        share = np.full(len(centres), (1 - BACKGROUND) / len(centres))
        self.log_weight = np.log(np.append(share, BACKGROUND))
        self.dim = rows.shape[1]
        square = self._square(rows)
        self.variance = square.min(0) / self.dim  # the best for each centre's nearest row
        self.variance[-1] = square[:, -1].mean() / self.dim
        self.variance = self.variance.clip(LEAST_VARIANCE)
        last = np.inf
        for _ in range(STEPS):
            part, total = _shares(self._joint(square))
            mass = part.sum(0)
            fitted = np.einsum("nm,nm->m", part, square) / (self.dim * np.maximum(mass, 1e-300))
            self.variance = np.where(mass > 1e-12, fitted, self.variance).clip(LEAST_VARIANCE)
            now = -float(total.mean()) / self.dim
            if last - now < SETTLED:
                break
            last = now

    def nll(self, rows: np.ndarray) -> np.ndarray:
        """Negative log-likelihood per dimension of each row, in nats."""
        return -_shares(self._joint(self._square(rows)))[1] / self.dim

    def _square(self, rows: np.ndarray) -> np.ndarray:
        norms = (rows**2).sum(1)[:, None] + (self.centres**2).sum(1)
        return (norms - 2 * rows @ self.centres.T).clip(0)

    def _joint(self, square: np.ndarray) -> np.ndarray:
        """Log of weight times density, (rows, M + 1)."""
        scale = self.dim / 2 * np.log(2 * math.pi * self.variance)
        joint = square * (-0.5 / self.variance)
        joint += self.log_weight - scale
        return joint


def _shares(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each centre's share of each row, in the room of `joint` (n, M), and log of the sum (n,)."""
    most = joint.max(1)
    joint -= most[:, None]
    np.exp(joint, out=joint)
    total = joint.sum(1)
    joint /= total[:, None]
    return joint, most + np.log(total)
