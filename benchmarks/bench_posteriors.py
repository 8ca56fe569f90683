"""Posteriors of logistic regressions: log Z, and how far draws are from known ones.

    python benchmarks/bench_posteriors.py [NAME ...] [--methods smc dds pis] [--steps 64]
        [--training 300] [--n 1024]

Names: german-credit, breast-cancer, sonar, ionosphere, of REVERIE_DATA/sampling_targets. For the
first two reference draws ship with the data; for the others a long run of HMC makes them, and its
R-hat is said. What a reference is worth: Stein's identity, E x_i d_i log gamma = -1 of a centred
x_i, is printed of each, the least and the largest of all coordinates.

Each row: CPU seconds in all, log Z with its interval, its error against the reference (SMC of
another seed and --longer times the draws, with its own interval), C2ST (boosted trees, .5 is the
best there is, beside it the same of two halves of the reference), and the W1 of the marginals in
deviations of the reference, mean and largest, beside that of two sets of reference draws.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from reverie.auditing.metrics.fidelity import classifier_two_sample
from reverie.errors import InputError
from reverie.reproduce.real_data import real_data
from reverie.reproduce.score_annealing import FOLDER, SOURCE, posterior
from reverie.targets import LogisticRegression, Target, anneal, long_run, sample

NAMES = ("german-credit", "breast-cancer", "sonar", "ionosphere")
CHAINS = 64


def shipped(name: str) -> np.ndarray | None:
    """Reference draws of the data folder, in random order, or None."""
    if name == "german-credit":
        found = np.load(real_data(f"{FOLDER}/german_credit10k.npy", SOURCE), allow_pickle=False)
    elif name == "breast-cancer":
        place = real_data(f"{FOLDER}/breastcancer_gt_with_lns_10k.npz", SOURCE)
        with np.load(place, allow_pickle=False) as file:
            found = file["groundtruth"]
    else:
        return None
    return np.random.default_rng(0).permutation(found)


def stein(law: LogisticRegression, draws: np.ndarray) -> str:
    """E (x_i - mean) d_i log gamma, the least and the largest coordinate."""
    x = torch.as_tensor(draws, dtype=torch.float64)
    slope = Target(law, law.dim).with_gradient(x)[1]
    found = ((x - x.mean(0)) * slope).mean(0)
    return f"Stein {float(found.min()):.2f} to {float(found.max()):.2f} (-1 is right)"


def distances(draws: np.ndarray, reference: np.ndarray) -> str:
    """C2ST and W1 of marginals."""
    spread = reference.std(0)
    each = [
        wasserstein_distance(draws[:, j] / s, reference[:, j] / s) for j, s in enumerate(spread)
    ]
    told = classifier_two_sample(reference[: len(draws)], draws)
    low, high = told.interval
    return (
        f"C2ST {told.accuracy:.3f} [{low:.3f}, {high:.3f}]; W1 {np.mean(each):.3f}, "
        f"at most {np.max(each):.3f}"
    )


def measured(name: str, given: argparse.Namespace) -> None:
    law = posterior(name.replace("-", " "))
    began = time.process_time()
    draw = torch.Generator().manual_seed(0)
    target = Target(law, law.dim)
    path = anneal(target, generator=draw)
    reference = shipped(name)
    if reference is None:
        run = long_run(target, path, chains=CHAINS, moves=given.long, every=5, generator=draw)
        reference = np.random.default_rng(0).permutation(run.points.numpy())
        how = f"HMC, {CHAINS} chains of {given.long:,} moves, R-hat {run.r_hat.max():.4f}"
    else:
        how = "shipped"
    half = len(reference) // 2
    print(f"{name}, d = {law.dim}: {len(reference):,} reference draws, {how}; "
          f"{stein(law, reference)}; {time.process_time() - began:.0f} CPU s")  # fmt: skip
    some = reference[half : half + given.n]
    print(f"  two sets of them: {distances(some, reference[:half])}", flush=True)
    long = sample(law, n=given.longer * given.n, start=path.start, moves=given.moves, seed=100)
    print(f"  reference: {long.log_z}", flush=True)
    for method in given.methods:
        began = time.process_time()
        more = (
            dict(moves=given.moves)
            if method == "smc"
            else dict(method=method, steps=given.steps, training=given.training)
        )
        run = sample(law, n=given.n, start=path.start, seed=1, **more)
        spent = time.process_time() - began
        error = run.log_z.value - long.log_z.value
        noise = math.hypot(run.log_z.stderr, long.log_z.stderr)
        print(
            f"  {method}, {run.settings['steps']} steps: {run.log_z}; ELBO {run.elbo:.2f}; error "
            f"{error:+.3f} +- {noise:.3f}; {distances(run.samples.numpy(), reference[:half])}; "
            f"{spent:.0f} CPU s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--methods", nargs="+", default=["smc", "cmcd", "dds", "pis"])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--training", type=int, default=300)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--moves", type=int, default=8, help="of SMC at a temperature")
    parser.add_argument("--longer", type=int, default=4)
    parser.add_argument("--long", type=int, default=2000, help="moves of the long run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        try:
            measured(name, given)
        except InputError as error:
            print(f"{name}: skipped: {error}")


if __name__ == "__main__":
    main()
