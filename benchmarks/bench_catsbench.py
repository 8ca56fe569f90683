"""Bridges of symbols on the benchmark of Carrasco et al. 2025, by its own package and metrics.

    pip install catsbench torchmetrics     # in an environment of its own
    python benchmarks/bench_catsbench.py --dim 2 16

The package's definitions (`BenchmarkHD`) are built anew from a seed, with Gaussian potentials;
its pretrained ones live on a server. Scores, 1 is best: unconditional shape (marginals of sites)
and trend (of pairs of sites) of drawn ends, and the same given a start, over `--starts` starts
with 1,000 ends each. The rows `truth` are a second draw of the benchmark's own plan, what a
perfect solver reaches at these sizes; `independent` ignores the start.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverie.bridges import Independent, SiteReference, SymbolLight, fit_symbol_matching

ENDS = 1000  # of a start


def benchmark(dim: int, symbols: int, alpha: float, steps: int, seed: int) -> Any:
    """The package's benchmark: `steps` transitions, 4 potentials at radius 5."""
    from catsbench import BenchmarkHD
    from catsbench.benchmarks.hd import BenchmarkHDConfig

    torch.manual_seed(seed)
    config = BenchmarkHDConfig(
        dim=dim, input_shape=(dim,), num_potentials=4, num_categories=symbols, radius=5.0,
        alpha=alpha, num_timesteps=steps - 1, num_skip_steps=1, prior_type="gaussian",
        benchmark_type="gaussian", num_val_samples=2, init_batch_size=2, reverse=False, tau=1.0,
        params_dtype="float32", input_distribution="gaussian",
    )  # fmt: skip
    return BenchmarkHD(config)


def scores(
    made: Callable[[Tensor], Tensor], bench: Any, starts: Tensor, many: Tensor
) -> list[float]:
    """Shape and trend of ends of `many` starts, then the same given each of `starts`."""
    from catsbench.metrics import ShapeScore, TrendScore

    size = dict(dim=bench.dim, num_categories=bench.num_categories)
    found = []
    for conditional in (False, True):
        metrics = [kind(**size, conditional=conditional) for kind in (ShapeScore, TrendScore)]
        rows = [x.expand(ENDS, -1) for x in starts[:, None]] if conditional else [many]
        for x in rows:
            truth, guess = bench.sample(x), made(x)
            for metric in metrics:
                metric.update(truth, guess)
        found += [float(metric.compute()) for metric in metrics]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--alpha", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--light", type=int, default=2000, help="training steps of SymbolLight")
    parser.add_argument("--network", type=int, default=600, help="training steps of a refit")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    print(f"{'D':>3}  {'solver':<12} {'shape':>7} {'trend':>7} {'| x0':>7} {'| x0':>7}  CPU s")
    for dim in told.dim:
        bench = benchmark(dim, told.symbols, told.alpha, told.steps, told.seed)
        draw = torch.Generator().manual_seed(told.seed)
        a, b = bench.sample_input(20_000), bench.sample_target(20_000)
        kernel = bench.prior.log_p_onestep.T.double().exp()
        reference = SiteReference(kernel / kernel.sum(1, keepdim=True), told.steps)
        starts, many = bench.sample_input(told.starts), bench.sample_input(10_000)

        def light(a=a, b=b, reference=reference, draw=draw) -> Any:
            return SymbolLight.fit(
                a, b, reference, steps=told.light, directions=(False,), generator=draw
            )

        def network(a=a, b=b, reference=reference, draw=draw) -> Any:
            return fit_symbol_matching(
                Independent(a, b), reference, rounds=2, steps=told.network, width=256,
                generator=draw,
            )  # fmt: skip

        rows: list[tuple[str, Callable[[], Callable[[Tensor], Tensor]]]] = [
            ("truth", lambda bench=bench: bench.sample),
            ("independent", lambda b=b: lambda x: b[torch.randint(len(b), (len(x),))]),
            ("light", lambda fit=light: fit().sample),
            ("network", lambda fit=network: fit().sample),
        ]
        for name, fit in rows:
            start = time.process_time()
            made = fit()
            spent = time.process_time() - start
            found = "".join(f"{v:>8.4f}" for v in scores(made, bench, starts, many))
            print(f"{dim:>3}  {name:<12}{found}  {spent:.0f}", flush=True)


if __name__ == "__main__":
    main()
