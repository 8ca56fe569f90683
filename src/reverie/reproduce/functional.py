"""Diffusion on functions: what a finer grid does to a loss, to an operator, and real curves.

The discretisation table is in closed form: the least Cameron-Martin loss of Gaussian data, with
noise of an exponential kernel, converges as the grid is refined where data are smoother than the
noise, and grows as the number of points where they are as rough. One operator is trained on 64
points and scored on 256; another learns 73 temperature curves from every fifth day and draws all
365; a third learns the log-periodograms of spoken phonemes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import measure
from reverie.denoisers import FourierNeuralOperator, Network, on_grid
from reverie.objectives import Denoising, FunctionLoss
from reverie.objectives.functional import excess_roughness
from reverie.processes import RBF, Covariance, Exponential, FunctionNoise, Matern
from reverie.reproduce.curve_scores import DRAWS, copied_rows, score_rows
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs.config import FitConfig
from reverie.runs.trainer import Trainer
from reverie.sampling import sample
from reverie.spaces import Functions
from reverie.theory.functional import optimal_loss

POINTS = (32, 64, 128, 256, 512)
NOISE = Exponential(0.1)
KERNELS: dict[str, tuple[Covariance, list[float]]] = {
    "RBF": (RBF(0.1), [5.154, 5.219, 5.235, 5.238, 5.239]),
    "Matern-3/2": (Matern(1.5, 0.1), [9.20, 10.94, 12.00, 12.59, 12.91]),
    "Matern-1/2": (Matern(0.5, 0.1), [16, 32, 64, 128, 256]),
}
EIGENVALUES = [0.18708, 0.15605, 0.12115, 0.09132]
SIGMAS = (0.1, 0.2, 0.5, 1.0, 2.0)
DAYS, SKIP = 365, 5
# temperatures: one draw of 500 each; functional flow matching (VP) from notes on its tables
KNOWN = {
    ("operator", "mean"): (0.13, "S"),
    ("Gaussian", "mean"): (0.019, "D"),
    ("Gaussian", "variance"): (0.58, "D"),
    ("Gaussian", "skewness"): (0.235, "D"),
    ("Gaussian", "kurtosis"): (0.30, "D"),
    ("bootstrap", "mean"): (0.0098, "D"),
    ("bootstrap", "variance"): (0.74, "D"),
    ("bootstrap", "skewness"): (0.013, "D"),
    ("bootstrap", "kurtosis"): (0.042, "D"),
}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figures and the table: three fits of 1,000 to 1,500 steps; `full`: six times that.

    Reads the temperature curves and the phonemes from the folder of REVERIE_DATA.
    """
    more = 6 if full else 1
    temperatures, phonemes = _temperatures(), _phonemes()
    figure, (left, right) = panels(2)
    curves, axes = panels(4, 3.6, 3.2)
    rows = [*_discretisation(left), *_across_grids(right, 1000 * more, seed)]
    rows += _temperature_rows(axes[:2], temperatures, 1500 * more, seed)
    rows += _phoneme_rows(axes[2:], phonemes, 1000 * more, seed)
    save_figure(figure, out / "functional.png")
    save_figure(curves, out / "functional_curves.png")
    settings = {"steps": 1000 * more, "noise": "exponential kernel of length 0.1", "draws": DRAWS}
    return write_table(out, "Diffusion on functions", rows, seed, settings)


# --- closed forms --------------------------------------------------------------------------------


def _discretisation(axes: Any) -> list[Row]:
    rows = [
        Row(f"exponential kernel, length .1: eigenvalue {k + 1}", float(ours), known, "D")
        for k, (ours, known) in enumerate(zip(NOISE.eigenvalues(4), EIGENVALUES, strict=True))
    ]
    grids = [Functions.regular(n, ends=True) for n in POINTS]
    for name, (kernel, known) in KERNELS.items():
        losses = [optimal_loss(kernel, NOISE, grid)[1] for grid in grids]
        axes.plot(POINTS, losses, "o-", ms=3, label=f"{name} data")
        rows += [
            Row(f"least Cameron-Martin loss, {name} data, {n} points", loss, value, "D")
            for n, loss, value in zip(POINTS, losses, known, strict=True)
        ]
    axes.set(xscale="log", yscale="log", xlabel="points of the grid")
    axes.set(ylabel="least Cameron-Martin loss (2 nats per SNR)")
    axes.set(xticks=POINTS, xticklabels=POINTS)
    axes.minorticks_off()
    axes.legend(frameon=False, title="noise: Matern-1/2")
    return rows


