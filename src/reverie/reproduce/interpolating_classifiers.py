"""How well a typical classifier does that fits its training set (Theisen, Klusowski & Mahoney).

All linear classifiers through the origin of R^d that label n Gaussian points correctly: their
test error is angle / pi, spread around a typical value far below the worst (arXiv 2006.12625,
AISTATS 2021, read in its abstract). The annealed formula for it is a reconstruction:

    typical = argmax (1 - 2/d) log sin(pi e) + (n / d) log(1 - e)

Training sets count by how many interpolators they have (the annealed mean): that mean is exact by
quadrature of sin(pi e)^(d-2) (1 - e)^n, and found again by rejection.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from reverie.reproduce.tables import Row, panels, save_figure, write_table

DIM, COUNTS = 10, (5, 10, 15)
TYPICAL = {5: 0.398, 10: 0.330, 15: 0.280}
SAMPLED = {5: 0.404, 10: 0.345, 15: 0.287}
SETS, TRIES = 200, 20_000


def typical_error(n: int, dim: int) -> float:
    """The maximiser: where (1 - 2/d) pi cot(pi e) = (n/d) / (1 - e)."""

    def slope(e: float) -> float:
        return (1 - 2 / dim) * math.pi / math.tan(math.pi * e) - n / dim / (1 - e)

    return brentq(slope, 1e-9, 0.5)  # type: ignore[return-value]


def annealed_mean(n: int, dim: int) -> float:
    """Exact mean error over all pairs of a training set and an interpolator of it."""
    errors = np.linspace(0, 1, 20_001)
    weight = np.sin(np.pi * errors) ** (dim - 2) * (1 - errors) ** n
    return float((weight * errors).sum() / weight.sum())


def interpolators(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Errors of those of TRIES random classifiers that fit one random set of n points."""
    points = rng.normal(size=(n, dim))
    points *= np.sign(points[:, :1])  # the truth is the first axis: label times point
    tried = rng.normal(size=(TRIES, dim))
    right = tried[(tried @ points.T > 0).all(1)]
    return np.arccos(right[:, 0] / np.linalg.norm(right, axis=1)) / math.pi


def pooled_mean(every: list[np.ndarray]) -> tuple[float, float]:
    """Mean over all interpolators of all sets, and its standard error over sets (a ratio's)."""
    counts, sums = np.array([[len(e), e.sum()] for e in every]).T
    mean = sums.sum() / counts.sum()
    spread = ((sums - mean * counts) ** 2).sum()
    return float(mean), float(math.sqrt(spread) / counts.sum())


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` takes ten times as many training sets."""
    rng, sets = np.random.default_rng(seed), 10 * SETS if full else SETS
    figure, (left, right) = panels(2)
    fine = range(1, 41)
    left.plot(fine, [typical_error(n, DIM) for n in fine], label="typical (annealed formula)")
    left.plot(fine, [annealed_mean(n, DIM) for n in fine], "--", label="annealed mean")
    rows: list[Row] = []
    for n in COUNTS:
        every = [interpolators(n, DIM, rng) for _ in range(sets)]
        mean, stderr = pooled_mean(every)
        left.errorbar(n, mean, 2 * stderr, fmt="ko", ms=4, capsize=3)
        right.hist(np.concatenate(every), 40, range=(0, 0.6), density=True, histtype="step",
                   label=f"n = {n}")  # fmt: skip
        rows.append(Row(f"typical error, n = {n}", typical_error(n, DIM), TYPICAL[n], "D"))
        rows.append(Row(f"annealed mean by quadrature, n = {n}", annealed_mean(n, DIM)))
        rows.append(Row(f"mean by rejection, n = {n}", mean, SAMPLED[n], "D", stderr))
    left.set(xlabel="training points n", ylabel="test error", title="dots: by rejection, 2 s.e.")
    left.legend(frameon=False)
    right.axvline(0.5, color="grey", lw=0.8)
    right.set(xlabel="test error of one interpolator", ylabel="density")
    right.legend(frameon=False)
    save_figure(figure, out / "interpolating_classifiers.png")
    settings = dict(d=DIM, sets=sets, tries=TRIES)
    title = "Interpolating classifiers (Theisen, Klusowski & Mahoney 2021)"
    return write_table(out, title, rows, seed, settings)
