"""Readings of one or two loss curves: entropy, mutual information, KL.

    -log P(x) = 1/2 int mmse(x, .) dgamma                                 discrete x
    I(x; c)   = area of the unconditional less that of the conditional curve
    KL(p|q)   = area of q's curve on data of p less that of p's

Valid where the area under the ideal curve is information (`Process.area_exact`), which is asked.
"""

from __future__ import annotations

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.information.estimates import Estimate


def entropy(curve: LossCurve, spectrum: np.ndarray | None = None) -> Estimate:
    """Entropy in nats from a loss curve: discrete data, or with `spectrum` a density.

    spectrum: eigenvalues of the data's covariance, the Gaussian reference. With a model's curve on
    data it is the cross-entropy. The error is the curve's over rows, nan where it has none.
    """
    _exact(curve)
    value = curve.entropy() if spectrum is None else curve.cross_entropy(spectrum)
    error = curve.area_stderr()
    return Estimate(value, float("nan") if error is None else error)


def mutual_information(unconditional: LossCurve, conditional: LossCurve) -> Estimate:
    """I(x; c) in nats: area of the unconditional less that of the conditional curve.

    Measure both on the same rows with the same noise (one seed) and `keep_samples`, and the error
    is that of the paired differences.
    """
    _exact(unconditional, conditional)
    gap = conditional.gap(unconditional)
    return Estimate(gap.nats, gap.stderr)


def kl_divergence(p: LossCurve, q: LossCurve) -> Estimate:
    """KL(p | q) in nats from the curves of two models on data of p; pair them as above."""
    _exact(p, q)
    gap = p.gap(q)
    return Estimate(gap.nats, gap.stderr)


def _exact(*curves: LossCurve) -> None:
    for curve in curves:
        if curve.process is not None and not curve.process.area_exact:
            raise InputError(
                f"the area under a curve of {type(curve.process).__name__} is no information "
                "(its area_exact is False): measure on another process"
            )
