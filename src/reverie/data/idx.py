"""The idx format of MNIST, and Fashion-MNIST where Debian puts it."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from reverie.data.dataset import Dataset
from reverie.errors import InputError

FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
FASHION_MEAN = 72.94  # of the 60,000 training images, published with the set


def fashion_mnist() -> Dataset:
    """The 60,000 training images of Zalando's set (MIT licence), where Debian puts them."""
    if not FASHION.exists():
        raise InputError("fashion-mnist is not here: apt-get install dataset-fashion-mnist")
    images = read_idx(FASHION)
    if (
        images.values.shape != (60_000, 1, 28, 28)
        or abs(images.values.mean() - FASHION_MEAN) > 0.01
    ):
        raise InputError(f"{FASHION} does not hold the 60,000 training images of Fashion-MNIST")
    return images.with_values(images.values, "fashion-mnist")


def read_idx(path: Path) -> Dataset:
    """Images (n, rows, columns) of bytes in the format of MNIST, gzipped or not."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({_first_line(error)})") from error
    if len(raw) < 16 or raw[:4] != b"\x00\x00\x08\x03":
        raise InputError(f"{path} is not an idx file of images (three axes of bytes)")
    shape = tuple(int.from_bytes(raw[k : k + 4], "big") for k in (4, 8, 12))
    if len(raw) != 16 + math.prod(shape):
        raise InputError(f"{path} holds {len(raw) - 16} bytes, its header says {math.prod(shape)}")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(shape).copy()  # writable
    return Dataset(pixels[:, None], "images", str(path), "hw")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
