"""What every plan is: the levels of a K-step sampler, and what they add to the path KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.errors import InputError
from reverie.templates import Card, Shown

LISTED = 8  # levels that a card shows


@dataclass(frozen=True, eq=False, repr=False)
class PlannedSteps(Shown):
    """K + 1 finite levels from noise to data; a sampler appends the last denoise itself.

    u: (K + 1,) or (K + 1, J) clock values, increasing. t: (K + 1,) process times, or None where no
    process is known. excess: nats that the plan adds to the path KL.
    InputError by `times` where no process is known.

    >>> import numpy as np
    >>> from reverie import LossCurve, plan_steps
    >>> from reverie.plan import PlannedSteps
    >>> u = np.geomspace(1e-2, 1e4, 129)
    >>> plan = plan_steps(LossCurve(u, 0.5 / (1 + u)), 4, "log-snr")
    >>> isinstance(plan, PlannedSteps), plan.name, plan.levels[[0, -1]].round(3)
    (True, 'log-snr', array([1.e-02, 1.e+04]))
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
    def seen(self) -> Any:
        """What is known of the data that it was made for (`Denoiser.seen`), or None."""
        return None

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

    def card(self) -> Card:
        """What it adds, and its first and last levels."""
        places = [int(k) for k in range(self.steps + 1)]
        if len(places) > LISTED:
            places = [*places[: LISTED // 2], -1, *places[-LISTED // 2 :]]
        others = [
            f" ({value:.3g} in the {clock} clock)"
            for clock, value in self.excesses.items()
            if clock != "nats"
        ]
        amount = f"{self.excess:.4g} nats{''.join(others)}"
        answer = f"Plan of {self.steps} steps, {self.name}: its steps add {amount}."
        rows = [self._listed(k) if k >= 0 else ("...",) * 3 for k in places]
        if self.warning:
            answer += f" Beware: {self.warning}."
        return Card(answer, ("level", "clock u", "time t"), rows, self._draw)

    def _listed(self, k: int) -> tuple[str, str, str]:
        clocks = ", ".join(f"{value:.4g}" for value in np.atleast_1d(self.u[k]))
        return f"{k}", clocks, "" if self.t is None else f"{float(self.t[k]):.4g}"

    def _draw(self, ax: Any) -> None:
        """Its levels as ticks along the clock."""
        level = self.u.reshape(len(self.u), -1)
        ax.plot(level.mean(1), np.arange(len(level)), "o-", ms=3, lw=1, color="#1d4ed8")
        if (level > 0).all():
            ax.set_xscale("log")
        ax.set_xlabel("information clock u (noisy to clean)")
        ax.set_ylabel("level of the plan")
