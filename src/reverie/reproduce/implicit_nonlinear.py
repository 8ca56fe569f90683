"""Implicit nonlinear diffusion (Kim, Na et al. 2022) beside the plain model, on one bound.

The same denoiser and steps, with and without a flow between data and noise: two-dimensional laws
(rings), digits of 8 x 8 made continuous by noise, and a table (breast cancer). The
mean bound on -log p of held-out rows in nats, in deviations of the training rows, and its paired
difference from the plain model's; energy distances of samples; and what it costs. setting nll
trains all by the bound, fid the denoiser by noise matching. The published figures are of pictures
(CIFAR-10, CelebA) and are not made again here. full: ten times the steps, three
seeds, and a chequerboard.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.metrics.fidelity import energy_distance
from reverie.flows import Identity, ImplicitDiffusion, fit_implicit
from reverie.reproduce.tables import Row, panels, save_figure, write_table

MODELS = {"plain": "nll", "INDM, nll": "nll", "INDM, fid": "fid"}
HELD, DRAWN, SOLVED = 500, 500, 50


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains ten times as long."""
    steps, seeds = (5000, 3) if full else (500, 1)
    figure, axes = panels(2)
    rows: list[Row] = []
    won: dict[str, int] = {}
    sets = ("rings", "digits", "table", *(("chequerboard",) if full else ()))
    for name in sets:
        found = [_fitted(name, k, steps) for k in range(seed, seed + seeds)]
        if name == "rings":
            _draw(axes, found[0]["model"], seed)
        rows += _rows(name, found)
        for model in list(MODELS)[1:]:
            gain = np.concatenate([one["each"][model] - one["each"]["plain"] for one in found])
            won[model] = won.get(model, 0) + int(gain.mean() <= 0)
    for model, count in won.items():
        rows.append(
            Row(f"sets where the bound of {model} is at or below the plain one's", count, None, "",
                note=f"of {len(sets)}")
        )  # fmt: skip
    save_figure(figure, out / "implicit_nonlinear.png")
    settings = dict(steps=steps, seeds=seeds, held_out=HELD)
    return write_table(out, "Implicit nonlinear diffusion (Kim et al. 2022)", rows, seed, settings)


def law(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Training and held-out rows (n, dim), in deviations of the training rows."""
    rng = np.random.default_rng(seed)
    made = {"rings": _rings, "chequerboard": _board, "digits": _digits, "table": _table}[name](rng)
    held = min(HELD, len(made) // 3)
    train, fresh = made[held:], made[:held]
    mean, std = train.mean(0), train.std(0)
    return tuple(torch.as_tensor((v - mean) / std, dtype=torch.float32) for v in (train, fresh))  # type: ignore[return-value]


def _rings(rng: np.random.Generator) -> np.ndarray:
    turn, radius = 2 * math.pi * rng.random(5000), rng.integers(1, 4, 5000)
    ring = radius * np.stack([np.cos(turn), np.sin(turn)])
    return ring.T + 0.08 * rng.normal(size=(5000, 2))


def _board(rng: np.random.Generator) -> np.ndarray:
    corner = rng.integers(0, 4, (5000, 1)), rng.integers(0, 2, (5000, 1))
    column, row = corner[0], 2 * corner[1] + corner[0] % 2
    return np.concatenate([column, row], 1) + rng.random((5000, 2))


def _digits(rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_digits

    values = np.asarray(load_digits(return_X_y=True)[0])
    values = values[rng.permutation(len(values))]
    # 17 values made continuous; corners that are always 0 are then noise of that width
    return values + rng.random(values.shape)


def _table(rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_breast_cancer

    values = np.asarray(load_breast_cancer(return_X_y=True)[0])
    return values[rng.permutation(len(values))]


def _fitted(name: str, seed: int, steps: int) -> dict[str, dict[str, Any]]:
    """Of every model: the bound of held-out rows, the distance of samples, the seconds spent."""
    train, fresh = law(name, seed)
    told: dict[str, dict[str, Any]] = {"each": {}, "distance": {}, "seconds": {}, "model": {}}
    for model, setting in MODELS.items():
        began = time.process_time()
        fitted = _fit(model, setting, train, steps, seed)
        told["model"][model] = fitted
        told["seconds"][model] = time.process_time() - began
        draw = torch.Generator().manual_seed(seed + 1)  # the same noise for all
        told["each"][model] = fitted.bound(fresh, generator=draw).each
        made = fitted.sample(DRAWN, SOLVED, generator=draw)
        told["distance"][model] = energy_distance(made.numpy(), fresh[:DRAWN].numpy())
    return told


def _fit(model: str, setting: str, train: Tensor, steps: int, seed: int) -> ImplicitDiffusion:
    flow = Identity() if model == "plain" else None
    return fit_implicit(train, flow=flow, setting=setting, steps=steps, seed=seed)


def _rows(name: str, found: list[dict[str, dict[str, Any]]]) -> list[Row]:
    rows = []
    for model in MODELS:
        each = np.concatenate([one["each"][model] for one in found])
        spent = float(np.mean([one["seconds"][model] for one in found]))
        far = float(np.mean([one["distance"][model] for one in found]))
        note = f"{spent:.0f} CPU s; energy distance of samples {far:.3g}"
        quantity = f"{name}: bound, nats, {model}"
        rows.append(Row(quantity, float(each.mean()), None, "", _error(each), note))
    for model in list(MODELS)[1:]:
        gain = np.concatenate([one["each"][model] - one["each"]["plain"] for one in found])
        quantity = f"{name}: bound of {model}, less the plain one's"
        rows.append(Row(quantity, float(gain.mean()), None, "", _error(gain), "paired by rows"))
    return rows


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _draw(axes: list[Any], fitted: dict[str, ImplicitDiffusion], seed: int) -> None:
    """Where noise takes one point of the rings, plainly and behind the flow."""
    train, _ = law("rings", seed)
    for pane, model in zip(axes, list(MODELS)[:2], strict=True):
        pane.plot(*train[:1000].numpy().T, ".", ms=1, color="0.7")
        for k, t in enumerate((0.05, 0.15)):
            draw = torch.Generator().manual_seed(k)
            moved = fitted[model].corrupt(train[:1].repeat(400, 1), t, draw)
            pane.plot(*moved.numpy().T, ".", ms=2, label=f"x_t, t = {t}")
        pane.set(title=model, xlim=(-3, 3), ylim=(-3, 3))
    axes[0].legend(frameon=False, fontsize=8)
