"""The minimax rate of diffusion models in one dimension, and what copying gives up.

For a density of smoothness s the total variation of a diffusion model falls like n^(-s/(2s+d)) up
to logarithms (Oko, Akiyama & Suzuki 2023, arXiv 2303.01861; from notes, not read in full): -.4 for
s = 2, d = 1. Here the score is that of the noised training set, and the reversal is stopped at a
level of order n^(-1/5), where its law is a kernel estimate: the simplest score that reaches the
rate. Run to the end, the same score keeps total variation 1, since its law is a set of points.
Wasserstein distance cannot tell them apart in one dimension: n^(-1/2) is a floor for both.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.denoisers import Memoriser
from reverie.processes import EDM
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import geometric_times

SIZES = tuple(int(n) for n in np.geomspace(100, 30_000, 7))
LEVEL = 0.6  # sigma at n = 1; falls like n^(-1/5)
MEANS, SPREADS, SHARES = np.array([-0.9, 0.7]), np.array([0.35, 0.5]), np.array([0.4, 0.6])
CELLS = np.linspace(-4, 4, 4001)


def truth() -> np.ndarray:
    """The target's density on CELLS."""
    return np.exp(-0.5 * ((CELLS[:, None] - MEANS) / SPREADS) ** 2) @ (
        SHARES / SPREADS / math.sqrt(2 * math.pi)
    )


def draw(n: int, rng: np.random.Generator) -> np.ndarray:
    """n points of the target."""
    part = rng.choice(2, n, p=SHARES)
    return rng.normal(MEANS[part], SPREADS[part])


def stopped_density(points: np.ndarray, sigma: float) -> np.ndarray:
    """Law on CELLS of the empirical score's reversal at level sigma; points snap to cells."""
    step = CELLS[1] - CELLS[0]
    cells = np.rint((points - CELLS[0]) / step).astype(int).clip(0, len(CELLS) - 1)
    counts = np.bincount(cells, minlength=len(CELLS))
    reach = math.ceil(6 * sigma / step)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / sigma) ** 2)
    return np.convolve(counts, kernel / (kernel.sum() * step), mode="same") / len(points)


def total_variation(density: np.ndarray) -> float:
    """Half the integral of |density - truth|."""
    return float(0.5 * np.trapezoid(np.abs(density - truth()), CELLS))


def atoms_share(points: np.ndarray, seed: int) -> float:
    """Share of deterministic samples of the empirical optimum that lie on a training point."""
    process, data = EDM(1e-7, 20), torch.as_tensor(points)[:, None]
    drawn = sample(
        Memoriser(process, data), 500, geometric_times(process, 20, 1e-7, 300), "ddim",
        shape=(1,), generator=torch.Generator().manual_seed(seed), dtype=torch.float64,
    )  # fmt: skip
    return float((torch.cdist(drawn, data).amin(1) < 1e-9).double().mean())


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` repeats every size ten times more often."""
    rng, repeats = np.random.default_rng(seed), 400 if full else 40
    values = np.array([
        [total_variation(stopped_density(draw(n, rng), LEVEL * n**-0.2)) for _ in range(repeats)]
        for n in SIZES
    ])  # fmt: skip
    mean, stderr = values.mean(1), values.std(1, ddof=1) / math.sqrt(repeats)
    slope, offset = np.polyfit(np.log(SIZES), np.log(mean), 1)
    fixed = [
        [total_variation(stopped_density(draw(n, rng), 0.3)) for _ in range(8)] for n in SIZES
    ]
    blunt = np.mean(fixed, 1)
    on_atoms = atoms_share(draw(100, rng), seed)
    figure, (ax,) = panels(1, width=5)
    ax.errorbar(SIZES, mean, 2 * stderr, fmt="o", ms=4, label="stopped at order n^(-1/5)")
    ax.plot(SIZES, np.exp(offset) * np.array(SIZES) ** slope, lw=1, label=f"slope {slope:.3f}")
    ax.plot(SIZES, blunt, "s--", ms=3, label="stopped at .3 whatever n")
    ax.axhline(1, color="grey", label="run to the end: copies")
    ax.set(xscale="log", yscale="log", xlabel="training points n", ylabel="total variation")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(0.0, 0.72))
    save_figure(figure, out / "minimax_rate.png")
    rows = [
        Row("slope of ln TV in ln n", slope, -0.4, "S", _slope_error(mean, stderr)),
        Row("TV of the empirical optimum run to the end", 1.0, 1.0, "D",
            note="by the next line: its law has atoms, the target none"),
        Row("share of its samples on a training point, n = 100", on_atoms, 1.0, "D"),
        *(Row(f"TV, n = {n}", m, stderr=e) for n, m, e in zip(SIZES, mean, stderr, strict=True)),
        *(Row(f"TV stopped at .3, n = {n}", b) for n, b in zip(SIZES, blunt, strict=True)),
    ]  # fmt: skip
    settings = dict(s=2, d=1, repeats=repeats, level=LEVEL)
    return write_table(out, "Minimax rate (Oko, Akiyama & Suzuki 2023)", rows, seed, settings)


def _slope_error(mean: np.ndarray, stderr: np.ndarray) -> float:
    """Standard error of the least-squares slope from those of the means."""
    x = np.log(SIZES) - np.log(SIZES).mean()
    return float(np.sqrt((x**2 * (stderr / mean) ** 2).sum()) / (x**2).sum())
