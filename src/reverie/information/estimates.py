"""An estimate with its error: what every reading in nats returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.curve import Z95


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate in nats with its standard error: numbers, or arrays (B,) over points.

    >>> from reverie import Estimate
    >>> found = Estimate(nats=1.5, stderr=0.1)
    >>> round(found.low, 3), round(found.high, 3)
    (1.304, 1.696)
    """

    nats: float | np.ndarray
    stderr: float | np.ndarray

    @property
    def low(self) -> float | np.ndarray:
        """Lower end of the 95% interval."""
        return self.nats - Z95 * self.stderr

    @property
    def high(self) -> float | np.ndarray:
        """Upper end of the 95% interval."""
        return self.nats + Z95 * self.stderr
