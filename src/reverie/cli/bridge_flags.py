"""The flags of `reverie bridge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from reverie.cli.common_flags import Common

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Bridge:
    """Fit a Schrodinger bridge between two sets of rows, or move rows over one.

    Writes a folder with the bridge and a page of its paths. With --from it moves rows of a file
    over a bridge that was fitted, in the other end's units, header and type. A fifth of the rows
    of each end is held out, so that `reverie audit` and `reverie plan` can read the folder.

    Example: reverie bridge young.csv old.csv --out aged
    Example: reverie bridge aged --from some.csv --out moved.csv
    """

    first: Positional[str]
    """Rows of the first end (as DATA of `fit`), or the folder of a fitted bridge."""
    second: Positional[str | None] = None
    """Rows of the second end."""
    out: Path | None = None
    """The folder to create (default: bridge); with --from, the file to write."""
    solver: str | None = None
    """lightsb (default up to 100 coordinates), dsbm (default above), alpha-dsbm (one network, no
    refits), sf2m, dsb, gaussian or sinkhorn."""
    sigma: float | None = None
    """Noise of the reference (default: the mean deviation of both ends' coordinates). Columns of a
    table are divided by their deviations first."""
    reference: str = "brownian"
    """brownian, ou:pull=1, or a Gaussian process as `fit` takes it."""
    paired: bool = False
    """Row i of the first end belongs to row i of the second."""
    steps: int | None = None
    """Training steps of each fit (default 2,000); with --from, steps of a path (50)."""
    rounds: int | None = None
    """Refits of dsbm to its own pairs (default 4), iterations of dsb (10)."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Rows to move over a fitted bridge."""
    plan: str | None = None
    """With --from: where a path's steps lie, as loss-adaptive (default: equally far apart)."""
    holdout: int | None = None
    """Rows of each end that are not fitted (default: a fifth)."""
    reverse: bool = False
    """With --from: move rows of the second end to the first."""
    seed: int = 0
    """The same seed gives the same bridge, and moves rows alike."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)
