"""Plans on mixed tables: the default beside nats and log-SNR, by what one sees.

    python bench_table_plans.py [--steps 1500] penguins.csv titanic.csv

On each table (say of mwaskom/seaborn-data) a small network is fitted, and samples are drawn with
K steps on three plans. Printed is their energy distance, in the common space of an audit, to draws
of the same network on 150 steps, which a plan alone can be blamed for, and to the held-out rows;
the mean over three seeds, and the error of that mean. `floor` is that of other draws on 150 steps.
"""

from __future__ import annotations

import argparse

import numpy as np

from reverie import Run, fit
from reverie.auditing.common_space import in_common
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.runs.readings import draw, standard_curves

MANY, SEEDS = 150, 3
PLANS = {
    "default": {},
    "nats": {"clock": "nats"},
    "log-snr": {"plan": "log-snr"},
}  # fmt: skip


def distances(run: Run, drawn: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Energy distances of samples to draws on many steps and to held-out rows."""
    sets = [run.train.with_values(reference, "many"), run.holdout,
            run.train.with_values(drawn, "few")]  # fmt: skip
    many, held, few = in_common(sets, run.scaler, [])
    return energy_distance(many, few), energy_distance(held, few)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--n", type=int, default=1500, help="samples of each plan")
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10, 20], help="K")
    chosen = parser.parse_args()
    for table in chosen.tables:
        run = fit(table, space="table", steps=chosen.steps, check_every=chosen.steps, width=128,
                  depth=2, holdout=100, batch_size=128, ema=0.995)  # fmt: skip
        standard_curves(run, levels=32, rows=400)
        reference, other = (draw(run, chosen.n, MANY, "log-snr", seed=seed)[0] for seed in (9, 8))
        floor = distances(run, other, reference)
        print(f"{table}: {len(run.train)} rows, floor {floor[0]:.4f} {floor[1]:.4f}", flush=True)
        for steps in chosen.counts:
            for name, how in PLANS.items():
                found = np.array([
                    distances(run, draw(run, chosen.n, steps, seed=seed, **how)[0], reference)
                    for seed in range(SEEDS)
                ])  # fmt: skip
                mean, error = found.mean(0), found.std(0, ddof=1) / SEEDS**0.5
                print(f"  K = {steps:3} {name:8} to {MANY} steps {mean[0]:8.4f} +- {error[0]:.4f}"
                      f"   to held-out {mean[1]:8.4f} +- {error[1]:.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
