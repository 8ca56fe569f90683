"""Differences of the areas under two curves: the leak, and any other gap."""

from __future__ import annotations

from dataclasses import dataclass

Z95 = 1.959964
APPROXIMATE = " (approximate: the area under this noise's curve is no information)"


@dataclass(frozen=True)
class Gap:
    """Difference in nats of the areas under two curves, up to the clock value `level`."""

    nats: float
    stderr: float
    low: float  # ends of the 95% interval
    high: float
    level: float  # the clock up to which it is counted
    clock: str = "signal-to-noise ratio"  # what the clock is
    approximate: bool = False  # the area of this noise is no information

    def __str__(self) -> str:
        text = f"{self.nats:.3g} nats [{self.low:.3g}, {self.high:.3g}] up to u = {self.level:.3g}"
        return f"{text}{APPROXIMATE}" if self.approximate else text


class Leak(Gap):
    """How many nats better a model knows its training points than fresh ones, up to `level`."""
