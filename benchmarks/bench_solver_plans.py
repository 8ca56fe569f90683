"""Which plan serves a solver of second order? The default against every rival, on wide ends.

    python benchmarks/bench_solver_plans.py [LAWS] [SEEDS] [SAMPLERS]

Exact denoisers of three laws between sigma = .002 and 80 (twenty tight clusters in the plane, a
low-rank mixture in 16 dimensions, a rare mode on the line), invented with the seed LAWS (0), and
digits with a network. SEEDS (0,1) are those of the samples. Energy distance to fresh rows, mean
over seeds, of the plan that `plan_steps(..., sampler=)` makes by default, of the exact program in
the samples' clock, and of rivals; and by how much the default is behind the best of them, with
twice the standard error of the paired difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from reverie import fit, measure, plan_steps, sample
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.denoisers import Denoiser, GaussianMixture
from reverie.processes import EDM

PLANS = ("rescaled-entropic", "tangent", "karras", "cosine", "log-snr")
COUNTS, DRAWS = (10, 20), 1000
SIGMAS = (0.002, 80.0)


def laws(seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, means, covariances and weights of mixtures."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-1.5, 1.5, (20, 2))
    yield "tight clusters", centres, np.tile(0.02**2 * np.eye(2), (20, 1, 1)), np.ones(20)
    factors = 0.4 * rng.standard_normal((6, 16, 3))
    spread = factors @ factors.transpose(0, 2, 1) + 1e-3 * np.eye(16)
    yield "low rank", 1.2 * rng.standard_normal((6, 16)), spread, np.arange(1.0, 7.0)
    rare = np.array([0.9, 0.1])
    yield "rare mode", np.array([[-1.0], [1.0]]), np.full((2, 1, 1), 0.05**2), rare


Case = tuple[str, Denoiser, Callable[[int], Tensor]]


def cases(seed: int) -> Iterator[Case]:
    """Name, denoiser, and fresh rows by seed."""
    for name, means, covariances, weights in laws(seed):
        tensors = (torch.from_numpy(values) for values in (means, covariances, weights))
        law = GaussianMixture(EDM(*SIGMAS), *tensors)
        yield (
            name,
            law,
            lambda s, law=law: law.draw(DRAWS, torch.Generator().manual_seed(1000 + s)),
        )
    low, high = SIGMAS
    run = fit("digits", process=f"edm:sigma_min={low},sigma_max={high}", n=1000, steps=1500,
              width=256, seed=seed, check_every=500)  # fmt: skip
    yield "digits, network", run.denoiser, lambda s: run.holdout_points()[:DRAWS]


def compare(case: Case, sampler: str, steps: int, seeds: list[int]) -> None:
    name, denoiser, rows = case
    noise = torch.Generator().manual_seed(2)
    curve = measure(denoiser, rows(-1), generator=noise)
    plans = {
        "default": plan_steps(curve, steps, sampler=sampler),
        "samples clock": plan_steps(curve, steps, "loss-adaptive", "samples"),
    } | {method: plan_steps(curve, steps, method) for method in PLANS}
    found: dict[str, list[float]] = {label: [] for label in plans}
    for label, plan in plans.items():
        for seed in seeds:
            fresh = rows(seed)
            drawn = sample(denoiser, len(fresh), plan, sampler, shape=tuple(fresh.shape[1:]),
                           generator=torch.Generator().manual_seed(seed))  # fmt: skip
            pair = (a.flatten(1).double().numpy() for a in (drawn, fresh))
            found[label].append(energy_distance(*pair))
    best = min((label for label in found if label != "default"), key=lambda k: np.mean(found[k]))
    gap = np.array(found["default"]) - np.array(found[best])
    error = 2 * gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else float("nan")
    means = ", ".join(f"{label} {np.mean(values):.4f}" for label, values in found.items())
    print(f"{name}, {sampler}, K = {steps}: {means}; default less {best} {gap.mean():+.4f} "
          f"+- {error:.4f}", flush=True)  # fmt: skip


def main(seed: str = "0", seeds: str = "0,1", samplers: str = "dpm++2m,heun") -> None:
    torch.set_num_threads(1)
    for case in cases(int(seed)):
        for sampler in samplers.split(","):
            for steps in COUNTS:
                compare(case, sampler, steps, [int(s) for s in seeds.split(",")])


if __name__ == "__main__":
    main(*sys.argv[1:])
