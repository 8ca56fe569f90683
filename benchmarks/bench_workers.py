"""Eight fits of a sweep by two workers of one core, beside one process; the same table or it ends.

`python bench_workers.py --steps 1000` (steps of each fit). Workers are local processes, started in
the time that is taken (`--jobs 2`), and a Ray cluster of two nodes of one core, whose workers a
small sweep opens first. Wall time: it needs two free cores.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from reverie import sweep
from reverie.runs import FitConfig
from reverie.workers import Workers

ROWS = np.random.default_rng(0).normal(size=(400, 8))
OVER = {"n": [20, 40, 80, 160], "seed": [0, 1]}


def timed(folder, steps, workers):
    """Seconds of the sweep and the bytes of its table."""
    config = FitConfig(width=64, depth=2, steps=steps, check_every=steps, holdout=60)
    begun = time.perf_counter()
    sweep(ROWS, folder, OVER, config=config, samples=50, workers=workers)
    return time.perf_counter() - begun, (folder / "sweep.csv").read_bytes()


def opened(folder, workers):
    config = FitConfig(width=8, depth=1, steps=2, check_every=2, holdout=60)
    sweep(ROWS, folder, {"n": [20, 40]}, config=config, samples=5, workers=workers)


def by_ray(folder, steps):
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        print("ray is not installed: pip install 'reverie[ray]'")
        return None
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        opened(folder / "warm", Workers(on="ray"))
        return timed(folder / "ray", steps, Workers(on="ray"))
    finally:
        ray.shutdown()
        cluster.shutdown()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, table = timed(folder / "one", steps, Workers(threads=1))
        print(f"8 fits of {steps:,} steps, one process: {one:.1f} s", flush=True)
        jobs = timed(folder / "jobs", steps, Workers(jobs=2, threads=1))
        for what, found in (("--jobs 2", jobs), ("Ray, two nodes", by_ray(folder, steps))):
            if found is not None:
                assert found[1] == table, f"{what}: another table"
                print(f"{what}: {found[0]:.1f} s, {one / found[0]:.2f} times as fast, the same "
                      f"table (load {os.getloadavg()[0]:.1f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
