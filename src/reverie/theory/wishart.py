"""Exact KL of Gaussians: of one draw of the data, and its expectation over draws (Wishart).

The covariance of N Gaussian samples is Wishart, so the expected KL of the unregularised fit is a
sum of digamma functions that knows N and d and nothing of Sigma (Muirhead 1982, section 3.2).
Its large-N law is d^2/(4N) in total, d/(4N) per dimension. Reconstruction of the law announced in
the abstract of Merger & Goldt 2025.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

from reverie.errors import InputError

MEANS = ("known", "estimated")
DIRECTIONS = ("forward", "reverse")


def gaussian_kl(
    covariance: np.ndarray,
    other: np.ndarray,
    mean: np.ndarray | None = None,
    other_mean: np.ndarray | None = None,
) -> float:
    """KL(N(mean, covariance) || N(other_mean, other)) in nats, exact; infinite if one is singular.

    covariances: (d, d). means: (d,), default equal.
    InputError on shapes that differ.

    >>> import numpy as np
    >>> from reverie.theory import gaussian_kl
    >>> round(gaussian_kl(np.eye(2), 2 * np.eye(2)), 4)  # log 2 - 1/2
    0.1931
    """
    first, second = np.asarray(covariance, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise InputError(f"two covariances of one shape (d, d), not {first.shape}, {second.shape}")
    try:
        factor, target = np.linalg.cholesky(second), np.linalg.cholesky(first)
    except np.linalg.LinAlgError:
        return float("inf")
    ratio = np.linalg.solve(factor, target)
    volume = 2 * (np.log(np.diag(factor)).sum() - np.log(np.diag(target)).sum())
    kl = 0.5 * ((ratio**2).sum() - len(first) + volume)
    if mean is not None and other_mean is not None:
        kl += 0.5 * (np.linalg.solve(factor, np.asarray(mean) - np.asarray(other_mean)) ** 2).sum()
    return float(kl)


def expected_kl(
    n: np.ndarray | int, dim: int, mean: str = "known", direction: str = "forward"
) -> np.ndarray:
    """Expected KL in nats, summed over dimensions, of the Gaussian fitted to n Gaussian samples.

    n: integers, () or (M,), or of any shape. mean: "known" or "estimated" (covariance about the
    sample mean, 1/n). direction: "forward" KL(true || fitted) or "reverse". Exact, whatever the
    true covariance; infinite where the expectation does not exist (forward needs n > d + 1, d + 2
    with the mean).
    Raises InputError on other words or n < 1.
    Source: Muirhead 1982, section 3.2 (Wishart).

    >>> from reverie.theory import expected_kl
    >>> expected_kl([20, 200, 2000], dim=10).round(3)  # about d (d + 1) / 4n nats
    array([4.406, 0.151, 0.014])
    """
    if mean not in MEANS or direction not in DIRECTIONS:
        raise InputError(f"mean is one of {MEANS} and direction one of {DIRECTIONS}")
    count = np.asarray(n, dtype=np.float64)
    if (count < 1).any() or dim < 1:
        raise InputError("n and dim must be at least 1")
    lost = int(mean == "estimated")
    freedom = count - lost
    enough = freedom > dim + 1 if direction == "forward" else freedom >= dim
    safe = np.where(enough, count, 2 * dim + 4)
    order = np.arange(1, dim + 1)
    logs = digamma((safe[..., None] - lost - order + 1) / 2).sum(-1) + dim * np.log(2 / safe)
    if direction == "reverse":
        return np.where(enough, -0.5 * logs, np.inf)
    fit = (safe + lost) * dim / (safe - lost - dim - 1)
    return np.where(enough, 0.5 * (fit - dim + logs), np.inf)


def limit_kl_per_dim(g: np.ndarray | float, direction: str = "forward") -> np.ndarray:
    """KL/d in nats as d and N grow at g = d/N < 1; its first term is g/4 in both directions.

    g and the result are () or (B,).

    >>> import numpy as np
    >>> from reverie.theory import limit_kl_per_dim
    >>> limit_kl_per_dim(np.array([0.01, 0.1, 0.5])).round(4)
    array([0.0025, 0.0297, 0.3466])
    """
    g = np.asarray(g, dtype=np.float64)
    tail = np.log1p(-g) * (1 - g) / g
    return 0.5 * (g / (1 - g) - 1 - tail) if direction == "forward" else 0.5 * (1 + tail)
