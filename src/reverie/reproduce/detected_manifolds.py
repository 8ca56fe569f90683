"""Scores detect manifolds: what a score points at as the noise falls, and of what dimension.

The trace of the guess's Jacobian tends to the dimension of the set that the score explodes towards
(`theory.manifold`): 1 for a circle, 2 for a torus in R^3, 0 for the training rows that a model has
stored. Exact guesses, the memoriser of few rows, and networks, one trained on many rows and one
trained long on few, are read by the curve that stands on a run's page
(Pidstrigach 2022, arXiv 2206.01018; De Bortoli 2022, arXiv 2208.05314: both known from their
abstracts; the experiments are ours).

Samples share the manifold's support when they lie as near to it as held-out rows do. Where it is
not known it is seen through local planes of training rows; here both are, and can be compared.
A score that is clipped to a bound, which no score of a manifold has, leaves it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.dimension import DimensionCurve, dimension_curve
from reverie.auditing.nulls.rank_tests import wilson
from reverie.denoisers import Denoiser, Memoriser, ResidualMLP
from reverie.processes import EDM, GaussianProcess
from reverie.reproduce.manifold_laws import Circles, RingTorus
from reverie.reproduce.networks import build_network, train
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import geometric_times

ROWS, FEW, HELD = 8000, 12, 1000
WIDTH, STEPS, BATCH, RATE = 128, 4000, 256, 2e-3
SIGMAS = (0.01, 10.0)
LEVELS = (-2.5, 1.3)  # of ln sigma in training: half of it below .1, where the set is seen
GRID, AROUND = 17, 200
READ, STORED = 0.05, 0.01  # levels of the table: a twentieth of the radius; where rows stand apart
DRAWS, PLAN, COPIED = 1000, 40, 0.01
NEIGHBOURS = 12
CLIP = 10.0  # of the score
Law = Circles | RingTorus


@dataclass(frozen=True)
class Case:
    """A law, its dimension, and how it is called."""

    name: str
    law: Law
    dim: int


def cases(process: GaussianProcess) -> list[Case]:
    """The circle in the plane and the torus in space."""
    return [Case("circle", Circles(process), 1), Case("torus", RingTorus(process), 2)]


def trained(case: Case, rows: Tensor, steps: int, seed: int) -> Denoiser:
    """A network trained on `rows` (n, D)."""
    body = partial(ResidualMLP, tuple(rows.shape[1:]), WIDTH, 3)
    network = build_network(case.law.process, body, rows, seed)
    generator = torch.Generator().manual_seed(seed)
    return train(
        network, rows, steps, generator=generator, batch_size=BATCH, rate=RATE, log_sigma=LEVELS
    )


def off_planes(points: Tensor, rows: Tensor, dim: int) -> np.ndarray:
    """Distance (n,) of points (n, D) to the plane of dimension `dim` through its nearest rows.

    The plane of NEIGHBOURS rows (N, D) of least squares, at their mean.
    """
    x, pool = (given.double().flatten(1).numpy() for given in (points, rows))
    around = pool[nearest(x, pool, NEIGHBOURS)[1]]
    centre = around.mean(1, keepdims=True)
    normal = np.linalg.svd(around - centre)[2][:, dim:]
    return np.linalg.norm(np.einsum("nkd,nd->nk", normal, x - centre[:, 0]), axis=1)


def off_support(points: Tensor, rows: Tensor, held: Tensor, dim: int) -> tuple[float, float]:
    """Share of points farther off local planes of `rows` than 99% of held-out rows are, with the
    noise at which a reversal ends; its error."""
    noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(0), dtype=held.dtype)
    edge = np.quantile(off_planes(held + SIGMAS[0] * noise, rows, dim), 0.99)
    share = float((off_planes(points, rows, dim) > edge).mean())
    low, high = wilson(round(share * len(points)), len(points))
    return share, (high - low) / (2 * 1.96)


class Clipped(Denoiser):
    """A denoiser whose score is cut to the norm `most`."""

    process: GaussianProcess

    def __init__(self, denoiser: Denoiser, process: GaussianProcess, most: float) -> None:
        super().__init__()
        self.process, self.denoiser, self.most = process, denoiser, most

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        score = (alpha * self.denoiser(state, t) - state) / sigma.square()
        size = score.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None]
        return (state + sigma.square() * score * (self.most / size).clamp(max=1)) / alpha


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains four times longer."""
    steps = 4 * STEPS if full else STEPS
    process = EDM(*SIGMAS)
    figure, axes = panels(3)
    rows: list[Row] = []
    for axis, case in zip(axes, cases(process), strict=False):
        rows += _study(axis, case, steps, seed)
    rows += _clipping(axes[2], cases(process)[0], seed)
    save_figure(figure, out / "detected_manifolds.png")
    settings = dict(
        rows=ROWS, few=FEW, width=WIDTH, steps=steps, level=f"{READ}; {STORED} of few rows",
        sampler=f"ddim, {PLAN} steps",
    )  # fmt: skip
    title = "Scores detect manifolds (Pidstrigach 2022)"
    return write_table(out, title, rows, seed, settings)


