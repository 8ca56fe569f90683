"""The normalising constant with an interval, or the reason why there is none.

Independent weights: log Z-hat is the log of their mean, and its variance 1 / ESS - 1 / n by the
delta method, as long as the weights have a variance: the tail of the largest ones is fitted by a
generalised Pareto law, whose shape says so (Vehtari et al. 2024, arXiv 1507.02646).

Islands: unbiased estimates Z_r of independent particle systems. Their logarithms tend to
N(log Z - s^2 / 2, s^2) (Berard, Del Moral & Doucet 2014), so that log Z is the mean of log Z_r
plus half their variance, with Cox's interval; where they spread by over a nat that law cannot be
trusted and nothing is said. Nor is it where moves leave U = log gamma - log pi_0 much as it was
at some temperature: log Z_r is a sum over temperatures of terms that depend on U alone, and nearly
normal only if they are renewed. Otherwise all islands may lack the same part of the target, which
a rare one finds with a large Z_r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

FEW = 100  # effective draws below which the tail of the weights has not been seen
SHAPE = 0.5  # Pareto shape above which the weights' variance need not exist
SPREAD = 1.0  # nats by which islands may spread
MEMORY = 0.45  # of the order of U that the moves of a temperature may leave
LEAST_ISLANDS = 4


@dataclass(frozen=True)
class LogZ:
    """log Z in nats with an interval, or without one and why.

    value: the estimate. low, high: ends of the interval at `level`, nan where `reason` says why
    there is none. ess: effective independent draws, of n. shape: of the weights' Pareto tail,
    where it was fitted.

    >>> from math import nan
    >>> from reverie.targets import LogZ
    >>> print(LogZ(1.0, 0.9, 1.1, level=0.9, ess=400.0, n=1000, stderr=0.06))
    log Z = 1 nats [0.9, 1.1] (90% interval)
    >>> LogZ(1.0, nan, nan, 0.9, 3.0, 1000, nan, reason="only 3 of 1,000 draws count").told
    False
    """

    value: float
    low: float
    high: float
    level: float
    ess: float
    n: int
    stderr: float
    shape: float | None = None
    reason: str = ""

    @property
    def told(self) -> bool:
        """Whether there is an interval."""
        return not self.reason

    def __str__(self) -> str:
        if not self.told:
            return f"log Z about {self.value:.4g} nats, without an interval: {self.reason}"
        return (
            f"log Z = {self.value:.5g} nats [{self.low:.5g}, {self.high:.5g}] "
            f"({100 * self.level:.0f}% interval)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; None where there is no interval."""
        ends = {"low": self.low, "high": self.high} if self.told else {"low": None, "high": None}
        shape = None if self.shape is None or not math.isfinite(self.shape) else self.shape
        value = self.value if math.isfinite(self.value) else None
        stderr = self.stderr if math.isfinite(self.stderr) else None
        return {"value": value, **ends, "level": self.level, "stderr": stderr, "ess": self.ess,
                "n": self.n, "pareto_shape": shape, "reason": self.reason}  # fmt: skip


def log_z_of_weights(log_weight: Any, *, valid: bool = True, level: float = 0.9) -> LogZ:
    """log Z from independent log weights (n,), nats.

    valid: as `Rollout.valid`. No interval where weights are invalid, fewer than `FEW` count, or
    the Pareto shape of the largest is above `SHAPE`.

    >>> import numpy as np
    >>> from reverie.targets import log_z_of_weights
    >>> logs = np.random.default_rng(0).normal(-0.5, 1.0, 5000)  # E exp(log w) = 1
    >>> print(log_z_of_weights(logs))
    log Z = -0.012 nats [-0.041, 0.016] (90% interval)
    >>> log_z_of_weights(5 * logs).reason
    'only 11 of 5,000 draws count'
    """
    logs = np.asarray(log_weight, dtype=np.float64)
    n, top = len(logs), float(np.max(logs, initial=-np.inf))
    if not math.isfinite(top):
        return _untold(-math.inf, level, 0.0, n, None, "no draw has any weight")
    weight = np.exp(logs - top)
    value = top + math.log(weight.mean())
    ess = float(weight.sum() ** 2 / np.square(weight).sum())
    shape = pareto_shape(logs)
    if not valid:
        reason = "noise was clipped, so that the weights are not normalised"
    elif ess < FEW:
        reason = f"only {ess:.3g} of {n:,} draws count"
    elif shape > SHAPE:
        reason = (
            f"the weights' tail is too heavy (Pareto shape {shape:.2f}): a few draws not yet seen "
            "may outweigh all these"
        )
    else:
        error = math.sqrt(max(1 / ess - 1 / n, 0.0) * n / (n - 1))
        half = float(stats.norm.ppf(0.5 + level / 2)) * error
        # the logarithm of a mean lies low by half its variance
        value += 0.5 * error**2
        return LogZ(value, value - half, value + half, level, ess, n, error, shape)
    return _untold(value, level, ess, n, shape, reason)


