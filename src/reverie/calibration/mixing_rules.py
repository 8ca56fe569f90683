"""The rules by which guesses are mixed on each kind of process; the mathematics is in `mixing`.

`mixing_of(process, reference, per)` chooses:

    Modal     Gaussian noise: a weight for each leading mode, and one for all that is left
    Shared    one weight a level, of a quadratic charge: scores on manifolds, log-ratios
    Convex    one weight a level off a list: symbols, and any process that is not known better,
              as neither guess, both on the list, can be better than the best of the list

A process of one's own joins with `@mixing_of.register`.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from reverie.calibration.mixing import Guess, Mixing, Weights, folded, probes, shrunk
from reverie.calibration.references import LinearReference, Reference
from reverie.errors import InputError
from reverie.processes import (
    Brownian,
    DomainBridges,
    GaussianProcess,
    LinearSDE,
    LogRatios,
    Process,
)

PER = ("mode", "level")
NODES = 0.5 - 0.5 * np.cos(np.pi * np.arange(33) / 32)  # dense where a guess is left alone


class Quadratic(Mixing):
    """Profiles (n, G, 3) of coefficients c0, c1, c2 of the rate."""

    def solve(self, profile: np.ndarray, clock: np.ndarray) -> Weights:
        c1, c2 = profile[..., 1], profile[..., 2]
        with np.errstate(invalid="ignore"):  # of guesses that are not finite
            slope, bend = c1.mean(0), c2.mean(0)
            finite = np.isfinite(slope) & np.isfinite(bend)
            moving = finite & (bend > 0)
            safe = np.where(moving, bend, 1.0)
            # where the guesses agree any weight does: the model is left alone
            best = np.where(moving, -slope / (2 * safe), np.where(finite, 1.0, 0.0))
            if len(profile) < 2:
                error = np.full_like(best, np.inf)
                return Weights(shrunk(best, error), error)
            pull = (c1 + 2 * best * c2) / (2 * safe)
            spread = pull.std(0, ddof=1) / np.sqrt(len(profile))
        error = np.where(moving, spread, 0.0)
        return Weights(shrunk(best, error), error)

    def rates(self, profile: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self.pool(_value(profile, weights))

    def pool(self, values: np.ndarray) -> np.ndarray:
        """Rates (n, J) of values (n, G)."""
        return values.sum(1, keepdims=True)


class Shared(Quadratic):
    """One weight a level by the process's own `probe`, at three weights of one quadratic.

    With several clocks the columns (n, J, 3) share the weight, each as nats per e-fold.
    """

    def __init__(self, process: Process) -> None:
        self.process = process

    def profile(
        self, first: Guess, second: Guess, rows: Tensor, t: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        low, half, high = probes(self.process, first, second, rows, t, generator, (0, 0.5, 1))
        bend = np.maximum(2 * (low + high - 2 * half), 0.0)
        return np.stack([low, high - low - bend, bend], -1)

    def solve(self, profile: np.ndarray, clock: np.ndarray) -> Weights:
        return super().solve(folded(profile, clock)[:, None], clock)

    def pool(self, values: np.ndarray) -> np.ndarray:
        return values


class Modal(Quadratic):
    """One weight for each leading mode of the rows, and one for all that is left.

    Of noise with one level: two thin products with the basis (d, r) a call. With several levels
    the modes are the noise's own, each charged on its own clock, and there are d weights.
    """

    process: GaussianProcess

    def __init__(self, process: GaussianProcess, reference: LinearReference) -> None:
        self.process, self.linear = process, reference.linear
        self.dim, self.leading = reference.moments.dim, len(reference.moments.spectrum)
        self.whole = not process.isotropic  # every mode of the noise has its weight
        self.left = not self.whole and self.leading < self.dim
        self.groups = self.dim if self.whole else self.leading + self.left

    def profile(
        self, first: Guess, second: Guess, rows: Tensor, t: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        state = torch.cat(self.process.corrupt_pair(rows, t, generator=generator))
        times = t.to(state).expand(len(state))
        low, high = first(state, times).double(), second(state, times).double()
        miss, move = torch.cat([rows, rows]).double() - low, high - low
        c0, c1, c2 = (
            self._squares(a, b).reshape(2, len(rows), -1).mean(0)
            for a, b in ((miss, miss), (miss, move), (move, move))
        )
        return torch.stack([0.5 * c0, -c1, 0.5 * c2], -1).cpu().numpy()

    def _squares(self, a: Tensor, b: Tensor) -> Tensor:
        """Products (B, G) of two sets of vectors, group by group."""
        if self.whole:
            return (self.process.to_modes(a) * self.process.to_modes(b)).flatten(1)
        basis = self.linear.parts(a)[1]
        a, b = a.flatten(1), b.flatten(1)
        inside = (a @ basis) * (b @ basis)
        if not self.left:
            return inside
        rest = (a * b).sum(1, keepdim=True) - inside.sum(1, keepdim=True)
        return torch.cat([inside, rest], 1)

    def pool(self, values: np.ndarray) -> np.ndarray:
        if not self.whole:
            return values.sum(1, keepdims=True)
        shaped = torch.as_tensor(values).reshape(len(values), *self.linear.moments.mean.shape)
        return self.process.pool(shaped).reshape(len(values), -1).numpy()

    def mix(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        move = second.to(first) - first
        if self.whole:
            modes = self.process.to_modes(move)
            return first + self.process.from_modes(modes * weights.reshape(-1, *first.shape[1:]))
        basis, flat = self.linear.parts(first)[1], move.flatten(1)
        if not self.left:
            return first + ((flat @ basis * weights) @ basis.T).reshape(first.shape)
        rest = weights[:, -1:]
        turned = rest * flat + (flat @ basis * (weights[:, :-1] - rest)) @ basis.T
        return first + turned.reshape(first.shape)


class Convex(Mixing):
    """One weight a level off a list of them: profiles (n, J, M) are the rates at `NODES`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def profile(
        self, first: Guess, second: Guess, rows: Tensor, t: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        values = probes(self.process, first, second, rows, t, generator, tuple(NODES))
        return np.stack(values, -1)

    def solve(self, profile: np.ndarray, clock: np.ndarray) -> Weights:
        rows = folded(profile, clock)
        mean = np.where(np.isfinite(rows.mean(0)), rows.mean(0), np.inf)
        place = int(np.argmin(mean))
        inner = min(max(place, 1), len(NODES) - 2)
        error = _slope_error(rows[:, inner - 1 : inner + 2], NODES[inner - 1 : inner + 2])
        side = 0.0 if mean[0] < mean[-1] else 1.0
        best = NODES[place]
        kept = 0.0 if best == side else max(1 - (error / (best - side)) ** 2, 0.0)
        goal = side + (best - side) * kept
        # a node between the goal and the side: the list is all that was charged
        place = (
            np.searchsorted(NODES, goal + 1e-12) - 1
            if side == 0
            else np.searchsorted(NODES, goal - 1e-12)
        )
        value = NODES[place]
        return Weights(np.array([value]), np.array([error]))

    def rates(self, profile: np.ndarray, weights: np.ndarray) -> np.ndarray:
        right = min(max(int(np.searchsorted(NODES, weights[0])), 1), len(NODES) - 1)
        share = (weights[0] - NODES[right - 1]) / (NODES[right] - NODES[right - 1])
        if share in (0.0, 1.0):  # an infinite rate next door has no say
            return profile[..., right if share else right - 1]
        return (1 - share) * profile[..., right - 1] + share * profile[..., right]


def _slope_error(rates: np.ndarray, nodes: np.ndarray) -> float:
    """Standard error of the weight at which the parabola through three rates (n, 3) is least."""
    if len(rates) < 2 or not np.isfinite(rates).all():
        return float("inf")
    left, right = np.diff(nodes)
    slopes = np.diff(rates, axis=1) / (left, right)
    bend = float((slopes[:, 1] - slopes[:, 0]).mean()) / (0.5 * (left + right))
    if bend <= 0:
        return float("inf")
    return float(slopes.mean(1).std(ddof=1) / np.sqrt(len(rates)) / bend)


def _value(profile: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """c0 + c1 w + c2 w^2, (n, G); at w = 0 whatever the others are."""
    c0, c1, c2 = (profile[..., k] for k in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        moved = c0 + weights * (c1 + weights * c2)
    return np.maximum(np.where(weights == 0, c0, moved), 0.0)


@singledispatch
def mixing_of(process: Process, reference: Reference, per: str = "mode") -> Mixing:
    """The rule of mixing guesses on this process. per: "mode" where modes are charged apart.

    Raises InputError on another word.

    >>> import torch
    >>> from reverie.calibration import mixing_of, reference_of
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> reference = reference_of(VP(), rows)
    >>> [mixing_of(VP(), reference, per).groups for per in ("level", "mode")]
    [1, 2]
    """
    _check(per)
    return Convex(process)


@mixing_of.register
def _(process: GaussianProcess, reference: Reference, per: str = "mode") -> Mixing:
    _check(per)
    if per == "mode" and isinstance(reference, LinearReference):
        return Modal(process, reference)
    return Shared(process)


def _one_quadratic(process: Process, reference: Reference, per: str = "mode") -> Mixing:
    _check(per)
    return Shared(process)


for _kind in (Brownian, LogRatios, LinearSDE, DomainBridges):
    mixing_of.register(_kind, _one_quadratic)


def _check(per: str) -> None:
    if per not in PER:
        raise InputError(f"per={per!r}: choose one of {', '.join(PER)}")
