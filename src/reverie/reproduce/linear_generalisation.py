"""Generalisation of linear diffusion models: KL and losses against N/d, ridge, early stopping.

Reconstructs what Merger & Goldt 2025 (arXiv 2505.24769) announce in their abstract: the KL of the
samples falls as d/(4N) per dimension whatever the covariance; below N = d directions are missing;
ridge and early stopping repair it. References tagged [D] were derived and computed before this
code, with other programs. Spectra are lam_nu ~ nu^-k with trace d.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from reverie.files import write_text
from reverie.reproduce.tables import Row, save_figure, write_table
from reverie.theory import (
    LinearTheory,
    Scales,
    ddpm_scales,
    expected_kl,
    gaussian_kl,
    limit_kl_per_dim,
    power_law,
)
from reverie.theory.gradient_flow import null_floor

POWERS = (0, 1, 2)
COLOURS = ("#0072B2", "#D55E00", "#009E73")
DIM = 100
RATIOS = (0.25, 0.5, 1, 2, 4, 10)
TITLES = {
    "a": "one law for every spectrum (points spread for sight)",
    "b": "test (solid), training (dashed), oracle (dotted); ridge .01",
    "c": "no repair (dotted), best ridge (solid), best stopping (dashed)",
    "d": "stopping acts as a ridge (d = 100, k = 1, DDPM)",
}

# exact KL/d at d = 50 by N
WISHART = {75: 0.8317, 100: 0.3635, 200: 0.1012, 500: 0.03039, 2000: 0.00665, 10000: 0.00129}
# d = 200, k = 1, ab = 1/2: (N, ridge) -> KL/d, training loss, test loss
CELLS = {
    (100, 0.1): (0.615, 0.232, 0.414),
    (100, 1.0): (0.293, 0.394, 0.446),
    (400, 0.1): (0.0944, 0.3011, 0.3505),
    (200, 0.01): (1.913, 0.2712, 0.3865),
}
# d = 100, loss averaged over every tenth of 1000 levels: k -> (training, test) by RATIOS
HEADLINE = {
    0: (
        (0.097, 0.158, 0.230, 0.259, 0.270, 0.276),
        (81.8, 54.7, 1.21, 0.318, 0.293, 0.284),
    ),
    1: (
        (0.090, 0.139, 0.193, 0.215, 0.223, 0.228),
        (47.8, 26.1, 0.782, 0.260, 0.241, 0.234),
    ),
    2: (
        (0.060, 0.079, 0.096, 0.1035, 0.1065, 0.108),
        (5.02, 1.86, 0.207, 0.1182, 0.1127, 0.1105),
    ),
}
# d = 100, k = 1, by N/d: best ridge and its KL/d
RIDGE = {0.25: (0.57, 0.216), 0.5: (0.42, 0.169), 1: (0.29, 0.121), 2: (0.19, 0.080)}
# the same at the best stopping time on a coarse grid, one draw
STOPPED = {0.5: 0.170, 2: 0.074}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write figure.png, figure.svg, table.json and table.txt into `out`; returns the table.

    full: 1000 instead of 200 draws per point of the KL law, 100 instead of 20 per loss cell.
    """
    rng = np.random.default_rng(seed)
    draws, cells = (1000, 100) if full else (200, 20)
    law = kl_law(rng, draws)
    rows = [
        *_law_rows(law),
        *_cell_rows(rng, cells),
        *_headline_rows(),
        *_regularised_rows(),
        *_floor_rows(),
    ]
    page = figure(law)
    save_figure(page, out / "figure.png")
    text = io.StringIO()
    page.savefig(text, format="svg", metadata={"Date": None})
    write_text(out / "figure.svg", text.getvalue())
    title = "Generalisation of linear diffusion models (reconstruction of Merger & Goldt 2025)"
    return write_table(out, title, rows, seed, {"full": full, "draws": draws, "cells": cells})


# --- simulations ------------------------------------------------------------


def _wishart(rng: np.random.Generator, dim: int, n: int) -> np.ndarray:
    """Covariance of n standard normal points by its Cholesky factor (Bartlett 1933); n >= dim."""
    factor = np.tril(rng.standard_normal((dim, dim)), -1)
    factor[np.diag_indices(dim)] = np.sqrt(rng.chisquare(n - np.arange(dim)))
    return factor @ factor.T / n


def kl_law(
    rng: np.random.Generator, draws: int, dim: int = 50
) -> dict[int, dict[int, tuple[float, float]]]:
    """Simulated KL/d with its standard error, by power k and N; independent draws for each."""
    law: dict[int, dict[int, tuple[float, float]]] = {}
    for k in POWERS:
        root = np.sqrt(power_law(dim, k))
        true = np.diag(root**2)
        law[k] = {}
        for n in WISHART:
            found = [
                gaussian_kl(true, root[:, None] * _wishart(rng, dim, n) * root) / dim
                for _ in range(draws)
            ]
            law[k][n] = (float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(draws)))
    return law


