"""Bridges into domains (Liu, Wu, Ye & Liu 2022, 2023): a grid, an adult-like table, exact laws.

1. Closed forms: the drift into two points, the law of an enumerated domain, a million samples.
2. Point clouds on a grid: eight points around a random circle, on the nodes of a 16 x 16 grid. A
   bridge into the grid beside Gaussian noise whose samples are rounded.
3. An adult-like table: categories, gaps, and numbers that are not negative. The bridge into that
   domain beside the product of Gaussian noise and masking, and Gaussian noise on the numbers
   alone. With REVERIE_DATA the rows are those of the Adult data (see `adult`), else made here.

The papers' tables were not at hand, and settings are ours: no figure here is a published one but
the closed forms.
"""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.bridges import Box, DomainBridge, Points, Product, data_bridge, fit_domain_bridge
from reverie.data import Dataset, load
from reverie.errors import InputError
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs import Run, fit

SIDE, POINTS = 16, 8  # of the grid, of a cloud
NAMES = ("age", "workclass", "fnlwgt", "education", "education-num", "marital-status",
         "occupation", "relationship", "race", "sex", "capital-gain", "capital-loss",
         "hours-per-week", "native-country", "income")  # fmt: skip
SOURCE = "the Adult data of the UCI repository, adult.data gzipped"
BOUNDS = "age=0:120,hours-per-week=0:168,hours=0:168"


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table, minutes of a core; `full` trains forty times longer."""
    figure, (left, middle, right) = panels(3)
    steps = 20_000 if full else 500
    rows = exact_rows(seed) + cloud_rows(left, middle, seed, steps)
    table = adult(seed)
    rows += table_rows(right, table, seed, steps)
    save_figure(figure, out / "constrained-bridges.png")
    settings = {"steps": steps, "table": table.source}
    return write_table(out, "Bridges into domains", rows, seed, settings)


# --- closed forms --------------------------------------------------------------------------------


def exact_rows(seed: int) -> list[Row]:
    """The tanh, a law on three points by paths of 20 steps, and a million samples."""
    draw = torch.Generator().manual_seed(seed)
    pair = DomainBridge(Points(torch.tensor([[-1.0], [1.0]]).double()))
    z, v = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None], 0.3
    share = torch.full((601,), 1 - v, dtype=torch.float64)
    off = (pair.drift(z, share) - ((z / v).tanh() - z) / v).abs().max()
    corners = torch.tensor([[0.0, 0], [1, 0], [0, 2]], dtype=torch.float64)
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    ends = data_bridge(corners, law).generate(20_000, steps=20, generator=draw)
    found = torch.bincount(torch.cdist(ends, corners).argmin(1), minlength=3) / len(ends)
    domain = Product([Points(torch.eye(3).double()), Box([0.0, -1.0], [float("inf"), 1.0])])
    many = DomainBridge(domain).generate(1_000_000, steps=2, generator=draw)
    inside = float(domain.contains(many).double().mean())
    return [
        Row("drift into {-1, 1}: largest distance from the tanh", float(off), 0.0, "D", 1e-12),
        Row("an enumerated law of three points: total variation",
            float((found - law).abs().sum()) / 2, 0.0, "D", 0.01),
        Row("share of 1,000,000 samples inside", inside, 1.0, "D", 0.0),
    ]  # fmt: skip


# --- clouds on a grid ----------------------------------------------------------------------------


def clouds(n: int, seed: int) -> Tensor:
    """Clouds (n, 2 POINTS) of whole coordinates, 0 to SIDE - 1, around a circle each."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(2.5, 6, (n, 1))
    centre = rng.uniform(radius, SIDE - 1 - radius, (n, 2))
    angle = rng.uniform(0, 2 * np.pi, (n, 1)) + 2 * np.pi * np.arange(POINTS) / POINTS
    around = radius[:, :, None] * np.stack([np.cos(angle), np.sin(angle)], 2)
    return torch.from_numpy(np.round(centre[:, None] + around).reshape(n, -1))


def roughness(rows: Tensor) -> float:
    """Deviation of points from their cloud's circle, root mean square in steps of the grid."""
    points = rows.double().reshape(len(rows), POINTS, 2)
    radius = (points - points.mean(1, keepdim=True)).norm(dim=2)
    return float((radius - radius.mean(1, keepdim=True)).square().mean().sqrt())