# --- one operator, two grids ---------------------------------------------------------------------


def fit(process: FunctionNoise, data: Tensor, steps: int, seed: int, modes: int = 12) -> Network:
    """An operator of width 24 trained on functions (N, *shape) by the L2 loss."""
    torch.manual_seed(seed)
    body = FourierNeuralOperator(process.space, modes, width=24, depth=3)
    network = Network(process, body, float(data.std()))
    config = FitConfig(
        steps=steps, batch_size=64, lr=2e-3, check_every=steps, seed=seed, ema=0.995
    )
    trainer = Trainer(network, data, None, config)
    trainer.objective = Denoising(network, FunctionLoss(process))
    for _ in trainer.events():
        pass
    trainer.averaged().__enter__()
    return network.eval()


def two_lines(space: Functions, count: int, generator: torch.Generator) -> Tensor:
    """Functions (count, n), +-(10 x - 5) plus a Gaussian of RBF covariance, of deviation 1."""
    values, vectors = torch.linalg.eigh(RBF(0.1, 0.4).on(space))
    noise = torch.randn(count, space.dim, generator=generator, dtype=torch.float64)
    smooth = noise * values.clamp(min=0).sqrt() @ vectors.T
    sign = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    return ((smooth + sign * (10 * space.points[:, 0] - 5)) / (0.4 + 100 / 12) ** 0.5).float()


@torch.no_grad()
def l2_errors(
    network: Network, process: FunctionNoise, generator: torch.Generator
) -> list[tuple[float, float]]:
    """Mean L2 denoising error and its standard error at each of SIGMAS, 2,000 fresh functions."""
    own, found = on_grid(network, process), []
    for sigma in SIGMAS:
        x = two_lines(process.space, 2000, generator)
        t = process.time(sigma**-2)
        guess = own(process.corrupt(x, t, generator=generator), t.expand(len(x)))
        error = process.space.square_norm(guess - x)
        found.append((float(error.mean()), float(error.std()) / len(x) ** 0.5))
    return found


