"""First hitting diffusion models (Ye, Wu & Liu 2022): exact laws, the earth, graphs and maps.

1. Closed forms on the Boolean cube, the ball and categories: laws of ends, mean times, no failure.
2. Places on the earth. A Brownian motion from the centre of the ball leaves through a density p if
   its drift is grad log H, H(z) the Poisson integral of p. Here p mixes exit laws of points r x_i
   inside, x_i the rows, so that the nats of a held-out place are exact; the radii's weights are
   fitted by expectation and maximisation on rows that were left out. It is a kernel estimate, no
   network. Paths end at draws of p that are given to the exact process.
3. Binary graphs of two communities (networks on {0, 1}^d), and maps of three classes of ground
   (networks on categories), beside the same law site by site.

Of the paper only the abstract was at hand: settings and mathematics are ours, no figure of 1 and 3
is a published one. The columns of 2 are other papers' (see `earth`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.bridges import Ball, BooleanCube, CategoricalFaces, EnumeratedEnds
from reverie.bridges.faces import fit_categories
from reverie.bridges.hitting_fit import fit_boolean
from reverie.errors import InputError
from reverie.reproduce.earth import PUBLISHED
from reverie.reproduce.earth_tables import SETS, places, unit_vectors
from reverie.reproduce.real_data import thirds
from reverie.reproduce.tables import Row, panels, save_figure, write_table

GAPS = [float(gap) for gap in np.geomspace(2e-4, 1.0, 12)]  # 1 - radius of centres
SPLITS, BLOCK = 5, 500
NODES, CELLS, GROUND = 10, 6, 3  # of a graph, of a side of a map, classes


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` takes the largest set and trains longer."""
    steps = 10_000 if full else 400
    figure, (left, middle, right) = panels(3)
    rows = exact_rows(seed) + earth_rows(left, seed, full)
    rows += graph_rows(middle, seed, steps) + map_rows(right, seed, steps)
    save_figure(figure, out / "first-hitting.png")
    title = "First hitting: laws, places on the earth, graphs and maps"
    return write_table(out, title, rows, seed, {"steps": steps, "full": full})


# --- closed forms --------------------------------------------------------------------------------


def exact_rows(seed: int, n: int = 10_000, seeds: int = 1000) -> list[Row]:
    """Laws of ends, and mean times, by n paths each; and runs of many seeds."""
    draw = torch.Generator().manual_seed(seed)
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    corners = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
    vertices = torch.eye(3, dtype=torch.float64)
    cases = {
        "Boolean cube": (BooleanCube(3, 0.02), corners),
        "categories": (CategoricalFaces(1, 3, 0.1), vertices),
    }
    rows, error = [], math.sqrt(0.25 / n)
    for name, (process, points) in cases.items():
        ends = process.sample(EnumeratedEnds(process, points, law, draw), n, generator=draw).ends
        near = torch.cdist(ends, points)
        found = torch.bincount(near.argmin(1)[near.min(1).values < 1e-6], minlength=3) / n
        off = float((found - law).abs().sum()) / 2
        rows.append(Row(f"{name}: total variation of the ends", off, 0.0, "D", error))
    ball = Ball(3)
    onto = torch.nn.functional.normalize(torch.randn(200, 3, generator=draw).double(), dim=1)
    times = {
        "a bit, from 1/2": (BooleanCube(1, 0.01), torch.tensor([[0.0], [1.0]]).double(), 0.25),
        "the ball, from its centre": (ball, onto, 1 / 3),
        "a category of three": (CategoricalFaces(1, 3, 0.1), vertices, -4 * math.log(2 / 3)),
    }
    for name, (process, points, known) in times.items():
        ran = process.sample(EnumeratedEnds(process, points, None, draw), n, generator=draw)
        spread = float(ran.time.std()) / math.sqrt(n)
        rows.append(Row(f"mean time of {name}", float(ran.time.mean()), known, "D", spread))
    return [*rows, _failures(corners, seeds)]


def _failures(corners: Tensor, seeds: int) -> Row:
    """Runs on the cube that end off the points, are not finite or do not stop, of many seeds."""
    cube, failed = BooleanCube(3, 0.05), 0
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(seed)
        try:
            ends = cube.sample(EnumeratedEnds(cube, corners, None, draw), 2, generator=draw).ends
            failed += not bool((torch.cdist(ends, corners).min(1).values == 0).all())
        except InputError:
            failed += 1
    return Row(f"failures among {seeds:,} seeds on the cube", failed, 0.0, "D", 0.0)


# --- places on the earth -------------------------------------------------------------------------


def poisson(cosines: Tensor, radius: float) -> Tensor:
    """log density, by the uniform law, of leaving the unit ball at these angles from a radius."""
    gap = (1 - radius) ** 2 + 2 * radius * (1 - cosines)
    return math.log1p(-radius * radius) - 1.5 * gap.log()


