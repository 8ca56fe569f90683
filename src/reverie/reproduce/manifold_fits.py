"""What the density estimates on manifolds share: two kernel estimates, and a network on top.

Every figure is held-out nats per row. The single kernel has one duration
and a uniform share, chosen on the validation rows; the mixture has several durations, its weights
fitted on the training rows, each left out of its own density; the model is a network that corrects
the score of the mixture, its likelihood by the probability flow with exact divergence.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import CorrectedKernel, KernelMixture
from reverie.processes import Brownian
from reverie.reproduce.real_data import thirds
from reverie.reproduce.tables import Row
from reverie.sampling.manifold_likelihood import flow_log_likelihood

BATCH, RATE, DECAY = 128, 1e-3, 0.998


@dataclass(frozen=True)
class Scores:
    """Held-out nats per row of one split; the model's is None where no network was trained."""

    kernel: float
    mixture: float
    model: float | None = None


@dataclass(frozen=True)
class Split:
    """Rows of training (80%), validation (10%) and test (10%)."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_rows(points: Tensor, seed: int) -> Split:
    """One random split of points (n, *shape)."""
    return Split(*(points[rows] for rows in thirds(len(points), seed)))


def fit(
    process: Brownian, split: Split, taus: list[float], steps: int, seed: int
) -> tuple[Scores, KernelMixture | CorrectedKernel]:
    """Scores of one split, and the model (the mixture itself with no steps)."""
    kernel = KernelMixture.chosen(process, split.train, split.validation, taus)
    mixture = KernelMixture(process, split.train, taus)
    single, several = (-float(k.log_density(split.test, 0.0).mean()) for k in (kernel, mixture))
    if not steps:
        return Scores(single, several), mixture
    network = correct(mixture, steps, seed)
    flow = flow_log_likelihood(network, split.test.float(), tolerance=1e-4)
    return Scores(single, several, -float(flow.nats.mean())), network


def correct(mixture: KernelMixture, steps: int, seed: int) -> CorrectedKernel:
    """A network trained on denoising score matching to correct `mixture`; its average weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CorrectedKernel(mixture, width=96)
    average = deepcopy(network.body)
    optimiser = torch.optim.Adam(network.body.parameters(), lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, step / 50) * (1 - step / steps) ** 0.7
        rows = torch.randint(len(mixture.data), (BATCH,), generator=generator)
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        t = (torch.arange(BATCH) + start) / BATCH
        loss = network.loss(rows, t, generator=generator).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        decay = min(DECAY, 1 - 1 / (0.1 * step + 1))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.body.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
    network.body = average
    return network


def score_rows(name: str, scores: list[Scores]) -> list[Row]:
    """Table lines: the mean over splits of each method, and its standard error."""
    rows = []
    for method in ("kernel", "mixture", "model"):
        values = [getattr(score, method) for score in scores]
        if None not in values:
            many = len(values) > 1
            error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if many else None
            rows.append(Row(f"{name}: {method}", float(np.mean(values)), stderr=error))
    return rows
