"""An estimate with its error: what every reading in nats returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.curve import Z95


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate in nats with its standard error: numbers, or arrays (B,) over points."""

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
