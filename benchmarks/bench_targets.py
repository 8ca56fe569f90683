"""Do intervals of log Z cover? 90% intervals on targets whose Z is known.

    python benchmarks/bench_targets.py [TARGET ...] [--runs 400] [--moves 8] [--whole]

By default each of the runs is `smc` of 16 islands of 64 particles with 8 moves a temperature,
along one annealed path that a pilot planned: so 400 runs are one batch. --whole: every run is a
whole `sample(f)` with a seed of its own, pilot and search for moves included (hours). A run
without an interval says why; of those with one, 86% to 94% should cover.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from reverie.targets import (
    SMC,
    Funnel,
    Gaussian,
    GaussianStart,
    ManyWell,
    Mixture,
    StudentMixture,
    Target,
    anneal,
    log_z_of_islands,
    sample,
)

ISLANDS, SIZE, MOVES, TOGETHER = 16, 64, 8, 25
TARGETS = {
    "gaussian": (Gaussian([2.0, -1, 3], [[1, 0.5, 0], [0.5, 2, 0.3], [0, 0.3, 0.2]]), None),
    "mixture": (Mixture([[-4.0, 0], [4, 1], [0, 6]], [0.5, 1, 0.7], [1, 2, 3]), (0.0, 5.0)),
    "student": (StudentMixture(np.array([[0.0] * 5, [8.0] * 5])), (4.0, 6.0)),
    "many-well": (ManyWell(8), None),
    "funnel": (Funnel(10), None),
}


def batch(name: str, runs: int, moves: int) -> list:
    f, start = TARGETS[name]
    generator = torch.Generator().manual_seed(0)
    target = Target(f, f.dim)
    law = None if start is None else GaussianStart.of(f.dim, *start)
    path = anneal(target, start=law, generator=generator)
    found = []
    pair = SMC(target, path, size=SIZE, moves=moves)
    while len(found) < runs:  # a few runs together, whose islands are forgotten
        some = min(TOGETHER, runs - len(found))
        islands = pair.islands(ISLANDS * some, generator)
        for k in range(some):
            part = islands.only(slice(k * ISLANDS, (k + 1) * ISLANDS))
            found.append(
                log_z_of_islands(
                    part.log_z.numpy(), ess=part.effective(), n=ISLANDS * SIZE, memory=part.memory
                )
            )
    return found


def whole(name: str, runs: int, moves: int) -> list:
    f, start = TARGETS[name]
    return [sample(f, start=start, seed=seed).log_z for seed in range(runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--moves", type=int, default=MOVES)
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'target':<10} {'covered':>8} {'told':>5} {'of':>5} {'bias':>8} {'sd':>7} {'se':>7}")
    for name in given.targets:
        began = time.process_time()
        found = (whole if given.whole else batch)(name, given.runs, given.moves)
        truth = TARGETS[name][0].log_z
        told = [z for z in found if z.told]
        covered = sum(z.low <= truth <= z.high for z in told)
        values = np.array([z.value for z in found]) - truth
        error = np.mean([z.stderr for z in told]) if told else np.nan
        print(
            f"{name:<10} {covered:>8} {len(told):>5} {len(found):>5} {values.mean():>8.4f} "
            f"{values.std():>7.4f} {error:>7.4f}   {time.process_time() - began:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