def _simulated_cell(
    rng: np.random.Generator, spectrum: np.ndarray, n: int, ridge: float, draws: int
) -> np.ndarray:
    """(draws, 3): KL/d, training and test noise loss per dimension at ab = 1/2, point by point."""
    dim, rows = len(spectrum), []
    for _ in range(draws):
        points = rng.standard_normal((n, dim)) * np.sqrt(spectrum)
        sample = points.T @ points / n
        weight = math.sqrt(0.5) * np.linalg.inv(0.5 * (sample + (1 + ridge) * np.eye(dim)))
        losses = [
            dim - 2 * math.sqrt(0.5) * np.trace(weight) + 0.5 * np.vdot(weight @ c, weight)
            for c in (sample + np.eye(dim), np.diag(spectrum) + np.eye(dim))
        ]
        rows.append([gaussian_kl(np.diag(spectrum), sample + ridge * np.eye(dim)), *losses])
    return np.array(rows) / dim


def _mean_loss(theory: LinearTheory, which: str, levels: Scales) -> float:
    """Noise loss per dimension averaged over every tenth level, cleanest first."""
    u = levels.gamma[::-10][::-1]
    curve = {
        "train": theory.train_curve,
        "test": theory.test_curve,
        "oracle": theory.oracle_curve,
    }[which](u)
    return float((2 * u * curve.rate).mean()) / theory.dim


# --- the table ------------------------------------------------------------


def _law_rows(law: dict[int, dict[int, tuple[float, float]]]) -> list[Row]:
    rows = []
    for n, reference in WISHART.items():
        exact = float(expected_kl(n, 50)) / 50
        rows.append(Row(f"KL/d, d=50, N={n}, exact mean", exact, reference, "D"))
        for k in POWERS:
            mean, error = law[k][n]
            rows.append(Row(f"KL/d, d=50, N={n}, k={k}, simulated", mean, exact, "D", error))
    for n in (2000, 10000):
        slope = float(expected_kl(n, 50)) / 50 / (50 / n) / (1 + 5 / 3 * 50 / n)
        rows.append(Row(f"slope of KL/d in d/N, N={n}, over 1 + (5/3) d/N", slope, 0.25, "S"))
    return rows


def _cell_rows(rng: np.random.Generator, draws: int) -> list[Row]:
    rows, spectrum = [], power_law(200, 1)
    for (n, ridge), references in CELLS.items():
        theory = LinearTheory(spectrum, n, ridge=ridge)
        u = np.array([1.0, 2.0])
        ours = [theory.kl(), 2 * theory.train_curve(u).rate[0], 2 * theory.test_curve(u).rate[0]]
        drawn = _simulated_cell(rng, spectrum, n, ridge, draws)
        names = ("KL/d", "training loss/d", "test loss/d")
        for j, (name, value, reference) in enumerate(zip(names, ours, references, strict=True)):
            label = f"{name}, d=200, k=1, ab=.5, N={n}, c={ridge:g}"
            mean = float(drawn[:, j].mean())
            error = float(drawn[:, j].std(ddof=1) / math.sqrt(draws))
            rows.append(Row(f"{label}, asymptotic", float(value) / 200, reference, "D"))
            rows.append(Row(f"{label}, simulated", mean, reference, "D", error))
    return rows


def _headline_rows() -> list[Row]:
    rows, levels = [], ddpm_scales()
    for k, (trains, tests) in HEADLINE.items():
        for ratio, train, test in zip(RATIOS, trains, tests, strict=True):
            theory = LinearTheory(power_law(DIM, k), round(ratio * DIM))
            label = f"loss/d over t, d=100, k={k}, N/d={ratio:g}"
            ours = _mean_loss(theory, "train", levels), _mean_loss(theory, "test", levels)
            rows.append(Row(f"training {label}", ours[0], train, "D"))
            rows.append(Row(f"test {label}", ours[1], test, "D"))
    return rows


def _regularised_rows() -> list[Row]:
    rows, levels = [], ddpm_scales()
    for ratio, (ridge, kl) in RIDGE.items():
        theory = LinearTheory(power_law(DIM, 1), round(ratio * DIM))
        best = theory.optimal_ridge()
        at_best = theory.at(ridge=best).kl() / DIM
        label = f"d=100, k=1, N/d={ratio:g}"
        rows.append(Row(f"best ridge, {label}", best, ridge, "D"))
        rows.append(Row(f"KL/d at the best ridge, {label}", at_best, kl, "D"))
        for name, sampler in (("DDPM", "ancestral-large"), ("DDIM", "ddim")):
            time = theory.optimal_time(levels, sampler)
            stopped = theory.at(time=time).kl(levels, sampler) / DIM
            known = STOPPED.get(ratio) if name == "DDPM" else None
            tag = "D" if known else ""
            rows.append(Row(f"best training time, {name}, {label}", time))
            rows.append(Row(f"KL/d at it, {name}, {label}", stopped, known, tag))
    return rows


