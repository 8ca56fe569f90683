"""What may be wrong with a model whose curve is worse than a guess of the mean.

Each usual mistake in wrapping a model turns the linear optimum of the rows, which every model is
close to at both ends, into another affine guess, x_t -> A x_t + B, whose curve is exact:

    rate = 1/2 sum_k (1 - A_k alpha)^2 lambda_k + A_k^2 sigma^2 + ((1 - A_k alpha) m_k - B_k)^2

A mistake is named when its curve fits the measured one far better than the linear optimum's own
does. It stays a suspicion: another fault may draw the same curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.denoisers.conversions import PREDICTIONS, shares_of
from reverie.denoisers.exact.low_rank import Moments
from reverie.processes import GaussianProcess

NEAR = 0.5  # half of the levels of each third lie within a factor of 1.6
ALIKE = 1.5  # what lies this much further than the closest is not named
FLAT = 0.1  # of the log rate, per e-fold of the clock
RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))  # of pictures
BETTER = 0.5  # of the distance to the linear optimum
UNITS = np.geomspace(1 / 300, 300, 61)
SAME_UNITS = 1.5  # a factor that says nothing about units


class Suspect(NamedTuple):
    """A mistake by its name, what to do, and how far its curve lies off, as a log."""

    name: str
    remedy: str
    distance: float


class _Affine(NamedTuple):
    """Guess A x_t + B m for levels and modes (L, K)."""

    scale: np.ndarray
    shift: np.ndarray


class _Law:
    """The rows' moments by group: K modes, of which the last stands for all the rest."""

    def __init__(self, process: GaussianProcess, moments: Moments, times: np.ndarray) -> None:
        self.process, self.times = process, torch.as_tensor(times, dtype=torch.float64)
        self.moments, left = moments, moments.dim - len(moments.spectrum)
        self.variance = np.append(moments.spectrum.numpy(), moments.rest)
        self.count = np.append(np.ones(len(moments.spectrum)), float(left))
        self.mean = moments.mean.flatten()
        self.own = self._levels(self.times)

    def _products(self, a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
        """Inner products (K,) of two points, group by group."""
        inside = (self.moments.basis.T @ a) * (self.moments.basis.T @ b)
        outside = float(a @ b - inside.sum()) if self.count[-1] else 0.0
        return np.append(inside.numpy(), outside)

    def _levels(self, times: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        like = times[:, None]
        return tuple(v.numpy() for v in self.process.scales(times, like))  # type: ignore[return-value]

    def guess(self, times: torch.Tensor, variance: np.ndarray) -> _Affine:
        """The linear optimum for modes of these variances, as it is at `times`."""
        alpha, sigma = self._levels(times)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return _Affine(gain, 1 - gain * alpha)

    def rate(self, guess: _Affine, mean: torch.Tensor | None = None) -> np.ndarray:
        """Exact rate (L,) on the rows' moments of a guess shifted along `mean`, default theirs."""
        alpha, sigma = self.own
        other = self.mean if mean is None else mean
        kept, shift = 1 - guess.scale * alpha, guess.shift
        cost = self.count * (kept**2 * self.variance + guess.scale**2 * sigma**2)
        cost = cost + kept**2 * self._products(self.mean, self.mean)
        cost = cost - 2 * kept * shift * self._products(self.mean, other)
        return 0.5 * (cost + shift**2 * self._products(other, other)).sum(1)

    def misread(self, kind: str, told: torch.Tensor, sign: float) -> _Affine:
        """The optimum's prediction of a kind at times `told`, times a sign, read at its own."""
        there = self._scales(kind, told)
        here = self._scales(kind, self.times)
        clean = self.guess(told, self.variance)
        alpha, sigma = self._levels(told)
        # value = p c + q (x_t - alpha c) / sigma, as in `conversions`
        slope = there[0] - there[1] * alpha / sigma
        value = _Affine(slope * clean.scale + there[1] / sigma, slope * clean.shift)
        alpha, sigma = self.own
        under = here[0] * sigma - here[1] * alpha
        return _Affine(
            (sign * sigma * value.scale - here[1]) / under, sign * sigma * value.shift / under
        )

    def _scales(self, kind: str, times: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        p, q = shares_of(kind, self.process, times, times[:, None])
        return p.numpy(), q.numpy()


def suspects(curve: LossCurve, moments: Moments, predicts: str | None = None) -> list[Suspect]:
    """The mistakes whose curves the measured one resembles, likeliest first; often none.

    curve: of a Gaussian process with one clock. moments: of the rows it was measured on. predicts:
    what the model predicts, one of `PREDICTIONS`, if that is known.
    """
    process = None if curve.process is None else curve.process.gaussian
    if process is None or not process.isotropic or curve.t is None:
        return []
    law = _Law(process, moments, curve.t)
    plain = _distance(curve, law.rate(law.guess(law.times, law.variance)))
    kinds = PREDICTIONS if predicts is None else (predicts,)
    found: dict[str, Suspect] = {}
    for name, remedy, rate in (*_mistakes(law, kinds), *_units(law), *_amplified(curve, law)):
        far = _distance(curve, rate)
        if far < found.get(name, _NONE).distance:
            found[name] = Suspect(name, remedy, far)
    ranked = sorted(found.values(), key=lambda s: s.distance)
    near = [s for s in ranked if s.distance < min(NEAR, BETTER * plain)]
    if not near:
        return _other_mean(curve, law)
    return [s for s in near if s.distance <= ALIKE * near[0].distance]


def _other_mean(curve: LossCurve, law: _Law) -> list[Suspect]:
    """A flat noisy end above the mean guess: the model guesses a mean, not that of the rows."""
    noisy = slice(0, max(len(curve.u) // 3, 2))
    dearer = curve.rate[noisy] / (0.5 * law.moments.trace)
    slope = abs(float(np.polyfit(curve.axis[noisy], np.log(dearer), 1)[0]))
    if dearer.min() < 1 + NEAR or slope > FLAT:
        return []
    remedy = "compare the rows' mean and deviation with those of the training data"
    return [Suspect("rows in other units than the model's", remedy, slope)]


_NONE = Suspect("", "", np.inf)
Found = Iterator[tuple[str, str, np.ndarray]]


def _mistakes(law: _Law, kinds: tuple[str, ...]) -> Found:
    low, high = law.process.t_range
    for kind in kinds:
        turned = law.rate(law.misread(kind, low + high - law.times, 1.0))
        yield "time direction", "the model counts time from noise to data, so pass 1 - t", turned
        if kind != "clean":
            flipped = law.rate(law.misread(kind, law.times, -1.0))
            yield f"{kind} sign", f"the model's {kind} has the other sign, so negate it", flipped


def _units(law: _Law) -> Found:
    """Rows = factor * the model's data + offset: ranges of pictures, and any factor at mean 0."""
    remedy = "scale the rows as in training"

    def told(factor: float, mean: torch.Tensor) -> np.ndarray:
        return law.rate(law.guess(law.times, law.variance / factor**2), mean)

    for low, high in RANGES:
        for start, stop in RANGES:
            if (low, high) != (start, stop):
                factor = (high - low) / (stop - start)
                name = f"rows in [{low:g}, {high:g}] for a model of [{start:g}, {stop:g}]"
                yield name, remedy, told(factor, (law.mean - low) / factor + start)
    for factor in UNITS:
        if max(factor, 1 / factor) > SAME_UNITS:
            name = "rows of another deviation than the model was trained on"
            yield name, remedy, told(float(factor), torch.zeros_like(law.mean))


def _amplified(curve: LossCurve, law: _Law) -> Found:
    """An error of one size in the noise, e, is an error (sigma/alpha) e in the guess."""
    linear, noise = law.rate(law.guess(law.times, law.variance)), 1 / curve.u
    extra = max(float((curve.rate[0] - linear[0]) / noise[0]), 0.0)
    name = "an error in the predicted noise, amplified by sigma/alpha"
    yield name, "calibrate the model", linear + extra * noise


def _distance(curve: LossCurve, rate: np.ndarray) -> float:
    """By which factor, as a log, the worst third of the curve lies off: the thirds' medians."""
    with np.errstate(divide="ignore"):
        off = np.abs(np.log(curve.rate / rate))
    return float(max(np.median(part) for part in np.array_split(off, 3)))
