"""Random-feature score model: spectrum, and train and test loss along training (Bonnaire 2025).

Memorisation lives in the bulk of small eigenvalues that the sample adds to U, far below the d
large ones that hold the population's score: the loss on fresh points falls first, at a time that
does not depend on n, and rises when training reaches that bulk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.theory.random_features import (
    RandomFeatures,
    feature_constants,
    memorisation_time,
    sample_bulk,
)
from reverie.theory.saddle import SaddlePoint

PSI_P = 64
SIZES = (4, 8, 16, 32)
# psi_n = 4, t = .1, d = 60: psi_p and the final train and test loss
FINAL: dict[float, tuple[float, float]] = {
    1: (0.840, 0.895),
    4: (0.722, 1.03),
    8: (0.633, 1.32),
    32: (0.343, 2.52),
}
BEST_TEST = {4: 0.831, 8: 0.827, 16: 0.824, 32: 0.822}
GAP_TIME = {4: 240, 8: 785, 16: 1920, 32: 4974}
HALF_TIME = {4: 3050, 8: 5443, 16: 7705, 32: 8652}
NOTE = "at finite ratios the exponent depends on the threshold"


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; the default takes d = 60, `full` d = 100."""
    generator = torch.Generator().manual_seed(seed)
    dim = 100 if full else 60
    figure, (left, middle, right) = panels(3)
    rows = _spectrum(left, dim, generator)
    rows += _final(middle, dim, generator)
    rows += _training(right, dim, generator)
    save_figure(figure, out / "random_features.png")
    settings = dict(d=dim, psi_p=PSI_P, activation="tanh", data="standard normal")
    title = "Random-feature score model (Bonnaire et al. 2025)"
    return write_table(out, title, rows, seed, settings)


def _spectrum(axes: Any, dim: int, generator: torch.Generator) -> list[Row]:
    psi_n, constants = 8, feature_constants(0.01)
    model = RandomFeatures.draw(
        constants, PSI_P * dim, psi_n * dim, np.ones(dim), generator=generator
    )
    groups = model.groups()
    places = np.geomspace(1e-3, 100, 1200)
    density = SaddlePoint(constants, psi_n, PSI_P, np.ones(1)).density(places, width=2e-3)
    bins = np.geomspace(1e-3, 100, 90)
    width = np.log(bins[1] / bins[0])
    for name, values in groups.items():
        weights = np.full(len(values), 1 / (width * model.features))
        axes.hist(values, bins, weights=weights, alpha=0.5, label=f"{name} ({len(values)})")
    axes.plot(places, density, "k", lw=0.8, label="saddle point")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(1e-3, 30),
        xlabel="eigenvalue of U",
        ylabel="density per unit of ln eigenvalue",
    )
    axes.legend(frameon=False, fontsize=7)
    low, high = sample_bulk(constants, psi_n, PSI_P)
    sample, large = groups["sample"], groups["population"]
    rows = [
        Row("a (tanh, t = .01)", constants.a, 0.605706, "D"),
        Row("b (tanh, t = .01)", constants.b, 0.085233, "D"),
        Row("v^2 (tanh, t = .01)", constants.v2, 0.025542, "D"),
        Row("s^2 (tanh, t = .01)", constants.s2, 1.874e-3, "D"),
        Row("least eigenvalue of the sample bulk", sample.min(), low, "V", note="theorem 3.2"),
        Row("largest eigenvalue of the sample bulk", sample.max(), high, "V", note="theorem 3.2"),
        Row("least eigenvalue of the population bulk", large.min(), 10, "V", note="figure 4"),
        Row("largest eigenvalue of the population bulk", large.max(), 45, "V", note="figure 4"),
    ]
    values = model.eigen[0].numpy()
    soft = values[(values > 1.2 * constants.s2) & (values < 0.5 * low)]
    note = "exactly d lie far below the sample bulk: a finite-n effect"
    rows.append(Row("eigenvalues between s^2 and the bulk, over d", len(soft) / dim, 1, "D"))
    rows.append(Row("largest of them", soft.max(), 0.0097, "D", note=note))
    return rows