def _floor_rows() -> list[Row]:
    rows, levels, time = [], ddpm_scales(), 30.0
    stopped = LinearTheory(np.ones(1), time=time)
    for name, sampler, limit, constant in (
        ("reverse diffusion", "ancestral-large", "ancestral", 0.3738),
        ("probability flow", "ddim", "ddim", 0.2807),
    ):
        exact = null_floor(1.0, limit)
        rows.append(Row(f"null-mode floor x time, {name}, closed form", exact, constant, "D"))
        floor = stopped.sampled_covariance(levels, sampler, np.zeros(1))[0] * time
        rows.append(Row(f"the same, 1000 steps, time 30, {sampler}", float(floor), exact, "D"))
    return rows


# --- the figure ------------------------------------------------------------


def figure(law: dict[int, dict[int, tuple[float, float]]]) -> Any:
    """Four panels: the d/(4N) law, losses, three ways to regularise, ridge beside stopping."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 7.6), layout="constrained")
    axes = page.subplots(2, 2)
    _draw_law(axes[0, 0], law)
    _draw_losses(axes[0, 1])
    _draw_repairs(axes[1, 0])
    _draw_valley(axes[1, 1])
    for ax, letter in zip(axes.flat, "abcd", strict=True):
        ax.set_title(f"({letter}) {TITLES[letter]}", loc="left", fontsize=10)
        ax.grid(alpha=0.25, lw=0.5)
        ax.legend(fontsize=8, frameon=False)
    return page


def _draw_law(ax: Any, law: dict[int, dict[int, tuple[float, float]]]) -> None:
    n = np.unique(np.geomspace(60, 12_000, 120).astype(int))
    ax.plot(50 / n, expected_kl(n, 50) / 50, "k-", lw=1, label="exact mean (Wishart), d = 50")
    ax.plot(50 / n, limit_kl_per_dim(50 / n), "k:", lw=1, label="limit of large d")
    ax.plot(50 / n, 50 / n / 4, "k--", lw=0.8, label="d / (4N)")
    for k, colour, shift in zip(POWERS, COLOURS, (0.94, 1.0, 1.06), strict=True):
        places = np.array([50 / count for count in law[k]]) * shift
        means, errors = np.array(list(law[k].values())).T
        ax.errorbar(
            places, means, 2 * errors, fmt="o", ms=4, color=colour, label=f"simulated, k = {k}"
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="dimensions per sample, d / N",
        ylabel="KL per dimension (nats)",
    )


def _draw_losses(ax: Any) -> None:
    levels, ratios = ddpm_scales(), np.geomspace(0.2, 20, 41)
    for k, colour in zip(POWERS, COLOURS, strict=True):
        theory = LinearTheory(power_law(DIM, k), DIM, ridge=1e-2)
        fits = [theory.at(n=round(r * DIM)) for r in ratios]
        ax.plot(
            ratios, [_mean_loss(f, "test", levels) for f in fits], color=colour, label=f"k = {k}"
        )
        ax.plot(ratios, [_mean_loss(f, "train", levels) for f in fits], "--", color=colour)
        ax.axhline(_mean_loss(theory, "oracle", levels), color=colour, ls=":", lw=0.8)
    ax.axvline(1, color="0.6", lw=0.8)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="samples per dimension, N / d",
        ylabel="noise loss per dimension, mean over t",
    )


def _draw_repairs(ax: Any) -> None:
    levels, ratios = ddpm_scales(), np.geomspace(0.2, 20, 13)
    for k, colour in zip(POWERS, COLOURS, strict=True):
        fits = [LinearTheory(power_law(DIM, k), round(r * DIM)) for r in ratios]
        raw = np.array([f.kl() for f in fits]) / DIM
        ridge = [f.at(ridge=f.optimal_ridge()).kl() / DIM for f in fits]
        times = [f.optimal_time(levels, "ddim") for f in fits]
        stopped = [f.at(time=t).kl(levels, "ddim") / DIM for f, t in zip(fits, times, strict=True)]
        keep = np.isfinite(raw)
        ax.plot(ratios[keep], raw[keep], ":", color=colour)
        ax.plot(ratios, ridge, "-", color=colour, label=f"k = {k}")
        ax.plot(ratios, stopped, "--", color=colour)
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(3e-3, 5),
        xlabel="samples per dimension, N / d",
        ylabel="KL per dimension (nats)",
    )


def _draw_valley(ax: Any) -> None:
    levels = ddpm_scales()
    for n, colour in ((DIM // 2, COLOURS[0]), (2 * DIM, COLOURS[1])):
        theory = LinearTheory(power_law(DIM, 1), n)
        ridges, times = np.geomspace(0.01, 5, 60), np.geomspace(0.1, 40, 30)
        by_ridge = [theory.at(ridge=c).kl() / DIM for c in ridges]
        by_time = [theory.at(time=t).kl(levels, "ancestral-large") / DIM for t in times]
        ax.plot(ridges, by_ridge, color=colour, label=f"ridge, N = {n}")
        floors = [null_floor(t) for t in times]
        ax.plot(floors, by_time, "--", color=colour, label=f"stopping, N = {n}")
    ax.set(
        xscale="log",
        yscale="log",
        xlim=(0.01, 5),
        ylim=(0.05, 10),
        xlabel="ridge c, or floor .374 / (training time) (data units squared)",
        ylabel="KL per dimension (nats)",
    )
