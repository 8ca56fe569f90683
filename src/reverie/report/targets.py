"""The page of a density without data: log Z, the path, the weights, the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reverie.files import new_folder, write_bytes, write_json, write_text
from reverie.report.figures import svg
from reverie.report.frame import render_page
from reverie.targets import TargetRun

SHOWN, COORDINATES = 2000, 4
BLUE, ORANGE, GREY = "#1d4ed8", "#b45309", "#6b7280"


def write_target(folder: Path, run: TargetRun, name: str, again: str) -> Path:
    """Write samples.npy, target.json and target.html into a new folder, atomically.

    name: what the density is called. again: the command line that makes it again.
    """
    samples = run.samples.numpy()
    with new_folder(folder) as place:
        write_bytes(place / "samples.npy", lambda file: np.save(file, samples))
        write_json(place / "target.json", {"target": name, **run.to_json()})
        html = render_page(
            "target.html",
            name=name,
            run=run,
            settings=run.settings,
            tried=run.tried,
            columns=_columns(samples),
            hidden=max(0, samples.shape[1] - SHOWN_COLUMNS),
            curve=_path_figure(run) if run.plan is not None else "",
            figure=_samples_figure(samples),
            weights=_weights_figure(run),
            losses=_losses_figure(run.losses) if run.losses else "",
            again=again,
        )
        write_text(place / "target.html", html)
    return Path(folder) / "target.html"


SHOWN_COLUMNS = 20


def _columns(samples: np.ndarray) -> list[dict[str, Any]]:
    """Mean, deviation and the 5% to 95% range of the first coordinates."""
    rows = samples[:, :SHOWN_COLUMNS]
    low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], axis=0)
    return [
        {"name": f"x{j + 1}", "mean": float(rows[:, j].mean()), "sd": float(rows[:, j].std()),
         "low": float(low[j]), "middle": float(middle[j]), "high": float(high[j])}
        for j in range(rows.shape[1])
    ]  # fmt: skip


def _axes(width: float, height: float, count: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(1, count)
    for ax in np.atleast_1d(found):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure, found


def _path_figure(run: TargetRun) -> str:
    """The path's curve with the staircase of its temperatures."""
    assert run.plan is not None
    plan, curve = run.plan, run.plan.curve
    figure, ax = _axes(6.4, 3.0)
    u = np.geomspace(plan.u[0], plan.u[-1], 400)
    ax.plot(u, u * curve(u), color=BLUE, lw=1.8, label="nats per e-fold of temperature")
    for k, (start, stop) in enumerate(zip(plan.u[:-1], plan.u[1:], strict=True)):
        step = np.geomspace(start, stop, 30)
        flat = step * float(curve(start)[0])
        label = f"lost in {plan.steps} steps, {plan.excess:.3g} nats" if k == 0 else None
        ax.fill_between(step, step * curve(step), flat, color=ORANGE, alpha=0.3, lw=0, label=label)
    ax.set_xscale("log")
    ax.set_xlabel("temperature b, from the start to the target")
    ax.set_ylabel("nats")
    ax.legend(frameon=False, fontsize=8)
    return svg(figure)


def _samples_figure(samples: np.ndarray) -> str:
    """Samples in the plane of two coordinates, or histograms of the first few."""
    rows = samples[:SHOWN]
    if rows.shape[1] == 2:
        figure, ax = _axes(4.6, 4.2)
        ax.plot(*rows.T, ".", ms=2, color=BLUE, alpha=0.5)
        ax.set(xlabel="x1", ylabel="x2")
        return svg(figure)
    count = min(COORDINATES, rows.shape[1])
    figure, axes = _axes(6.4, 2.2, count)
    for j, ax in enumerate(np.atleast_1d(axes)):
        ax.hist(samples[:, j], bins=50, color=BLUE, alpha=0.7)
        ax.set_xlabel(f"x{j + 1}", fontsize=8)
        ax.set_yticks([])
    return svg(figure)


def _weights_figure(run: TargetRun) -> str:
    """How the weight is shared: the cumulative share of the heaviest draws."""
    logs = np.nan_to_num(run.log_weight.numpy(), nan=-np.inf, neginf=-np.inf)
    weight = np.sort(np.exp(logs - logs.max()))[::-1]
    share = np.cumsum(weight) / weight.sum()
    place = np.arange(1, len(share) + 1) / len(share)
    some = np.unique(np.geomspace(1, len(share), 200).astype(int)) - 1
    figure, ax = _axes(6.4, 2.6)
    ax.plot(place[some], share[some], color=BLUE, lw=1.8, label="these draws")
    ax.plot(place[some], place[some], color=GREY, lw=1, ls=":", label="all alike")
    ax.set_xscale("log")
    ax.set(xlabel="share of the draws, heaviest first", ylabel="share of the weight", ylim=(0, 1))
    ax.legend(frameon=False, fontsize=8)
    return svg(figure)


def _losses_figure(losses: list[float]) -> str:
    figure, ax = _axes(6.4, 2.4)
    ax.plot(losses, color=GREY, lw=0.8)
    finite = np.array([v for v in losses if np.isfinite(v)])
    if len(finite):
        low, high = np.quantile(finite, [0.0, 0.95])
        ax.set_ylim(low - 0.1 * abs(low), high + 0.3 * (high - low) + 1e-9)
    ax.set(xlabel="training step", ylabel="loss")
    return svg(figure)
