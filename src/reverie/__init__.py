"""Diffusion models on any space, and the loss curve that reads them.

    from reverie import fit, sample, measure, plan_steps, audit

Names are loaded when first used, so that `import reverie` costs little.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reverie.formerly import MovedModules
from reverie.formerly import lazily as lazily

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
    "describe": "reverie.data",
    "guard": "reverie.plan.guard",
    "Guard": "reverie.plan.guard",
    "score_optimal_plan": "reverie.plan",
    "bridge": "reverie.bridges.run",
    "BridgeRun": "reverie.bridges.run",
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
    "watch": "reverie.report.watching",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


__getattr__ = lazily(
    __name__,
    _HOMES,
    {
        "evidence_bound": "reverie.information:bound",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)


sys.meta_path.append(MovedModules())

if TYPE_CHECKING:
    from reverie.auditing import Verdict as Verdict
    from reverie.auditing import audit as audit
    from reverie.bridges.run import BridgeRun as BridgeRun
    from reverie.bridges.run import bridge as bridge
    from reverie.calibration import Calibrated as Calibrated
    from reverie.calibration import calibrate as calibrate
    from reverie.curve import LossCurve as LossCurve
    from reverie.curve import measure as measure
    from reverie.data import describe as describe
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
    from reverie.report.watching import watch as watch
    from reverie.runs import Run as Run
    from reverie.runs import fit as fit
    from reverie.runs import retrain as retrain
    from reverie.runs import sweep as sweep
    from reverie.sampling import sample as sample
    from reverie.sampling.initialisation import initial_states as initial_states
    from reverie.sampling.initialisation import initialisation_kl as initialisation_kl
    from reverie.simulation import Posterior as Posterior
    from reverie.simulation import posterior as posterior
