"""When it pays a network to memorise: excess training losses of three ways to spend capacity.

Data are N points of a mixture of well-separated Gaussians of variance s^2 in d dimensions. Against
the memoriser of all N points, at signal-to-noise ratio psi, the excess E|x - xhat|^2 over the
training set is

    generalising    d s^2 / (1 + psi s^2)       the true mixture's denoiser, psi large enough
    partial         c d s^2 (1 - M / N)         the memoriser of M of the N points

(Buchanan, Pai, Ma & De Bortoli 2025, from their code.) The constant c is not 1: the nearest
memorised point lies about sqrt(2 d s^2) away, less what the best of many gains. It is therefore
measured here, not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.processes import GaussianProcess


def generalising_excess(
    snr: Sequence[float] | np.ndarray, dim: int, variance: float = 1.0
) -> np.ndarray:
    """Excess loss (L,) of the mixture's own denoiser at each psi (L,), summed over dimensions."""
    psi = np.atleast_1d(np.asarray(snr, dtype=np.float64))
    if (psi < 0).any() or dim < 1 or variance <= 0:
        raise InputError("the excess needs psi >= 0, a dimension and a positive variance")
    return dim * variance / (1 + psi * variance)


@torch.no_grad()
def partial_excess(
    process: GaussianProcess,
    data: Tensor,
    kept: int,
    t: float,
    *,
    draws: int = 10,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Excess loss over `data` (N, *shape) of the memoriser of its first `kept` points at time t.

    Mean over `draws` noises of every point, and its standard error over those noises; both
    memorisers see the same states. Raises InputError unless 1 <= kept <= N.
    """
    if not 1 <= kept <= len(data) or draws < 2:
        raise InputError(f"cannot keep {kept} of {len(data)} points with {draws} draws")
    part, whole = Memoriser(process, data[:kept]), Memoriser(process, data)
    time = torch.tensor(t, dtype=data.dtype, device=data.device)
    gaps = []
    for _ in range(draws):
        state = process.corrupt(data, t, generator=generator)
        lost = [(guess(state, time) - data).flatten(1).square().sum(1) for guess in (part, whole)]
        gaps.append(float((lost[0] - lost[1]).mean()))
    return float(np.mean(gaps)), float(np.std(gaps, ddof=1)) / math.sqrt(draws)


def crossover_share(
    snr: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    variance: float = 1.0,
    constant: float = 1.0,
) -> float:
    """Share M / N at which partial memorisation and generalisation cost the same.

    Losses are averaged over psi (L,) with `weights` (L,); a larger memory memorises. A
    reconstruction; `constant` is the c of the module, 1 in the published code.
    """
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != np.shape(snr) or (weight < 0).any() or weight.sum() <= 0 or constant <= 0:
        raise InputError("the crossover needs one weight >= 0 per psi and a positive constant")
    cost = generalising_excess(snr, 1, variance) / variance
    return 1 - float(weight @ cost / weight.sum()) / constant
