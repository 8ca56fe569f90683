"""Does the noise of random gaps keep a network from memorising? The claim of Yi et al., tested.

One network, three objectives (`reverie.objectives`): the standard one, the gap noise with x_s
noised afresh at every step, and with x_s fixed once and for all. Along training: the share of
copies among samples, the leak, and at the end the distance to the memoriser,

    Delta(t) = E |eps_theta - eps*|^2 / d

on noised training images, on noised held-out ones, and on the states its own sampler visits. The
concrete objective is our reconstruction of arXiv 2305.14712 (read in its abstract). Theory says
that with fresh noise the minimiser is still the memoriser: only the pace can differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.config import OBJECTIVES
from reverie.denoisers import Denoiser, Memoriser
from reverie.processes import GaussianProcess
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import copied_share, geometric_times
from reverie.training import Event, Trainer, fit

COUNT, HOLDOUT, STEPS, EVERY, DRAWS = 100, 400, 3000, 500, 300
SETTINGS = dict(width=192, depth=3, batch_size=128)
SIGMAS = (0.1, 0.3, 1.0, 3.0)


@dataclass
class History:
    """Along one training: steps, memorised share and leak in nats."""

    steps: list[int] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)
    leak: list[float] = field(default_factory=list)


def watch(history: History) -> Callable[[Event, Trainer], None]:
    """A callback of `fit` that fills `history` at every check."""

    def look(event: Event, trainer: Trainer) -> None:
        if event.row is None:
            return
        with trainer.averaged() as network:
            times = geometric_times(network.process, 20, 0.02, 20)
            drawn = sample(network, DRAWS, times, "ddim", shape=tuple(trainer.train.shape[1:]),
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
        history.steps.append(event.step)
        history.copies.append(copied_share(drawn, trainer.train))
        history.leak.append(event.row["leak"])

    return look


@torch.no_grad()
def distance(
    first: Denoiser, second: Denoiser, process: GaussianProcess, states: Tensor, t: float
) -> float:
    """Delta: mean of |eps_1 - eps_2|^2 / d over states (B, *shape) at time t."""
    given = torch.full((len(states),), t)
    apart = (first(states, given) - second(states, given)).square().flatten(1).mean(1)
    return float(apart.double().mean() * process.clock(t))


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five times longer."""
    steps = 5 * STEPS if full else STEPS
    figure, (left, middle, right) = panels(3)
    rows: list[Row] = []
    for k, name in enumerate(OBJECTIVES):
        history = History()
        fitted = fit(
            "digits", n=COUNT, holdout=HOLDOUT, seed=seed, objective=name, steps=steps,
            check_every=EVERY, on_event=watch(history), **SETTINGS,
        )  # fmt: skip
        process, train, held = fitted.process, fitted.train_points(), fitted.holdout_points()
        copy = Memoriser(process, train)
        left.plot(history.steps, history.copies, ".-", label=name)
        middle.semilogy(history.steps, history.leak, ".-", label=name)
        times = geometric_times(process, 20, 0.02, 20)
        own = list(sample.states(fitted.denoiser, 200, times, "ddim", shape=tuple(train.shape[1:]),
                                 generator=torch.Generator().manual_seed(1)))  # fmt: skip
        apart: dict[str, list[float]] = {"training": [], "held-out": [], "sampler": []}
        for sigma in SIGMAS:
            place = int((process.sigma(times) - sigma).abs().argmin())
            noise = torch.Generator().manual_seed(2)
            t = float(times[place])
            apart["training"].append(
                distance(
                    fitted.denoiser, copy, process, process.corrupt(train, t, generator=noise), t
                )
            )
            apart["held-out"].append(
                distance(
                    fitted.denoiser, copy, process, process.corrupt(held, t, generator=noise), t
                )
            )
            apart["sampler"].append(distance(
                fitted.denoiser, copy, process, own[max(place - 1, 0)], t))  # fmt: skip
        for kind, style in (("training", "o-"), ("held-out", "s--"), ("sampler", "^:")):
            right.loglog(SIGMAS, apart[kind], style, color=f"C{k}", ms=3, label=f"{name}, {kind}")
            rows += [
                Row(f"Delta on {kind} states, {name}, sigma = {sigma}", value)
                for sigma, value in zip(SIGMAS, apart[kind], strict=True)
            ]
        share = history.copies[-1]
        error = math.sqrt(share * (1 - share) / DRAWS)
        rows.insert(2 * k, Row(f"memorised share at the end, {name}", share, stderr=error))
        rows.insert(2 * k + 1, Row(f"leak at the end (nats), {name}", history.leak[-1]))
    left.set(xlabel="step", ylabel="memorised share", ylim=(-0.02, 1.02))
    middle.set(xlabel="step", ylabel="leak (nats)")
    right.set(xlabel="noise level sigma", ylabel="Delta to the memoriser")
    right.legend(frameon=False, fontsize=6)
    left.legend(frameon=False)
    save_figure(figure, out / "gap_objective.png")
    settings = dict(n=COUNT, steps=steps, draws=DRAWS, **SETTINGS)
    title = "Gap-noise objective against the standard one (after Yi, Sun & Li 2023)"
    return write_table(out, title, rows, seed, settings)
