"""The flags of `reverie sweep`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from reverie.cli.common_flags import Common, Spread
from reverie.cli.reads import Reads
from reverie.runs.config import FitConfig

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Sweep:
    """How much is memorised? Fit every combination of settings; tabulate the memorised share.

    Stop it with Ctrl-C and the same command continues: finished fits are skipped, half a fit
    resumes. Writes sweep.csv, sweep.json and sweep.html; each fit is a run under OUT/fits.

    Example: reverie sweep digits --out sweep --over n=50,100,200,400 --steps 2000
    """

    data: Positional[str]
    """A .npy, .npz, .csv or .parquet file, a folder of images, or a built-in set."""
    over: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, as n=50,100,200; give it again for every further setting. Any
    number among the settings below, or epochs."""
    out: Path = Path("sweep")
    """Folder for the table, the page and the fits."""
    samples: int = 500
    """Samples drawn at every check of a fit."""
    config: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    """Settings that all fits have in common."""
    spread: tyro.conf.OmitArgPrefixes[Spread] = field(default_factory=Spread)
    reads: tyro.conf.OmitArgPrefixes[Reads] = field(default_factory=Reads)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)
