"""Crystal orientations: kernel estimates on the rotations of space.

Orientations of the grains of a nickel surface by electron back-scattering (Bingham, Nordman &
Vardeman 2009), up to 14 scans at 3,383 places. Scans of one place repeat one another, so the first
of each is taken; places of one grain still agree to a degree. No figure is published: every line
stands beside a kernel estimate with one duration (see `manifold_fits`). Densities are with respect
to the volume 8 pi^2 of rotations (uniform law: 4.369 nats). The crystal's symmetry is not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.report.manifold_figures import rotation_figure
from reverie.reproduce.manifold_fits import fit, score_rows, split_rows
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, save_figure, write_table
from reverie.sampling import sample
from reverie.spaces import Rotations

SOURCE = "the nickel orientations of the R package rotations, as an archive with R and location"
SPLITS = 2
TAUS = [float(tau) for tau in np.logspace(-7, 0, 8)]


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; full: 20,000 steps of a network on every split."""
    space, steps = Rotations(3), 20_000 if full else 0
    matrices = first_scans(real_data("so3_nickel/nickel.npz", SOURCE))
    splits = [split_rows(matrices, seed + k) for k in range(SPLITS)]
    fits = [fit(space, part, TAUS, steps, seed + k) for k, part in enumerate(splits)]
    rows = score_rows(f"nickel, {len(matrices):,} places", [scores for scores, _ in fits])
    rows.append(Row("the uniform law", space.log_volume))
    test, generator = splits[0].test, torch.Generator().manual_seed(seed)
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    drawn = sample(fits[0][1], len(test), times, generator=generator, dtype=torch.float64)
    save_figure(rotation_figure(test, drawn), out / "rotations.png")
    settings = {"splits": f"{SPLITS} random 80/10/10", "steps": steps}
    title = "Crystal orientations: negative log-likelihood in nats, volume 8 pi^2"
    return write_table(out, title, rows, seed, settings)


def first_scans(path: Path) -> Tensor:
    """Rotations (n, 3, 3) in float64, the first row of each `location` of an archive."""
    with np.load(path, allow_pickle=False) as archive:
        _, first = np.unique(archive["location"], return_index=True)
        matrices = torch.from_numpy(archive["R"][first]).double()
    return Rotations(3).project(matrices)
