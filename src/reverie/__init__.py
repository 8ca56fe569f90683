"""Diffusion models on any space, and the loss curve that reads them.

    from reverie import fit, sample, measure, plan_steps, audit

Names are loaded when first used, so that `import reverie` costs little.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "as_denoiser": "reverie.denoisers",
    "calibrate": "reverie.calibration",
    "Calibrated": "reverie.calibration",
    "Denoiser": "reverie.denoisers",
    "from_diffusers": "reverie.diffusers",
    "InputError": "reverie.errors",
    "LossCurve": "reverie.curve",
    "measure": "reverie.curve",
    "Plan": "reverie.plan",
    "plan_steps": "reverie.plan",
    "plan_at": "reverie.plan",
    "gits_plan": "reverie.plan",
    "guard": "reverie.plan.guard",
    "Guard": "reverie.plan.guard",
    "score_optimal_plan": "reverie.plan",
    "Estimate": "reverie.information",
    "bound": "reverie.information",
    "entropy": "reverie.information",
    "guess_gap": "reverie.information",
    "kl_divergence": "reverie.information",
    "log_density": "reverie.information",
    "log_mass": "reverie.information",
    "mutual_information": "reverie.information",
    "Process": "reverie.processes",
    "register": "reverie.processes",
    "sample": "reverie.sampling",
    "fit": "reverie.runs",
    "initial_states": "reverie.sampling.initialisation",
    "initialisation_kl": "reverie.sampling.initialisation",
    "predict": "reverie.forecast",
    "Run": "reverie.runs",
    "retrain": "reverie.runs",
    "sweep": "reverie.runs",
    "posterior": "reverie.simulation",
    "Posterior": "reverie.simulation",
    "audit": "reverie.auditing",
    "Verdict": "reverie.auditing",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def lazily(
    package: str, homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are loaded when first used.

    homes: name to module. moved: a name of earlier releases to `module:name`; it still works, with
    a DeprecationWarning that says the new one.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if moved is None or name not in moved:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, new = moved[name].partition(":")
        warnings.warn(
            f"{package}.{name} is now {module}.{new}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(module), new)

    return find


__getattr__ = lazily(
    __name__,
    _HOMES,
    {
        "evidence_bound": "reverie.information:bound",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)


# modules of the release before, by where their names are now
_MOVED = {
    "cascade": "cascade.wavelets",
    "commands": "cli.commands",
    "config": "runs.config",
    "console": "cli.console",
    "demo": "cli.demo",
    "denoisers.diffusers": "diffusers.loading",
    "denoisers.handover": "diffusers.handover",
    "denoisers.linear": "denoisers.exact.linear",
    "denoisers.memoriser": "denoisers.exact.memoriser",
    "denoisers.network": "denoisers.networks.network",
    "denoisers.unet": "denoisers.networks.unet",
    "denoisers.weights": "objectives.weights",
    "denoisers.score_matching": "objectives.score_matching",
    "evidence": "information.bound",
    "export": "runs.export",
    "noise_law": "objectives.noise_law",
    "plan.charges": "plan.excess",
    "plan.measured": "plan.simulated",
    "previews": "runs.previews",
    "processes.bound": "processes.times",
    "readings": "runs.readings",
    "rejection": "runs.rejection",
    "retraining": "runs.retraining",
    "sampling.levels": "sampling.scales",
    "staircase": "plan.staircase",
    "sweeps": "runs.sweeps",
    "training": "runs.fitting",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module of the release before under its new name, and says so."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        old = name.removeprefix("reverie.")
        return ModuleSpec(name, self) if old != name and old in _MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = f"reverie.{_MOVED[spec.name.removeprefix('reverie.')]}"
        warnings.warn(
            f"{spec.name} is now {new}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        module = ModuleType(spec.name)
        module.__dict__.update(vars(import_module(new)), __name__=spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Its names were copied when it was made."""


sys.meta_path.append(_Moved())

if TYPE_CHECKING:
    from reverie.auditing import Verdict as Verdict
    from reverie.auditing import audit as audit
    from reverie.calibration import Calibrated as Calibrated
    from reverie.calibration import calibrate as calibrate
    from reverie.curve import LossCurve as LossCurve
    from reverie.curve import measure as measure
    from reverie.denoisers import Denoiser as Denoiser
    from reverie.denoisers import as_denoiser as as_denoiser
    from reverie.diffusers import from_diffusers as from_diffusers
    from reverie.errors import InputError as InputError
    from reverie.forecast import predict as predict
    from reverie.information import Estimate as Estimate
    from reverie.information import bound as bound
    from reverie.information import entropy as entropy
    from reverie.information import guess_gap as guess_gap
    from reverie.information import kl_divergence as kl_divergence
    from reverie.information import log_density as log_density
    from reverie.information import log_mass as log_mass
    from reverie.information import mutual_information as mutual_information
    from reverie.plan import Plan as Plan
    from reverie.plan import gits_plan as gits_plan
    from reverie.plan import plan_at as plan_at
    from reverie.plan import plan_steps as plan_steps
    from reverie.plan import score_optimal_plan as score_optimal_plan
    from reverie.plan.guard import Guard as Guard
    from reverie.plan.guard import guard as guard
    from reverie.processes import Process as Process
    from reverie.processes import register as register
    from reverie.runs import Run as Run
    from reverie.runs import fit as fit
    from reverie.runs import retrain as retrain
    from reverie.runs import sweep as sweep
    from reverie.sampling import sample as sample
    from reverie.sampling.initialisation import initial_states as initial_states
    from reverie.sampling.initialisation import initialisation_kl as initialisation_kl
    from reverie.simulation import Posterior as Posterior
    from reverie.simulation import posterior as posterior