def log_z_of_islands(
    log_z: Any, *, ess: float, n: int, level: float = 0.9, memory: float = 0.0
) -> LogZ:
    """log Z from independent unbiased estimates, given by their logarithms (R,), nats.

    ess, n: of the draws they are made of, which are passed on. memory: `Islands.memory`. No
    interval from fewer than `LEAST_ISLANDS`, where they spread by more than `SPREAD` nats, or
    where moves leave more than `MEMORY`.

    >>> import numpy as np
    >>> from reverie.targets import log_z_of_islands
    >>> logs = np.random.default_rng(0).normal(-0.02, 0.2, 16)  # E exp(log Z_r) = 1
    >>> print(log_z_of_islands(logs, ess=3000.0, n=4096))
    log Z = -0.057 nats [-0.137, 0.024] (90% interval)
    >>> log_z_of_islands(logs[:3], ess=600.0, n=768).reason
    '3 islands are too few'
    """
    logs = np.asarray(log_z, dtype=np.float64)
    count = len(logs)
    if count < LEAST_ISLANDS or not np.isfinite(logs).all():
        value = float(np.logaddexp.reduce(logs) - math.log(count))
        dead = int((~np.isfinite(logs)).sum())
        reason = f"{dead} of {count} islands died" if dead else f"{count} islands are too few"
        return _untold(value, level, ess, n, None, reason)
    variance = float(logs.var(ddof=1))
    spread = math.sqrt(variance)
    value = float(logs.mean()) + 0.5 * variance
    if spread > SPREAD:
        return _untold(
            float(np.logaddexp.reduce(logs) - math.log(count)), level, ess, n, None,
            f"{count} independent runs of the same size differ by {spread:.2g} nats",
        )  # fmt: skip
    error = math.sqrt(variance / count + variance**2 / (2 * (count - 1)))
    if memory > MEMORY:
        reason = (
            f"the moves of a temperature leave {100 * memory:.0f}% of the order of log densities "
            f"(at most {100 * MEMORY:.0f}% is trusted): all islands may lack the same part"
        )
        return LogZ(value, math.nan, math.nan, level, ess, n, error, reason=reason)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    return LogZ(value, value - half, value + half, level, ess, n, error)


def effective(log_weight: Any) -> float:
    """Effective sample size (sum w)^2 / sum w^2 of log weights (n,)."""
    logs = np.asarray(log_weight, dtype=np.float64)
    if not np.isfinite(logs).any():
        return 0.0
    weight = np.exp(logs - logs.max())
    return float(weight.sum() ** 2 / np.square(weight).sum())


def pareto_shape(log_weight: Any) -> float:
    """Shape k of the generalised Pareto law of the largest weights, by their profile posterior.

    The mean over Zhang & Stephens' (2009) grid, with the prior of Vehtari et al. that pulls few
    exceedances to 1/2. Below 1/2 the weights have a variance; -inf where they are all alike.
    """
    logs = np.sort(np.asarray(log_weight, dtype=np.float64))
    logs = logs[np.isfinite(logs)]
    tail = int(min(0.2 * len(logs), 3 * math.sqrt(len(logs))))
    if tail < 5:
        return math.inf
    logs = logs - logs[-1]
    over = np.exp(logs[-tail:]) - math.exp(logs[-tail - 1])
    if over[-1] <= 1e-12:
        return -math.inf
    over = np.maximum(over, 1e-300)
    count = 30 + int(math.sqrt(tail))
    quartile = over[int(tail / 4 + 0.5) - 1]
    grid = 1 / over[-1] + (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * quartile)
    shapes = np.log1p(-grid[:, None] * over).mean(1)
    profile = tail * (np.log(-grid / shapes) - shapes - 1)
    share = np.exp(profile - np.logaddexp.reduce(profile))
    shape = float(np.log1p(-(share @ grid) * over).mean())
    return (tail * shape + 5) / (tail + 10)


def _untold(
    value: float, level: float, ess: float, n: int, shape: float | None, reason: str
) -> LogZ:
    return LogZ(value, math.nan, math.nan, level, ess, n, math.nan, shape, reason)
