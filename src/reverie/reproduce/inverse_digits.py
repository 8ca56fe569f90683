"""Half a digit from the other half: a network fitted here is the prior of six methods."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reverie.denoisers import Network
from reverie.inverse import Inpainting
from reverie.reproduce.inverse_scores import METHODS, covered, draws_of, mean_row, misfits
from reverie.reproduce.tables import Row, save_figure
from reverie.runs.fitting import fit
from reverie.sampling import sample

NOISE = 0.2  # of an observed pixel, in deviations of the data
STEPS, FIT_STEPS, SHOWN = 40, 2000, 10
VARIED = 0.25  # pixels with a smaller deviation are all but constant: their intervals mean nothing
SETTINGS: dict[str, dict[str, Any]] = {
    "dps": dict(guidance_scale=1.0),
    "repaint": dict(resamplings=5),
    "twisted-smc": dict(particles=1024),
}


def digits_rows(out: Path, seed: int, images: int) -> list[Row]:
    """The right half from the left; truths drawn from the model, then digits held out."""
    run = fit(
        "digits", n=1400, holdout=397, steps=FIT_STEPS, check_every=FIT_STEPS, seed=seed,
        process="edm:sigma_min=0.02,sigma_max=20",
    )  # fmt: skip
    assert isinstance(run.denoiser, Network)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    study = _Study(
        run.denoiser,
        Inpainting(mask, NOISE),
        ~mask & (run.train_points().std(0) > VARIED),
        16 / run.scaler.std[0],
        generator,
    )
    times = study.times
    of_model = sample(run.denoiser, images, times, shape=(1, 8, 8), generator=generator)
    rows, _, _ = study.rows("digits of the model", of_model)
    held = run.holdout_points()[:images]
    more, y, drawn = study.rows("held-out digits", held)
    _picture(out, study.measurement, held, y, drawn)
    return rows + more


class _Study:
    """A prior and a measurement, and the readings of each method on given truths."""

    times = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)

    def __init__(
        self,
        denoiser: Network,
        measurement: Inpainting,
        judged: Tensor,
        peak: float,
        generator: torch.Generator,
    ) -> None:
        self.denoiser, self.measurement, self.judged = denoiser, measurement, judged
        self.peak, self.generator = peak, generator

    def rows(self, name: str, x: Tensor) -> tuple[list[Row], Tensor, dict[str, Tensor]]:
        """Rows of the table, the observations and the draws of each method."""
        y = self.measurement.simulate(x, self.generator)
        rows, drawn = [], {}
        right = (0.9, 1.0) if "model" in name else (None, None)
        for method in METHODS:
            draws = drawn[method] = draws_of(
                self.denoiser, self.measurement, y, self.times, method, self.generator,
                **SETTINGS.get(method, {}),
            )  # fmt: skip
            coverage = covered(x, draws)[:, self.judged].mean(1).numpy()
            note = ", ".join(f"{key} {value:g}" for key, value in SETTINGS.get(method, {}).items())
            rows += [
                mean_row(f"{name}: coverage of 90% intervals, {method}", coverage, right[0], note),
                mean_row(f"{name}: misfit, {method}", misfits(self.measurement, y, draws),
                         right[1]),
                mean_row(f"{name}: PSNR of the mean (dB), {method}", self._psnr(x, draws.mean(1))),
                mean_row(f"{name}: PSNR of a draw (dB), {method}", self._psnr(x, draws[:, 0])),
            ]  # fmt: skip
        return rows, y, drawn

    def _psnr(self, x: Tensor, guess: Tensor) -> np.ndarray:
        """10 log10(range^2 / mean square error) over the missing pixels, (B,)."""
        error = (guess - x)[:, ~self.measurement.mask].square().mean(1)
        return (20 * math.log10(self.peak) - 10 * error.log10()).numpy()


def _picture(
    out: Path, measurement: Inpainting, x: Tensor, y: Tensor, drawn: dict[str, Tensor]
) -> None:
    """Rows of truth, observed and each method: one draw on the left, the mean on the right."""
    observed = torch.where(measurement.mask, measurement.adjoint(y), torch.nan)
    draws = {name: points[:, 0] for name, points in drawn.items()}
    means = {name: points.mean(1) for name, points in drawn.items()}
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    for ax, title, pictures in zip(
        figure.subplots(1, 2), ("one draw", "mean of 39 draws"), (draws, means), strict=True
    ):
        rows = {"truth": x, "observed": observed, **pictures}
        ax.imshow(_grid(list(rows.values())), cmap="gray_r", vmin=-0.9, vmax=1.9)
        ax.set(title=title, xticks=[], yticks=9 * np.arange(len(rows)) + 3.5)
        ax.set_yticklabels(list(rows))
        ax.tick_params(length=0)
        ax.set_facecolor("lightsteelblue")  # where nothing was observed
        ax.spines[:].set_visible(False)
    save_figure(figure, out / "inverse-problems-digits.png")


def _grid(rows: list[Tensor]) -> np.ndarray:
    """The first images of each row side by side, with a blank line between."""
    lines = []
    for images in rows:
        padded = torch.nn.functional.pad(images[:SHOWN, 0], (0, 1, 0, 1), value=torch.nan)
        lines.append(torch.cat(list(padded), 1))
    return torch.cat(lines).numpy()