def cloud_rows(left: Any, middle: Any, seed: int, steps: int) -> list[Row]:
    """A bridge into the grid, and Gaussian noise with its samples rounded."""
    data, unit = clouds(5000, seed), 4.0
    grid = (torch.arange(SIDE, dtype=torch.float64)[:, None] - (SIDE - 1) / 2) / unit
    scaled = (data - (SIDE - 1) / 2) / unit
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge = fit_domain_bridge(
            scaled, Product([Points(grid)] * (2 * POINTS)), steps=steps, rate=2e-3, width=128,
            depth=3, generator=draw,
        )  # fmt: skip
    made = bridge.generate(1000, steps=40, generator=draw)
    on_grid = float(torch.isin(made, grid).all(1).double().mean())
    gaussian = fit(data.numpy(), process="edm:sigma_min=0.02,sigma_max=40", steps=steps, width=128,
                   seed=seed, holdout=500, check_every=steps)  # fmt: skip
    raw = gaussian.sample(1000, 40, seed=seed)  # whole columns: rounded, and in their range
    both = {
        "data": data, "bridge": made * unit + (SIDE - 1) / 2,
        "Gaussian noise, rounded": torch.from_numpy(raw),
    }  # fmt: skip
    for ax, name in ((left, "data"), (middle, "bridge")):
        for cloud in both[name][:6].reshape(6, POINTS, 2):
            ax.plot(*torch.cat([cloud, cloud[:1]]).T, "o-", ms=3, lw=0.7)
        ax.set(title=f"clouds: {name}", xticks=range(SIDE), yticks=range(SIDE), aspect="equal")
        ax.tick_params(labelbottom=False, labelleft=False)
        ax.grid(lw=0.3)
    floor = roughness(both["data"])
    rows = [Row("clouds: share of the bridge's clouds on the grid", on_grid, 1.0, "D", 0.0)]
    return rows + [
        Row(f"clouds: off their circle (grid steps), {name}", roughness(found),
            note="rounding itself" if name == "data" else f"data {floor:.3f}")
        for name, found in both.items()
    ]  # fmt: skip


# --- an adult-like table -------------------------------------------------------------------------


def adult(seed: int, n: int = 6000) -> Dataset:
    """n rows of Adult where REVERIE_DATA holds `adult/adult.data.gz`, else as many like them."""
    try:
        path = real_data("adult/adult.data.gz", SOURCE)
    except InputError:
        return _made(_like_adult(n, seed), ("age", "class", "gain", "hours", "sex", "income"))
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    order = np.random.default_rng(seed).permutation(len(rows))[:n]
    return _made([rows[k] for k in order], NAMES)


def _made(rows: list[list[str]], names: tuple[str, ...]) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "adult.csv" if names is NAMES else "like-adult.csv")
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
        data = load(path, mixed=True)
    return data.with_values(data.values, path.stem)


