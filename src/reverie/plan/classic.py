"""Schedules that need no model: positions (K + 1,) of log gamma between two ends, noisy to clean.

With s = sigma/alpha, log gamma = -2 log s.

    karras             s^(1/7) linear (Karras et al. 2022, eq. 5)
    log-snr            log s linear
    arctan             arctan(s / c) linear: "cosine" for c = 1; with Gaussian data's deviation
                       the optimum of DDIM (Sabour, Fidler & Kreis 2024, section 3.1)
    linear, quadratic  the time of the linear-beta process, or its root, linear

and of the share of revealed sites u of a masking process:

    share_cosine       arccos(1 - u) linear (Shi et al. 2024, section 4)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from reverie.processes import VP


def karras(low: float, high: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Uniform in s^(1/rho)."""
    start, stop = np.exp(-0.5 * low / rho), np.exp(-0.5 * high / rho)
    return -2 * rho * np.log(np.linspace(start, stop, steps + 1))


def log_snr(low: float, high: float, steps: int) -> np.ndarray:
    """Uniform in log s."""
    return np.linspace(low, high, steps + 1)


def arctan(low: float, high: float, steps: int, scale: float = 1.0) -> np.ndarray:
    """Uniform in arctan(s / scale)."""
    start, stop = (math.atan(math.exp(-0.5 * end) / scale) for end in (low, high))
    return -2 * np.log(scale * np.tan(np.linspace(start, stop, steps + 1)))


def vp_time(low: float, high: float, steps: int, power: float = 1.0) -> np.ndarray:
    """Uniform in t^(1/power) of the process with linear beta."""
    process = VP()
    ends = process.time(torch.tensor([low, high], dtype=torch.float64).exp()) ** (1 / power)
    time = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
    return process.clock(time**power).log().numpy()


def share_cosine(low: float, high: float, steps: int) -> np.ndarray:
    """Uniform in arccos(1 - u), positions of u itself: few sites first, when little is known."""
    start, stop = math.acos(1 - low), math.acos(1 - high)
    return 1 - np.cos(np.linspace(start, stop, steps + 1))
