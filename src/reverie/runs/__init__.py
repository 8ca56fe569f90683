"""A fit and its folder, and what is read off it.

Names are loaded when first used: the command line reads `runs.config` without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie import lazily as _lazily

_HOMES = {
    "FitConfig": "reverie.runs.config",
    "FlowRun": "reverie.runs.flows",
    "Run": "reverie.runs.run",
    "fit": "reverie.runs.fitting",
    "Trainer": "reverie.runs.trainer",
    "Event": "reverie.runs.trainer",
    "retrain": "reverie.runs.retraining",
    "sweep": "reverie.runs.sweeps",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


_FOLDER = (  # what of the module `runs` is now `runs.folder`
    "CONDITIONS", "build_denoiser", "conditions_of", "start", "open_data",
    "whole_data", "split_rows", "save_tensors", "load_tensors", "load_weights",
)  # fmt: skip
__getattr__ = _lazily(__name__, _HOMES, {name: f"reverie.runs.folder:{name}" for name in _FOLDER})

if TYPE_CHECKING:
    from reverie.runs.config import FitConfig as FitConfig
    from reverie.runs.fitting import fit as fit
    from reverie.runs.flows import FlowRun as FlowRun
    from reverie.runs.retraining import retrain as retrain
    from reverie.runs.run import Run as Run
    from reverie.runs.sweeps import sweep as sweep
    from reverie.runs.trainer import Event as Event
    from reverie.runs.trainer import Trainer as Trainer
