"""The posterior of the g-and-k law: a conditional denoiser beside Markov chains and ABC.

A g-and-k variate is a + b (1 + c tanh(g z / 2)) (1 + z^2)^k z with z normal and c = .8. Its
density has no closed form, which makes it a benchmark of simulation-based inference; the prior is
uniform on [0, 10]^4 and the truth (a, b, g, k) = (3, 1, 2, .5), observed through 250 ordered draws
(Benton et al. 2022, whose figure shows marginals only). Here the quantile function is inverted on
a grid, so that Metropolis steps give a reference; rejection ABC keeps the nearest simulations.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from reverie.curve import level_times
from reverie.denoisers import Network, ResidualMLP
from reverie.processes import VP
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample

NAMES, TRUTH = ("a", "b", "g", "k"), (3.0, 1.0, 2.0, 0.5)
SKEW, OBSERVED, HIGH = 0.8, 250, 10.0
BATCH, RATE = 256, 2e-3
GRID = np.linspace(-6.5, 6.5, 2001)  # of z; beyond it lies one draw in 10^10


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; about two minutes, half an hour with `full`."""
    generator = torch.Generator().manual_seed(seed)
    steps, pool = (60_000, 400_000) if full else (4_000, 100_000)
    theta = torch.tensor([TRUTH], dtype=torch.float64)
    seen = simulate(theta, generator)
    chain = metropolis(seen[0].numpy(), 20_000, np.random.default_rng(seed))
    network = fit(steps, generator, seed)
    times = torch.as_tensor(level_times(network.process, 65))
    drawn = sample(
        network, 4_000, times, shape=(4,), condition=summary(seen).float().expand(4_000, -1),
        generator=generator,
    )  # fmt: skip
    ours = (0.5 * HIGH * (drawn.double() + 1)).numpy()
    near = rejection(seen, pool, 200, generator)
    rows = []
    for j, name in enumerate(NAMES):
        spread = float(chain[:, j].std())
        for label, column in (("denoiser", ours[:, j]), ("rejection ABC", near[:, j])):
            note = "reference: Markov chain"
            rows += [
                Row(f"{name}, {label}: posterior mean", column.mean(), chain[:, j].mean(), "D",
                    note=note),
                Row(f"{name}, {label}: posterior deviation", column.std(), spread, "D", note=note),
                Row(f"{name}, {label}: Wasserstein distance / deviation",
                    wasserstein_distance(column, chain[:, j]) / spread),
            ]  # fmt: skip
    _draw({"Markov chain": chain, "denoiser": ours, "rejection ABC": near}, out / "g_and_k.png")
    settings = {"training steps": steps, "ABC simulations": pool, "kept": 200}
    return write_table(out, "Posterior of the g-and-k law", rows, seed, settings)


def quantile(theta: Tensor, z: Tensor) -> Tensor:
    """The g-and-k variate (B, n) of normal variates z (B, n) and theta (B, 4)."""
    a, b, g, k = theta.T[..., None]
    return a + b * (1 + SKEW * torch.tanh(0.5 * g * z)) * (1 + z * z) ** k * z


def simulate(theta: Tensor, generator: torch.Generator) -> Tensor:
    """Ordered observations (B, 250) for theta (B, 4)."""
    shape = (len(theta), OBSERVED)
    z = torch.randn(shape, generator=generator, dtype=torch.float64).sort(1).values
    return quantile(theta, z)


def summary(observed: Tensor) -> Tensor:
    """Place, spread and shape (B, 252) of ordered observations, the shape free of the others."""
    place, spread = _place(observed)
    shape = ((observed - place) / spread).asinh()
    return torch.cat([place.asinh(), spread.log(), shape], 1)


def octiles(observed: Tensor) -> Tensor:
    """Place, spread, skewness and tails (B, 4) from octiles (Drovandi & Pettitt 2011)."""
    at = torch.arange(1, 8, dtype=torch.float64) / 8
    e1, e2, e3, e4, e5, e6, e7 = observed.quantile(at, dim=1)
    spread = e6 - e2
    skew, tails = (e6 + e2 - 2 * e4) / spread, (e7 - e5 + e3 - e1) / spread
    return torch.stack([e4.asinh(), spread.log(), skew, tails.log()], 1)


