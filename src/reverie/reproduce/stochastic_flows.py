"""Stochastic normalizing flows on an inverse problem with a known posterior (Hagemann et al.).

Hagemann, Hertrich & Steidl 2022 (arXiv 2109.11375). x in 100 dimensions is a mixture of twelve
narrow Gaussians (means uniform in [-1, 1], variance 1e-4), y = A x + noise with A = diag(.1 / i)
and noise of deviation .05 (here all is in units of it). The posterior is a mixture too, in closed
form. Models are trained on joint draws alone and asked for x given y: the exact W1 (an assignment
of equally many draws), averaged over y, beside that of two sets of exact draws.

INN + MALA is the trained INN followed by 120 moves on the exact posterior; the stochastic flow
(SNF) has the same flow and as many moves, at temperatures that rise to the posterior as in the
papers. Sizes, steps and the order of layers are ours: the paper's tables could not be read.
full: 5,000 steps, 100 y, five seeds.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.targets import ConditionalTarget, StochasticFlow, stochastic_flow, train

DIM, COMPONENTS, VARIANCE, FORWARD = 100, 12, 1e-4, 0.1 / 0.05  # in units of the noise
DEVIATION = math.sqrt(VARIANCE)
COUNT, LEVELS, COOLEST = 10, 12, 1e-3
# moves after what was trained: on the posterior itself, or as many at temperatures that rise to it
MOVES = f"mala@1*{COUNT * LEVELS}"
RISING = " ".join(f"mala@{COOLEST ** (1 - k / (LEVELS - 1)):.5f}*{COUNT}" for k in range(LEVELS))
MODELS = {  # layers that are trained, and the moves that follow
    "INN": ("flow*4", ""),
    "INN + MALA": ("flow*4", MOVES),
    "SNF": ("flow*4", RISING),
}
MORE = {  # of the full run
    "VAE + MALA": ("vae*4", MOVES),
    "SNF, trained through MALA": ("flow mala flow mala flow mala flow mala", RISING),
    "SNF, diffusion + flow": ("diffusion*16 flow", RISING),
}
SHARE = 1 / 8  # of rows that a diffusion layer is trained on in a step


class Inverse:
    """The problem of one seed: prior, forward operator, posterior."""

    def __init__(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.means = 2 * torch.rand(COMPONENTS, DIM, dtype=torch.float64, generator=draw) - 1
        self.diagonal = FORWARD / torch.arange(1, DIM + 1, dtype=torch.float64)
        self.target = ConditionalTarget(self.log_density, DIM, gradient=self.gradient)

    def joint(self, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws x and y (n, 100)."""
        k = torch.randint(COMPONENTS, (n,), generator=draw)
        x = self.means[k] + DEVIATION * _normal((n, DIM), draw)
        return x, self.diagonal * x + _normal((n, DIM), draw)

    def log_density(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x) p(y | x), (n,)."""
        prior = torch.logsumexp(self._logs(x), 1) - math.log(COMPONENTS)
        prior = prior - 0.5 * DIM * math.log(2 * math.pi * VARIANCE)
        off = (y - self.diagonal * x).square().sum(1)
        return prior - 0.5 * off - 0.5 * DIM * math.log(2 * math.pi)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Of `log_density` in x."""
        share = self._logs(x).softmax(1)
        prior = (share @ self.means - x) / VARIANCE
        return prior + self.diagonal * (y - self.diagonal * x)

    def _logs(self, x: Tensor) -> Tensor:
        squares = x.square().sum(1, keepdim=True) + self.means.square().sum(1)
        return -0.5 * (squares - 2 * x @ self.means.T) / VARIANCE

    def posterior(self, y: Tensor, n: int, draw: torch.Generator) -> Tensor:
        """Exact draws (n, 100) of x given y (100,)."""
        precision = 1 / VARIANCE + self.diagonal.square()
        means = (self.means / VARIANCE + self.diagonal * y) / precision
        spread = 1 + self.diagonal.square() * VARIANCE
        logs = -0.5 * ((y - self.diagonal * self.means).square() / spread).sum(1)
        k = torch.multinomial(logs.softmax(0), n, replacement=True, generator=draw)
        return means[k] + _normal((n, DIM), draw) / precision.sqrt()


