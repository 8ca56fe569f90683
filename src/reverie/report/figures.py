"""Figures as inline SVG, and images as inline PNG: a page needs no network and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.nulls.rank_tests import wilson
from reverie.calibration import Calibration
from reverie.curve import LossCurve
from reverie.data import Scaler, to_image, to_pixels
from reverie.files import write_bytes
from reverie.plan import AnyPlan
from reverie.runs.ranking import Ranking
from reverie.runs.sweeps import Line
from reverie.runs.watch import Reading
from reverie.templates import axes
from reverie.templates import svg as svg

STYLES = {
    "train": ("model on training rows", dict(color="#c2410c", lw=1.8)),
    "holdout": ("model on held-out rows", dict(color="#1d4ed8", lw=1.8)),
    "memoriser on train": ("memoriser on training rows", dict(color="#6b7280", lw=1.2, ls=":")),
    "memoriser on holdout": ("memoriser on held-out rows", dict(color="#6b7280", lw=1.2, ls="--")),
    "linear on holdout": (
        "linear optimum on held-out rows",
        dict(color="#047857", lw=1.2, ls="-."),
    ),
}

BANDS = (
    ("leak", "#c2410c", "leak, nats", 1),
    ("bias", "#7c3aed", "bias, points", 100),
)
SHARES = {
    "copied": ("of samples", "#b45309"),
    "extracted": ("after cycling", "#7f1d1d"),
}


def curves_figure(curves: dict[str, LossCurve]) -> str:
    """All standard curves on one axis, the leak shaded; returns SVG text."""
    figure, ax = axes(6.4, 3.9)
    _draw_curves(ax, curves)
    return svg(figure)


def _draw_curves(ax: Any, curves: dict[str, LossCurve]) -> None:
    top = 0.0
    for key, (label, style) in STYLES.items():
        if key in curves:
            curves[key].plot(ax, label=label, **style)
            if not key.startswith("memoriser"):
                top = max(top, float(curves[key].per_fold[1].max()))
    if {"train", "holdout"} <= set(curves):
        train, held = curves["train"], curves["holdout"]
        (place, low), (_, high) = train.per_fold, held.per_fold
        ax.fill_between(place, low, high, color="#c2410c", alpha=0.12, lw=0, label="leak")
    if top > 0:
        ax.set_ylim(0, 1.25 * top)
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    _nameaxes(ax, next(iter(curves.values())))


def _nameaxes(ax: Any, curve: LossCurve) -> None:
    clock = "signal-to-noise ratio" if curve.process is None else curve.process.clock_label
    short = clock.removesuffix(" ratio")
    ax.set_ylabel(f"nats per e-fold of {short}" if curve.is_log else "nats per unit")
    ax.set_xlabel(f"{clock} (noisy to clean)")


def curves_picture(named: dict[str, dict[str, LossCurve]], path: Path) -> Path:
    """The standard curves of several models side by side, as a PNG at `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(named), 3.5), layout="constrained")
    for ax, (name, curves) in zip(
        np.atleast_1d(figure.subplots(1, len(named), sharey=True)), named.items(), strict=True
    ):
        _draw_curves(ax, curves)
        ax.set_title(name, fontsize=10)
        ax.set_ylim(0, 80)
    return write_bytes(path, lambda file: figure.savefig(file, format="png", dpi=110))


def calibration_figure(found: Calibration) -> str:
    """The curve before and after calibration, and the reference's; returns SVG text."""
    figure, ax = axes(6.4, 3.2)
    held, guess = found.held_out, found.reference
    found.before.plot(ax, label="model", color="#c2410c", lw=1.8)
    guess.plot(ax, label=f"reference ({found.kind})", color="#047857", lw=1.2, ls="-.")
    held.plot(ax, label="calibrated, on rows held out", color="#1d4ed8", lw=1.8)
    # the model's own noisy end may lie orders of magnitude higher
    top = max(float(curve.per_fold[1].max()) for curve in (held, guess))
    ax.set_ylim(0, 1.5 * top)
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    _nameaxes(ax, held)
    return svg(figure)


def plan_figure(plan: AnyPlan) -> str:
    """The model's curve with the staircase of a plan over it; returns SVG text."""
    figure, ax = axes(6.4, 3.2)
    curve = plan.curve
    grid = np.geomspace if curve.is_log else np.linspace

    def height(u: np.ndarray, rate: np.ndarray | float) -> np.ndarray:
        return u * rate if curve.is_log else np.broadcast_to(rate, u.shape)

    u = grid(plan.u[0], plan.u[-1], 400)
    ax.plot(u, height(u, curve(u)), color="#1d4ed8", lw=1.8, label=curve.label or "model")
    for k, (start, stop) in enumerate(zip(plan.u[:-1], plan.u[1:], strict=True)):
        step = grid(start, stop, 40)
        flat = height(step, float(curve(start)[0]))
        ax.fill_between(
            step, height(step, curve(step)), flat, color="#b45309", alpha=0.3, lw=0,
            label=f"excess, {plan.excess:.3g} nats" if k == 0 else None,
        )  # fmt: skip
        ax.plot(step, flat, color="#b45309", lw=0.9)
    if curve.is_log:
        ax.set_xscale("log")
    ax.set_ylim(0, None)
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    _nameaxes(ax, curve)
    ax.set_title(f"{plan.name}, {plan.steps} steps", fontsize=9)
    return svg(figure)


def png_data(values: np.ndarray, scaler: Scaler) -> list[str]:
    """Images (n, C, H, W) in the data's units as data: addresses."""
    result = []
    for pixels in to_pixels(values, scaler):
        file = io.BytesIO()
        to_image(pixels).save(file, "PNG")
        result.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return result


FORECAST_STYLES = {
    "theory train": ("theory, training rows", dict(color="#c2410c", lw=1.8)),
    "linear train": ("measured, training rows", dict(color="#c2410c", lw=0, marker=".", ms=4)),
    "theory test": ("theory, fresh rows", dict(color="#1d4ed8", lw=1.8)),
    "linear holdout": ("measured, held-out rows", dict(color="#1d4ed8", lw=0, marker=".", ms=4)),
    "oracle": ("the law known", dict(color="#6b7280", lw=1.2, ls=":")),
    "network train": ("network, training rows", dict(color="#047857", lw=1.2, ls="--")),
    "network holdout": ("network, held-out rows", dict(color="#047857", lw=1.6)),
}


def forecast_curves_figure(curves: dict[str, LossCurve]) -> str:
    """Predicted, measured and (when given) a network's curves on one axis; returns SVG text."""
    figure, ax = axes(6.4, 3.9)
    for key, (label, style) in FORECAST_STYLES.items():
        if key in curves:
            curves[key].plot(ax, label=label, **style)
    ax.set_ylim(0, None)
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    ax.set_ylabel("nats per e-fold of signal-to-noise")
    ax.set_xlabel("signal-to-noise ratio (noisy to clean)")
    return svg(figure)


def spectrum_figure(spectrum: np.ndarray) -> str:
    """Eigenvalues of the data's covariance against their rank; returns SVG text."""
    figure, ax = axes(6.4, 2.8)
    ax.loglog(np.arange(1, len(spectrum) + 1), spectrum, color="#1d4ed8", lw=1.5, marker=".", ms=3)
    ax.set_xlabel("rank")
    ax.set_ylabel("variance, standardised")
    return svg(figure)


def kl_figure(
    sizes: np.ndarray, plain: np.ndarray, ridge: np.ndarray, budget: float, n: int, dim: int
) -> str:
    """KL per dimension against N, with the budget and today's N; returns SVG text."""
    figure, ax = axes(6.4, 3.2)
    shown = np.isfinite(plain)
    ax.loglog(sizes[shown], plain[shown], color="#c2410c", lw=1.6, label="no weight decay (exact)")
    ax.loglog(sizes, ridge, color="#1d4ed8", lw=1.6, label="best weight decay (asymptotic)")
    ax.loglog(sizes, dim / (4 * sizes), color="#6b7280", lw=1, ls=":", label="d / (4 N)")
    ax.axhline(budget, color="#047857", lw=1, ls="--", label=f"budget, {budget:g} nats")
    ax.axvline(n, color="#6b7280", lw=0.8)
    ax.annotate(f" N = {n:,}", (n, 0.97), xycoords=("data", "axes fraction"), fontsize=8, va="top")
    ax.set_ylim(min(float(ridge.min()), budget) / 2, 3)
    ax.legend(loc="lower left", frameon=False, fontsize=8)
    ax.set_xlabel("training rows N")
    ax.set_ylabel("KL per dimension, nats")
    return svg(figure)


LINE_COLOURS = (
    "#c2410c",
    "#1d4ed8",
    "#047857",
    "#7c3aed",
    "#b45309",
    "#0e7490",
    "#be185d",
    "#4d7c0f",
)
AXIS_NAMES = {"n": "training rows N", "epochs": "epochs", "steps": "optimiser steps"}


def sweep_figure(lines: list[Line]) -> str:
    """Memorised share with 95% Wilson intervals, the held-out rows' own share beside it.

    Returns SVG text.
    """
    figure, ax = axes(6.4, 3.6)
    for index, line in enumerate(lines):
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        _draw_shares(
            ax, line.places, line.hits, line.samples, color=colour, label=line.label or "samples"
        )
    nulls = [row for x in lines for row in zip(x.places, x.null_hits, x.null_count, strict=True)]
    places = sorted({place for place, _, _ in nulls})
    hits = [sum(h for p, h, _ in nulls if p == place) for place in places]
    counts = [sum(c for p, _, c in nulls if p == place) for place in places]
    style = dict(color="#6b7280", label="held-out rows (the null)", ls=":")
    _draw_shares(ax, places, hits, counts, **style)
    if lines[0].axis == "n":
        ax.axhline(90, color="#6b7280", lw=0.8)
        ax.annotate("90%: EMM", (0.99, 91), xycoords=("axes fraction", "data"), fontsize=8,
                    ha="right", va="bottom", color="#6b7280")  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.minorticks_off()
    ax.set_ylim(-2, 104)
    ax.set_xlabel(AXIS_NAMES.get(lines[0].axis, lines[0].axis))
    ax.set_ylabel("memorised, % of samples")
    ax.legend(frameon=False, fontsize=8)
    return svg(figure)


def _draw_shares(
    ax: Any, places: list[float], hits: list[int], counts: list[int], **style: Any
) -> None:
    share = np.array(hits) / np.array(counts)
    ends = np.array([wilson(h, c) for h, c in zip(hits, counts, strict=True)])
    bars = np.maximum(np.abs(ends.T - share), 0)
    ax.errorbar(places, 100 * share, 100 * bars, marker=".", lw=1.5, capsize=2, **style)


def readings_figure(readings: list[Reading]) -> str:
    """Nats on training and held-out rows, leak and bias against steps; returns SVG text."""
    return checks_figure([asdict(reading) for reading in readings])


def checks_figure(checks: Sequence[Mapping[str, Any]]) -> str:
    """What checks of a training read, against steps; returns SVG text.

    Panels: nats on both kinds of rows, leak, and where they are known the bias and the shares of
    samples that are training rows. Nothing for checks without held-out rows.
    """
    from matplotlib.figure import Figure

    if not _known(checks, "holdout_nats"):
        return ""
    shares = [name for name in SHARES if _known(checks, name)]
    bands = [band for band in BANDS if _known(checks, band[0])]
    count = 1 + len(bands) + bool(shares)
    figure = Figure(figsize=(6.4, 2.2 + 1.1 * count), layout="constrained")
    nats, *rest = figure.subplots(count, 1, sharex=True, height_ratios=(2, *[1] * (count - 1)))
    for name, colour, label in (
        ("train_nats", "#c2410c", "training rows"), ("holdout_nats", "#1d4ed8", "held-out rows"),
    ):  # fmt: skip
        nats.plot(*_known(checks, name), color=colour, marker=".", label=label)
    nats.set_ylabel("nats")
    for ax, (name, colour, label, scale) in zip(rest, bands, strict=False):
        places, value, low, high = _known(checks, name, f"{name}_low", f"{name}_high")
        low, value, high = (np.multiply(scale, each) for each in (low, value, high))
        ax.plot(places, value, color=colour, marker=".")
        ax.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
        ax.axhline(0, color="#6b7280", lw=0.8)
        ax.set_ylabel(label)
    for name in shares:
        places, value = _known(checks, name)
        label, colour = SHARES[name]
        rest[-1].plot(places, np.multiply(100, value), color=colour, marker=".", label=label)
        rest[-1].set_ylabel("copies, %")
    rest[-1].set_xlabel("steps")
    for ax in (nats, *rest):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=8)
    return svg(figure)


def _known(checks: Sequence[Mapping[str, Any]], *names: str) -> list[list[float]]:
    """Steps, and the values of each name, of the checks that have the first; [] for none."""
    known = [row for row in checks if row.get(names[0]) is not None]
    return [[row[name] for row in known] for name in ("step", *names)] if known else []


def ranking_figure(ranking: Ranking) -> str:
    """Nats and leak of checkpoints, with 95% intervals; returns SVG text."""
    from matplotlib.figure import Figure

    ones = ranking.checkpoints
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    nats, leak = figure.subplots(2, 1, sharex=True)
    place = np.arange(len(ones))
    nats.errorbar(place, [one.nats for one in ones], [1.96 * one.stderr for one in ones],
                  color="#1d4ed8", marker=".", lw=1.5, capsize=2)  # fmt: skip
    nats.set_ylabel("held-out nats" if ranking.held_out else "nats")
    known = [(k, one.leak) for k, one in enumerate(ones) if one.leak is not None]
    leak.errorbar(
        [k for k, _ in known], [gap.nats for _, gap in known],
        [gap.high - gap.nats for _, gap in known], color="#c2410c", marker=".", lw=1.5, capsize=2,
    )  # fmt: skip
    leak.axhline(ranking.leak_budget, color="#6b7280", lw=0.8)
    leak.set_ylabel("leak, nats")
    shown = place[:: max(1, len(place) // 12)]
    leak.set_xticks(shown, [ones[k].name[-24:] for k in shown], rotation=30, ha="right")
    for ax in (nats, leak):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
    return svg(figure)
