"""Which steps give the best samples? Every schedule on real models, at narrow and wide end points.

One model per data set is trained between sigma = .002 and 80 (in units of the data's deviation).
For every schedule and number of steps: the path KL that the held-out loss curve predicts (excess,
up to a constant that all schedules share), the same measured afresh at the schedule's own levels,
and how far samples of the ancestral and the DDIM sampler lie from held-out rows: energy distance,
a classifier that tells them apart (.5: it cannot) and, on images, a Frechet distance on features
of a network trained here. The comparison with the best rival is paired over seeds.

Digits and a table are built in; further sets need Fashion-MNIST installed or REVERIE_DATA. Every
figure is kept in `cells.json` as it is made, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from reverie.auditing.metrics.fidelity import (
    classifier_two_sample,
    energy_distance,
    frechet_distance,
)
from reverie.curve import measure
from reverie.errors import InputError
from reverie.files import read_json, write_json
from reverie.plan import METHODS, Plan, plan_steps
from reverie.plan.align import TABLES
from reverie.reproduce.feature_network import train_features
from reverie.reproduce.schedule_sets import SETS, DataSet
from reverie.reproduce.tables import Row, save_figure, write_table
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.run import Run
from reverie.sampling import sample
from reverie.workers.pieces import Piece, Tell, Ticker, Workers
from reverie.workers.spreading import spread

SIGMAS = (0.002, 80.0)
ENDS = {"narrow": (0.1, 20.0), "wide": (0.002, 80.0)}
SAMPLES, NATS = "loss-adaptive in samples", "loss-adaptive in nats"
RIVALS = tuple(  # density jumps over dead zones; the published tables are of three models only
    name for name in METHODS if name not in ("loss-adaptive", "density", *TABLES)
)
COLOURS = colormaps["tab20"]
CLASSIFIED = (10,)  # steps at which a classifier is trained on the samples


@dataclass(frozen=True)
class Cell:
    """One figure's place: data set, ends, steps, schedule, sampler, seed."""

    data: str
    ends: str
    steps: int
    label: str
    sampler: str
    seed: int

    @property
    def key(self) -> str:
        place = (self.data, self.ends, self.steps, self.label, self.sampler, self.seed)
        return " / ".join(map(str, place))


class Bench:
    """A trained model with its held-out curve, rows and feature network."""

    def __init__(self, data: DataSet, out: Path, seed: int, full: bool) -> None:
        self.data = data
        self.run = _trained(data, out / "models" / data.name, seed, full)
        held, generator = self.run.holdout_points(), torch.Generator().manual_seed(seed)
        self.held = held[torch.randperm(len(held), generator=generator)[: data.rows]]
        self.curve = measure(self.run.denoiser, self.held, 96, generator=generator)
        self.shape = self.run.scaler.point_shape
        self.features: Callable[[Tensor], np.ndarray] | None = None
        if self.run.scaler.kind == "images":
            network = train_features(self.run.train_points(), seed)
            self.features = lambda images: network(images).double().numpy()

    def plan(self, cell: Cell) -> Plan:
        low, high = ENDS[cell.ends]
        clock = self.curve.u
        ends = (max(high**-2.0, float(clock.min())), min(low**-2.0, float(clock.max())))
        if cell.label == SAMPLES:
            return plan_steps(self.curve, cell.steps, clock="samples", ends=ends)
        method = "loss-adaptive" if cell.label == NATS else cell.label
        return plan_steps(self.curve, cell.steps, method, clock="nats", ends=ends)

    def cell(self, cell: Cell) -> dict[str, float]:
        """Every figure of one cell; the path KL is of the schedule alone, so it is taken once."""
        plan = self.plan(cell)
        found = self.distances(cell, plan)
        if cell.sampler == "ancestral" and cell.seed == 0:
            found["excess"] = plan.excess
            found["measured"], found["measured error"] = self.measured_excess(plan, cell.seed)
        return found

    def distances(self, cell: Cell, plan: Plan) -> dict[str, float]:
        """Distances of samples to held-out rows."""
        drawn = sample(
            self.run.denoiser, len(self.held), plan, cell.sampler, shape=self.shape,
            generator=torch.Generator().manual_seed(cell.seed),
        )  # fmt: skip
        x, y = (a.flatten(1).double().numpy() for a in (drawn, self.held))
        found = {"energy": energy_distance(x, y)}
        if cell.steps in CLASSIFIED and cell.sampler == "ancestral":
            found["classifier"] = classifier_two_sample(x, y, seed=cell.seed).accuracy
        if self.features is not None:
            found["frechet"] = frechet_distance(self.features(drawn), self.features(self.held))
        return found

    def measured_excess(self, plan: Plan, seed: int) -> tuple[float, float]:
        """The excess from fresh noise at the plan's own levels, and its standard error."""
        generator = torch.Generator().manual_seed(1000 + seed)
        own = measure(self.run.denoiser, self.held, plan.u[:-1], generator=generator,
                      keep_samples=True)  # fmt: skip
        assert own.per_sample is not None
        charge = own.per_sample @ np.diff(plan.u)
        area = plan.staircase - plan.excess
        return float(charge.mean() - area), float(charge.std() / math.sqrt(len(charge)))