def first_wasserstein(a: Tensor, b: Tensor) -> float:
    """W1 of two sets (n, d) of the same size, exactly."""
    cost = torch.cdist(a, b).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


def trained(
    problem: Inverse, layers: str, seed: int, steps: int, batch: int, width: int
) -> StochasticFlow:
    """A pair trained on joint draws."""
    draw = torch.Generator().manual_seed(seed)
    x, y = problem.joint(20_000, draw)
    pair = stochastic_flow(
        problem.target, layers, deviation=DEVIATION, told=DIM, width=width, seed=seed
    )
    train(pair, loss="forward-kl", data=x, condition=y, steps=steps, batch=batch, share=SHARE,
          generator=draw)  # fmt: skip
    return pair


def followed(problem: Inverse, pair: StochasticFlow, moves: str) -> StochasticFlow:
    """The pair with moves on the posterior after it, which nothing is trained in."""
    if not moves:
        return pair
    after = stochastic_flow(problem.target, moves, deviation=DEVIATION)
    layers: list[Any] = [*pair.layers, *after.layers]
    return StochasticFlow(problem.target, pair.start, layers)


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five seeds as long as the papers."""
    steps, batch, width = (5000, 1024, 256) if full else (800, 256, 128)
    asked, seeds, n = (100, 5, 1024) if full else (10, 1, 512)
    models = MODELS | (MORE if full else {})
    found: dict[str, list[float]] = {name: [] for name in [*models, "exact draws"]}
    spent: dict[str, float] = {}
    for k in range(seed, seed + seeds):
        problem, pairs, known = Inverse(k), {}, {}
        for name, (layers, moves) in models.items():
            if layers not in known:  # the moves are not trained
                began = time.process_time()
                pair = trained(problem, layers, k, steps, batch, width)
                known[layers] = pair, time.process_time() - began
            pairs[name] = followed(problem, known[layers][0], moves)
            spent[name] = spent.get(name, 0.0) + known[layers][1] / seeds
        draw = torch.Generator().manual_seed(k + 1000)
        for y in problem.joint(asked, draw)[1]:
            exact = problem.posterior(y, n, draw)
            for name, pair in pairs.items():
                found[name].append(first_wasserstein(pair.draw(n, y[None], draw), exact))
            again = problem.posterior(y, n, draw)
            found["exact draws"].append(first_wasserstein(again, exact))
    rows = _rows(found, spent)
    figure, (axes,) = panels(1, width=6.0)
    axes.boxplot(list(found.values()), orientation="horizontal", tick_labels=list(found))
    axes.set_xlabel("W1 to the exact posterior, over y")
    save_figure(figure, out / "stochastic_flows.png")
    settings = dict(steps=steps, batch=batch, width=width, conditions=asked, seeds=seeds, draws=n)
    return write_table(
        out, "A linear inverse problem in 100 dimensions by stochastic flows", rows, seed, settings
    )


def _rows(found: dict[str, list[float]], spent: dict[str, float]) -> list[Row]:
    """The mean W1 of each model, and its difference from INN + MALA on the same y."""
    rows = []
    rival = np.array(found["INN + MALA"])
    for name, values in found.items():
        note = f"{spent[name]:.0f} CPU s of training" if name in spent else "two sets of them"
        rows.append(Row(f"W1: {name}", float(np.mean(values)), None, "", _error(values), note))
    for name in found:
        if name.startswith("SNF"):
            less = np.array(found[name]) - rival
            note = "paired over y; at most 0 is the claim"
            quantity = f"W1 of {name}, less that of INN + MALA"
            rows.append(Row(quantity, float(less.mean()), None, "", _error(less), note))
    return rows


def _error(values: Any) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _normal(shape: tuple[int, int], draw: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=draw)
