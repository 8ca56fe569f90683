"""Speciation, cloning, collapse and excess entropy of the exact reversal (Biroli et al. 2024).

No network is needed: two Gaussian clusters whose regimes are known in closed form, clones grown
from branched paths, and the excess entropy of finite training sets, digits among them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser, Linear, Memoriser
from reverie.processes import VP
from reverie.reproduce.networks import digits
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory import regimes

COUNT = 20_000
# Ornstein-Uhlenbeck time and f^e / alpha, saved by the authors' code
SAVED = {
    256: [(1.34, 0.16), (1.73, 0.52), (2.12, 0.75), (2.90, 0.93)],
    4096: [(2.51, 0.04), (2.90, 0.33)],
}
COLLAPSE = {256: 1.2988, 1024: 1.9775, 4096: 2.6671}
SPECIATION = {
    "MNIST": (7.66, 1.018),
    "CIFAR": (16.72, 1.408),
    "ImageNet16": (3.05, 0.558),
    "ImageNet32": (12.11, 1.247),
    "LSUN": (60.52, 2.051),
}


class TwoClusters(Denoiser):
    """Exact denoiser of +-m with unit variance, along m: the other directions do not interact."""

    process: VP

    def __init__(self, process: VP, separation: float) -> None:
        super().__init__()
        self.process, self.separation = process, separation

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, _ = self.process.scales(t, state)
        centre = self.separation * torch.tanh(alpha * self.separation * state)
        return centre + alpha * (state - alpha * centre)


def clone_share(t: float, separation: float, paths: int, generator: torch.Generator) -> float:
    """Share of pairs of paths from one state at time t that end in the same cluster."""
    process = VP()
    branch, end = (float(process.time(float(regimes.ve_sigma(s)) ** -2)) for s in (t, 5e-3))
    signs = torch.randint(2, (paths, 1), generator=generator, dtype=torch.float64) * 2 - 1
    clean = signs * separation + torch.randn(signs.shape, generator=generator).double()
    state = process.corrupt(clean, branch, generator=generator).repeat(2, 1)
    times = torch.linspace(branch, end, 200, dtype=torch.float64)
    denoiser = TwoClusters(process, separation)
    ends = sample(denoiser, len(state), times, init=state, generator=generator).sign()
    return float((ends[:paths] == ends[paths:]).double().mean())


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` adds d = 4096 (about 3 GB of memory)."""
    generator = torch.Generator().manual_seed(seed)
    dims = (256, 1024, 4096) if full else (256, 1024)
    draws, paths = (2000, 20_000) if full else (500, 4000)
    figure, (left, middle, right) = panels(3)
    rows = [
        Row(f"t_C of n = {COUNT}, d = {d}", regimes.isotropic_collapse_time(COUNT, d), t, "V")
        for d, t in COLLAPSE.items()
    ]
    rows += [
        Row(f"t_S of {name} from its top variance {top}", regimes.speciation_time([top]), t, "V")
        for name, (top, t) in SPECIATION.items()
    ]
    rows += _cloning(left, paths, generator)
    rows += _mixtures(middle, dims, draws, generator)
    rows += _digits(right, draws, generator)
    save_figure(figure, out / "dynamical_regimes.png")
    settings = dict(n=COUNT, dims=list(dims), draws=draws, paths=paths)
    return write_table(out, "Dynamical regimes (Biroli et al. 2024)", rows, seed, settings)


def _cloning(axes: Any, paths: int, generator: torch.Generator) -> list[Row]:
    dim = 64
    separation, t_s = math.sqrt(dim), regimes.speciation_time([float(dim)])
    fine, shares = np.linspace(0.3 * t_s, 2 * t_s, 100), np.linspace(0.4, 1.8, 8)
    measured = [clone_share(s * t_s, separation, paths, generator) for s in shares]
    axes.plot(fine / t_s, regimes.cloning_probability(fine, separation), label="closed form")
    axes.plot(shares, measured, "o", ms=4, label="branched paths")
    axes.axvline(1, color="grey", lw=0.8)
    axes.set(xlabel="branching time / speciation time", ylabel="probability of the same class")
    axes.legend(frameon=False)
    exact = float(regimes.cloning_probability(t_s, separation)[0])
    simulated = clone_share(t_s, separation, paths, generator)
    error = math.sqrt(exact * (1 - exact) / paths)
    note = "the paper's threshold"
    return [
        Row("phi(t_S), closed form", exact, 0.775, "V", note=note),
        Row("phi(t_S), branched paths, d = 64", simulated, 0.7752, "D", error),
    ]


