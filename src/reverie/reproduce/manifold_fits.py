"""What the density estimates on manifolds share: two kernel estimates, and a network on top.

Every figure is held-out nats per row. The single kernel has one duration and a uniform share,
chosen on the validation rows; the mixture has several durations, their weights following how the
rows crowd (`AdaptiveMixture`); the model is a network that corrects the score of the mixture, its
likelihood by the probability flow with exact divergence. Training keeps the averaged weights that
are best on the validation rows; no choice sees the test rows.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers import AdaptiveMixture, CorrectedKernel, KernelMixture, evaluating
from reverie.information.manifolds import manifold_flow_density
from reverie.processes import Brownian
from reverie.processes.times import low_discrepancy
from reverie.reproduce.real_data import thirds
from reverie.reproduce.tables import Row
from reverie.spaces import Manifold

BATCH, RATE, DECAY = 128, 1e-3, 0.998
CHECK_EVERY, CHECK_ROWS = 200, 512
MARGIN = 0.1  # the model's cleanest duration, in units of the shortest one of the mixture


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
    space: Manifold, split: Split, taus: list[float], steps: int, seed: int
) -> tuple[Scores, AdaptiveMixture | CorrectedKernel]:
    """Scores of one split, and the model (the mixture itself with no steps).

    taus: durations (H,) on offer, ascending; the data choose among them.
    """
    process = Brownian(space, MARGIN * taus[0])
    kernel = KernelMixture.chosen(process, split.train, split.validation, taus)
    mixture = AdaptiveMixture(process, split.train, taus)
    test = split.test.to(mixture.kind)
    single, several = (-float(k.log_density(test, 0.0).mean()) for k in (kernel, mixture))
    if not steps:
        return Scores(single, several), mixture
    if mixture.taus[0] > taus[0]:  # no network level is spent below the durations in use
        process = Brownian(space, MARGIN * mixture.taus[0])
        mixture = AdaptiveMixture(process, split.train, mixture.taus)
    network = correct(mixture, split.validation, steps, seed)
    flow = manifold_flow_density(network, test, tolerance=1e-4)
    return Scores(single, several, -float(flow.nats.mean())), network


def correct(
    mixture: AdaptiveMixture, validation: Tensor, steps: int, seed: int
) -> CorrectedKernel:
    """A network trained on denoising score matching to correct `mixture`.

    Of its averaged weights, those are kept that have the least loss on the validation rows.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CorrectedKernel(mixture, width=96)
    average, best = deepcopy(network.body), (math.inf, network.body.state_dict())
    optimiser = torch.optim.Adam(network.body.parameters(), lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, step / 50) * (1 - step / steps) ** 0.7
        rows, rest = mixture.folds[step % len(mixture.folds)]
        rows = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        loss = network.loss(rows, rest, _times(BATCH, generator), generator=generator).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        decay = min(DECAY, 1 - 1 / (0.1 * step + 1))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.body.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            best = min(best, _checked(network, average, validation), key=lambda pair: pair[0])
    network.body.load_state_dict(best[1])
    return network


@torch.no_grad()
def _checked(
    network: CorrectedKernel, average: nn.Module, validation: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """The averaged weights' loss on the same noised validation rows every time, and a copy."""
    generator = torch.Generator().manual_seed(0)
    rows = validation[torch.arange(CHECK_ROWS) % len(validation)]
    kept, network.body = network.body, average
    with evaluating(network):
        t = _times(len(rows), generator)
        loss = network.loss(rows, network.base, t, generator=generator).mean()
    network.body = kept
    return float(loss), deepcopy(average.state_dict())


def _times(n: int, generator: torch.Generator) -> Tensor:
    """Times (n,) in random order, one in each of n equal strata of [0, 1]."""
    times = low_discrepancy(n, (0.0, 1.0), generator)
    return times[torch.randperm(n, generator=generator)]


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
