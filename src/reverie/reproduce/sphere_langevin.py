"""Langevin on products of spheres (Li & Erdogdu 2023): Gibbs gaps, MaxCut programs, certificates.

Left: the mean gap of the Petersen graph and the cycle of five against the inverse temperature, and
the Laplace value d / (2 beta). Right: how near programs come to their certificates, on generated
toroidal and random graphs, and on graphs of the G-set where REVERIE_DATA has them (gset/G11 ...).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from reverie.errors import InputError
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.targets.graphs import Graph, cycle, graph_of, petersen, random_graph, toroidal
from reverie.targets.maxcut import langevin_gap, maxcut

C5 = 2.5 * (1 + math.cos(math.pi / 5))
GAPS = [
    ("Petersen", petersen, 12.5, 5, 30, {100: 0.1501, 400: 0.0391}),
    ("C5", lambda: cycle(5), C5, 3, 7, {50: 0.0712, 200: 0.0179}),
]
GSET = {"G11": 629.1648, "G14": 3191.5668, "G51": 4006.2555}
ETA = 0.02


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` runs more chains and larger graphs."""
    chains, steps = (256, 8000) if full else (64, 3000)
    figure, (left, right) = panels(2)
    rows = []
    for name, make, optimum, rank, directions, known in GAPS:
        line = []
        for beta, reference in known.items():
            burn = 40 * beta // 2
            gap, error = langevin_gap(
                make(), optimum, rank=rank, beta=beta, eta=ETA, steps=steps, burn_in=burn,
                chains=chains, seed=seed,
            )  # fmt: skip
            line.append((beta, gap))
            note = f"Laplace {directions / (2 * beta):.4f}"
            rows.append(Row(f"{name}, beta {beta}: gap", gap, reference, "D", error, note))
        beta = np.geomspace(20, 800, 50)
        left.loglog(*np.array(line).T, "o", label=name)
        left.loglog(beta, directions / (2 * beta), color="grey", lw=0.8)
    left.set(xlabel="inverse temperature beta", ylabel="E F - F*")
    left.legend(frameon=False)
    rows += _programs(right, seed, full)
    save_figure(figure, out / "sphere_langevin.png")
    settings = dict(eta=ETA, chains=chains, steps=steps)
    return write_table(
        out, "Langevin on products of spheres (Li & Erdogdu 2023)", rows, seed, settings
    )


def _programs(axes: Any, seed: int, full: bool) -> list[Row]:
    size = 800 if full else 200
    graphs: list[tuple[str, Graph, float | None]] = [
        (f"torus, {size} nodes, weights -1 and 1", toroidal(10, size // 10, seed), None),
        (f"random, {size} nodes", random_graph(size, 12 / size, seed), None),
    ]
    rows = []
    for name, known in GSET.items():
        try:
            graphs.append((name, graph_of(real_data(f"gset/{name}", "Y. Ye's G-set")), known))
        except InputError as error:
            rows.append(Row(f"{name}: skipped", math.nan, known, "D", note=str(error)))
    gaps = []
    for name, graph, known in graphs:
        began = time.process_time()
        found = maxcut(graph, seed=seed)
        spent = time.process_time() - began
        tag = "D" if known is not None else ""
        note = f"certificate {found.bound:.7g}, relative gap {found.gap:.1e}, {spent:.1f} CPU s"
        rows.append(Row(f"{name}: program", found.value, known, tag, note=note))
        share = f"{100 * found.cut / found.bound:.1f}% of the certificate"
        rows.append(Row(f"{name}: cut", found.cut, note=share))
        gaps.append((name.split(",")[0], max(found.gap, 1e-12)))
    axes.bar([name for name, _ in gaps], [gap for _, gap in gaps])
    axes.set_yscale("log")
    axes.set_ylabel("relative gap to the certificate")
    return rows
