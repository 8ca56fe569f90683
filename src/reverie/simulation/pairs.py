"""Pairs of parameters and observations: from a simulator and its prior, or from arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError

Simulator = Callable[[Tensor], Any]
FEWEST = 20


def simulate(simulator: Simulator, prior: Any, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw theta (n, d) from the prior and x (n, m) from the simulator, as float64.

    Both run under torch's global generator, seeded here and put back; a simulator that draws from
    another one is the caller's to seed. Raises InputError as `check_pairs` does.
    """
    if not callable(getattr(prior, "sample", None)):
        raise InputError("a simulator needs prior= with a method sample((n,)) that returns (n, d)")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theta = torch.as_tensor(prior.sample((n,)))
        if theta.ndim != 2:
            raise InputError(
                f"prior.sample(({n},)) has shape {tuple(theta.shape)}, not (n, d): wrap "
                "independent coordinates in torch.distributions.Independent(prior, 1)"
            )
        return check_pairs(theta, simulator(theta))


def check_pairs(theta: Any, x: Any) -> tuple[Tensor, Tensor]:
    """Pairs as float64 matrices (n, d), (n, m), rows of x flattened.

    Raises InputError on another shape, unequal lengths, too few rows, or a value that is not
    finite (the first row that holds one is named).
    """
    theta, x = as_rows(theta, "theta"), as_rows(x, "x")
    if len(theta) != len(x):
        raise InputError(f"theta has {len(theta)} rows and x has {len(x)}: pairs need as many")
    if len(theta) < FEWEST:
        raise InputError(f"{len(theta)} pairs are too few to learn from: give at least {FEWEST}")
    return theta, x


def as_rows(values: Any, name: str) -> Tensor:
    """An array or tensor (n, ...) as float64 rows (n, k); InputError that names a bad row."""
    try:
        array = torch.as_tensor(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers") from error
    if array.ndim < 2 or array.shape[1] == 0:
        raise InputError(f"{name} has shape {tuple(array.shape)}; it must be (n, k): a row a draw")
    rows = array.flatten(1)
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        raise InputError(
            f"row {int(bad.nonzero()[0, 0])} of {name} holds a value that is not finite "
            f"({int(bad.sum())} such rows): drop those pairs"
        )
    return rows
