"""Names of the release before, which work for one more under a warning: modules, names inside
them, attributes and keywords. Also `lazily`, the `__getattr__` of packages that load late.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

Made = TypeVar("Made", bound=Callable[..., Any])


def warn(old: str, new: str, *, above: int = 2) -> None:
    """The one sentence of every old name, said where the caller of the caller stands."""
    text = f"{old} is now {new}; the old name goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=above + 1)


def lazily(
    package: str, homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are loaded when first used.

    homes: name to module. moved: a name of earlier releases to `module:name`; it still works, with
    a DeprecationWarning that says the new one.

    >>> from reverie import lazily
    >>> find = lazily("sums", {"sqrt": "math"})
    >>> find("sqrt")(9.0)
    3.0
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if moved is None or name not in moved:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, new = moved[name].partition(":")
        warn(f"{package}.{name}", f"{module}.{new}")
        return getattr(import_module(module), new)

    return find


# modules of the release before, by where their names are now
MODULES = {
    "audit_commands": "cli.audit_commands",
    "auditing.agreement": "auditing.retrained.agreement",
    "auditing.alignment": "auditing.fairness.alignment",
    "auditing.calibrated": "auditing.metrics.calibrated",
    "auditing.cell_test": "auditing.nulls.cell_test",
    "auditing.clean": "auditing.fairness.clean",
    "auditing.closeness": "auditing.facts.closeness",
    "auditing.copying": "auditing.model.copying",
    "auditing.data_copying": "auditing.metrics.data_copying",
    "auditing.detection": "auditing.model.detection",
    "auditing.feature_metrics": "auditing.metrics.feature_metrics",
    "auditing.features": "auditing.metrics.features",
    "auditing.fidelity": "auditing.metrics.fidelity",
    "auditing.information": "auditing.retrained.information",
    "auditing.membership": "auditing.model.membership",
    "auditing.memorisation": "auditing.metrics.memorisation",
    "auditing.named": "auditing.facts.named",
    "auditing.near_copies": "auditing.facts.near_copies",
    "auditing.neighbours": "auditing.facts.neighbours",
    "auditing.rank_tests": "auditing.nulls.rank_tests",
    "auditing.saddlepoint": "auditing.nulls.saddlepoint",
    "auditing.scores": "auditing.model.scores",
    "auditing.split": "auditing.fairness.split",
    "auditing.tail_null": "auditing.nulls.tail_null",
    "commands": "cli.commands",
    "config": "runs.config",
    "console": "cli.console",
    "demo": "cli.demo",
    "denoisers.adaptive_mixture": "denoisers.exact.adaptive_mixture",
    "denoisers.choice": "denoisers.networks.choice",
    "denoisers.conditions": "denoisers.networks.conditions",
    "denoisers.convolution": "denoisers.networks.convolution",
    "denoisers.diffusers": "diffusers.loading",
    "denoisers.gaussian_mixture": "denoisers.exact.gaussian_mixture",
    "denoisers.handover": "diffusers.handover",
    "denoisers.kernel_mixture": "denoisers.exact.kernel_mixture",
    "denoisers.linear": "denoisers.exact.linear",
    "denoisers.linear_sde": "denoisers.networks.linear_sde",
    "denoisers.memoriser": "denoisers.exact.memoriser",
    "denoisers.multiscale": "denoisers.networks.multiscale",
    "denoisers.network": "denoisers.networks.network",
    "denoisers.operator": "denoisers.networks.operator",
    "denoisers.orders": "diffusers.orders",
    "denoisers.score_matching": "objectives.score_matching",
    "denoisers.simplex": "denoisers.networks.simplex",
    "denoisers.stock": "diffusers.stock",
    "denoisers.tangent": "denoisers.networks.tangent",
    "denoisers.tokens": "denoisers.networks.tokens",
    "denoisers.unet": "denoisers.networks.unet",
    "denoisers.weights": "objectives.weights",
    "evidence": "information.bound",
    "export": "runs.export",
    "noise_law": "objectives.noise_law",
    "plan.charges": "plan.excess",
    "plan.measured": "plan.simulated",
    "previews": "runs.previews",
    "processes.bound": "processes.times",
    "processes.names": "processes.named",
    "processes.on_spaces": "processes.registry",
    "readings": "runs.readings",
    "rejection": "runs.rejection",
    "retraining": "runs.retraining",
    "sampling.levels": "sampling.scales",
    "sampling.manifold_likelihood": "information.manifolds",
    "staircase": "plan.staircase",
    "sweeps": "runs.sweeps",
    "training": "runs.fitting",
}
# names that did not go where their module went: old module to name to `module:name`
NAMES = {
    "demo": {"describe": "reverie.report.of_run:describe"},
    "denoisers.linear_sde": {
        "Transferred": "reverie.denoisers:Transferred",
        "negative_elbo": "reverie.information.formerly:negative_elbo",
    },
    "denoisers.simplex": {
        "DirichletMixture": "reverie.denoisers:DirichletMixture",
        "implicit_shares_loss": "reverie.objectives.shares:implicit_shares_loss",
        "lineage_loss": "reverie.objectives.shares:lineage_loss",
    },
    "evidence": {
        "evidence_bound": "reverie.information:bound",
        "prior_divergence": "reverie.information.formerly:prior_divergence",
        "reconstruction": "reverie.information.formerly:reconstruction",
    },
    "plan.charges": {
        "Charge": "reverie.plan.excess:Priced",
        "charge": "reverie.plan.excess:priced",
    },
    "processes.bound": {"negative_elbo": "reverie.information.formerly:negative_elbo_of_jumps"},
    "processes.names": {"spec_of": "reverie.processes.registry:name_of"},
    "readings": {
        "RUN_SAMPLERS": "reverie.sampling.samplers:NAMES",
        "steps_are_measured": "reverie.sampling.formerly:steps_are_measured",
    },
    "sampling.levels": {"Levels": "reverie.sampling.scales:Scales"},
    "sampling.manifold_likelihood": {
        "flow_log_likelihood": "reverie.information.manifolds:manifold_flow_density",
    },
    "training": {
        "Event": "reverie.runs.trainer:Event",
        "Progress": "reverie.runs.trainer:Progress",
        "Trainer": "reverie.runs.trainer:Trainer",
    },
}


class MovedModules(MetaPathFinder, Loader):
    """Finds a module of the release before under its new name, and says so."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        old = name.removeprefix("reverie.")
        return ModuleSpec(name, self) if old != name and old in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        old = spec.name.removeprefix("reverie.")
        new = f"reverie.{MODULES[old]}"
        warn(spec.name, new)
        module = ModuleType(spec.name)
        names = dict(vars(import_module(new)))
        module.__dict__.update(names, __name__=spec.name)
        if old in NAMES:  # what was copied would hide them
            for name in NAMES[old]:
                module.__dict__.pop(name, None)
            module.__dict__["__getattr__"] = lazily(spec.name, {}, NAMES[old])
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Its names were copied when it was made."""


class Formerly:
    """An attribute's old name: reads the one that it has now.

    Example: in class Cascade, `levels = Formerly("depth")`
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.owner = name, owner.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(f"type object {self.owner!r} has no attribute {self.name!r}")
        warn(f"{self.owner}.{self.name}", f"{self.owner}.{self.new}")
        return getattr(instance, self.new)


def keywords(**names: str) -> Callable[[Made], Made]:
    """Decorate a function with old keywords, `old="new"`, which it takes under a warning."""

    def decorate(made: Made) -> Made:
        @functools.wraps(made)
        def call(*args: Any, **given: Any) -> Any:
            for old in names.keys() & given.keys():
                warn(f"{old}=", f"{names[old]}=")
                given[names[old]] = given.pop(old)
            return made(*args, **given)

        return call  # type: ignore[return-value]

    return decorate