def _mixtures(
    axes: Any, dims: tuple[int, ...], draws: int, generator: torch.Generator
) -> list[Row]:
    rows = []
    for dim in dims:
        signs = torch.randint(2, (COUNT, 1), generator=generator, dtype=torch.float64) * 2 - 1
        data = torch.randn(COUNT, dim, generator=generator, dtype=torch.float64).add_(signs)
        t_c = regimes.isotropic_collapse_time(COUNT, dim)
        saved = SAVED.get(dim, [])
        grid = np.union1d(np.linspace(0.5 * t_c, 2.5 * t_c, 14), [t for t, _ in saved])
        found = regimes.excess_entropy(data, grid, draws=draws, generator=generator)
        (line,) = axes.plot(grid / t_c, found.ratio, ".-", label=f"d = {dim}")
        for t, share in saved:
            axes.plot(t / t_c, share, "x", color=line.get_color())
            k = int(np.searchsorted(grid, t))
            error = found.stderr[k] / math.log(COUNT)
            name = f"f^e / alpha at t = {t}, d = {dim}"
            rows.append(Row(name, float(found.ratio[k]), share, "V", float(error)))
        note = "reference: t_C; the two meet as n and d grow"
        name = f"time of f^e / alpha = .2, d = {dim}"
        rows.append(Row(name, found.crossing(0.2), t_c, "D", note=note))
    axes.axvline(1, color="grey", lw=0.8)
    axes.set(xlabel="time / collapse time", ylabel="excess entropy / ln n (nats per nat)")
    axes.legend(frameon=False, title="crosses: published")
    return rows


def _last_switch(data: Tensor, t_c: float, generator: torch.Generator) -> Row:
    """Mean time at which exact backward paths settle on one digit."""
    process, grid = VP(), np.linspace(3.0, 0.02, 150)
    times = process.time(torch.as_tensor(regimes.ve_sigma(grid)) ** -2)
    shape = tuple(data.shape[1:])
    start = process.sample_prior(400, shape=shape, generator=generator, dtype=data.dtype)
    steps = sample.states(Memoriser(process, data), 400, times, init=start, generator=generator)
    path = [start, *list(steps)[:-1]]
    switches = regimes.last_switches(path, data, grid)
    error = float(switches.std(ddof=1)) / math.sqrt(len(switches))
    note = "reference: collapse time of the spectrum as if Gaussian"
    name = f"digits, n = {len(data)}: mean time of the last change of nearest digit"
    return Row(name, float(switches.mean()), t_c, "D", error, note)


def _digits(axes: Any, draws: int, generator: torch.Generator) -> list[Row]:
    """Digits, scaled to unit mean variance: their spectrum's regimes, and the measured set."""
    data = digits(generator).flatten(1).double()
    data = (data - data.mean(0)) / data.var(0, correction=0).mean().sqrt()
    rows = []
    for count in (100, 400, len(data)):
        part = data[:count]
        lam = Linear.fit(VP(), data).spectrum.numpy()
        t_c = regimes.collapse_time(count, lam)
        grid = np.linspace(0.1, 3.0, 25)
        found = regimes.excess_entropy(part, grid, draws=draws, generator=generator)
        (line,) = axes.plot(grid, found.ratio, label=f"n = {count}")
        axes.plot(
            grid,
            regimes.gaussian_excess_entropy(count, lam, grid) / math.log(count),
            "--",
            color=line.get_color(),
        )
        name = f"digits, n = {count}: time of f^e / alpha = .2"
        note = "reference: collapse time of the spectrum as if Gaussian"
        rows.append(Row(name, found.crossing(0.2), t_c, "D", note=note))
        if count == len(data):
            t_s = regimes.speciation_time(lam)
            axes.axvline(t_s, color="grey", lw=0.8)
            rows.append(Row("digits: t_S of the spectrum", t_s))
            rows.append(_last_switch(data, t_c, generator))
    axes.set(xlabel="Ornstein-Uhlenbeck time", ylabel="excess entropy / ln n (nats per nat)")
    axes.legend(frameon=False, title="dashed: Gaussian of\nthe same spectrum")
    return rows
