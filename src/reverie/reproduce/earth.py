"""Places on the earth: a diffusion model on the sphere beside kernel estimates.

Four tables of latitude and longitude rank generative models on the sphere. They hold repeated rows
(78% of a random test split of the volcanoes stands in its training split), so every figure is
given for all rows and for every place once, with kernel estimates beside it (see `manifold_fits`).
Negative log-likelihoods are in nats with respect to the area of the unit sphere (the uniform law
costs log 4 pi = 2.531). On all rows they have no lower bound: a repeated row is worth the more,
the shorter the shortest duration on offer, here 1e-9 (the tables' own digits, 0.002 degrees). They
are therefore given with no duration below 1e-5 (0.2 degrees) as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import AdaptiveMixture, CorrectedKernel
from reverie.report.manifold_figures import world_map
from reverie.reproduce.earth_tables import SETS, places, unit_vectors
from reverie.reproduce.manifold_fits import Scores, fit, score_rows, split_rows
from reverie.reproduce.tables import Row, save_figure, write_table
from reverie.sampling import sample
from reverie.spaces import Sphere

SPLITS = {"volcano": 5, "earthquake": 5, "flood": 5, "fire": 2}
PICTURED = "earthquake"
TAUS = [float(tau) for tau in np.logspace(-9, -1, 13)]
COARSE = [tau for tau in TAUS if tau > 0.99e-5]
# all rows, mean of five splits: Riemannian score-based models (De Bortoli et al. 2022, the tables
# of the paper), Riemannian diffusion models (Huang et al. 2022) and flow matching (Chen & Lipman
# 2023), the last two read from notes on the papers
PUBLISHED = {
    "RSGM": ("V", {"volcano": -4.92, "earthquake": -0.19, "flood": 0.48, "fire": -1.33}),
    "RDM": ("S", {"volcano": -6.61, "earthquake": -0.40, "flood": 0.43, "fire": -1.38}),
    "RFM": ("S", {"volcano": -7.93, "earthquake": -0.28, "flood": 0.42, "fire": -1.86}),
}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the map and the table: four sets, five splits, two of the largest; minutes of a core.

    full: a network corrects every estimate, 20,000 steps each: hours.
    """
    steps = 20_000 if full else 0
    rows = []
    for name in SETS:
        degrees = places(name).values
        once = np.unique(degrees, axis=0)
        share = 1 - len(once) / len(degrees)
        rows.append(Row(f"{name}: share of rows that repeat another", share))
        for label, taus in (("all rows", TAUS), ("all rows, coarse", COARSE)):
            lines = score_rows(f"{name}, {label}", _scores(name, degrees, taus, steps, seed))
            best = lines[-1]
            rows += lines
            rows += [
                Row(f"{best.quantity} beside {paper}", best.ours, known[name], tag, best.stderr)
                for paper, (tag, known) in PUBLISHED.items()
            ]
        rows += score_rows(f"{name}, each once", _scores(name, once, TAUS, steps, seed, out))
    settings = {"splits": "5 random 80/10/10 (fire: 2)", "steps": steps}
    title = "Places on the earth: negative log-likelihood in nats, area of the unit sphere"
    return write_table(out, title, rows, seed, settings)


def _scores(
    name: str,
    degrees: np.ndarray,
    taus: list[float],
    steps: int,
    seed: int,
    out: Path | None = None,
) -> list[Scores]:
    """Scores of every split; with `out`, a map of the first one's samples beside all rows."""
    points, scores = torch.from_numpy(unit_vectors(degrees)), []
    for k in range(SPLITS[name]):
        score, model = fit(Sphere(2), split_rows(points, seed + k), taus, steps, seed + k)
        scores.append(score)
        if out and k == 0 and name == PICTURED:
            _picture(model, points, f"{name}, each once", seed, out / "earth.png")
    return scores


def _picture(
    model: AdaptiveMixture | CorrectedKernel, points: Tensor, name: str, seed: int, path: Path
) -> None:
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(1, 0, 61, dtype=torch.float64)
    drawn = sample(model, 1500, times, generator=generator)
    base = model.base if isinstance(model, CorrectedKernel) else model
    save_figure(world_map(points, drawn, lambda x: base.log_density(x, 0.0), name), path)
