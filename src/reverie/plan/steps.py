"""What every plan is: the levels of a K-step sampler, and what they add to the path KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.errors import InputError


@dataclass(frozen=True, eq=False)
class PlannedSteps:
    """K + 1 finite levels from noise to data; a sampler appends the last denoise itself.

    u: (K + 1,) or (K + 1, J) clock values, increasing. t: (K + 1,) process times, or None where no
    process is known. excess: nats that the plan adds to the path KL.
    """

    u: np.ndarray
    t: np.ndarray | None
    method: str
    clock: str
    excess: float

    @property
    def steps(self) -> int:
        return len(self.u) - 1

    @property
    def name(self) -> str:
        """The method, and the clock where it is not nats."""
        return self.method if self.clock == "nats" else f"{self.method} ({self.clock} clock)"

    @property
    def levels(self) -> np.ndarray:
        """Clock values like `u`, from noise to data."""
        return self.u

    @property
    def times(self) -> np.ndarray:
        """Process times (K + 1,), noisiest first: what `sample` follows."""
        if self.t is None:
            raise InputError("this plan has no process times: plan a curve that has a process")
        return self.t

    @property
    def excesses(self) -> dict[str, float]:
        """Excess by clock: in nats, and in others where they are known."""
        return {"nats": self.excess}

    @property
    def approximation(self) -> str:
        """How the excess was measured, where no curve gives it, or nothing."""
        return ""

    @property
    def warning(self) -> str:
        """What is dangerous about this plan in one sentence, or nothing."""
        return ""

    def compare(self) -> dict[str, Any]:
        """This plan and every rival on the same ends and number of steps, cheapest first."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: grid, excess and provenance."""
        return {
            "method": self.method,
            "clock": self.clock,
            "steps": self.steps,
            "u": self.u.tolist(),
            "t": None if self.t is None else self.t.tolist(),
            "excess_nats": self.excess,
        }
