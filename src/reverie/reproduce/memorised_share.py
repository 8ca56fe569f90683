"""How many of its samples a network copies, against how many images it was trained on (Gu et al.).

A residual MLP is trained long on N images; a sample counts as memorised when its nearest training
image is closer than a third of the second nearest. The share falls with N; the effective model
memorisation (EMM) is the largest N with at least 90% (arXiv 2310.02664, read in its code and
figures, on CIFAR-10 with a U-Net: compare the fall, not the values). Beside it stands the share of
as many held-out images, which chance alone gives.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.nulls.rank_tests import wilson
from reverie.data import load
from reverie.denoisers import ResidualMLP
from reverie.errors import InputError
from reverie.processes import EDM
from reverie.reproduce.networks import build_network, digits, train
from reverie.reproduce.parts import Parts
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import copied_share, geometric_times
from reverie.workers.pieces import Piece, Tell, Ticker, Workers

SIZES = (12, 25, 50, 100)
CIFAR_SIZES = (100, 1000, 4000)
WIDTH, STEPS, BATCH, RATE = 192, 2200, 64, 5e-3
# ln sigma in training: copies are told apart well below the distance between images, which is 4
LEVELS = (-0.4, 1.0)
PROCESS, DRAWS = EDM(0.01, 20), 500
EDGE = 0.9  # the share that defines EMM
# uncond. 8 x 8 CIFAR-10, in percent: 100 at 1k, 97 at 4k, 89.5 at 8k
PUBLISHED_EMM = 8000


def memorised(data: Tensor, size: int, steps: int, seed: int) -> float:
    """Memorised share of samples of a network trained on the first `size` images."""
    part, shape = data[:size], tuple(data.shape[1:])
    network = build_network(PROCESS, partial(ResidualMLP, shape, WIDTH, 3), part, seed)
    generator = torch.Generator().manual_seed(seed + size)
    train(network, part, steps, generator=generator, batch_size=BATCH, rate=RATE, log_sigma=LEVELS)
    times = geometric_times(PROCESS, 20, 0.05, 20)
    drawn = sample(network, DRAWS, times, "ddim", shape=shape, generator=generator)
    return copied_share(drawn, part)


def effective_memorisation(sizes: tuple[int, ...], shares: list[float]) -> float:
    """Largest N whose share is still EDGE, interpolated in ln N; NaN outside the sizes."""
    below = [k for k, share in enumerate(shares) if share < EDGE]
    if not below or below[0] == 0:
        return math.nan
    k = below[0]
    part = (shares[k - 1] - EDGE) / (shares[k - 1] - shares[k])
    return sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** part


def run(
    out: Path,
    seed: int = 0,
    full: bool = False,
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five times longer.

    CIFAR-10, averaged down to 8 x 8, is studied too where the folder REVERIE_DATA names holds
    cifar10.npy, images as `reverie.data.load` reads them.
    """
    steps = 5 * STEPS if full else STEPS
    generator = torch.Generator().manual_seed(seed)
    figure, (ax,) = panels(1, width=5)
    parts = Parts(out, dict(seed=seed, full=full), workers, progress)
    rows = _study(ax, "digits", digits(generator), SIZES, parts, steps, seed)
    ticks, note = [*SIZES], ""
    try:
        images = _cifar(generator)
        rows += _study(ax, "CIFAR-10, 8 x 8", images, CIFAR_SIZES, parts, steps, seed)
        ticks += CIFAR_SIZES
    except InputError as error:
        note = f"CIFAR-10 skipped: {error}"
    ax.axhline(EDGE, color="grey", lw=0.8)
    ax.set(xscale="log", ylim=(-0.02, 1.05), xlabel="training images N", ylabel="memorised share")
    ax.set_xticks(ticks, [str(size) for size in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False)
    save_figure(figure, out / "memorised_share.png")
    settings = dict(width=WIDTH, steps=steps, batch=BATCH, rate=RATE, draws=DRAWS) | (
        {"note": note} if note else {}
    )
    table = write_table(out, "Memorised share (Gu et al. 2023)", rows, seed, settings)
    parts.done()
    return table


def _memorised(given: tuple[str, int, int, int], shared: None, tell: Tell) -> float:
    """One network's share, on the data of `run`, which follow from the seed."""
    name, size, steps, seed = given
    generator = torch.Generator().manual_seed(seed)
    data = digits(generator)
    return memorised(data if name == "digits" else _cifar(generator), size, steps, seed)


def _study(
    ax: Any,
    name: str,
    data: Tensor,
    sizes: tuple[int, ...],
    parts: Parts,
    steps: int,
    seed: int,
) -> list[Row]:
    pieces = [Piece(f"{name},n={size}", (name, size, steps, seed), steps) for size in sizes]
    shares = parts.made(_memorised, pieces)
    chance = [copied_share(data[max(sizes) :][:DRAWS], data[:size]) for size in sizes]
    ends = np.array([wilson(round(s * DRAWS), DRAWS) for s in shares]).T
    ax.errorbar(sizes, shares, np.abs(ends - shares), fmt="o-", ms=4, capsize=3, label=name)
    ax.plot(sizes, chance, ":", label="held-out images of the same set")
    rows = [
        Row(f"memorised share, {name}, N = {size}", share, None, "",
            math.sqrt(share * (1 - share) / DRAWS))
        for size, share in zip(sizes, shares, strict=True)
    ]  # fmt: skip
    rows += [
        Row(f"share of held-out images, {name}, N = {size}", share)
        for size, share in zip(sizes, chance, strict=True)
    ]
    note = "published for a U-Net on 8 x 8 CIFAR-10: another model and set"
    emm = effective_memorisation(sizes, shares)
    return [*rows, Row(f"EMM, {name}", emm, PUBLISHED_EMM, "V", note=note)]


def _cifar(generator: torch.Generator) -> Tensor:
    """CIFAR-10 in random order, halved twice: (n, 3, 8, 8) in [-1, 1]."""
    images = load(real_data("cifar10.npy", "50,000 images as one array of bytes")).values
    if images.shape[1:] != (3, 32, 32):
        raise InputError(f"cifar10.npy holds images of shape {images.shape[1:]}, not (3, 32, 32)")
    chosen = torch.randperm(len(images), generator=generator)[: CIFAR_SIZES[-1] + 2 * DRAWS]
    return torch.nn.functional.avg_pool2d(torch.as_tensor(images)[chosen].float() / 127.5 - 1, 4)
