"""What an audit may be told: levels, tolerances and thresholds, in one frozen object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from reverie.errors import InputError


@dataclass(frozen=True)
class Judging:
    """How an audit judges; every threshold stands in the JSON.

    alpha: level of the joint decision. tol: share of the samples by which an honest model may lean
    towards its training rows. randomised: make the size of the tail test `alpha` itself, by a
    seeded draw. fair_alpha: share of exchangeable sets that the tests of fairness may reject.
    exposed_tpr: true positives of a membership score, at 1% false positives, from which the model
    exposes. exposed_excess: excess share of samples nearest to a training row, from whose lower
    95% bound on the samples expose. leak_budget: nats that the leak's lower bound may not pass.
    metrics: add the published metrics and fidelity. power: plant copies, and say what would have
    been seen. products: search pairs of changes of pictures too. units: ask whether the
    sets are in the same units; those of a run are. seed: of ties and plantings.
    """

    alpha: float = 0.05
    tol: float = 0.05
    randomised: bool = False
    fair_alpha: float = 0.005
    exposed_tpr: float = 0.10
    exposed_excess: float = 0.25
    leak_budget: float = math.inf
    metrics: bool = True
    power: bool = True
    products: bool = False
    units: bool = True
    seed: int = 0

    def check(self) -> Judging:
        """Return self, or raise InputError that names the first bad setting."""
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; it must lie between 0 and 1")
        if not 0 <= self.tol < 1:
            raise InputError(f"tol is {self.tol}; it must lie between 0 and 1")
        for name in ("fair_alpha", "exposed_tpr", "exposed_excess"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not self.leak_budget >= 0:
            raise InputError(f"leak_budget is {self.leak_budget}; it must not be negative")
        return self

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return values | {"leak_budget": None} if math.isinf(self.leak_budget) else values
