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

    spectrum: eigenvalues (d,) of the data's covariance, the Gaussian reference. With a model's
    curve on data it is the cross-entropy. The error is the curve's over rows, nan where it has
    none.

    >>> import numpy as np
    >>> from reverie import LossCurve, entropy
    >>> u = np.geomspace(1e-3, 1e4, 513)
    >>> curve = LossCurve(u, 0.5 / (1 + u))  # N(0, 1)
    >>> round(entropy(curve, spectrum=np.ones(1)).nats, 3)  # 1/2 log(2 pi e) nats
    1.419
    """
    _exact(curve)
    value = curve.entropy() if spectrum is None else curve.cross_entropy(spectrum)
    error = curve.area_stderr()
    return Estimate(value, float("nan") if error is None else error)


def mutual_information(unconditional: LossCurve, conditional: LossCurve) -> Estimate:
    """I(x; c) in nats: area of the unconditional less that of the conditional curve.

    Measure both on the same rows with the same noise (one seed) and `keep_samples`, and the error
    is that of the paired differences.

    >>> import numpy as np
    >>> from reverie import LossCurve, mutual_information
    >>> u = np.geomspace(1e-3, 1e5, 513)
    >>> alone = LossCurve(u, 0.5 / (1 + u))
    >>> told = LossCurve(u, 0.25 / (1 + u / 2))  # half of the variance explained
    >>> round(mutual_information(alone, told).nats, 2)  # 1/2 log 2
    0.35
    """
    _exact(unconditional, conditional)
    gap = conditional.gap(unconditional)
    return Estimate(gap.nats, gap.stderr)


def kl_divergence(p: LossCurve, q: LossCurve) -> Estimate:
    """KL(p | q) in nats from the curves of two models on data of p; pair them as above.

    >>> import numpy as np
    >>> from reverie import LossCurve, kl_divergence
    >>> u = np.geomspace(1e-3, 1e4, 513)
    >>> p, q = LossCurve(u, 0.5 / (1 + u)), LossCurve(u, 0.5 / (1 + u) + 0.5 / (1 + u) ** 2)
    >>> round(kl_divergence(p, q).nats, 2)  # N(0, 1) from N(1, 1)
    0.5
    """
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