def _trained(data: DataSet, folder: Path, seed: int, full: bool) -> Run:
    if (folder / "config.json").exists():
        run = Run.load(folder)
        if run.stopped:
            return run
    low, high = SIGMAS
    config = FitConfig(
        process=f"edm:sigma_min={low},sigma_max={high}", seed=seed,
        **(data.full if full else data.settings),
    )  # fmt: skip
    return fit(data.load(), config=config, out=folder, resume=folder.exists())


def _model(given: tuple[int, Path, int, bool], shared: None, tell: Tell) -> None:
    """Train the model of a set, or continue to; its folder keeps it."""
    place, folder, seed, full = given
    _trained(SETS[place], folder, seed, full)


def _there(data: DataSet) -> bool:
    try:
        data.load()
    except InputError:
        return False
    return True


def rivals(data: DataSet) -> tuple[str, ...]:
    """The schedules that ours are compared with."""
    return RIVALS if data.rivals is None else data.rivals


def samplers(data: DataSet, steps: int) -> tuple[str, ...]:
    return ("ancestral", *data.solvers) if steps in data.ddim_steps else ("ancestral",)


def cells(data: DataSet) -> Iterator[Cell]:
    """Every cell of a data set."""
    labels = (SAMPLES, NATS, *rivals(data))
    for ends, steps, label in itertools.product(ENDS, data.steps, labels):
        for sampler, seed in itertools.product(samplers(data, steps), range(data.seeds)):
            yield Cell(data.name, ends, steps, label, sampler, seed)


Grid = dict[tuple[str, str, int, str, str], np.ndarray]  # figures (seeds,) of one schedule


def _collect(data: DataSet, known: dict[str, dict[str, float]]) -> Grid:
    """Figures by (figure, ends, steps, sampler, schedule), one value per seed."""
    grid: dict[tuple[str, str, int, str, str], list[float]] = {}
    for cell in cells(data):
        for figure, value in known[cell.key].items():
            place = (figure, cell.ends, cell.steps, cell.sampler, cell.label)
            grid.setdefault(place, []).append(value)
    return {place: np.array(values) for place, values in grid.items()}


def _interval(values: np.ndarray) -> float:
    """Half the 95% t interval of a mean over seeds."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def _summary(data: DataSet, grid: Grid) -> list[Row]:
    rows = []
    for ends in ENDS:
        for steps in data.steps:
            rows.append(_kl_row(data, grid, ends, steps))
            for sampler in samplers(data, steps):
                for figure in ("energy", "classifier", "frechet"):
                    if (figure, ends, steps, sampler, SAMPLES) in grid:
                        rows.append(_samples_row(data, grid, figure, ends, steps, sampler))
        rows += _half_the_steps(data, grid, ends)
    return rows


def _kl_row(data: DataSet, grid: Grid, ends: str, steps: int) -> Row:
    """Is the plan in nats the cheapest, as predicted and as measured?"""
    predicted, measured = (
        {
            name: grid[figure, ends, steps, "ancestral", name].mean()
            for name in (NATS, SAMPLES, *rivals(data))
        }
        for figure in ("excess", "measured")
    )
    rival = min(rivals(data), key=lambda name: measured[name])
    first = min(measured, key=lambda name: measured[name])
    return Row(
        f"{data.name}, {ends}, K = {steps}: path KL of {NATS} (nats)",
        float(measured[NATS]),
        stderr=float(grid["measured error", ends, steps, "ancestral", NATS].mean()),
        note=f"predicted {predicted[NATS]:.4g}; best rival {rival} {measured[rival]:.4g}"
        + ("" if first == NATS else f"; NOT the lowest: {first}"),
    )


def _samples_row(
    data: DataSet, grid: Grid, figure: str, ends: str, steps: int, sampler: str
) -> Row:
    """The plan in the samples clock against the best rival, paired over seeds."""
    at = {name: grid[figure, ends, steps, sampler, name] for name in (SAMPLES, *rivals(data))}
    rival = min(rivals(data), key=lambda name: at[name].mean())
    gap = at[SAMPLES] - at[rival]
    width = _interval(gap)
    word = "behind" if gap.mean() > width else "ahead" if gap.mean() < -width else "level"
    return Row(
        f"{data.name}, {ends}, K = {steps}, {sampler}: {figure}",
        float(at[SAMPLES].mean()),
        stderr=_interval(at[SAMPLES]) / 1.96,
        note=f"{word}: best rival {rival} {at[rival].mean():.4g}, "
        f"difference {gap.mean():+.2g} +- {width:.2g}; karras {at['karras'].mean():.4g}",
    )


def _half_the_steps(data: DataSet, grid: Grid, ends: str) -> list[Row]:
    """Are 10 steps as close to held-out data as Karras's 20?"""
    few = grid["energy", ends, 10, "ancestral", SAMPLES]
    many = grid["energy", ends, 20, "ancestral", "karras"]
    width = _interval(few - many)
    gap = float((few - many).mean())
    note = "as close" if gap <= width else "NOT as close"
    return [
        Row(
            f"{data.name}, {ends}, ancestral: energy at K = 10, less karras at K = 20",
            gap,
            stderr=width / 1.96,
            note=f"{note} ({few.mean():.4g} and {many.mean():.4g})",
        )
    ]


