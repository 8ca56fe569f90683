"""The four tables of places on the earth by which models on the sphere are compared."""

from __future__ import annotations

import numpy as np
import torch

from reverie.data import Dataset, load
from reverie.reproduce.real_data import real_data
from reverie.spaces.sphere import from_degrees

SETS = {"volcano": "volerup", "earthquake": "quakes_all", "flood": "flood", "fire": "fire"}
SOURCE = "the four tables of the riemannian-score-sde repository"


def places(name: str) -> Dataset:
    """Latitude and longitude in degrees (n, 2) of one of SETS."""
    return load(real_data(f"earth/{SETS[name]}.csv", SOURCE))


def unit_vectors(degrees: np.ndarray) -> np.ndarray:
    """Points (n, 3) on the unit sphere from latitude and longitude (n, 2) in degrees."""
    return from_degrees(torch.from_numpy(degrees)).numpy()
