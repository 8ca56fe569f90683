"""How much of a convolutional network's output the score machines foretell (Kamb & Ganguli).

A small convolutional network is trained on a few hundred 8 x 8 digits. From the same noise, the
deterministic sampler is run with the network and with the ideal (IS), local (LS) and equivariant
local (ELS) machines of its training set, the patch side of each level calibrated on the network's
own paths. The published figures are for larger images: the order of the machines is what should
come back, not the values. Three controls say what a score is worth: the Gaussian denoiser of the
same images, the training image nearest to each output, and ELS from another noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, Linear, Network
from reverie.denoisers.networks.network import FourierTime
from reverie.processes import Cosine
from reverie.reproduce.networks import build_network, digits, train
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory import creativity

PUBLISHED = {"ELS": 0.94, "LS": 0.82, "IS": 0.61}  # MNIST, zero-padded ResNet, median r^2
LEVELS = 20
SIDES = (3, 5, 7, 9, 15)  # the last one covers the image from every pixel


class ConvNet(nn.Module):
    """Residual 3 x 3 convolutions without norms or pooling: it sees 2 depth + 5 pixels across."""

    def __init__(self, channels: int = 1, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 64), nn.SiLU())
        self.enter, self.leave = conv(channels, width), conv(width, channels)
        self.blocks = nn.ModuleList(conv(width, width) for _ in range(depth))
        self.levels = nn.ModuleList(nn.Linear(64, 2 * width) for _ in range(depth))
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        time, h = self.time(level), self.enter(x)
        for block, modulate in zip(self.blocks, self.levels, strict=True):
            scale, shift = modulate(time)[:, :, None, None].chunk(2, 1)
            h = h + block(nn.functional.silu(h * (1 + scale) + shift))
        return self.leave(nn.functional.silu(h))


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains longer and on more images and seeds."""
    generator = torch.Generator().manual_seed(seed)
    count, steps, seeds = (800, 20_000, 200) if full else (300, 4000, 100)
    process = Cosine()
    data = digits(generator)[:count]
    network = train(
        build_network(process, ConvNet, data, seed), data, steps, generator=generator, rate=2e-3
    )
    times = torch.linspace(process.t_range[1], 0, LEVELS, dtype=torch.float64)
    machines, sides = calibrated(network, data, times, generator)
    noise = process.sample_prior(seeds, shape=(1, 8, 8), t=float(times[0]), generator=generator)
    images = {
        name: sample(denoiser, seeds, times, "ddim", init=noise)
        for name, denoiser in {"network": network, **machines}.items()
    }
    scores = {name: squared_correlation(images["network"], images[name]) for name in machines}
    nearest = data[torch.cdist(images["network"].flatten(1), data.flatten(1)).argmin(1)]
    controls = {"nearest training image": nearest, "ELS, other noise": images["ELS"].roll(1, 0)}
    scores |= {k: squared_correlation(images["network"], v) for k, v in controls.items()}
    figure = _draw(images, scores, sides, (process.sigma(times) / process.alpha(times)).numpy())
    save_figure(figure, out / "analytic_creativity.png")
    rows = [_row(name, values) for name, values in scores.items()]
    rows += [
        Row(f"least, largest patch side of {name}: {min(s)}, {max(s)}", float(np.median(s)))
        for name, s in sides.items()
    ]
    settings = dict(images=count, steps=steps, seeds=seeds, sampler=f"ddim, {LEVELS} levels")
    return write_table(out, "Analytic creativity (Kamb & Ganguli)", rows, seed, settings)


def calibrated(
    network: Network, data: Tensor, times: Tensor, generator: torch.Generator
) -> tuple[dict[str, Denoiser], dict[str, list[int]]]:
    """The Gaussian and three machines; patch sides per level from the network's own paths."""
    process = network.process
    noise = process.sample_prior(16, shape=data.shape[1:], t=float(times[0]), generator=generator)
    states = [noise, *sample.states(network, 16, times, "ddim", init=noise)][: len(times)]
    spreads = process.sigma(times) / process.alpha(times)
    machines: dict[str, Denoiser] = {
        "Gaussian": Linear.fit(process, data),
        "IS": creativity.ideal(process, data),
    }
    sides = {}
    for name, kind in (("LS", creativity.local), ("ELS", creativity.equivariant_local)):

        def machine(patch: creativity.PatchSize, kind: Any = kind) -> creativity.ScoreMachine:
            return kind(process, data, patch, "zero")

        sides[name] = creativity.calibrate_patch(network, machine, states, times.tolist(), SIDES)
        machines[name] = machine(_nearest_level(spreads, sides[name]))
    return machines, sides


def _nearest_level(spreads: Tensor, sides: list[int]) -> Callable[[float], int]:
    """Patch side as a function of sigma / alpha: that of the nearest calibrated level."""
    places = spreads.log().numpy()
    return lambda spread: sides[int(np.abs(places - np.log(spread)).argmin())]


def squared_correlation(first: Tensor, second: Tensor) -> np.ndarray:
    """Squared correlation over pixels of paired images (B, *shape): (B,)."""
    a, b = (x.flatten(1).double() for x in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return torch.cosine_similarity(a, b, dim=1).square().numpy()


def _row(name: str, values: np.ndarray) -> Row:
    # for a median: 1.2533 standard errors of the mean if the law is normal
    error = 1.2533 * float(values.std(ddof=1)) / np.sqrt(len(values))
    published = PUBLISHED.get(name)
    note = "published on 28 x 28 MNIST: compare the order" if published else "control"
    tag = "V" if published else ""
    return Row(
        f"median r^2, network against {name}", np.median(values), published, tag, error, note
    )


def _draw(
    images: dict[str, Tensor],
    scores: dict[str, np.ndarray],
    sides: dict[str, list[int]],
    spreads: np.ndarray,
) -> Any:
    figure, (left, middle, right) = panels(3)
    tiles = torch.stack([x[:10, 0] for x in images.values()])  # (machines, 10, 8, 8)
    tiles = nn.functional.pad(tiles, (0, 1, 0, 1), value=float("nan"))
    left.imshow(tiles.transpose(1, 2).reshape(9 * len(images), 90), cmap="gray", vmin=-1, vmax=1)
    left.set_yticks(np.arange(len(images)) * 9 + 3.5, list(images))
    left.set(xticks=[], xlabel="ten shared noises")
    middle.boxplot(list(scores.values()), showfliers=False)
    middle.set_xticks(range(1, len(scores) + 1), [name.replace(" ", "\n") for name in scores])
    middle.set(ylabel="r^2 with the network's image", ylim=(0, 1.02))
    for name, side in sides.items():
        right.semilogx(spreads, side, ".-", label=name)
    right.set(xlabel="noise level sigma / alpha", ylabel="calibrated patch side (pixels)")
    right.legend(frameon=False)
    return figure
