"""Binarised digits under masking and uniform noise: bounds on the likelihood, and samples.

50,000 handwritten digits of 28 x 28 bits (Larochelle's fixed binarisation; Salakhutdinov & Murray
2008). By default every block of 2 x 2 bits becomes its majority, 14 x 14 bits in all, and a small
network is trained for a minute or two under each kind of noise; `full` takes all 784 bits and a
longer fit. Benton et al. 2022 use 14 x 14 digits of 256 grey levels and compare inpaintings, not
likelihoods; no published bound is comparable, and the table sets beside the bounds what
independent pixels cost.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import level_times
from reverie.denoisers import TokenMLP
from reverie.information import bound
from reverie.processes import Masking, Uniform
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.reproduce.token_fits import fit_tokens
from reverie.sampling import sample

SOURCE = "the fixed binarisation of MNIST, as MATLAB files"
KINDS = {"masking": Masking, "uniform": Uniform}


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; a minute or two, hours with `full` (width 1024)."""
    side, width, steps, rows = (28, 1024, 40_000, 2_000) if full else (14, 256, 1_200, 250)
    train, test = (_images(name, side, seed) for name in ("train", "test"))
    drawn, table = {"held out": test[:36]}, []
    table.append(Row(f"{side} x {side}: independent pixels, bits per image", _alone(train, test)))
    for name, kind in KINDS.items():
        generator = torch.Generator().manual_seed(seed)
        process = kind(2, (side, side))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = TokenMLP(process.states, (side, side), 2, width, 2)
        model = fit_tokens(process, body, train, steps, batch=64, rate=2e-3, generator=generator)
        for label, points in (("held out", test), ("training", train)):
            nats = bound(model, points[:rows], draws=16, generator=generator).each
            mean, error = float(nats.mean()), float(nats.std()) / math.sqrt(rows)
            bits = f"{name}, {label}: bound in bits per"
            table.append(Row(f"{bits} image", mean / math.log(2), stderr=error / math.log(2)))
            scale = side * side * math.log(2)
            table.append(Row(f"{bits} pixel", mean / scale, stderr=error / scale))
        times = torch.as_tensor(level_times(process, 65))
        drawn[f"{name}, 64 steps"] = sample(model, 36, times, generator=generator)
    _draw(drawn, out / "discrete_mnist.png")
    settings = {"training steps": steps, "width": width, "rows": rows}
    return write_table(out, "Binarised digits on finite sets", table, seed, settings)


def _images(part: str, side: int, seed: int) -> Tensor:
    """Bits (n, side, side), int64, of `train` or `test`, shuffled: files are sorted by digit."""
    from scipy.io import loadmat

    path = real_data(f"binmnist/binarized_mnist_{part}.amat", SOURCE)
    bits = torch.as_tensor(loadmat(path)["X"].astype(np.int64)).reshape(-1, 28, 28)
    bits = bits[torch.randperm(len(bits), generator=torch.Generator().manual_seed(seed))]
    if side == 28:
        return bits
    blocks = bits.reshape(-1, side, 2, side, 2).sum((2, 4))
    return (blocks >= 2).long()


def _alone(train: Tensor, test: Tensor) -> float:
    """Bits per image of independent pixels with the training set's frequencies."""
    share = (train.double().mean(0) * len(train) + 0.5) / (len(train) + 1)
    nats = -torch.where(test == 1, share.log(), (1 - share).log()).sum((1, 2)).mean()
    return float(nats) / math.log(2)


def _draw(images: dict[str, Tensor], path: Path) -> None:
    figure, axes = panels(len(images), 3.2, 3.5)
    for axis, (name, points) in zip(axes, images.items(), strict=True):
        side = points.shape[1]
        framed = torch.nn.functional.pad(points, (1, 1, 1, 1))
        sheet = framed.reshape(6, 6, side + 2, side + 2).permute(0, 2, 1, 3)
        axis.imshow(sheet.reshape(6 * (side + 2), -1), cmap="gray_r", interpolation="nearest")
        axis.set_title(name)
        axis.set_axis_off()
    save_figure(figure, path)
