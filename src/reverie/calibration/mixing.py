"""How two guesses l and g are mixed, c = l + w (g - l), and how the weight is read off rows.

The rate is convex in the guess on every space here, so that the best weight of a level is a convex
problem in one number, or in one number a mode where modes are charged apart:

    quadratic    rate(w) = c0 + c1 w + c2 w^2, w* = -c1 / (2 c2)      Gaussian noise, scores
    convex       rate(w) on a fixed list of weights, 0 and 1 among them       cross-entropies

w* is kept in [0, 1] and shrunk towards the better of the two guesses, w = s + (w* - s) k with
s in {0, 1} and k = (1 - stderr^2 / (w* - s)^2)+ (James & Stein 1961). As w lies between s and w*,
convexity keeps the mixed rate at or below both on the rows it was read from; shrinking to the
other side would not.

The rules are in `mixing_rules`, and so is `mixing_of`, which chooses one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reverie.processes import Process

Guess = Callable[[Tensor, Tensor], Tensor]
TINY = 1e-12
NEGLIGIBLE = 1e-3  # a weight below it is 0: there the model's guess may not even be finite


class Weights(NamedTuple):
    """Weights (G,) of one level with their standard errors (G,)."""

    value: np.ndarray
    stderr: np.ndarray


class Mixing(ABC):
    """A rule of mixing with `groups` weights a level; see the module.

    `profile` gives what rows tell about the rate as a function of the weights, float64 with the
    rows first; `solve` reads weights off some of these rows and `rates` the mixed rates (n, J).
    Source of the shrinkage: James & Stein 1961.

    >>> import torch
    >>> from reverie.calibration import Mixing, mixing_of, reference_of
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> rule = mixing_of(VP(), reference_of(VP(), rows), per="level")
    >>> isinstance(rule, Mixing), rule.groups
    (True, 1)
    >>> rule.mix(rows, -rows, torch.full((100, 1), 0.5)).abs().max()  # half of each
    tensor(0.)
    """

    groups: int = 1

    @abstractmethod
    def profile(
        self, first: Guess, second: Guess, rows: Tensor, t: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        """Of rows (B, *shape) at one level t (): (B, ...). `first` is the reference."""
        raise NotImplementedError

    @abstractmethod
    def solve(self, profile: np.ndarray, clock: np.ndarray) -> Weights:
        """clock: (J,) of the level, by which the rates of several clocks are summed."""
        raise NotImplementedError

    @abstractmethod
    def rates(self, profile: np.ndarray, weights: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def mix(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        """The mixed guess; weights (B, G)."""
        return torch.lerp(first, second.to(first), spread(weights, first))


def shrunk(best: np.ndarray, stderr: np.ndarray) -> np.ndarray:
    """Weights (G,) in [0, 1] between the better guess, 0 or 1, and `best`; see the module."""
    side = np.where(best < 0.5, 0.0, 1.0)
    best = np.clip(best, 0.0, 1.0)
    far = np.abs(best - side)
    # 1 - (error / far)^2 where that is positive; as a ratio it would overflow
    kept = np.where(
        far > stderr, 1 - np.square(np.minimum(stderr, far) / np.maximum(far, TINY)), 0
    )
    value = side + (best - side) * kept
    return np.where(value < NEGLIGIBLE, 0.0, value)


def probes(
    process: Process,
    first: Guess,
    second: Guess,
    rows: Tensor,
    t: Tensor,
    generator: torch.Generator,
    weights: tuple[float, ...],
) -> list[np.ndarray]:
    """Rates (B, J) of the mixture at each weight, all on the same noise; each guess asked once."""
    start, held = generator.get_state(), []
    found = []
    for weight in weights:

        def mixed(state: Tensor, times: Tensor, weight: float = weight) -> Tensor:
            if not held:
                held.extend([first(state, times).double(), second(state, times).double()])
            low, high = held
            if weight in (0, 1):  # 0 times infinity is not a number
                return high if weight else low
            return torch.lerp(low, high, weight)

        generator.set_state(start)
        rate = process.probe(mixed, rows, t, generator=generator)
        found.append(rate.double().reshape(len(rows), -1).cpu().numpy())
    return found


def folded(profile: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Profiles (n, J, M) summed over clocks: (n, M), nats per e-fold where there are several."""
    if profile.shape[1] == 1:
        return profile[:, 0]
    return np.einsum("njm,j->nm", profile, clock)


def spread(weights: Tensor, like: Tensor) -> Tensor:
    return weights.to(like).reshape(-1, *(1,) * (like.ndim - 1))
