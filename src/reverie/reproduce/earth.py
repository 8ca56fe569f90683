"""Places on the earth: a diffusion model on the sphere beside kernel estimates.

Four tables of latitude and longitude rank generative models on the sphere. They hold repeated rows
(78% of a random test split of the volcanoes stands in its training split), so every figure is
given for all rows and for every place once, with two kernel estimates beside it (see
`manifold_fits`). Negative log-likelihoods are in nats with respect to the area of the unit sphere
(the uniform law costs log 4 pi = 2.531), at duration 1e-5 (0.2 degrees).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.processes import Brownian
from reverie.reproduce.earth_tables import SETS, places, unit_vectors
from reverie.reproduce.manifold_fits import fit, score_rows, split_rows
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.spaces import Sphere

TAU_MIN = 1e-5
TAUS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
# all rows, mean of five splits: Riemannian score-based models (De Bortoli et al. 2022, the tables
# of the paper), Riemannian diffusion models (Huang et al. 2022) and flow matching (Chen & Lipman
# 2023), the last two read from notes on the papers
PUBLISHED = {
    "RSGM": ("V", {"volcano": -4.92, "earthquake": -0.19, "flood": 0.48, "fire": -1.33}),
    "RDM": ("S", {"volcano": -6.61, "earthquake": -0.40, "flood": 0.43, "fire": -1.38}),
    "RFM": ("S", {"volcano": -7.93, "earthquake": -0.28, "flood": 0.42, "fire": -1.86}),
}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table: floods, one split; `full`: four sets, five splits.

    A fit takes 1,500 steps, about a minute and a half of one core, 20,000 with `full`.
    """
    names = list(SETS) if full else ["flood"]
    count, steps = (5, 20_000) if full else (1, 1_500)
    process = Brownian(Sphere(2), TAU_MIN)
    figure, axes = panels(len(names), 6.0, 3.4)
    rows = []
    for axis, name in zip(axes, names, strict=True):
        degrees = places(name).values
        once = np.unique(degrees, axis=0)
        rows.append(
            Row(f"{name}: share of rows that repeat another", 1 - len(once) / len(degrees))
        )
        for label, values in (("all rows", degrees), ("each once", once)):
            splits = [
                split_rows(torch.from_numpy(unit_vectors(values)), seed + k) for k in range(count)
            ]
            fits = [fit(process, part, TAUS, steps, seed + k) for k, part in enumerate(splits)]
            lines = score_rows(f"{name}, {label}", [scores for scores, _ in fits])
            rows += lines
            if label == "all rows":
                rows += [
                    Row(f"{lines[-1].quantity} beside {paper}", lines[-1].ours, known[name], tag)
                    for paper, (tag, known) in PUBLISHED.items()
                ]
            else:
                _map(axis, f"{name}, each place once", fits[0][1], splits[0].test, seed)
    save_figure(figure, out / "earth.png")
    settings = {"splits": f"{count} random 80/10/10", "steps": steps}
    title = "Places on the earth: negative log-likelihood in nats, area of the unit sphere"
    return write_table(out, title, rows, seed, settings)


def _map(axis: Any, title: str, network: Denoiser, test: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(1, 0, 61, dtype=torch.float64)
    drawn = sample(network, len(test), times, generator=generator)
    for points, colour, label in ((test, "black", "held out"), (drawn, "#b91c1c", "samples")):
        x, y, z = points.double().numpy().T
        longitude, latitude = np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arcsin(z.clip(-1, 1)))
        axis.plot(longitude, latitude, ".", ms=2.5, color=colour, label=label)
    axis.set(title=title, xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    axis.set(xlim=(-180, 180), ylim=(-90, 90), aspect="equal")
    axis.legend(loc="lower left", fontsize=7)