def _place(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Median and interquartile range, (B, 1) each."""
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = observed.quantile(at, dim=1)[..., None]
    return middle, (high - low).clamp(min=1e-9)


def log_likelihood(theta: np.ndarray, observed: np.ndarray) -> float:
    """Log-density in nats of the observations, the quantile function inverted on a grid."""
    a, b, g, k = theta
    tanh, square = np.tanh(0.5 * g * GRID), 1 + GRID**2
    value = a + b * (1 + SKEW * tanh) * square**k * GRID
    slope = square**k * (1 + SKEW * tanh) * (1 + (2 * k + 1) * GRID**2) / square
    slope = b * (slope + 0.5 * SKEW * g * (1 - tanh**2) * square**k * GRID)
    z = np.interp(observed, value, GRID)
    inside = (observed > value[0]) & (observed < value[-1])
    if not inside.all() or (slope <= 0).any():
        return -math.inf
    return float((-0.5 * z**2 - np.log(np.interp(z, GRID, slope))).sum())


def metropolis(observed: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Adaptive random-walk draws (n, 4) of the posterior; a fifth is burnt, every fourth kept.

    Source: Haario, Saksman & Tamminen 2001.
    """
    here = np.array(TRUTH)
    level, kept = log_likelihood(here, observed), []
    root = 0.1 * np.eye(4)
    for step in range(steps):
        if step in (500, 1000, 2000, steps // 5):
            scatter = np.cov(np.array(kept[step // 2 :]).T) + 1e-8 * np.eye(4)
            root = np.linalg.cholesky(scatter) * 2.38 / 2
        move = here + root @ rng.standard_normal(4)
        if (move > 0).all() and (move < HIGH).all():
            other = log_likelihood(move, observed)
            if math.log(rng.random()) < other - level:
                here, level = move, other
        kept.append(here)
    return np.array(kept[steps // 5 :: 4])


def rejection(seen: Tensor, pool: int, keep: int, generator: torch.Generator) -> np.ndarray:
    """Parameters (keep, 4) of the simulations of the prior whose octiles are nearest.

    Octiles are measured in median deviations over the simulations.
    """
    parts = [pool // 10] * 10
    theta = [HIGH * torch.rand((n, 4), generator=generator, dtype=torch.float64) for n in parts]
    told = torch.cat([octiles(simulate(part, generator)) for part in theta])
    scale = (told - told.median(0).values).abs().median(0).values
    away = ((told - octiles(seen)) / scale).square().sum(1)
    return torch.cat(theta)[away.argsort()[:keep]].numpy()


class Conditional(nn.Module):
    """A residual MLP that reads the state beside the summary (B, 252)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ResidualMLP((4 + OBSERVED + 2,), 128, 3, out=4)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        return self.body(torch.cat([x, condition], 1), level)


def fit(steps: int, generator: torch.Generator, seed: int) -> Network:
    """A denoiser of theta given the summary, on fresh simulations at every step."""
    process = VP()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(process, Conditional(), data_std=3**-0.5)  # uniform on [-1, 1]
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        unit = torch.rand((BATCH, 4), generator=generator, dtype=torch.float64)
        given = summary(simulate(HIGH * unit, generator)).float()
        x = (2 * unit - 1).float()
        level = -2.0 + 1.6 * torch.randn(BATCH, generator=generator, dtype=torch.float64)
        t = process.time((-2 * level).exp()).clamp(*process.t_range)
        guess = network(process.corrupt(x, t, generator=generator), t.float(), given)
        loss = (network.loss_weight(t, x) * (guess - x).square()).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


def _draw(draws: dict[str, np.ndarray], path: Path) -> None:
    figure, axes = panels(4, 3.0, 2.8)
    for j, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
        centre, spread = draws["Markov chain"][:, j].mean(), draws["Markov chain"][:, j].std()
        low, high = max(centre - 8 * spread, 0), min(centre + 8 * spread, HIGH)
        for label, values in draws.items():
            axis.hist(values[:, j], np.linspace(low, high, 41), density=True, histtype="step",
                      label=label)  # fmt: skip
        axis.axvline(TRUTH[j], color="grey", lw=0.8)
        axis.set(xlabel=f"parameter {name}", ylabel="posterior density" if j == 0 else "")
    axes[-1].legend(frameon=False, fontsize=7)
    save_figure(figure, path)
