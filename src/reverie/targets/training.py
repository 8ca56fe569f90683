"""One trainer for every pair that has parameters.

reverse-kl lowers -E_F log w through the path (the ELBO); log-variance lowers Var log w over paths
that no gradient follows (Richter et al. 2020, arXiv 2010.10347): it is 0 where the pair is exact,
needs no second derivative of the target, and does not seek one mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from reverie.errors import InputError
from reverie.targets.learned import Whitened

LOSSES = ("reverse-kl", "log-variance")
BATCH, RATE, AVERAGE, CLIP = 256, 5e-3, 0.99, 1.0
WARMUP = 20


def train(
    pair: Whitened,
    *,
    loss: str = "log-variance",
    steps: int = 1000,
    batch: int = BATCH,
    rate: float = RATE,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train a pair in place; the last weights are an average. Returns the loss of every step.

    A batch without a finite loss changes nothing. InputError on an unknown loss, or where no batch
    was finite.

    >>> import torch
    >>> from reverie.targets import GaussianStart, Mixture, Target, learned_pair, train
    >>> target = Target(Mixture([[-1.0], [1.0]], 0.5), 1)
    >>> pair = learned_pair("dds", target, GaussianStart.of(1), steps=4, width=16)
    >>> losses = train(pair, steps=60, batch=64, generator=torch.Generator().manual_seed(0))
    >>> len(losses), sum(losses[-10:]) < sum(losses[:10])  # variances of log weights
    (60, True)
    """
    if loss not in LOSSES:
        raise InputError(f"no loss is called {loss!r}; choose {' or '.join(LOSSES)}")
    weights = [p for p in pair.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=rate)
    average = [p.detach().clone() for p in weights]
    history: list[float] = []
    for step in range(steps):
        share = step / max(steps - 1, 1)
        warm = min(1.0, (step + 1) / WARMUP)
        optimiser.param_groups[0]["lr"] = (
            rate * warm * 0.5 * (1 + math.cos(0.95 * math.pi * share))
        )
        value = _loss(pair, loss, batch, generator)
        history.append(float(value.detach()))
        optimiser.zero_grad()
        if math.isfinite(history[-1]):
            value.backward()
            length = nn.utils.clip_grad_norm_(weights, CLIP)
            if bool(torch.isfinite(length)):
                optimiser.step()
        with torch.no_grad():
            for mean, p in zip(average, weights, strict=True):
                mean.lerp_(p, 1 - min(AVERAGE, step / (step + 10)))
        if progress is not None:
            progress(step + 1, steps)
    if steps and not any(map(math.isfinite, history)):
        raise InputError("no batch of the training had a finite loss: give a start nearer by")
    with torch.no_grad():
        for mean, p in zip(average, weights, strict=True):
            p.copy_(mean)
    return history


def _loss(
    pair: Whitened, loss: str, batch: int, generator: torch.Generator | None
) -> torch.Tensor:
    found = pair.rollout(batch, generator=generator, detach=loss == "log-variance")
    logs = found.log_weight
    finite = torch.isfinite(logs)
    if not bool(finite.all()):  # a path that left the support
        logs = logs[finite]
    if len(logs) < 2:
        return torch.tensor(math.nan)
    return -logs.mean() if loss == "reverse-kl" else logs.var()