def _across_grids(axes: Any, steps: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    process = FunctionNoise(Functions.regular(64), NOISE)
    network = fit(process, two_lines(process.space, 4000, generator), steps, seed)
    scattered = torch.rand(150, generator=generator, dtype=torch.float64).sort().values
    grids = {
        "64 points": Functions.regular(64),
        "256 points": Functions.regular(256),
        "150 random points": Functions(scattered),
    }
    found = {}
    for (name, grid), marker in zip(grids.items(), "ox+", strict=True):
        found[name] = l2_errors(network, process.on(grid), generator)
        means, errors = zip(*found[name], strict=True)
        axes.errorbar(SIGMAS, means, errors, fmt=marker, ms=6, label=f"read on {name}")
    axes.set(
        xscale="log", yscale="log", xlabel="noise level sigma (pointwise deviation of data 1)"
    )
    axes.set(ylabel="mean square L2 error of the guess")
    axes.legend(frameon=False, title="trained on 64 points")
    note = "reference: the same operator on 64 points"
    rows = []
    for name in list(grids)[1:]:
        for sigma, other, own in zip(SIGMAS, found[name], found["64 points"], strict=True):
            error = float(np.hypot(other[1], own[1]))
            quantity = f"L2 error at sigma = {sigma:g}, {name}"
            rows.append(Row(quantity, other[0], own[0], "D", error, note))
    return rows


# --- real curves ---------------------------------------------------------------------------------


def _temperatures() -> np.ndarray:
    """Mean daily temperature of 73 Spanish stations, (73, 365) in degrees Celsius."""
    path = real_data("functional/functional.npz", "the R package fda.usc, data aemet")
    return np.load(path, allow_pickle=False)["aemet_temp"].astype(np.float64)


def _phonemes() -> np.ndarray:
    """Log-periodograms of 4,509 spoken phonemes, means of four of 256 frequencies: (4509, 64)."""
    path = real_data("esl/esl.npz", "the R package ElemStatLearn, data phoneme")
    whole = np.load(path, allow_pickle=False)["phoneme"].astype(np.float64)
    return whole.reshape(len(whole), 64, 4).mean(2)


def draw(network: Network, process: FunctionNoise, count: int, seed: int) -> np.ndarray:
    """Samples (count, *shape) on the process's grid, 24 steps of DPM-Solver++ (2M)."""
    times = torch.linspace(1, 0, 25, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    own = on_grid(network, process)
    return sample(own, count, times, "dpm++2m", generator=generator).double().numpy()


def _temperature_rows(axes: Any, curves: np.ndarray, steps: int, seed: int) -> list[Row]:
    mean, std = curves.mean(), curves.std()
    data = torch.from_numpy((curves - mean) / std).float()
    coarse = data[:, SKIP // 2 :: SKIP]  # midpoints of 73 cells, each five days
    process = FunctionNoise(Functions.regular(coarse.shape[1]), NOISE)
    daily = process.on(Functions.regular(DAYS))
    network = fit(process, coarse, steps, seed)
    drawn = draw(network, daily, DRAWS, seed) * std + mean
    rows = score_rows("temperatures", drawn, curves, curves, seed, KNOWN)
    rows += copied_rows("temperatures", [("operator", drawn), ("bootstrap", curves)], curves)
    note = "trained on every fifth day: it has not seen what a day changes"
    known = float(np.diff(curves, axis=1).std())
    change = float(np.diff(drawn, axis=1).std())
    rows.append(Row("temperatures: deviation from day to day (C)", change, known, "D", note=note))
    rows.append(_roughness("temperatures", data, daily.space))
    for axis, title, values in zip(axes, ("73 stations", "samples"), (curves, drawn), strict=True):
        axis.plot(np.arange(DAYS) + 1, values[:73].T, lw=0.5, alpha=0.6)
        axis.set(title=f"temperatures: {title}", xlabel="day of the year")
        axis.set(ylabel="temperature (degrees Celsius)", ylim=(curves.min() - 3, curves.max() + 3))
    return rows


def _phoneme_rows(axes: Any, curves: np.ndarray, steps: int, seed: int) -> list[Row]:
    order = np.random.default_rng(seed).permutation(len(curves))
    fitted, held = curves[order[1000:]], curves[order[:1000]]
    mean, std = fitted.mean(), fitted.std()
    train, fresh = (torch.from_numpy((part - mean) / std).float() for part in (fitted, held))
    process = FunctionNoise(Functions.regular(curves.shape[1]), NOISE)
    network = fit(process, train, steps, seed, modes=24)
    drawn = draw(network, process, 1000, seed) * std + mean
    rows = score_rows("phonemes", drawn, fitted, held, seed)
    sets = [("operator", drawn), ("held out", held)]
    rows += copied_rows("phonemes", sets, fitted)
    known, new = (
        measure(network, part[:1000], 24, generator=torch.Generator().manual_seed(seed))
        for part in (train, fresh)
    )
    leak = known.leak(new)
    note = f"up to SNR {leak.level:.3g}, 3,509 training curves"
    rows.append(Row("phonemes: leak (nats)", leak.nats, stderr=leak.stderr, note=note))
    rows.append(_roughness("phonemes", train, process.space))
    kilohertz = (np.arange(64) + 0.5) / 64 * 8
    for axis, title, values in zip(axes, ("held out", "samples"), (held, drawn), strict=True):
        axis.plot(kilohertz, values[:60].T, lw=0.5, alpha=0.6)
        axis.set(title=f"phonemes: {title}", xlabel="frequency (kHz)")
        axis.set(ylabel="log periodogram (nats)", ylim=(curves.min() - 1, curves.max() + 1))
    return rows


def _roughness(name: str, data: Tensor, space: Functions) -> Row:
    note = "at least 1: the Cameron-Martin loss diverges, L2 is used"
    growth = excess_roughness(data, space, NOISE)
    return Row(f"{name}: Cameron-Martin norm of an octave over the last", growth, note=note)
