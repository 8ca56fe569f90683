"""The laws of a pair of chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.targets import PathPair
from reverie.testing.broken import BrokenLaw

ERRORS = 3.0  # standard errors within which a mean must lie
ROUNDING = 1e-9  # of means of equal weights


@torch.no_grad()
def check_pair(
    pair: PathPair, log_z: float, *, exact: Tensor | None = None, n: int = 20_000, seed: int = 0
) -> None:
    """Check that a pair's log weights are normalised: E exp(log w) = Z, whatever its parameters.

    log_z: of its target, nats. exact: draws of the target (m, dim); with them also the backward
    chain, E exp(-log w) = 1 / Z, and that the bounds stand on their sides. n: forward paths. A
    mean must lie within `ERRORS` standard errors, so that a right pair fails one time in 370 a
    law; give parameters whose weights have a variance. Raises BrokenLaw.

    >>> import torch
    >>> from reverie.targets import Chain, Gaussian, GaussianStart, Target
    >>> from reverie.testing import check_pair
    >>> pair = Chain(Target(Gaussian([0.5], [[0.5]]), 1), GaussianStart.of(1), [])
    >>> check_pair(pair, log_z=0.0, n=4000)  # silent: its weights are normalised
    >>> check_pair(pair, log_z=0.2, n=4000)
    Traceback (most recent call last):
        ...
    reverie.testing.broken.BrokenLaw: Chain: E exp(log w) / Z of forward paths is 0.8... not 1
    """
    generator = torch.Generator().manual_seed(seed)
    broken: list[str] = []
    ahead = pair.rollout(n, generator=generator)
    if ahead.log_weight.shape != (n,) or len(ahead.states) != n:
        broken.append(
            f"{n} paths have states {tuple(ahead.states.shape)} and log weights "
            f"{tuple(ahead.log_weight.shape)}"
        )
    elif not ahead.valid:
        broken.append("its weights are marked invalid")
    else:
        broken += _mean(ahead.log_weight - log_z, "E exp(log w) / Z of forward paths")
        repeated = pair.rollout(n, generator=torch.Generator().manual_seed(seed))
        if not torch.equal(repeated.log_weight, ahead.log_weight):
            broken.append("the same generator gives other paths")
    if exact is not None and not broken:
        back = pair.rollout(len(exact), direction="backward", ends=exact, generator=generator)
        broken += _mean(log_z - back.log_weight, "Z E exp(-log w) of backward paths")
        low, high = _bound(ahead.log_weight), _bound(back.log_weight)
        if low[0] - ERRORS * low[1] > log_z:
            broken.append(f"the lower bound {low[0]:.4g} lies above log Z = {log_z:.4g}")
        if high[0] + ERRORS * high[1] < log_z:
            broken.append(f"the upper bound {high[0]:.4g} lies below log Z = {log_z:.4g}")
    if broken:
        name = type(pair).__name__
        raise BrokenLaw("\n".join(f"{name}: {text}" for text in broken))


def _mean(logs: Tensor, what: str) -> list[str]:
    weight = logs.exp()
    mean, error = float(weight.mean()), float(weight.std() / math.sqrt(len(weight)))
    if math.isfinite(mean) and abs(mean - 1) <= ERRORS * error + ROUNDING:
        return []
    return [f"{what} is {mean:.4g} +- {error:.2g}, not 1"]


def _bound(logs: Tensor) -> tuple[float, float]:
    return float(logs.mean()), float(logs.std() / math.sqrt(len(logs)))
