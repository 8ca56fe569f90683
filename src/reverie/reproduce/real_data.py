"""The real data of some reproductions: a folder named by REVERIE_DATA, and random splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from reverie.errors import InputError


def real_data(name: str, source: str) -> Path:
    """The file or folder `name` under the folder that the environment's REVERIE_DATA names.

    source: where a user finds it, for the sentence when it is not there (InputError).
    """
    root = os.environ.get("REVERIE_DATA")
    if root and (Path(root) / name).exists():
        return Path(root) / name
    missing = f"{Path(root) / name} does not exist" if root else "REVERIE_DATA is not set"
    raise InputError(f"{missing}: name a folder that holds {name} ({source})")


def thirds(n: int, seed: int) -> list[np.ndarray]:
    """Random rows of training (80%), validation (10%) and test (10%)."""
    order = np.random.default_rng(seed).permutation(n)
    return np.split(order, [n - 2 * (n // 10), n - n // 10])
