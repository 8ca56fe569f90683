"""The empirical optimum memorises under every sampler whose last step is noise-free (Yi et al.).

The minimiser of the denoising loss over a finite set guesses a weighted mean of training points,
inside their convex hull (arXiv 2305.14712, read in its abstract; the experiment is ours). With a
deterministic sampler all samples are copies; so they are with ancestral sampling, whose last step
adds no noise. Only noise kept at the end bounds the information I(sample; training set):

    x = f(S, z) + N(0, s^2 I)  =>  I <= (d/2) log(1 + rho^2 / (d s^2)),  rho^2 = E|f - E f|^2
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from reverie.denoisers import Memoriser
from reverie.processes import VP
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import copied_share, nearest_two, null_copied_share

COUNT, DIM, STEPS, DRAWS = 200, 8, 200, 1000
KEPT = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


def outside_hull(points: np.ndarray, hull: np.ndarray) -> float:
    """Largest distance of `points` (m, d) from the convex hull of `hull` (n, d), by NNLS."""
    heavy = 1e3  # the weight of the equation sum w = 1
    system = np.vstack([hull.T, heavy * np.ones(len(hull))])
    return max(nnls(system, np.append(point, heavy), maxiter=10_000)[1] for point in points)


def information_bound(clean: Tensor, noise: float) -> float:
    """(d/2) log(1 + rho^2 / (d s^2)) in nats, rho^2 from draws of f (m, d): a Gaussian channel."""
    rho2 = float((clean - clean.mean(0)).square().sum(1).mean())
    dim = clean.shape[1]
    return 0.5 * dim * float(np.log1p(rho2 / (dim * noise**2)))


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` draws ten times more."""
    generator, process = torch.Generator().manual_seed(seed), VP()
    draws = 10 * DRAWS if full else DRAWS
    data = torch.randn(COUNT, DIM, generator=generator, dtype=torch.float64)
    denoiser = Memoriser(process, data)
    times = torch.linspace(1, 1e-3, STEPS + 1, dtype=torch.float64)
    drawn = {
        name: sample(denoiser, draws, times, name, shape=(DIM,), generator=generator,
                     dtype=torch.float64)
        for name in ("ddim", "ancestral")
    }  # fmt: skip
    rows = []
    for name, points in drawn.items():
        rows.append(
            Row(f"copied share, {name}, {STEPS} steps", copied_share(points, data), 1, "D")
        )
        near = float(nearest_two(points, data)[0][:, 0].median())
        rows.append(Row(f"median distance to the nearest row, {name}", near, 0, "D"))
    fresh = torch.randn(100_000, DIM, generator=generator, dtype=torch.float64)
    share = copied_share(fresh, data)
    error = float(np.sqrt(null_copied_share(DIM) / len(fresh)))
    note = "chance: (1/3)^d = 1.5e-4 for locally uniform data"
    rows.append(Row("copied share of fresh points", share, 2e-4, "D", error, note))
    rows.append(Row("largest distance of a guess from the hull", _off_hull(denoiser, generator), 0,
                    "D", note="50 states from clean to noise"))  # fmt: skip
    figure, (left, right) = panels(2)
    bins = np.linspace(0, 1, 41).tolist()
    for name, points in {**drawn, "fresh points": fresh[:draws]}.items():
        near = nearest_two(points, data)[0]
        left.hist((near[:, 0] / near[:, 1]).numpy(), bins, histtype="step", label=name, lw=1.5)
    left.axvline(1 / 3, color="grey", lw=0.8)
    left.set(xlabel="distance to the nearest / second nearest row", ylabel="samples", yscale="log")
    left.legend(frameon=False)
    rows += _kept_noise(right, drawn["ancestral"], data, generator)
    save_figure(figure, out / "empirical_optimum.png")
    settings = dict(n=COUNT, d=DIM, draws=draws)
    return write_table(out, "The empirical optimum (Yi, Sun & Li 2023)", rows, seed, settings)


def _off_hull(denoiser: Memoriser, generator: torch.Generator) -> float:
    process: VP = denoiser.process  # type: ignore[assignment]
    t = torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    noise = 2 * torch.randn(50, DIM, generator=generator, dtype=torch.float64)
    state = process.corrupt(noise, t, generator=generator)
    return outside_hull(denoiser(state, t).numpy(), denoiser.data.numpy())


def _kept_noise(axes: Any, clean: Tensor, data: Tensor, generator: torch.Generator) -> list[Row]:
    """Copied share, and the bound on the information, against the noise that the end keeps."""
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    shares = [copied_share(clean + s * noise, data) for s in KEPT]
    bounds = [information_bound(clean, s) for s in KEPT]
    axes.semilogx(KEPT, shares, "o-", label="copied share")
    axes.set(
        xlabel="noise kept at the end (data deviations)", ylabel="copied share", ylim=(0, 1.05)
    )
    twin = axes.twinx()
    twin.semilogx(KEPT, bounds, "s--", color="C1", label="bound on I (right)")
    for side in (axes, twin):  # the later of two log axes labels its minor ticks anew
        side.set_xticks(KEPT, [f"{s:g}" for s in KEPT])
        side.minorticks_off()
    twin.set(ylabel="bound on I(sample; training set) (nats)")
    twin.set_ylim(bottom=0)
    handles = axes.get_lines() + twin.get_lines()
    axes.legend(handles, [h.get_label() for h in handles], frameon=False, loc="lower left")
    return [
        *(Row(f"copied share with noise {s} kept", v) for s, v in zip(KEPT, shares, strict=True)),
        *(Row(f"bound on I in nats, noise {s}", v) for s, v in zip(KEPT, bounds, strict=True)),
    ]
