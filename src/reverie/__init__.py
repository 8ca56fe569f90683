"""Diffusion models on any space, and the loss curve that reads them.

    from reverie import fit, sample, measure, plan_steps, audit

Names are loaded when first used, so that `import reverie` costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "as_denoiser": "reverie.denoisers",
    "calibrate": "reverie.denoisers",
    "Calibrated": "reverie.denoisers",
    "Denoiser": "reverie.denoisers",
    "from_diffusers": "reverie.diffusers.loading",
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
    "Estimate": "reverie.information.curves",
    "entropy": "reverie.information.curves",
    "evidence_bound": "reverie.information.evidence",
    "guess_gap": "reverie.information.curves",
    "kl_divergence": "reverie.information.curves",
    "log_density": "reverie.information.curves",
    "log_mass": "reverie.information.curves",
    "mutual_information": "reverie.information.curves",
    "sample": "reverie.sampling",
    "initial_states": "reverie.sampling.initialisation",
    "initialisation_kl": "reverie.sampling.initialisation",
    "fit": "reverie.runs.fitting",
    "predict": "reverie.forecast",
    "Run": "reverie.runs.folder",
    "retrain": "reverie.runs.retraining",
    "sweep": "reverie.runs.sweeps",
    "posterior": "reverie.simulation",
    "Posterior": "reverie.simulation",
    "audit": "reverie.auditing",
    "Verdict": "reverie.auditing",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reverie' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from reverie.auditing import Verdict as Verdict
    from reverie.auditing import audit as audit
    from reverie.curve import LossCurve as LossCurve
    from reverie.curve import measure as measure
    from reverie.denoisers import Calibrated as Calibrated
    from reverie.denoisers import Denoiser as Denoiser
    from reverie.denoisers import as_denoiser as as_denoiser
    from reverie.denoisers import calibrate as calibrate
    from reverie.diffusers.loading import from_diffusers as from_diffusers
    from reverie.errors import InputError as InputError
    from reverie.forecast import predict as predict
    from reverie.information.curves import Estimate as Estimate
    from reverie.information.curves import entropy as entropy
    from reverie.information.curves import guess_gap as guess_gap
    from reverie.information.curves import kl_divergence as kl_divergence
    from reverie.information.curves import log_density as log_density
    from reverie.information.curves import log_mass as log_mass
    from reverie.information.curves import mutual_information as mutual_information
    from reverie.information.evidence import evidence_bound as evidence_bound
    from reverie.plan import Plan as Plan
    from reverie.plan import gits_plan as gits_plan
    from reverie.plan import plan_at as plan_at
    from reverie.plan import plan_steps as plan_steps
    from reverie.plan import score_optimal_plan as score_optimal_plan
    from reverie.plan.guard import Guard as Guard
    from reverie.plan.guard import guard as guard
    from reverie.runs.fitting import fit as fit
    from reverie.runs.folder import Run as Run
    from reverie.runs.retraining import retrain as retrain
    from reverie.runs.sweeps import sweep as sweep
    from reverie.sampling import sample as sample
    from reverie.sampling.initialisation import initial_states as initial_states
    from reverie.sampling.initialisation import initialisation_kl as initialisation_kl
    from reverie.simulation import Posterior as Posterior
    from reverie.simulation import posterior as posterior
