"""What a network is trained towards: the standard objective, and three others to set beside it."""

from __future__ import annotations

from torch import Tensor

from reverie.denoisers import Denoiser, MaskedNetwork, Network
from reverie.errors import InputError
from reverie.objectives.base import Bound as Bound
from reverie.objectives.base import Denoising as Denoising
from reverie.objectives.base import Noising as Noising
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
from reverie.objectives.functional import FunctionLoss as FunctionLoss
from reverie.objectives.functional import cameron_martin as cameron_martin
from reverie.objectives.functional import sobolev as sobolev
from reverie.objectives.gap import GapNoise as GapNoise
from reverie.objectives.noise_law import BUMP
from reverie.objectives.score_matching import Implicit as Implicit
from reverie.objectives.variational import VariationalFit as VariationalFit
from reverie.objectives.weights import WEIGHTS


def build_objective(
    name: str,
    denoiser: Denoiser,
    data: Tensor,
    seed: int,
    *,
    conditions: Tensor | None = None,
    weight: str = "edm",
    bump: tuple[float, float] = BUMP,
) -> Objective:
    """The objective called `name` (config.OBJECTIVES) on training points (n, *shape).

    conditions: (n, ...) of the same rows, for a network that is told them; a `MaskedNetwork` is
    told its own points. weight: one of `WEIGHTS`. bump: the levels that Gaussian noise trains at
    most, see `NoiseLaw`. Raises InputError on an unknown name, and on the gap's, conditions and
    weights where the noise is not Gaussian.

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import build_objective
    >>> from reverie.processes import VP
    >>> data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    >>> network = Network(VP(), ResidualMLP((2,), width=16))
    >>> objective = build_objective("gap", network, data, seed=0)
    >>> objective.losses(torch.arange(4), data[:4], torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """
    if name not in ("standard", "gap", "gap-fixed"):
        raise InputError(f"no objective is called {name!r}; choose standard, gap or gap-fixed")
    if weight not in WEIGHTS:
        raise InputError(f"no loss weight is called {weight!r}; choose {', '.join(WEIGHTS)}")
    if not isinstance(denoiser, Network):
        if name != "standard":
            raise InputError(f"the objective {name} is for Gaussian noise on vectors and images")
        if conditions is not None or weight != "edm":
            raise InputError("conditions and loss weights are for networks of Gaussian noise")
        return Bound(denoiser) if denoiser.process.targets_exact else Implicit(denoiser)
    process = denoiser.process
    noising: Noising = Standard(process)
    if name != "standard":
        noising = GapNoise(process, data, resample=name == "gap", seed=seed)
    if isinstance(denoiser, MaskedNetwork):
        noising = Masked(noising)
    elif conditions is not None:
        noising = Conditional(noising, conditions)
    return Denoising(denoiser, noising, weight, bump)