def _final(axes: Any, dim: int, generator: torch.Generator) -> list[Row]:
    psi_n, constants = 4, feature_constants(0.1)
    ratios, losses, oracle = (0.5, 1, 2, 4, 6, 8, 16, 32), [], 0.0
    rows = []
    for ratio in ratios:
        model = RandomFeatures.draw(
            constants, int(ratio * dim), psi_n * dim, np.ones(dim), generator=generator
        )
        train, test = (float(v[0]) for v in model.losses([np.inf]))
        losses.append((train, test))
        oracle = model.oracle()
        if ratio in FINAL:
            for name, value, known in zip(
                ("train", "test"), (train, test), FINAL[ratio], strict=True
            ):
                rows.append(Row(f"final {name} loss, p = {ratio} d, n = 4 d", value, known, "D"))
    axes.semilogx(ratios, losses, ".-", label=["train", "test"])
    axes.axhline(oracle, color="grey", lw=0.8)
    axes.axvline(psi_n, color="grey", lw=0.8, ls="--")
    axes.set(xlabel="features per dimension, p / d", ylabel="score loss (zero model 1)")
    axes.legend(frameon=False, title="n = 4 d, trained to the end")
    return rows


def _training(axes: Any, dim: int, generator: torch.Generator) -> list[Row]:
    constants, tau = feature_constants(0.1), np.geomspace(0.3, 3e5, 200)
    rows, gaps, halves, predicted = [], [], [], []
    for psi_n in SIZES:
        model = RandomFeatures.draw(
            constants, PSI_P * dim, psi_n * dim, np.ones(dim), generator=generator
        )
        train, test = model.losses(tau)
        (line,) = axes.loglog(tau, test, label=f"n = {psi_n} d")
        axes.plot(tau, train, "--", color=line.get_color())
        gap = test - train
        gaps.append(_crossing(tau, gap, 0.2))
        halves.append(_crossing(tau, gap, 0.5 * gap[-1]))
        predicted.append(memorisation_time(constants, psi_n, PSI_P))
        rows.append(Row(f"best test loss, n = {psi_n} d", test.min(), BEST_TEST[psi_n], "D"))
        rows.append(Row(f"  reached at training time, n = {psi_n} d", tau[test.argmin()]))
        rows.append(Row(f"time of gap .2, n = {psi_n} d", gaps[-1], GAP_TIME[psi_n], "D"))
        name = f"time of half the final gap, n = {psi_n} d"
        rows.append(Row(name, halves[-1], HALF_TIME[psi_n], "D"))
        rows.append(Row(f"psi_p / (Delta lam_min), n = {psi_n} d", predicted[-1]))
    for name, times in (
        ("gap .2", gaps),
        ("half the final gap", halves),
        ("psi_p / (Delta lam_min)", predicted),
    ):
        slope = float(np.polyfit(np.log(SIZES), np.log(times), 1)[0])
        rows.append(Row(f"slope of ln tau_mem in ln n, {name}", slope, 1.0, "V", note=NOTE))
    axes.axhline(1, color="grey", lw=0.8)
    axes.set(xlabel="training time tau", ylabel="score loss (zero model 1)")
    axes.legend(frameon=False, title="dashed: train")
    return rows


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """First x at which y reaches `level`, interpolated in ln x; infinite if it never does."""
    above = np.flatnonzero(y >= level)
    if len(above) == 0 or above[0] == 0:
        return float("inf") if len(above) == 0 else float(x[0])
    k = int(above[0])
    share = (level - y[k - 1]) / (y[k] - y[k - 1])
    return float(np.exp(np.log(x[k - 1]) + share * np.log(x[k] / x[k - 1])))
