"""Shared oracles: laws whose every reading is known in closed form or by quadrature."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in the command line: cores may be shared
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, and each child
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
os.environ.setdefault("REVERIE_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))

from reverie.curve import LossCurve
from reverie.denoisers import Denoiser
from reverie.processes import EDM

ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "edunum",
    "marital",
    "occupation",
    "relationship",
    "race",
    "sex",
    "gain",
    "loss",
    "hours",
    "country",
    "income",
]  # columns of the file, which has no header


def two_point_mmse(gamma):
    """E[1 - tanh(gamma + sqrt(gamma) z)], the mmse of +-1 with even odds."""
    z = np.linspace(-12, 12, 8001)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    gamma = np.atleast_1d(gamma)[:, None]
    return 1 - np.trapezoid(density * np.tanh(gamma + np.sqrt(gamma) * z), z, axis=1)


class TwoPoint(Denoiser):
    """The exact denoiser of +-1, scaled by `factor` to make a wrong one."""

    def __init__(self, process, factor=1.0):
        super().__init__()
        self.process, self.factor = process, factor

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        return self.factor * torch.tanh(alpha * state / sigma**2)


@pytest.fixture(scope="session")
def two_point_curve():
    u = np.geomspace(20.0**-2, 0.2**-2, 800)
    return LossCurve(u, 0.5 * two_point_mmse(u), process=EDM(0.2, 20), dim=1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def real_data():
    """real_data("adult/adult.data.gz"): the path, or skip with a reason."""

    def find(name):
        path = Path(os.environ["REVERIE_DATA"]) / name
        if not path.exists():
            pytest.skip(f"{name} is not under the folder REVERIE_DATA names")
        return path

    return find
