"""Constrained training by dual ascent: exact multipliers, and a rare class (Khalafi et al. 2024).

On three cells the optimum is known: the dual by ascent and in closed form. On digits, a network is
trained on a set in which one class is scarce, first freely and then with that class's loss at most
a given price; the share of the class among its samples should follow lam / (1 + lam).
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import rel_entr
from torch import Tensor

from reverie.curve import measure
from reverie.denoisers import Network, ResidualMLP
from reverie.objectives import dual_optimum, train_constrained
from reverie.objectives.constrained import dual_step
from reverie.processes import EDM
from reverie.reproduce.networks import build_network
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import geometric_times

LAW, GROUP, BUDGET = np.array([0.7, 0.25, 0.05]), np.array([0.1, 0.1, 0.8]), 0.4
RARE, SCARCE = 9, 8  # the class, and how many of it stand in the data
STEPS, DRAWS = 2000, 1000
EDM_RANGE = (0.1, 20.0)


def ascent(rounds: int = 60, rate: float = 0.5) -> np.ndarray:
    """Multiplier along dual ascent on the three cells, (rounds,)."""
    value, found = np.zeros(1), []
    for _ in range(rounds):
        mixture = (LAW + value[0] * GROUP) / (1 + value[0])
        value = dual_step(value, rel_entr(GROUP, mixture).sum(keepdims=True), [BUDGET], rate)
        found.append(value[0])
    return np.array(found)


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five times longer."""
    figure, (left, middle, right) = panels(3)
    rows = _cells(left)
    rows += _digits(middle, right, seed, 5 * STEPS if full else STEPS)
    save_figure(figure, out / "constrained.png")
    settings = dict(rare_class=RARE, rare_rows=SCARCE, steps=5 * STEPS if full else STEPS)
    title = "Constrained training (Khalafi, Ding & Ribeiro 2024)"
    return write_table(out, title, rows, seed, settings)


def _cells(ax: Any) -> list[Row]:
    path = ascent()
    exact, best = dual_optimum(LAW, GROUP[None], [BUDGET])
    ax.plot(np.arange(1, len(path) + 1), path, ".-", label="dual ascent, rate .5")
    ax.axhline(float(exact[0]), color="grey", lw=0.8, label="exact dual")
    ax.set(xlabel="dual step", ylabel="multiplier of the group")
    ax.legend(frameon=False)
    cost = float(rel_entr(GROUP, best).sum())
    return [
        Row("dual weight, exact", float(exact[0]), 0.756814, "D"),
        Row("dual weight, by ascent", float(path[-1]), 0.756814, "D"),
        Row("KL(group | p) at the optimum", cost, BUDGET, "D", note="a binding price is met"),
        Row("multiplier at a price of 2 nats", float(dual_optimum(LAW, GROUP[None], [2.0])[0][0]),
            0, "D", note="a slack price is free"),
    ]  # fmt: skip


def split_digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Data with SCARCE rows of the rare class; those it may lean on; held-out rows; all labels.

    Images (n, 64) in [-1, 1]; the last two are images (m, 64) and their labels (m,).
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    images = torch.as_tensor(pixels[order] / 8 - 1, dtype=torch.float32)
    kinds = torch.as_tensor(labels[order])
    rare, common = images[kinds == RARE], images[kinds != RARE]
    data = torch.cat([common[:800], rare[:SCARCE]])
    held = torch.cat([common[800:], rare[100:]])
    marks = torch.cat([torch.zeros(len(common) - 800), torch.ones(len(rare) - 100)]).bool()
    return data, rare[:100], held, marks


def _rare_share(network: Network, seed: int) -> float:
    """Share of samples that the nearest three digits say are of the rare class."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    pixels, labels = load_digits(return_X_y=True)
    judge = KNeighborsClassifier(3).fit(pixels / 8 - 1, labels)
    times = geometric_times(network.process, EDM_RANGE[1], EDM_RANGE[0], 20)
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(network, DRAWS, times, shape=(64,), generator=generator)
    return float((judge.predict(drawn.numpy()) == RARE).mean())


def _digits(middle: Any, right: Any, seed: int, steps: int) -> list[Row]:
    data, group, held, rare = split_digits(seed)
    process = EDM(*EDM_RANGE)
    rows, budget = [], math.inf
    for name in ("free", "constrained"):
        network = build_network(process, partial(ResidualMLP, (64,), 192, 2), data, seed)
        found = train_constrained(
            network, data, [group], [budget], steps, batch_size=64,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        if name == "free":  # ask for a fifth less than the free network ends with
            budget = 0.8 * float(found.losses[-5:].mean())
        noise = torch.Generator().manual_seed(1)
        areas = [measure(network, held[m], 24, generator=noise).area() for m in (rare, ~rare)]
        share = _rare_share(network, seed)
        weight = float(found.group_weights()[-10:, 1].mean())
        dual = 50 * np.arange(1, len(found.losses) + 1)
        middle.plot(dual, found.losses[:, 0], label=name)
        right.plot(dual, found.group_weights()[:, 1], label=name)
        error = math.sqrt(share * (1 - share) / DRAWS)
        rows += [
            Row(f"loss of the rare class on its rows (nats), {name}",
                float(found.losses[-10:].mean()), None if name == "free" else budget),
            Row(f"loss on held-out rows of it (nats), {name}", areas[0]),
            Row(f"loss on held-out rows of the others (nats), {name}", areas[1]),
            Row(f"share of the rare class in minibatches, {name}",
                (1 - weight) * SCARCE / len(data) + weight),
            Row(f"share of it among samples, {name}", share, stderr=error,
                note="by the three nearest digits"),
        ]  # fmt: skip
    middle.axhline(budget, color="grey", lw=0.8, label="price")
    middle.set(xlabel="step", ylabel="loss of the rare class (nats)")
    right.set(xlabel="step", ylabel="weight of the rare class, lam / (1 + lam)")
    middle.legend(frameon=False)
    right.legend(frameon=False)
    return rows
