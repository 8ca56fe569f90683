"""Torsion angles of RNA and of proteins: kernel estimates on tori of two to seven dimensions.

RNA: 9,478 rows of seven backbone angles. The published figures (nats, uniform law 7 log 2 pi =
12.865) are of diffusion and flow models. Proteins: nine tables of residues (Top8000), phi, psi and
the side chain's angles, which stand in for a table of the papers that is not public. Beside every
figure stands a kernel estimate with one duration (see `manifold_fits`; with `full` a network
corrects the mixture).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.report.manifold_figures import ramachandran
from reverie.reproduce.manifold_fits import fit, score_rows, split_rows
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, save_figure, write_table
from reverie.sampling import sample
from reverie.spaces import Torus
from reverie.spaces.torus import wrap

SOURCE = "the RNA torsion table of the geometric-flow papers"
TOP8000 = "Top8000 of the Richardson laboratory, one table a residue"
SPLITS, RESIDUE_SPLITS = 5, 2
TAUS = [float(tau) for tau in np.logspace(-4.5, 0.5, 11)]
ANGLES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi")
# read from notes on the papers: Huang et al. 2022; Chen & Lipman 2023
PUBLISHED = {"power-spherical mixture": 4.08, "RDM": -3.70, "RFM": -5.20}
# angles that a residue's table holds: phi, psi, and the side chain's that are free
RESIDUES = {
    "cispro": 2,
    "cys": 3,
    "his": 4,
    "trp": 4,
    "met": 5,
    "gln": 5,
    "lys-1p": 6,
    "lys-1t": 6,
    "arg-1t": 6,
}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table: RNA in five splits, 4,000 rows of each residue in two.

    full: 20,000 steps of a network on every split, and all rows.
    """
    angles = read_angles(real_data("torus/rna.tsv", SOURCE))
    steps, most = (20_000, None) if full else (0, 4000)
    splits = [split_rows(angles, seed + k) for k in range(SPLITS)]
    fits = [fit(Torus(7), part, TAUS, steps, seed + k) for k, part in enumerate(splits)]
    rows = score_rows("RNA, 7 angles", [scores for scores, _ in fits])
    best = rows[-1]
    rows += [
        Row(f"{best.quantity} beside {paper}", best.ours, known, "S", best.stderr)
        for paper, known in PUBLISHED.items()
    ]
    test = splits[0].test
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(fits[0][1], len(test), times, generator=generator)
    save_figure(ramachandran(test, drawn, ANGLES), out / "torsions.png")
    for residue, dim in RESIDUES.items():
        table = read_residue(real_data(f"torus/top8000/rota8000-{residue}.csv", TOP8000), dim)
        kept = table[np.random.default_rng(0).permutation(len(table))[:most]]
        scores = [
            fit(Torus(dim), split_rows(kept, seed + k), TAUS, steps, seed + k)[0]
            for k in range(RESIDUE_SPLITS)
        ]
        rows += score_rows(f"{residue}, {dim} angles, {len(kept):,} rows", scores)
    settings = {
        "splits": f"{SPLITS} random 80/10/10 of RNA, {RESIDUE_SPLITS} of each residue",
        "steps": steps,
    }
    title = "Torsion angles: negative log-likelihood in nats on the torus"
    return write_table(out, title, rows, seed, settings)


def read_angles(path: Path) -> Tensor:
    """Seven angles in radians (n, 7) of a table of structure, base and angles in degrees."""
    rows = [[float(v) for v in line.split("\t")[2:]] for line in path.read_text().splitlines()]
    return wrap(torch.deg2rad(torch.tensor(rows, dtype=torch.float64)))


def read_residue(path: Path, dim: int) -> Tensor:
    """The first `dim` angles in radians (n, dim) of phi, psi, chi1 to chi4, in degrees there.

    Rows that lack one of them are left out. Raises InputError where none is left.
    """
    rows = [line.split(",")[-8:][:dim] for line in path.read_text().splitlines()]
    known = [[float(v) for v in row] for row in rows if "NULL" not in row and "" not in row]
    if not known:
        raise InputError(f"{path} has no row with {dim} angles")
    return wrap(torch.deg2rad(torch.tensor(known, dtype=torch.float64)))
