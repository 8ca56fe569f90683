"""Held-out log density of `fit --network flow` beside zuko's own run of the same size.

    python benchmarks/bench_flows.py [TABLE ...] [--steps 1000] [--seeds 3] [--rate 1e-3]

The other side is a bare loop of zuko in the same process: the same spline flow (three transforms,
two layers of 64), rows, steps, batch and optimiser (AdamW, betas .9 and .99) at a constant --rate
(a run has a peak of 3e-3), without the decay of the rate, the bound on gradients and the average
of weights that a run has. Tables are
breast cancer and wine of scikit-learn, and California housing where REVERIE_DATA has it.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
import zuko

from reverie import fit
from reverie.errors import InputError
from reverie.reproduce.real_data import real_data

TABLES = ("breast-cancer", "wine", "california")
HOUSING = "california_housing/housing.csv.gz"


def table(name: str) -> np.ndarray:
    """Rows of numbers without constant columns; InputError where the file is not there."""
    if name == "california":
        place = real_data(HOUSING, "the StatLib archive")
        # places, counts and income; ages and prices are capped, where a density has spikes
        rows = np.genfromtxt(place, delimiter=",", skip_header=1, usecols=(0, 1, 3, 4, 5, 6, 7))
        rows = rows[np.isfinite(rows).all(1)]
        rows[:, 2:6] = np.log(rows[:, 2:6])
        return rows[np.random.default_rng(0).permutation(len(rows))[:4000]]
    from sklearn import datasets

    made = {"breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]()
    return np.asarray(made.data, dtype=float)


def bare(train: np.ndarray, held: np.ndarray, steps: int, seed: int, rate: float) -> np.ndarray:
    """Log densities (m,) of held-out rows by zuko alone."""
    mean, std = train.mean(0), train.std(0)
    x, fresh = (torch.as_tensor((v - mean) / std, dtype=torch.float32) for v in (train, held))
    torch.manual_seed(seed)
    flow = zuko.flows.NSF(x.shape[1], 0, transforms=3, hidden_features=[64, 64])
    optimiser = torch.optim.AdamW(flow.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=draw)
        loss = -flow().log_prob(x[rows]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return flow().log_prob(fresh).double().numpy() - np.log(std).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=TABLES)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3, help="of the other side")
    given = parser.parse_args()
    for name in given.tables:
        try:
            rows = table(name)
        except InputError as error:
            print(f"{name}: skipped: {error}")
            continue
        gains, ours, spent = [], [], [0.0, 0.0]
        for seed in range(given.seeds):
            began = time.process_time()
            warmup = min(200, given.steps // 10)
            run = fit(rows, network="flow", steps=given.steps, seed=seed, warmup=warmup)
            spent[0] += time.process_time() - began
            began = time.process_time()
            theirs = bare(run.train_values, run.holdout_values, given.steps, seed, given.rate)
            spent[1] += time.process_time() - began
            mine = run.log_density(run.holdout_values)
            gains.append(mine - theirs)
            ours.append(mine)
        gain, mine = np.concatenate(gains), np.concatenate(ours)
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        print(
            f"{name}: -log density, nats a held-out row: ours {-mine.mean():.3f}, zuko's own "
            f"{-(mine - gain).mean():.3f}; ours less theirs {-gain.mean():.3f} +- {error:.3f}; "
            f"{spent[0]:.0f} and {spent[1]:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
