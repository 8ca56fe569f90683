"""What a network is trained towards: the standard objective, and three others to set beside it."""

from __future__ import annotations

from torch import Tensor

from reverie.errors import InputError
from reverie.objectives.base import Objective as Objective
from reverie.objectives.base import Regression as Regression
from reverie.objectives.base import Standard as Standard
from reverie.objectives.conditional import Conditional as Conditional
from reverie.objectives.conditional import Masked as Masked
from reverie.objectives.constrained import Constrained as Constrained
from reverie.objectives.constrained import dual_optimum as dual_optimum
from reverie.objectives.constrained import train_constrained as train_constrained
from reverie.objectives.distillation import Student as Student
from reverie.objectives.distillation import distil as distil
from reverie.objectives.gap import GapNoise as GapNoise
from reverie.objectives.variational import VariationalFit as VariationalFit
from reverie.processes import GaussianProcess


def build_objective(name: str, process: GaussianProcess, data: Tensor, seed: int) -> Objective:
    """The objective called `name` (config.OBJECTIVES) on training points (n, *shape)."""
    if name == "standard":
        return Standard(process)
    if name in ("gap", "gap-fixed"):
        return GapNoise(process, data, resample=name == "gap", seed=seed)
    raise InputError(f"no objective is called {name!r}; choose standard, gap or gap-fixed")
