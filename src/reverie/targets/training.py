"""One trainer for every pair that has parameters.

reverse-kl lowers -E_F log w through the path (the ELBO); log-variance lowers Var log w over paths
that no gradient follows (Richter et al. 2020, arXiv 2010.10347): it is 0 where the pair is exact,
needs no second derivative of the target, and does not seek one mode. forward-kl lowers E_B log w
over backward paths from draws of the target, which is the training of a model on data: no density
is asked for where no layer moves by one (Hagemann et al. 2021, arXiv 2109.11375, eq. 10).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reverie.errors import InputError
from reverie.targets.learned import Whitened
from reverie.targets.pair import Chain, Layer, Rollout

LOSSES = ("reverse-kl", "log-variance")
DATA_LOSS = "forward-kl"  # of draws, with any share of reverse-kl
BATCH, RATE, AVERAGE, CLIP = 256, 5e-3, 0.99, 1.0
WARMUP = 20


def train(
    pair: Whitened | Chain,
    *,
    loss: str = "log-variance",
    steps: int = 1000,
    batch: int = BATCH,
    rate: float = RATE,
    data: torch.Tensor | None = None,
    condition: torch.Tensor | None = None,
    reverse: float = 0.0,
    share: float = 1.0,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train a pair in place; the last weights are an average. Returns the loss of every step.

    loss: one of `LOSSES`, or forward-kl, which needs data (n, dim), draws of the target; reverse
    is then the share of reverse-kl beside it. condition: (n, c), what each row of data is told, of
    a `Chain` on a `ConditionalTarget`. share: of rows that each diffusion layer is asked about on
    the way back from data, for many of them at little cost. A batch without a finite loss changes
    nothing. InputError on an unknown loss, data that do not go with it, or where no batch was
    finite.

    >>> import torch
    >>> from reverie.targets import GaussianStart, Mixture, Target, learned_pair, train
    >>> target = Target(Mixture([[-1.0], [1.0]], 0.5), 1)
    >>> pair = learned_pair("dds", target, GaussianStart.of(1), steps=4, width=16)
    >>> losses = train(pair, steps=60, batch=64, generator=torch.Generator().manual_seed(0))
    >>> len(losses), sum(losses[-10:]) < sum(losses[:10])  # variances of log weights
    (60, True)
    """
    if loss not in (*LOSSES, DATA_LOSS):
        raise InputError(
            f"no loss is called {loss!r}; choose {', '.join(LOSSES)} or, of data, {DATA_LOSS}"
        )
    if (loss == DATA_LOSS) != (data is not None):
        raise InputError(f"{DATA_LOSS} is the loss of data: give both, or neither")
    if not 0 < share <= 1:
        raise InputError(f"share is {share}; it must be above 0, up to 1")
    if not 0 <= reverse < 1:
        raise InputError(f"reverse is {reverse}; it is a share, at least 0 and below 1")
    if data is not None and condition is not None and len(data) != len(condition):
        raise InputError(f"{len(data)} rows of data and {len(condition)} conditions do not match")

    def value() -> torch.Tensor:
        if data is None:
            return _loss(pair, loss, batch, generator)
        return _data_loss(pair, data, condition, reverse, batch, generator)

    layers = [layer for layer in pair.modules() if isinstance(layer, Layer)]
    try:
        for layer in layers:
            layer.share = share
        history = descend(pair, value, steps=steps, rate=rate, progress=progress)
    finally:
        for layer in layers:
            layer.share = 1.0
    if steps and not any(map(math.isfinite, history)):
        raise InputError("no batch of the training had a finite loss: give a start nearer by")
    return history


def descend(
    module: nn.Module,
    value: Callable[[], torch.Tensor],
    *,
    steps: int,
    rate: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Lower value() by Adam with a cosine rate; the module's last weights are an average."""
    weights: list[torch.Tensor] = [p for p in module.parameters() if p.requires_grad]
    if not weights:
        return [float(value().detach()) for _ in range(min(steps, 1))]
    optimiser = torch.optim.Adam(weights, lr=rate, fused=True)
    average = [p.detach().clone() for p in weights]
    history: list[float] = []
    for step in range(steps):
        share = step / max(steps - 1, 1)
        warm = min(1.0, (step + 1) / WARMUP)
        optimiser.param_groups[0]["lr"] = (
            rate * warm * 0.5 * (1 + math.cos(0.95 * math.pi * share))
        )
        found = value()
        history.append(float(found.detach()))
        optimiser.zero_grad()
        if math.isfinite(history[-1]):
            found.backward()
            length = nn.utils.clip_grad_norm_(weights, CLIP)
            if bool(torch.isfinite(length)):
                optimiser.step()
        with torch.no_grad():
            weight = 1 - min(AVERAGE, step / (step + 10))
            torch._foreach_lerp_(average, weights, weight)  # type: ignore[attr-defined]
        if progress is not None:
            progress(step + 1, steps)
    with torch.no_grad():
        for mean, p in zip(average, weights, strict=True):
            p.copy_(mean)
    return history


def _loss(
    pair: Whitened | Chain, loss: str, batch: int, generator: torch.Generator | None
) -> torch.Tensor:
    found = pair.rollout(batch, generator=generator, detach=loss == "log-variance")
    logs = _finite(found)
    if len(logs) < 2:
        return torch.tensor(math.nan)
    return -logs.mean() if loss == "reverse-kl" else logs.var()


def _data_loss(
    pair: Whitened | Chain,
    data: torch.Tensor,
    condition: torch.Tensor | None,
    reverse: float,
    batch: int,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """(1 - reverse) E_B log w - reverse E_F log w, on rows drawn with replacement."""
    rows = torch.randint(len(data), (batch,), generator=generator)
    told: dict[str, Any] = {} if condition is None else {"condition": condition[rows]}
    found = _finite(
        pair.rollout(batch, direction="backward", ends=data[rows], generator=generator, **told)
    )
    if len(found) < 2:
        return torch.tensor(math.nan)
    value = found.mean()
    if reverse:
        ahead = _finite(pair.rollout(batch, generator=generator, **told))
        value = (1 - reverse) * value - reverse * ahead.mean()
    return value


def _finite(found: Rollout) -> torch.Tensor:
    """Log weights without those of paths that left the support."""
    return found.log_weight[torch.isfinite(found.log_weight)]
