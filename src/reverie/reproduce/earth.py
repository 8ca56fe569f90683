"""Places on the earth: a diffusion model on the sphere beside kernel estimates.

Four tables of latitude and longitude rank generative models on the sphere. They hold repeated rows
(78% of a random test split of the volcanoes stands in its training split), so every figure is
given for all rows and for every place once, with two kernel estimates beside it: a single duration
and a uniform share, chosen on the validation rows, and a mixture of durations fitted on the
training rows, each left out of its own density. The model is a network that corrects the score of
that mixture. Negative log-likelihoods are in nats with respect to the area of the unit sphere (the
uniform law costs log 4 pi = 2.531), the model's by the probability flow with exact divergence at
duration 1e-5 (0.2 degrees).
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import CorrectedKernel, KernelDensity, KernelMixture
from reverie.processes import Brownian
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.sampling.manifold_likelihood import flow_log_likelihood
from reverie.spaces import Sphere

SETS = {"volcano": "volerup", "earthquake": "quakes_all", "flood": "flood", "fire": "fire"}
SOURCE = "the four tables of the riemannian-score-sde repository"
TAU_MIN = 1e-5
TAUS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
KERNEL_TAUS = np.geomspace(1e-5, 0.1, 13)
BATCH, RATE, DECAY = 128, 1e-3, 0.998
# all rows, mean of five splits: Riemannian score-based models (De Bortoli et al. 2022, the tables
# of the paper), Riemannian diffusion models (Huang et al. 2022) and flow matching (Chen & Lipman
# 2023), the last two read from notes on the papers
PUBLISHED = {
    "RSGM": ("V", {"volcano": -4.92, "earthquake": -0.19, "flood": 0.48, "fire": -1.33}),
    "RDM": ("S", {"volcano": -6.61, "earthquake": -0.40, "flood": 0.43, "fire": -1.38}),
    "RFM": ("S", {"volcano": -7.93, "earthquake": -0.28, "flood": 0.42, "fire": -1.86}),
}


@dataclass(frozen=True)
class Scores:
    """Held-out nats per row of one split."""

    kernel: float
    mixture: float
    model: float


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table: floods, one split; `full`: four sets, five splits.

    A fit takes 1,500 steps, about 2 minutes of one core, 20,000 with `full`.
    """
    names = list(SETS) if full else ["flood"]
    splits, steps = (5, 20_000) if full else (1, 1_500)
    figure, axes = panels(len(names), 6.0, 3.4)
    rows = []
    for axis, name in zip(axes, names, strict=True):
        degrees = read_places(real_data(f"earth/{SETS[name]}.csv", SOURCE))
        once = np.unique(degrees, axis=0)
        rows.append(
            Row(f"{name}: share of rows that repeat another", 1 - len(once) / len(degrees))
        )
        for label, values in (("all rows", degrees), ("each once", once)):
            points = unit_vectors(values)
            fits = [fit(points, seed + k, steps) for k in range(splits)]
            scores = [score for score, _, _ in fits]
            for method in ("kernel", "mixture", "model"):
                rows.append(_row(f"{name}, {label}: {method}", scores, method))
            if label == "all rows":
                ours = float(np.mean([score.model for score in scores]))
                for paper, (tag, known) in PUBLISHED.items():
                    rows.append(
                        Row(f"{name}, {label}: model beside {paper}", ours, known[name], tag)
                    )
        _, network, test = fits[0]
        _map(axis, f"{name}, each place once", network, test, seed)
    save_figure(figure, out / "earth.png")
    settings = {"splits": f"{splits} random 80/10/10", "steps": steps, "batch": BATCH}
    title = "Places on the earth: negative log-likelihood in nats, area of the unit sphere"
    return write_table(out, title, rows, seed, settings)


def read_places(path: Path) -> np.ndarray:
    """Latitude and longitude in degrees (n, 2) of a table whose header lines hold no numbers."""
    rows = [line.split(",") for line in path.read_text().splitlines() if not line.startswith("#")]
    return np.array([[float(a), float(b)] for a, b in rows if not a.strip().isalpha()])


def unit_vectors(degrees: np.ndarray) -> Tensor:
    """Points (n, 3) on the unit sphere from latitude and longitude (n, 2) in degrees."""
    latitude, longitude = np.deg2rad(degrees).T
    flat = np.cos(latitude)
    return torch.from_numpy(
        np.column_stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)])
    )


def fit(points: Tensor, seed: int, steps: int) -> tuple[Scores, CorrectedKernel, Tensor]:
    """Scores on one random 80/10/10 split of points (n, 3), the model, and the test points."""
    space, n = Sphere(2), len(points)
    order = np.random.default_rng(seed).permutation(n)
    train, validation, test = (
        points[rows] for rows in np.split(order, [n - 2 * (n // 10), n - n // 10])
    )
    kernel = KernelDensity.fit(space, train, validation, KERNEL_TAUS)
    mixture = KernelMixture(Brownian(space, TAU_MIN), train, TAUS)
    network = correct(mixture, steps, seed)
    flow = flow_log_likelihood(network, test.float(), tolerance=1e-3)
    densities = (kernel.log_density(test), mixture.log_density(test, 0.0), flow.nats)
    return Scores(*(-float(each.mean()) for each in densities)), network, test


def correct(mixture: KernelMixture, steps: int, seed: int) -> CorrectedKernel:
    """A network trained on denoising score matching to correct `mixture`; its average weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CorrectedKernel(mixture, width=96)
    average = deepcopy(network.body)
    optimiser = torch.optim.Adam(network.body.parameters(), lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, step / 50) * (1 - step / steps) ** 0.7
        rows = torch.randint(len(mixture.data), (BATCH,), generator=generator)
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        t = (torch.arange(BATCH) + start) / BATCH
        loss = network.loss(rows, t, generator=generator).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        decay = min(DECAY, 1 - 1 / (0.1 * step + 1))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.body.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
    network.body = average
    return network


def _row(quantity: str, scores: list[Scores], method: str) -> Row:
    values = [getattr(score, method) for score in scores]
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return Row(quantity, float(np.mean(values)), stderr=error)


def _map(axis: Any, title: str, network: CorrectedKernel, test: Tensor, seed: int) -> None:
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