def models(case: Case, rows: Tensor, steps: int, seed: int) -> dict[str, tuple[Denoiser, Tensor]]:
    """Every denoiser of a case, with the rows that it was made of."""
    few = rows[:FEW]
    return {
        "exact": (case.law, rows),
        f"memoriser of {FEW} rows": (Memoriser(case.law.process, few), few),
        f"network, {ROWS} rows": (trained(case, rows.float(), steps, seed), rows),
        f"network, {FEW} rows": (trained(case, few.float(), steps, seed), few),
    }


def _study(axis: Any, case: Case, steps: int, seed: int) -> list[Row]:
    """Dimension at READ and against the level, and the support of the samples, of every model."""
    draw = torch.Generator().manual_seed(seed)
    rows, held = case.law.draw(ROWS, draw), case.law.draw(HELD, draw)
    found = []
    for name, (model, own) in models(case, rows, steps, seed).items():
        curve = dimension_curve(model, own, held, levels=GRID, rows=AROUND, seed=seed)
        stored = len(own) == FEW
        value, error = at_level(curve, STORED if stored else READ, "train")
        reference = 0.0 if stored else float(case.dim)
        found.append(Row(f"dimension, {case.name}, {name}", value, reference, "D", error))
        axis.semilogx(curve.spread, curve.trace["train"], label=name)
        if name.startswith("exact"):
            continue
        drawn = draws(model, tuple(rows.shape[1:]), seed)
        share, error = off_support(drawn, rows, held, case.dim)
        found.append(
            Row(f"samples off local planes, {case.name}, {name}", share, 0.01, "D", error,
                "held-out rows with noise: .01 by construction")
        )  # fmt: skip
        away = float(case.law.distance(drawn).median())
        found.append(Row(f"median distance to the set, {case.name}, {name}", away))
        gap = nearest(drawn.double().numpy(), own.double().numpy(), 1)[0][:, 0]
        share = float((gap < COPIED).mean())
        found.append(
            Row(f"samples at a row (within {COPIED}), {case.name}, {name}", share,
                1.0 if stored else None, "D" if stored else "",
                math.sqrt(share * (1 - share) / DRAWS))
        )  # fmt: skip
    axis.axhline(case.dim, color="grey", lw=0.8, ls=":")
    axis.axvline(READ, color="grey", lw=0.5)
    axis.invert_xaxis()
    axis.set(title=case.name, xlabel="sigma (radius 1)", ylabel="dimension the score points at")
    axis.legend(frameon=False, fontsize=8)
    return found


def at_level(curve: DimensionCurve, spread: float, where: str) -> tuple[float, float]:
    """Dimension and standard error at one level, linear in log sigma between those measured."""
    log = np.log(curve.spread[::-1])
    at = math.log(spread)
    return tuple(
        float(np.interp(at, log, values[where][::-1])) for values in (curve.trace, curve.stderr)
    )  # type: ignore[return-value]


def draws(model: Denoiser, shape: tuple[int, ...], seed: int) -> Tensor:
    """Samples (DRAWS, *shape), deterministic, down to the cleanest level."""
    times = geometric_times(model.process, SIGMAS[1], SIGMAS[0], PLAN)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed + 1)
    return sample(model, DRAWS, times, "ddim", shape=shape, generator=generator)


def _clipping(axis: Any, case: Case, seed: int) -> list[Row]:
    """Distance of samples to the circle against the level where the reversal ends: score as it is
    and cut to CLIP."""
    process = EDM(1e-4, SIGMAS[1])
    exact = Circles(process)
    ends = np.geomspace(0.1, 3e-4, 6)
    found, rows = {}, []
    for name, model in {"exact": exact, "clipped": Clipped(exact, process, CLIP)}.items():
        found[name] = [_ended(model, case.law, end, seed) for end in ends]
        slope = float(np.polyfit(np.log(ends[1:]), np.log(found[name][1:]), 1)[0])
        reference = 1.0 if name == "exact" else 0.0
        rows.append(
            Row(f"distance to the circle against the last sigma, slope, {name} score", slope,
                reference, "D", note=f"the norm is at most {CLIP:g}" if name == "clipped" else "")
        )  # fmt: skip
        axis.loglog(ends, found[name], "o-", ms=3, label=f"{name} score")
    rows.append(Row("distance left at the end, clipped score", found["clipped"][-1]))
    axis.set(title="circle", xlabel="sigma where the reversal ends", ylabel="mean distance")
    axis.legend(frameon=False, fontsize=8)
    return rows


def _ended(model: Denoiser, law: Law, end: float, seed: int) -> float:
    """Mean distance of states to the set where the reversal ends at sigma = `end`."""
    times = geometric_times(model.process, SIGMAS[1], end, 80)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed + 2)
    visits = sample.trajectory(
        model, DRAWS, times, "ancestral", shape=(2,), generator=generator, dtype=torch.float64
    )
    return float(law.distance(deque(visits, maxlen=1).pop().state).mean())
