"""What `fit --process edm` gains by reading its levels off the rows, against the default levels.

    python benchmarks/bench_ends.py [SEEDS] [STEPS]

Two models a seed, with the same network, split, order of rows and number of steps: sigma_min,
sigma_max, P_mean and P_std as `choose_ends` reads them, and the default process
(sigma .02 to 40, P_mean -.5, P_std 1.2). Compared on held-out rows: the energy distance of samples
on the default plan, K = 10 and 20, and the curve's area between the ends that both have, in nats.
Differences are paired over seeds, with twice their standard error. The table (california housing)
needs REVERIE_DATA; digits are built in.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from reverie import fit, measure
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.errors import InputError
from reverie.reproduce.schedule_sets import SETS
from reverie.runs.run import Run

SEEDS, STEPS, ROWS, COUNTS = 3, 1500, 500, (10, 20)
ARMS = {"read off": "edm", "default": None}


def figures(run: Run, low: float, high: float, seed: int) -> dict[str, float]:
    """Energy distances of samples, and the area between two clock values, on held-out rows."""
    held = run.holdout_points()[:ROWS]
    found = {}
    for count in COUNTS:
        drawn = run.scaler.to_model(run.sample(ROWS, count, seed=seed, calibrate=False))
        pair = (a.flatten(1).double().numpy() for a in (drawn, held))
        found[f"energy, K = {count}"] = energy_distance(*pair)
    levels = np.geomspace(low, high, 33)
    noise = torch.Generator().manual_seed(seed)
    found["area, nats"] = measure(run.denoiser, held, levels, generator=noise).area()
    return found


def common(runs: list[Run]) -> tuple[float, float]:
    """The clock values between which all runs have levels."""
    ends = [
        run.process.clock(torch.tensor(run.process.t_range, dtype=torch.float64)) for run in runs
    ]
    low = max(float(end.min()) for end in ends)
    return low * 1.001, min(float(end.max()) for end in ends) * 0.999


def compare(name: str, seeds: int, steps: int) -> None:
    data = next(entry for entry in SETS if entry.name == name)
    try:
        rows = data.load()
    except InputError as error:
        print(f"{name}: left out, {error}")
        return
    gaps: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs = [
                fit(rows, out=Path(folder) / str(k), process=process, n=1000, holdout=ROWS,
                    steps=steps, seed=seed, check_every=steps)
                for k, process in enumerate(ARMS.values())
            ]  # fmt: skip
            between = common(runs)
            both = [figures(run, *between, seed) for run in runs]
        ends = [run.config.process for run in runs]
        print(f"{name}, seed {seed}: {ends[0]}, P {runs[0].config.bump}", flush=True)
        for key in both[0]:
            gaps.setdefault(key, []).append((both[0][key], both[1][key]))
    for key, pairs in gaps.items():
        own, default = np.array(pairs).T
        gap = own - default
        error = 2 * gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else float("nan")
        print(
            f"{name}, {key}: read off {own.mean():.4g}, default {default.mean():.4g}, "
            f"difference {gap.mean():+.3g} +- {error:.2g}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = [int(word) for word in sys.argv[1:3]] + [SEEDS, STEPS][len(sys.argv[1:3]) :]
    for name in ("digits", "california"):
        compare(name, *wanted)
