"""How many letters at once? Plans of parallel unmasking on 32,033 names, predicted and measured.

The names stand in random order in one line, a dot after each, cut into rows of 32 letters. A small
masked network is trained, its loss curve measured, and plans of K steps chosen on training rows
and priced on held-out ones. The predicted path KL of a plan is its left staircase less the area of
the curve; the measured one is the bound of the K-step sampler itself, letters of one step scored
independently, less that area. All plans see the same rows and the same order of letters, so that
their differences are measured well. No figures are published; that the two agree is the chain rule
of the masked bound. The curve of names is nearly a line, for which even steps are the best there
are: the adaptive plan finds them from the curve, and the cosine plan misses them.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.curve import LossCurve, measure
from reverie.denoisers import Denoiser
from reverie.plan import Plan, plan_steps
from reverie.processes import Masking
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.reproduce.token_fits import fit_tokens
from reverie.sampling import sample

SOURCE = "the list of names of the makemore repository"
LETTERS, SITES = ".abcdefghijklmnopqrstuvwxyz", 32
STEPS = (2, 4, 8, 16)
RIVALS = ("linear", "cosine")


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; about two minutes, ten with `full`."""
    process, generator = Masking(LETTERS, SITES), torch.Generator().manual_seed(seed)
    text = _line(real_data("text/names.txt", SOURCE).read_text().split(), generator)
    count, rows, levels = (10_000, 2_000, 33) if full else (1_000, 1_000, 17)
    held, rest = text[: rows * SITES], text[rows * SITES :]
    priced, train = (
        process.space.encode(_rows(part, stride), pad=".")
        for part, stride in ((held, SITES), (rest, 7))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = Convolutions(process.states, process.symbols)
    denoiser = fit_tokens(process, body, train, count, batch=64, rate=3e-3, generator=generator)
    chosen = train[torch.randperm(len(train), generator=generator)[: 4 * rows]]
    curve = measure(denoiser, chosen, levels, generator=generator)
    fresh = measure(denoiser, priced, levels, generator=generator, keep_samples=True)
    reveal = torch.rand(priced.shape, generator=generator, dtype=torch.float64)
    table = [
        Row("held-out rows: bound of one letter at a time, nats", fresh.area(),
            stderr=fresh.area_stderr()),
        Row("the same, every letter by its own frequency", _alone(train, priced)),
    ]  # fmt: skip
    figure, axes = panels(3)
    _draw_curve(axes[0], fresh, plan_steps(curve.monotone(), 4))
    gaps: dict[str, list[tuple[float, float]]] = {name: [] for name in RIVALS}
    prices: dict[str, list[tuple[float, float]]] = {}
    for steps in STEPS:
        plans = plan_steps(curve.monotone(), steps).compare()
        best = plans["loss-adaptive"]
        known = {name: _measured(denoiser, priced, plans[name], reveal)
                 for name in ("loss-adaptive", *RIVALS)}  # fmt: skip
        for name, nats in known.items():
            plan = plans[name]
            predicted = _price(fresh, plan) - _areas(fresh)
            measured = nats - _areas(fresh)
            mean, error = _mean(measured)
            note = f"reference: predicted, +- {_mean(predicted)[1]:.2g}"
            label = f"K = {steps}, {name}: path KL measured, nats"
            table.append(Row(label, mean, _mean(predicted)[0], "D", error, note))
            prices.setdefault(name, []).append((mean, error))
        for name in RIVALS:
            guess, spread = _mean(_price(fresh, plans[name]) - _price(fresh, best))
            mean, error = _mean(known[name] - known["loss-adaptive"])
            gaps[name].append((mean, error))
            note = f"reference: predicted, +- {spread:.2g}; positive: the adaptive plan is cheaper"
            label = f"K = {steps}: nats that {name} costs beyond loss-adaptive"
            table.append(Row(label, mean, guess, "D", error, note))
    _draw_prices(axes[1:], prices, gaps)
    save_figure(figure, out / "discrete_names.png")
    drawn = sample(denoiser, 4, plan_steps(curve.monotone(), 32), generator=generator)
    names = " ".join(process.space.decode(drawn)).replace(".", " ")
    settings = {"training steps": count, "rows": rows, "levels": levels, "drawn": names}
    return write_table(out, "Plans of parallel unmasking on names", table, seed, settings)


@torch.no_grad()
def _measured(denoiser: Denoiser, x: Tensor, plan: Plan, reveal: Tensor) -> np.ndarray:
    """Nats (n,) of the K-step sampler on rows x; the clock shows site i as it passes reveal_i."""
    process: Masking = denoiser.process  # type: ignore[assignment]
    total = torch.zeros(len(x), dtype=torch.float64)
    knots = [0.0, *plan.u[1:-1].tolist(), 1.0]
    for now, then in itertools.pairwise(knots):
        state = x.masked_fill(reveal >= now, process.mask)
        shown = (reveal >= now) & (reveal < then)
        t = torch.full((len(x),), 1 - now, dtype=torch.float64)
        parts = zip(state.split(512), t.split(512), strict=True)
        guess = torch.cat([denoiser(s, v) for s, v in parts])
        total += process.surprise(guess, x).double().where(shown, 0.0).sum(1)
    return total.numpy()


def _price(curve: LossCurve, plan: Plan) -> np.ndarray:
    """Left staircases (n,) of a plan under the rates of every row, in nats."""
    assert curve.per_sample is not None
    at = np.stack([np.interp(plan.u[:-1], curve.u, row) for row in curve.per_sample])
    return at @ np.diff(plan.u)


def _areas(curve: LossCurve) -> np.ndarray:
    """Areas (n,) under the rates of every row, in nats."""
    assert curve.per_sample is not None
    return curve.per_sample @ curve.weights


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _alone(train: Tensor, rows: Tensor) -> float:
    """Nats per row of independent letters with the frequencies of the training rows."""
    share = torch.bincount(train.flatten(), minlength=len(LETTERS)).double() / train.numel()
    return float(-share.log()[rows].sum(1).mean())


def _line(words: list[str], generator: torch.Generator) -> str:
    """The names in random order, a dot after each."""
    order = torch.randperm(len(words), generator=generator).tolist()
    return "".join(words[i] + "." for i in order)


def _rows(text: str, stride: int) -> list[str]:
    """Rows of SITES letters of a line, one every `stride` letters."""
    return [text[i : i + SITES] for i in range(0, len(text) - SITES + 1, stride)]


class Convolutions(nn.Module):
    """Residual convolutions along the line: what a letter tells depends on how far it stands."""

    def __init__(self, states: int, columns: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.symbol = nn.Embedding(states, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(depth))
        self.leave = nn.Linear(width, columns)

    def forward(self, state: Tensor, level: Tensor) -> Tensor:
        # the share of masks says the level, and the best guess at a mask does not depend on it
        h = self.symbol(state).mT
        for layer in self.layers:
            h = h + layer(nn.functional.silu(h))
        return self.leave(nn.functional.silu(h.mT))


def _draw_curve(axis: Any, curve: LossCurve, plan: Plan) -> None:
    curve.plot(axis, label="held-out rows")
    steps = np.append(np.interp(plan.u[:-1], curve.u, curve.rate), np.nan)
    axis.step(plan.u, steps, where="post", color="#b91c1c", label="4 steps, loss-adaptive")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8)


def _draw_prices(
    axes: list[Any],
    prices: dict[str, list[tuple[float, float]]],
    gaps: dict[str, list[tuple[float, float]]],
) -> None:
    for axis, values in ((axes[0], prices), (axes[1], gaps)):
        for name, pairs in values.items():
            mean, error = np.array(pairs).T
            axis.errorbar(STEPS, mean, 1.96 * error, marker="o", ms=4, capsize=3, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(STEPS, [str(k) for k in STEPS])
        axis.set_xlabel("steps K")
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("measured path KL (nats per row)")
    axes[0].set_yscale("log")
    axes[1].axhline(0, color="grey", lw=0.8)
    axes[1].set_ylabel("nats beyond the adaptive plan")
