"""Pairs of parameters and observations: from a simulator and its prior, or from arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from reverie.errors import InputError

Simulator = Callable[[Tensor], Any]
FEWEST = 20
LARGEST = 1e19  # whose square a float32 holds
MOST_RUNS = 4  # times as many simulations as are asked for, where some fail


def simulate(simulator: Simulator, prior: Any, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw theta (n, d) from the prior and x (n, m) from the simulator, as float64.

    Both run under torch's global generator, seeded here and put back; a simulator that draws from
    another one is the caller's to seed. Rows of x that are not finite are replaced by runs on new
    draws, with a warning that counts them: whether a run succeeds is told by x, so that
    p(theta | x) does not change. Raises InputError as `check_pairs` does, and where most fail.
    """
    if not callable(getattr(prior, "sample", None)):
        raise InputError("a simulator needs prior= with a method sample((n,)) that returns (n, d)")
    _check_prior(prior)
    kept: list[tuple[Tensor, Tensor]] = []
    missing, runs = n, 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while missing > 0:
            theta, x = _run(simulator, prior, missing)
            good = torch.isfinite(x).all(1)
            runs += len(x)
            kept.append((theta[good], x[good]))
            missing -= int(good.sum())
            if missing and runs > MOST_RUNS * n:
                raise InputError(
                    f"only {n - missing} of {runs} simulations returned finite values, and "
                    f"{n} are needed: narrow the prior to where the simulator works"
                )
    if runs > n:
        warnings.warn(
            f"{runs - n} of {runs} simulations returned a value that is not finite and were "
            "made again from new draws of the prior",
            stacklevel=3,
        )
    return check_pairs(*(torch.cat(part) for part in zip(*kept, strict=True)))


def _check_prior(prior: Any) -> None:
    """InputError on a batch of separate distributions, and on parameters of a discrete law."""
    if not isinstance(prior, Distribution):
        return
    if len(prior.batch_shape):
        raise InputError(
            f"the prior is a batch of {prior.batch_shape.numel()} separate distributions: wrap "
            "independent coordinates in torch.distributions.Independent(prior, 1)"
        )
    if prior.support is not None and prior.support.is_discrete:  # type: ignore[union-attr]
        name = type(getattr(prior, "base_dist", prior)).__name__
        raise InputError(
            f"the prior ({name}) is of whole numbers or categories: parameters must be "
            "continuous, since noise is added to them"
        )


def _run(simulator: Simulator, prior: Any, n: int) -> tuple[Tensor, Tensor]:
    """n draws of the prior and their simulations, as rows, finite or not."""
    theta = torch.as_tensor(prior.sample((n,)))
    if theta.ndim != 2:
        raise InputError(
            f"prior.sample(({n},)) has shape {tuple(theta.shape)}, not (n, d): wrap "
            "independent coordinates in torch.distributions.Independent(prior, 1)"
        )
    x = _matrix(simulator(theta), "x")
    if len(x) != n:
        raise InputError(f"theta has {n} rows and x has {len(x)}: pairs need as many")
    return theta, x


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
    rows = _matrix(values, name)
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        raise InputError(
            f"row {int(bad.nonzero()[0, 0])} of {name} holds a value that is not finite "
            f"({int(bad.sum())} such rows): drop those pairs"
        )
    huge = (rows.abs() > LARGEST).any(1)
    if huge.any():
        row = int(huge.nonzero()[0, 0])
        raise InputError(
            f"row {row} of {name} holds {float(rows[row].abs().max()):.3g}, whose square single "
            "precision cannot hold: rescale it"
        )
    return rows


def _matrix(values: Any, name: str) -> Tensor:
    """Values as float64 rows (n, k), finite or not."""
    try:
        array = torch.as_tensor(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers") from error
    if array.ndim < 2 or array.shape[1] == 0:
        raise InputError(f"{name} has shape {tuple(array.shape)}; it must be (n, k): a row a draw")
    return array.flatten(1)
