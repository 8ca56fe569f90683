"""Differences of the areas under two curves: the leak, and any other gap."""

from __future__ import annotations

from dataclasses import dataclass

Z95 = 1.959964
APPROXIMATE = " (approximate: the area under this noise's curve is no information)"


@dataclass(frozen=True)
class Gap:
    """Difference in nats of the areas under two curves, up to the clock value `level`.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.curve import Gap
    >>> u = np.geomspace(1e-3, 1e3, 65)
    >>> gap = LossCurve(u, 0.5 / (1 + u)).gap(LossCurve(u, 0.6 / (1 + u)), until=1.0)
    >>> isinstance(gap, Gap), round(gap.nats, 3), gap.level
    (True, 0.069, 1.0)
    """

    nats: float
    stderr: float
    low: float  # ends of the 95% interval
    high: float
    level: float | None  # the clock up to which it is counted; None: of log densities, no curve
    clock: str = "signal-to-noise ratio"  # what the clock is
    approximate: bool = False  # the area of this noise is no information

    def __str__(self) -> str:
        text = f"{self.nats:.3g} nats [{self.low:.3g}, {self.high:.3g}] {self.reach}"
        return f"{text}{APPROXIMATE}" if self.approximate else text

    @property
    def reach(self) -> str:
        """Up to where it is counted, in words."""
        if self.level is None:
            return "of exact log densities"
        return f"up to u = {self.level:.3g}"


class Leak(Gap):
    """How many nats better a model knows its training points than fresh ones, up to `level`.

    In nats per sample, summed over dimensions: the likelihood gap, not the mutual information of
    Yi, Sun & Li 2023.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.curve import Leak
    >>> u = np.geomspace(1e-3, 1e3, 65)
    >>> train, fresh = LossCurve(u, 0.5 / (1 + u)), LossCurve(u, 0.6 / (1 + u))
    >>> leak = train.leak(fresh, until=1.0)
    >>> isinstance(leak, Leak), round(leak.nats, 3)
    (True, 0.069)
    """
