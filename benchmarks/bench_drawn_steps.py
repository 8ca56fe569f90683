"""The number of steps that `steps_by_drawing` names, drawn afresh: is it kept, and was it needed?

On digits (a network fitted for a minute), on a table (wine, a network) and on an exact mixture of
Gaussians, for two samplers: the named K, then 20 times new draws at K beside new draws at 4K, and
at K / 2 beside 2K, by the same test. Must: at K not told apart in at least 17 of 20; at K / 2 told
apart in most. `python bench_drawn_steps.py [DRAWS]`.
"""

from __future__ import annotations

import sys
import time

import torch

from reverie import fit, measure, plan_steps, sample
from reverie.denoisers import GaussianMixture
from reverie.processes import EDM
from reverie.sampling.drawn_steps import LEVEL, MORE, paired_energy, steps_by_drawing

REPEATS, LEAST = 20, 17
SAMPLERS = ("ancestral", "ddim")


def models():
    """Name, denoiser and held-out rows."""
    means = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    covariances = 0.04 * torch.eye(4).repeat(6, 1, 1)
    mixture = GaussianMixture(EDM(0.02, 40), means, covariances, torch.ones(6) / 6)
    pick = torch.randint(6, (2000,), generator=torch.Generator().manual_seed(1))
    noise = torch.randn(2000, 4, generator=torch.Generator().manual_seed(2))
    yield "mixture, exact", mixture, means[pick] + 0.2 * noise
    for name, steps in (("digits", 4000), ("wine", 3000)):
        run = fit(name, steps=steps, width=128, stop_on_leak=True, check_every=250)
        yield f"{name}, network", run.denoiser, run.holdout_points()


def told(denoiser, curve, steps, sampler, shape, seed, draws):
    """Whether new draws at `steps` are told from draws at four times as many."""
    both = [
        sample(
            denoiser, draws, plan_steps(curve, steps=k, sampler=sampler), sampler, shape=shape,
            generator=torch.Generator().manual_seed(seed),
        )
        for k in (steps, MORE * steps)
    ]  # fmt: skip
    return paired_energy(*both, generator=torch.Generator().manual_seed(seed + 1))[2] < LEVEL


def main(draws=500):
    torch.set_num_threads(1)
    for name, denoiser, rows in models():
        curve = measure(denoiser, rows, generator=torch.Generator().manual_seed(0))
        shape = tuple(rows.shape[1:])
        for sampler in SAMPLERS:
            start = time.process_time()
            found = steps_by_drawing(
                denoiser, curve, draws, sampler, shape=shape,
                generator=torch.Generator().manual_seed(7),
            )  # fmt: skip
            spent = time.process_time() - start
            if found.steps is None:
                print(f"{name}, {sampler}: none found ({spent:.0f} s)", flush=True)
                continue
            seeds = range(1000, 1000 + REPEATS)
            again, half = (
                sum(told(denoiser, curve, k, sampler, shape, s, draws) for s in seeds)
                for k in (found.steps, max(found.steps // 2, 1))
            )
            word = "kept" if REPEATS - again >= LEAST else "NOT KEPT"
            print(
                f"{name}, {sampler}: K = {found.steps} at {draws} draws ({spent:.0f} s); told "
                f"from 4K in {again} of {REPEATS} new draws, {word}; at K / 2 in {half}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
