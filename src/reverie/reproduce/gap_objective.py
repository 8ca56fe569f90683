"""Does the noise of random gaps keep a network from memorising? The claim of Yi et al., tested.

One network, three objectives (`reverie.objectives`): the standard one, the gap noise with x_s
noised afresh at every step, and with x_s fixed once and for all. Along training: the share of
copies among samples, the leak, and at the end the distance to the memoriser,

    Delta(t) = E |eps_theta - eps*|^2 / d

on noised training images, on noised held-out ones, and on the states its own sampler visits. The
concrete objective is our reconstruction of arXiv 2305.14712 (read in its abstract). Theory says
that with fresh noise the minimiser is still the memoriser: only the pace can differ. Fewer copies
are not a better model: read the share beside the leak, which the held-out loss exceeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, Memoriser
from reverie.processes import GaussianProcess, require_gaussian
from reverie.reproduce.parts import Parts
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs.config import OBJECTIVES
from reverie.runs.fitting import fit
from reverie.runs.trainer import Event, Trainer
from reverie.sampling import sample
from reverie.theory.copying import copied_share, geometric_times
from reverie.workers.pieces import Piece, Tell, Ticker, Workers

COUNT, HOLDOUT, STEPS, EVERY, DRAWS = 12, 200, 1800, 300, 300
WIDTH, BATCH, RATE = 192, 64, 4e-3
SIGMAS = (0.1, 0.3, 1.0, 3.0)
STYLES = {"training": "o-", "held-out": "s--", "sampler": "^:"}


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
            process = require_gaussian(network.process, "the gap objective")
            times = geometric_times(process, 20, 0.02, 20)
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


def distances(
    network: Denoiser, copy: Denoiser, sets: dict[str, Tensor], times: Tensor
) -> dict[str, list[float]]:
    """Delta at SIGMAS on each of the `sets` (n, *shape), noised, and on the sampler's states."""
    process: GaussianProcess = network.process  # type: ignore[assignment]
    shape = tuple(next(iter(sets.values())).shape[1:])
    noise = torch.Generator().manual_seed(1)
    path = list(sample.states(network, 200, times, "ddim", shape=shape, generator=noise))
    found: dict[str, list[float]] = {name: [] for name in (*sets, "sampler")}
    for sigma in SIGMAS:
        place = max(int((process.sigma(times) - sigma).abs().argmin()), 1)
        t = float(times[place])
        for name, points in sets.items():
            # a seed that the fit does not use: gap-fixed knows its own noise by heart
            states = process.corrupt(points, t, generator=torch.Generator().manual_seed(999))
            found[name].append(distance(network, copy, process, states, t))
        # the path leaves out its start: entry k - 1 stands at level k
        found["sampler"].append(distance(network, copy, process, path[place - 1], t))
    return found


def run(
    out: Path,
    seed: int = 0,
    full: bool = False,
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five times longer."""
    steps = 5 * STEPS if full else STEPS
    figure, (left, middle, right) = panels(3)
    rows: list[Row] = []
    parts = Parts(out, dict(seed=seed, full=full), workers, progress)
    made = parts.made(_fitted, [Piece(name, (name, steps, seed), steps) for name in OBJECTIVES])
    for k, (name, (along, apart)) in enumerate(zip(OBJECTIVES, made, strict=True)):
        history = History(**along)
        left.plot(history.steps, history.copies, ".-", label=name)
        middle.semilogy(history.steps, history.leak, ".-", label=name)
        share = history.copies[-1]
        error = math.sqrt(share * (1 - share) / DRAWS)
        rows += [
            Row(f"memorised share at step {step}, {name}", value)
            for step, value in zip(history.steps[:-1], history.copies[:-1], strict=True)
        ]
        rows += [
            Row(f"memorised share at the end, {name}", share, stderr=error),
            Row(f"leak at the end (nats), {name}", history.leak[-1],
                note="held-out less training loss: the former is more than this"),
        ]  # fmt: skip
        for kind, values in apart.items():
            right.loglog(SIGMAS, values, STYLES[kind], color=f"C{k}", ms=3)
            rows += [
                Row(f"Delta on {kind} states, {name}, sigma = {sigma}", value)
                for sigma, value in zip(SIGMAS, values, strict=True)
            ]
    left.set(xlabel="step", ylabel="memorised share", ylim=(-0.02, 1.02))
    middle.set(xlabel="step", ylabel="leak (nats)")
    right.set(xlabel="noise level sigma", ylabel="Delta to the memoriser")
    right.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
    right.minorticks_off()
    for kind, style in STYLES.items():  # the colours stand in the first panel
        right.plot([], [], style, color="k", ms=3, label=f"{kind} states")
    right.legend(frameon=False, fontsize=8)
    left.legend(frameon=False)
    save_figure(figure, out / "gap_objective.png")
    settings = dict(n=COUNT, steps=steps, draws=DRAWS, width=WIDTH, batch=BATCH, rate=RATE)
    title = "Gap-noise objective against the standard one (after Yi, Sun & Li 2023)"
    table = write_table(out, title, rows, seed, settings)
    parts.done()
    return table


def _fitted(given: tuple[str, int, int], shared: None, tell: Tell) -> Any:
    """The history of one objective's fit, and its distances to the memoriser."""
    name, steps, seed = given
    history = History()
    fitted = fit(
        "digits", n=COUNT, holdout=HOLDOUT, seed=seed, objective=name, steps=steps,
        width=WIDTH, batch_size=BATCH, lr=RATE, check_every=EVERY, on_event=watch(history),
    )  # fmt: skip
    sets = {"training": fitted.train_points(), "held-out": fitted.holdout_points()}
    copy = Memoriser(fitted.process, sets["training"])
    process = fitted.gaussian_network("this figure").process
    times = geometric_times(process, 20, 0.02, 20)
    return asdict(history), distances(fitted.denoiser, copy, sets, times)