def _figure(out: Path, shown: dict[str, tuple[DataSet, Grid]]) -> None:
    """Energy distance against steps: a column for each data set, a row for each pair of ends."""
    if not shown:
        return
    figure = Figure(figsize=(4.0 * len(shown) + 0.6, 7.2), layout="constrained")
    axes = np.reshape(figure.subplots(len(ENDS), len(shown)), (len(ENDS), len(shown)))
    for column, (name, (data, grid)) in enumerate(shown.items()):
        for row, (ends, (low, high)) in enumerate(ENDS.items()):
            _draw(axes[row, column], data, grid, ends)
            axes[row, column].set_title(f"{name}, sigma {low:g} to {high:g}")
    for axis in axes[:, 0]:
        axis.set_ylabel("energy distance to held-out rows\n(data in its own deviations)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, out / "schedules.png")


def _draw(axis: Any, data: DataSet, grid: Grid, ends: str) -> None:
    for place, label in enumerate((SAMPLES, NATS, *RIVALS)):
        if label not in (SAMPLES, NATS, *rivals(data)):
            continue
        at = [grid["energy", ends, steps, "ancestral", label] for steps in data.steps]
        mean = np.array([a.mean() for a in at])
        mean[mean <= 0] = np.nan  # as close as fresh data: below what a logarithm shows
        ours = label in (SAMPLES, NATS)
        axis.errorbar(
            data.steps, mean, [_interval(a) for a in at], label=label, color=COLOURS(place % 20),
            lw=2.2 if ours else 0.9, ls="-" if ours else "--", capsize=2,
        )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="steps K")
    axis.set_xticks(data.steps, [str(k) for k in data.steps], minor=False)
    axis.minorticks_off()


def run(
    out: Path,
    seed: int = 0,
    full: bool = False,
    only: tuple[str, ...] = (),
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Write `table.txt`, `table.json`, `cells.json` and `schedules.png`.

    full: longer training. only: names of data sets to keep to. workers: where models are trained.
    """
    if workers is not None and not workers.here:
        pieces = [
            Piece(data.name, (place, out / "models" / data.name, seed, full))
            for place, data in enumerate(SETS)
            if (not only or data.name in only) and _there(data)
        ]
        list(spread(_model, pieces, workers=workers, folder=out, progress=progress))
    store = out / "cells.json"
    known: dict[str, dict[str, float]] = read_json(store) if store.exists() else {}
    rows: list[Row] = []
    shown: dict[str, tuple[DataSet, Grid]] = {}
    for data in SETS:
        if only and data.name not in only:
            continue
        try:
            bench = Bench(data, out, seed, full)
        except InputError as error:
            rows.append(Row(f"{data.name}: left out", math.nan, note=str(error)))
            continue
        for cell in cells(data):
            if cell.key not in known:
                known[cell.key] = bench.cell(cell)
                write_json(store, known)
        grid = _collect(data, known)
        shown[data.name] = (data, grid)
        rows += _summary(data, grid)
    _figure(out, shown)
    settings = {"full": full, "sigma": list(SIGMAS)}
    return write_table(out, "Step schedules on real models", rows, seed, settings)
