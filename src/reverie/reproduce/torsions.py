"""Torsion angles of RNA: kernel estimates on a torus of seven dimensions.

9,478 rows of seven backbone angles. The published figures (nats, uniform law 7 log 2 pi = 12.865)
are of diffusion and flow models; beside them stand a kernel estimate with one duration, and one
with several, fitted in seconds (see `manifold_fits`; with `full` a network corrects it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.processes import Brownian
from reverie.reproduce.manifold_fits import fit, score_rows, split_rows
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.spaces import Torus
from reverie.spaces.torus import wrap

SOURCE = "the RNA torsion table of the geometric-flow papers"
TAU_MIN, SPLITS = 1e-4, 3
TAUS = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3]
# read from notes on the papers: Huang et al. 2022; Chen & Lipman 2023
PUBLISHED = {"power-spherical mixture": 4.08, "RDM": -3.70, "RFM": -5.20}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full`: 20,000 steps of a network on every split."""
    angles = read_angles(real_data("torus/rna.tsv", SOURCE))
    process, steps = Brownian(Torus(7), TAU_MIN), 20_000 if full else 0
    splits = [split_rows(angles, seed + k) for k in range(SPLITS)]
    fits = [fit(process, part, TAUS, steps, seed + k) for k, part in enumerate(splits)]
    rows = score_rows("RNA, 7 angles", [scores for scores, _ in fits])
    best = rows[-1]
    rows += [
        Row(f"{best.quantity} beside {paper}", best.ours, known, "S", best.stderr)
        for paper, known in PUBLISHED.items()
    ]
    test = splits[0].test[:500]
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(fits[0][1], len(test), times, generator=generator)
    figure, axes = panels(2)
    for axis, (i, j) in zip(axes, ((0, 5), (3, 6)), strict=True):
        for points, colour, label in ((test, "black", "held out"), (drawn, "#b91c1c", "samples")):
            x, y = np.rad2deg(points[:, [i, j]].numpy()).T
            axis.plot(x, y, ".", ms=2.5, color=colour, label=label)
        axis.set(xlabel=f"angle {i + 1} (degrees)", ylabel=f"angle {j + 1} (degrees)")
        axis.set(xlim=(-180, 180), ylim=(-180, 180), aspect="equal")
    axes[0].legend(fontsize=7)
    save_figure(figure, out / "torsions.png")
    settings = {"splits": f"{SPLITS} random 80/10/10", "steps": steps}
    title = "RNA torsion angles: negative log-likelihood in nats on the torus"
    return write_table(out, title, rows, seed, settings)


def read_angles(path: Path) -> Tensor:
    """Seven angles in radians (n, 7) of a table of structure, base and angles in degrees."""
    rows = [[float(v) for v in line.split("\t")[2:]] for line in path.read_text().splitlines()]
    return wrap(torch.deg2rad(torch.tensor(rows, dtype=torch.float64)))
