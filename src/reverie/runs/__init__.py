"""A fit and its folder, and what is read off it.

Names are loaded when first used: the command line reads `runs.config` without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "FitConfig": "reverie.runs.config",
    "Run": "reverie.runs.folder",
    "fit": "reverie.runs.fitting",
    "Trainer": "reverie.runs.trainer",
    "Event": "reverie.runs.trainer",
    "retrain": "reverie.runs.retraining",
    "sweep": "reverie.runs.sweeps",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reverie.runs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


if TYPE_CHECKING:
    from reverie.runs.config import FitConfig as FitConfig
    from reverie.runs.fitting import fit as fit
    from reverie.runs.folder import Run as Run
    from reverie.runs.retraining import retrain as retrain
    from reverie.runs.sweeps import sweep as sweep
    from reverie.runs.trainer import Event as Event
    from reverie.runs.trainer import Trainer as Trainer