def _like_adult(n: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    kind = rng.choice(["Private", "Gov", "Self", "?"], n, p=[0.7, 0.13, 0.11, 0.06])
    sex = rng.choice(["Male", "Female"], n, p=[0.67, 0.33])
    age = np.clip(rng.gamma(7, 5.5, n), 17, 90).astype(int)
    hours = np.clip(rng.normal(36 + 4 * (kind == "Self") + 4 * (sex == "Male"), 11), 1, 99)
    logit = (age - 50) / 15 + (hours - 45) / 12 + 0.7 * (sex == "Male") - 0.5
    rich = rng.random(n) < 1 / (1 + np.exp(-logit))
    gain = np.where(rng.random(n) < 0.05 + 0.15 * rich, np.exp(rng.normal(8.5, 0.8, n)), 0)
    income = np.where(rich, ">50K", "<=50K")
    columns = age, kind, gain.astype(int), hours.astype(int), sex, income
    return [list(map(str, row)) for row in zip(*columns, strict=True)]


def table_rows(ax: Any, table: Dataset, seed: int, steps: int) -> list[Row]:
    """Two models of the whole table, and Gaussian noise on its numbers; how far samples are."""
    half = len(table) // 2
    split = (np.arange(half), np.arange(half, len(table)))
    held = table.take(split[1])
    common: dict[str, Any] = dict(
        steps=steps, rows=split, width=128, seed=seed, batch_size=256, check_every=steps, lr=3e-3
    )  # fmt: skip
    known = set(table.columns or ())
    bounds = ",".join(b for b in BOUNDS.split(",") if b.partition("=")[0] in known)
    rows, ends = [], None
    for name, more in (("bridge", {"bounds": bounds}), ("product", {})):
        run = fit(table, process=name, **more, **common)
        ends = _ends(run) if ends is None else ends
        drawn = run.sample(len(held), 30, seed=seed)
        rows += _fidelity(f"table, {name}", drawn, held, ends, seed)
        if name == "bridge":
            _picture(ax, drawn, held)
    rows += _fidelity("table, training rows", table.take(split[0]).values, held, ends, seed)
    return rows + _plain_numbers(table, split, common, ends)


def _ends(run: Run) -> np.ndarray:
    """Ends (2, d) of the columns of a bridge's table; infinite where there are none."""
    plans = run.scaler.columns_read  # type: ignore[attr-defined]
    return np.array([[plan.low, plan.high] for plan in plans]).T


def _outside(values: np.ndarray, ends: np.ndarray) -> float:
    """Share of rows with a number outside its column's ends."""
    return float(((values < ends[0]) | (values > ends[1])).any(1).mean())


def _fidelity(
    name: str, drawn: np.ndarray, held: Dataset, ends: np.ndarray | None, seed: int
) -> list[Row]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_score

    assert ends is not None
    real, kinds = held.values.astype(float), [f.kind == "categorical" for f in held.fields]
    codes = [np.stack([np.nan_to_num(v[:, j], nan=-1.0) for v in (real, drawn)]) for j in
             range(real.shape[1])]  # fmt: skip
    apart = [
        0.5 * sum(abs((a == c).mean() - (b == c).mean()) for c in np.union1d(a, b))
        for (a, b), kind in zip(codes, kinds, strict=True) if kind
    ]  # fmt: skip
    ks = [_gap(a, b) for (a, b), kind in zip(codes, kinds, strict=True) if not kind]
    both, label = np.concatenate([real, drawn]), np.repeat([0, 1], [len(real), len(drawn)])
    judge = HistGradientBoostingClassifier(max_iter=30, random_state=seed)
    told = cross_val_score(judge, both, label, cv=3, scoring="roc_auc").mean()
    return [
        Row(f"{name}: share of rows outside", _outside(np.nan_to_num(drawn), ends), 0.0, "D", 0.0),
        Row(f"{name}: total variation of categories, mean", float(np.mean(apart))),
        Row(f"{name}: Kolmogorov-Smirnov distance of numbers, mean", float(np.mean(ks))),
        Row(f"{name}: AUC of a classifier that tells rows apart", float(told),
            note="held-out rows against them; .5 is best"),
    ]  # fmt: skip


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance of two empirical distribution functions."""
    both = np.concatenate([a, b])
    first, second = (np.searchsorted(np.sort(v), both, side="right") / len(v) for v in (a, b))
    return float(np.abs(first - second).max())


def _plain_numbers(
    table: Dataset, split: tuple[np.ndarray, np.ndarray], common: dict[str, Any],
    ends: np.ndarray | None,
) -> list[Row]:  # fmt: skip
    """Gaussian noise on the numbers alone, as they come: how many samples leave the domain."""
    assert ends is not None
    numbers = [j for j, field in enumerate(table.fields) if field.kind != "categorical"]
    values = table.values[:, numbers].astype(float) + 1e-9  # of no whole column: nothing is cut
    values = np.nan_to_num(values)[np.concatenate(split)]
    here = (np.arange(len(split[0])), np.arange(len(split[0]), len(values)))
    more: dict[str, Any] = common | {"rows": here}
    run = fit(values, process="edm:sigma_min=0.02,sigma_max=40", **more)
    share = _outside(run.sample(len(split[1]), 30), ends[:, numbers])
    return [Row("numbers alone, Gaussian noise: share of rows outside", share)]


def _picture(ax: Any, drawn: np.ndarray, held: Dataset) -> None:
    """The two most spread-out numbers of samples, beside held-out rows."""
    names = list(held.columns or ())
    hours = "hours-per-week" if "hours-per-week" in names else "hours"
    j, k = names.index("age"), names.index(hours)
    for values, label in ((held.values, "held-out"), (drawn, "bridge")):
        ax.plot(values[:1500, j], values[:1500, k], ".", ms=2, alpha=0.5, label=label)
    ax.set(xlabel="age", ylabel=hours, title="table")
    ax.legend(frameon=False, markerscale=4)
