"""The flags of `reverie rank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from reverie.cli.common_flags import Common

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Rank:
    """Rank other people's checkpoints by their curves: which to keep, and which leak.

    Writes rank.html and rank.json. Weights are safetensors, or what torch loads without
    unpickling; only the function that you name builds the module.

    Example: reverie rank checkpoints/ --model mycode.net:build --data train.npy
    --holdout fresh.npy --process edm:sigma_min=0.02,sigma_max=40 --predicts noise --time sigma
    """

    checkpoints: Positional[Path]
    """A folder of checkpoints (folders below it too), or one file."""
    model: str = ""
    """package.module:function that builds the module (or a Denoiser), without weights."""
    data: str = ""
    """The rows they were trained on, as the module sees them; whole pixels from 0 to 255 are
    mapped to [-1, 1]."""
    holdout: str | None = None
    """Rows they have not seen: without them no leak is known."""
    process: str | None = None
    """The noise they were trained on, as edm:sigma_min=0.02,sigma_max=40, or
    package.module:Class[a=1]."""
    predicts: str = "clean"
    """What the module answers: clean, noise, velocity, score or v."""
    time: str = "t"
    """What the module is told: t, sigma, log-snr, index or none."""
    scheduler: Path | None = None
    """Instead of these three: the folder of a scheduler of diffusers."""
    rows: int = 1000
    """At most so many rows of each kind."""
    leak_budget: float = 0.0
    """Nats: a leak surely above it is marked."""
    out: Path = Path("rank")
    """Folder for rank.html and rank.json."""
    seed: int = 0
    """Seed of rows and noise."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)
