"""The data of `step-schedules`: images, a table, curves; and how long each model is trained."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.data import Dataset, load
from reverie.reproduce.real_data import real_data


@dataclass(frozen=True)
class DataSet:
    """A data set, the settings of its fit, and what its samples are compared on.

    rows: samples drawn and held-out rows compared. steps: numbers of steps. ddim_steps: those at
    which `solvers` are run too. seeds: of samples. rivals: schedules (default: all).
    """

    name: str
    load: Callable[[], Dataset]
    settings: dict[str, Any]
    full: dict[str, Any]
    rows: int = 1000
    steps: tuple[int, ...] = (5, 8, 10, 15, 20, 40)
    ddim_steps: tuple[int, ...] = (5, 10, 20)
    solvers: tuple[str, ...] = ("ddim",)
    seeds: int = 5
    rivals: tuple[str, ...] | None = None


def _housing() -> Dataset:
    """The nine numbers of the California census table, counts and prices as logarithms."""
    path = real_data("california_housing/housing.csv.gz", "the StatLib housing table as CSV")
    with io.TextIOWrapper(gzip.open(path)) as file:
        table = list(csv.DictReader(file))
    names = [name for name in table[0] if name != "ocean_proximity"]
    values = np.array([[float(row[n] or "nan") for n in names] for row in table])
    values = values[np.isfinite(values).all(1)]
    for j, name in enumerate(names):
        if name.startswith(("total", "population", "households", "median_income", "median_house")):
            values[:, j] = np.log(values[:, j])
    return Dataset(values, "table", "california-housing", columns=tuple(names))


def _phoneme() -> Dataset:
    """Log-periodograms of five phonemes (Hastie, Tibshirani & Friedman 2009): 256 frequencies."""
    with np.load(real_data("esl/esl.npz", "the phoneme data as `phoneme`, 4509 x 256")) as archive:
        return load(archive["phoneme"])


def _clothing(side: int = 32) -> Dataset:
    """Photographs of clothes in colour (public domain), shrunk to `side` x `side`."""
    from PIL import Image

    path = real_data("clothing/clothing128.zip", "JPEG photographs of 128 x 128 pixels")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        photos = []
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                small = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            photos.append(np.asarray(small))
    return load(np.stack(photos))


MLP: dict[str, Any] = dict(steps=6000, stop_on_leak=True)
UNET = dict(network="unet", width=16, batch_size=32, lr=2e-3, steps=1500, check_every=1500)
# where time is short
RIVALS = ("karras", "log-snr", "cosine", "tangent", "rescaled-entropic", "entropic-log-snr")
FEW: dict[str, Any] = dict(steps=(5, 10, 20), seeds=3, rivals=RIVALS)

IMAGES: dict[str, Any] = dict(rows=200, ddim_steps=())
SMALL_UNET: dict[str, Any] = dict(network="convolutional", width=32)  # minutes on one core
SHORT: dict[str, Any] = dict(
    steps=(10, 20), ddim_steps=(10, 20), solvers=("ddim", "dpm++2m", "heun"), seeds=3,
    rivals=RIVALS,
)  # fmt: skip

SETS = (
    DataSet(
        "digits", lambda: load("digits"), MLP | dict(n=1000), MLP | dict(n=1000, steps=20_000)
    ),
    DataSet("california", _housing, MLP, MLP | dict(steps=20_000)),
    DataSet("phoneme", _phoneme, MLP, MLP | dict(steps=20_000), **FEW),
    DataSet(
        "digits-unet",
        lambda: load("digits"),
        MLP | SMALL_UNET | dict(n=1000),
        MLP | SMALL_UNET | dict(n=1000, width=64, steps=20_000),
        rows=200,
        **SHORT,
    ),
    DataSet(
        "clothing-16",
        lambda: _clothing(16),
        SMALL_UNET | dict(n=3000, augment="flip", steps=4000, batch_size=64, check_every=1000),
        SMALL_UNET | dict(n=3000, augment="flip", width=64, steps=20_000),
        rows=400,
        **SHORT,
    ),
    DataSet(
        "fashion-mnist",
        lambda: load("fashion-mnist"),
        UNET | dict(n=20_000, holdout=2000),
        UNET | dict(n=50_000, width=32, steps=20_000),
        **FEW | IMAGES,
    ),
    DataSet(
        "clothing",
        _clothing,
        UNET | dict(n=3000, augment="flip"),
        UNET | dict(n=3000, width=32, steps=20_000, augment="flip"),
        **FEW | IMAGES,
    ),
)