class ExitMixture:
    """Exit laws of points r x_i: rows x (n, 3) in equal parts, radii by `weights` (K,)."""

    def __init__(self, rows: Tensor, weights: Tensor) -> None:
        self.rows, self.weights = rows, weights

    @classmethod
    def fit(cls, rows: Tensor, held: Tensor, rounds: int = 60) -> ExitMixture:
        """Weights of the radii that make held-out rows (m, 3) likeliest, by their own law."""
        each = kernel_means(rows, held)
        log = torch.full((len(GAPS),), -math.log(len(GAPS)), dtype=torch.float64)
        for _ in range(rounds):
            log = (log + each).log_softmax(1).logsumexp(0) - math.log(len(held))
        return cls(rows, log.exp())

    def nats(self, x: Tensor) -> Tensor:
        """-log p (n,) with respect to the area of the unit sphere."""
        each = kernel_means(self.rows, x) + self.weights.log()
        return math.log(4 * math.pi) - each.logsumexp(1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Places (n, 3): a row, a radius, and where a motion from there leaves, exactly."""
        row = torch.randint(len(self.rows), (n,), generator=generator)
        gap = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        r = 1 - torch.tensor(GAPS, dtype=torch.float64)[gap]
        chance = torch.rand(n, generator=generator, dtype=torch.float64)
        # by inversion: distance q to the exit has 1/q uniform between 1/(1+r) and 1/(1-r)
        inverse = 1 / (1 + r) + chance * (1 / (1 - r) - 1 / (1 + r))
        cosine = torch.where(r > 1e-9, (1 + r * r - inverse**-2) / (2 * r).clamp(min=1e-9),
                             2 * chance - 1).clamp(-1, 1)  # fmt: skip
        x = self.rows[row]
        other = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        other = other - (other * x).sum(1, keepdim=True) * x
        other = other / other.norm(dim=1, keepdim=True)
        return cosine[:, None] * x + (1 - cosine.square()).sqrt()[:, None] * other


def kernel_means(rows: Tensor, x: Tensor) -> Tensor:
    """log of the mean over rows of the exit density at x (m, 3), for each radius: (m, K)."""
    found = []
    for block in x.split(BLOCK):
        cosines = (block @ rows.T).clamp(max=1.0)
        found.append(
            torch.stack([poisson(cosines, 1 - gap).logsumexp(1) for gap in GAPS], 1)
        )  # fmt: skip
    return torch.cat(found) - math.log(len(rows))


def earth_rows(ax: Any, seed: int, full: bool) -> list[Row]:
    """Nats of held-out places beside published ones; nothing without the data."""
    rows = []
    try:
        tables = {name: places(name).values for name in SETS if full or name != "fire"}
    except InputError:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "places on the earth:\nset REVERIE_DATA", ha="center", va="center")
        return []
    for name, degrees in tables.items():
        points, scores = torch.from_numpy(unit_vectors(degrees)), []
        for k in range(SPLITS):
            train, held, test = (points[p] for p in thirds(len(points), seed + k))
            model = ExitMixture.fit(train, held)
            scores.append(float(model.nats(test).mean()))
            if k == 0 and name == "earthquake":
                _map(ax, model, degrees, seed)
        ours, error = float(np.mean(scores)), float(np.std(scores, ddof=1) / math.sqrt(SPLITS))
        rows += [
            Row(f"{name}: nats beside {paper}", ours, known[name], tag, error)
            for paper, (tag, known) in PUBLISHED.items()
        ]
    return rows


def _map(ax: Any, model: ExitMixture, degrees: np.ndarray, seed: int) -> None:
    """Rows, and ends of paths in the ball that stop on the sphere."""
    draw = torch.Generator().manual_seed(seed)
    ball = Ball(3, reach=1e-3)
    ends = EnumeratedEnds(ball, model.draw(1000, draw), None, draw)
    made = ball.sample(ends, 250, generator=draw).ends.numpy()
    latitude = np.degrees(np.arcsin(made[:, 2].clip(-1, 1)))
    longitude = np.degrees(np.arctan2(made[:, 1], made[:, 0]))
    ax.plot(degrees[:, 1], degrees[:, 0], ".", ms=1, color="#9ca3af", label="rows")
    ax.plot(longitude, latitude, ".", ms=3, label="stopped paths")
    ax.set(xlabel="longitude", ylabel="latitude", title="earthquakes")
    ax.legend(frameon=False, markerscale=3)


# --- graphs --------------------------------------------------------------------------------------


def graphs(n: int, seed: int) -> Tensor:
    """Edges (n, 45) of graphs of two communities of random size, named at random."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(NODES, 1)
    side = rng.random((n, NODES)) < rng.uniform(0.35, 0.65, (n, 1))
    together = side[:, first] == side[:, second]
    return torch.from_numpy((rng.random(together.shape) < np.where(together, 0.9, 0.05)) * 1.0)


def graph_counts(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of edges and of triangles, (n,) each."""
    first, second = torch.triu_indices(NODES, NODES, 1)
    matrix = edges.new_zeros(len(edges), NODES, NODES)
    matrix[:, first, second] = edges
    matrix = matrix + matrix.transpose(1, 2)
    triangles = (matrix @ matrix @ matrix).diagonal(dim1=1, dim2=2).sum(1) / 6
    return edges.sum(1), triangles.round()


def apart(a: Tensor, b: Tensor, bins: int = 12) -> float:
    """Total variation of two samples of counts, over bins of about equal mass of the first."""
    edges = torch.quantile(a.double(), torch.linspace(0, 1, bins + 1).double())[1:-1].unique()
    shares = [
        torch.bincount(torch.bucketize(v.double().contiguous(), edges), minlength=len(edges) + 1)
        / len(v)
        for v in (a, b)
    ]
    return 0.5 * float((shares[0] - shares[1]).abs().sum())


def graph_rows(ax: Any, seed: int, steps: int) -> list[Row]:
    data, other = graphs(5000, seed), graphs(2000, seed + 1)
    draw, cube = torch.Generator().manual_seed(seed), BooleanCube(data.shape[1], 0.04)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guess = fit_boolean(data, steps=steps, width=128, dt=0.04, batch=256, generator=draw)
    made = {
        "first hitting": cube.sample(guess, 1000, generator=draw).ends,
        "edges one by one": (torch.rand(1000, data.shape[1], generator=draw) < data.mean(0)) * 1.0,
        "another draw of the law": other,
    }
    rows = []
    for name, edges in made.items():
        for k, what in enumerate(("edges", "triangles")):
            off = apart(graph_counts(data)[k], graph_counts(edges)[k])
            rows.append(Row(f"graphs, {name}: total variation of {what}", off))
        ax.hist(graph_counts(edges)[1].numpy(), bins=range(0, 121, 4), histtype="step",
                density=True, label=name)  # fmt: skip
    ax.set(xlabel="triangles of a graph", title="graphs of two communities")
    ax.legend(frameon=False)
    return rows


# --- maps ----------------------------------------------------------------------------------------


def maps(n: int, seed: int) -> Tensor:
    """Maps (n, CELLS^2) of classes: a smooth random height, cut at two levels."""
    rng = np.random.default_rng(seed)
    place = (np.arange(CELLS) + 0.5) / CELLS
    waves = [np.cos(np.pi * i * place)[:, None] * np.cos(np.pi * j * place) for i in range(3)
             for j in range(3)]  # fmt: skip
    height = rng.normal(size=(n, len(waves))) @ np.reshape(waves, (len(waves), -1))
    return torch.from_numpy((height > -0.8).astype(int) + (height > 0.8))


def joins(classes: Tensor) -> Tensor:
    """Number of neighbours of the same class in a map, (n,)."""
    cells = classes.reshape(-1, CELLS, CELLS)
    across = (cells[:, :, 1:] == cells[:, :, :-1]).sum((1, 2))
    return across + (cells[:, 1:] == cells[:, :-1]).sum((1, 2))


def map_rows(ax: Any, seed: int, steps: int) -> list[Row]:
    data, other = maps(5000, seed), maps(2000, seed + 1)
    faces, draw = CategoricalFaces(CELLS**2, GROUND, 0.15), torch.Generator().manual_seed(seed)
    one_hot = torch.nn.functional.one_hot(data, GROUND).flatten(1).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guess = fit_categories(one_hot, faces, steps=steps, width=128, generator=draw)
    ends = faces.sample(guess, 500, generator=draw).ends
    drawn = faces.shares(ends).argmax(2)
    law = one_hot.mean(0).reshape(-1, GROUND)
    alone = torch.multinomial(law, 1000, replacement=True, generator=draw).T
    made = {"first hitting": drawn, "cells one by one": alone, "another draw of the law": other}
    tiles = drawn[:12].reshape(3, 4, CELLS, CELLS).permute(0, 2, 1, 3)
    tiles = torch.nn.functional.pad(tiles.float(), (0, 1, 0, 0, 0, 1), value=float("nan"))
    ax.imshow(tiles.reshape(3 * (CELLS + 1), -1).numpy(), cmap="viridis")
    ax.set(title="maps: stopped at vertices", xticks=[], yticks=[])
    return [
        Row(f"maps, {name}: total variation of equal neighbours", apart(joins(data), joins(found)))
        for name, found in made.items()
    ]
