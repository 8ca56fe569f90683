"""Kernels along an annealed path, and the layers of a pair that they make.

The path is geometric: log gamma_b = (1 - b) log pi_0 + b log gamma for temperatures b in [0, 1].
A kernel that is reversible with respect to gamma_b weighs log gamma_b(x) - log gamma_b(x'). ULA is
not: its backward kernel is the same kernel, run from x'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.targets.pair import Layer
from reverie.targets.starts import GaussianStart
from reverie.targets.target import Point

KERNELS = ("hmc", "mala", "ula", "random-walk")
LEAPS = 5  # leapfrog steps of a Hamiltonian move
SMALLEST = 0.03  # steps are drawn between this share of the largest one and itself
ACCEPTANCE = {"hmc": 0.8, "mala": 0.6, "random-walk": 0.3, "ula": 0.9}


@dataclass(frozen=True, eq=False)
class Bath:
    """One temperature of the path: gamma_b with its gradient.

    scale: (dim, dim) lower triangular, the units in which a kernel moves. smallest: share of
    the step below which no move is drawn.
    """

    start: GaussianStart
    b: float
    step: float
    scale: Tensor
    leaps: int = LEAPS
    smallest: float = SMALLEST

    def log_density(self, point: Point) -> Tensor:
        """log gamma_b (n,)."""
        if self.b == 0:
            return self.start.log_prob(point.x)
        if self.b == 1:
            return point.log_density
        return (1 - self.b) * self.start.log_prob(point.x) + self.b * point.log_density

    def gradient(self, point: Point) -> Tensor:
        """Its gradient (n, dim), in the kernel's units: scale^T grad log gamma_b."""
        slope = self.b * point.gradient
        if self.b < 1:
            slope = slope + (1 - self.b) * self.start.score(point.x)
        return slope @ self.scale

    def stepped(self, step: float) -> Bath:
        """The same temperature with another step."""
        return replace(self, step=step)


class Move(NamedTuple):
    """A point after a reversible move, and the share of proposals accepted."""

    point: Point
    accepted: Tensor  # (n,), probabilities


def reversible(
    kernel: str, bath: Bath, point: Point, generator: torch.Generator | None = None
) -> Move:
    """One move of a kernel that leaves gamma_b as it is: hmc, mala or random-walk.

    The step of each point is drawn anew below the bath's own, whatever the point, so that narrow
    places are reached: the kernel is a mixture of reversible ones, and reversible.
    """
    noise = _normal(point.x, generator)
    level = torch.rand(len(point), 1, dtype=noise.dtype, device=noise.device, generator=generator)
    step = bath.step * bath.smallest**level
    if kernel == "random-walk":
        return _walk(bath, point, step, noise, generator)
    if kernel not in ("hmc", "mala", "ula"):  # a pilot of ULA moves by MALA
        raise InputError(f"{kernel} is no reversible kernel; choose hmc, mala or random-walk")
    leaps = bath.leaps if kernel == "hmc" else 1
    place, speed = point, noise + 0.5 * step * bath.gradient(point)
    for leap in range(leaps):
        place = point.target.at(place.x + (step * speed) @ bath.scale.T)
        speed = speed + (0.5 if leap == leaps - 1 else 1.0) * step * bath.gradient(place)
    change = bath.log_density(place) - bath.log_density(point)
    change = change + 0.5 * (noise.square() - speed.square()).sum(1)
    return _settled(point, place, change, generator)


def _walk(
    bath: Bath, point: Point, step: Tensor, noise: Tensor, generator: torch.Generator | None
) -> Move:
    place = point.target.at(point.x + (step * noise) @ bath.scale.T)
    change = bath.log_density(place) - bath.log_density(point)
    chance = _chance(change)
    level = _uniform(chance, generator)
    row = (level < chance)[:, None]
    density = torch.where(row[:, 0], place.log_density, point.log_density)
    moved = Point(point.target, torch.where(row, place.x, point.x), None, density)
    return Move(moved, chance)


def _settled(
    point: Point, place: Point, change: Tensor, generator: torch.Generator | None
) -> Move:
    chance = _chance(change)
    return Move(place.chosen(point, _uniform(chance, generator) < chance), chance)


def _chance(change: Tensor) -> Tensor:
    """min(1, e^change), 0 where the proposal is not a number."""
    return torch.nan_to_num(change, nan=-torch.inf).clamp(max=0).exp()


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


class ReversibleLayer(Layer):
    """A move that leaves gamma_b as it is, the same both ways: AIS with MALA or HMC.

    >>> import torch
    >>> from reverie.targets import Gaussian, ReversibleLayer, Target, anneal
    >>> target, noise = Target(Gaussian([1.0], [[0.25]]), 1), torch.Generator().manual_seed(0)
    >>> layer = ReversibleLayer("hmc", anneal(target, steps=4, n=256, generator=noise).baths[-1])
    >>> x = torch.zeros(5, 1).double()
    >>> moved, ratio = layer.ahead(target.at(x), noise)
    >>> torch.allclose(ratio, target(x) - target(moved.x))  # gamma_1 is the target
    True
    """

    def __init__(self, kernel: str, bath: Bath) -> None:
        super().__init__()
        self.kernel, self.bath = kernel, bath

    def ahead(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        moved = reversible(self.kernel, self.bath, point, generator).point
        return moved, self.bath.log_density(point) - self.bath.log_density(moved)

    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        moved = reversible(self.kernel, self.bath, point, generator).point
        return moved, self.bath.log_density(moved) - self.bath.log_density(point)


class GaussianLayer(Layer):
    """Gaussian kernels both ways: x' ~ N(m(x), s^2 A A^T), x ~ N(m'(x'), s'^2 A A^T).

    Subclasses give the means. noise, noise_back: s and s'. unit: A (dim, dim), lower triangular,
    or None for the identity. clip: noise beyond it is drawn to it; the weights are then marked
    invalid.
    """

    unit: Tensor | None = None
    clip: float | None = None
    noise: float | Tensor
    noise_back: float | Tensor

    def mean_ahead(self, point: Point) -> Tensor:
        raise NotImplementedError

    def mean_back(self, point: Point) -> Tensor:
        raise NotImplementedError

    @property
    def valid(self) -> bool:  # type: ignore[override]
        return self.clip is None

    def ahead(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        mean = self.mean_ahead(point)
        xi = self._draw(mean, generator)
        x = mean + self.noise * self._coloured(xi)
        moved = point.target.at(x.detach() if detach else x)
        here = self._white((moved.x - mean) / self.noise) if detach else xi
        there = self._white((point.x - self.mean_back(moved)) / self.noise_back)
        return moved, self._ratio(there, here)

    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        mean = self.mean_back(point)
        xi = self._draw(mean, generator)
        x = mean + self.noise_back * self._coloured(xi)
        moved = point.target.at(x.detach() if detach else x)
        there = self._white((moved.x - mean) / self.noise_back) if detach else xi
        here = self._white((point.x - self.mean_ahead(moved)) / self.noise)
        return moved, self._ratio(there, here)

    def _draw(self, mean: Tensor, generator: torch.Generator | None) -> Tensor:
        xi = _normal(mean, generator)
        return xi if self.clip is None else xi.clamp(-self.clip, self.clip)

    def _coloured(self, xi: Tensor) -> Tensor:
        return xi if self.unit is None else xi @ self.unit.T

    def _white(self, off: Tensor) -> Tensor:
        if self.unit is None:
            return off
        return torch.linalg.solve_triangular(self.unit, off.T, upper=False).T

    def _ratio(self, there: Tensor, here: Tensor) -> Tensor:
        wide, wide_back = (
            torch.as_tensor(s, dtype=here.dtype, device=here.device)
            for s in (self.noise, self.noise_back)
        )
        volume = here.shape[1] * (wide.log() - wide_back.log())
        return 0.5 * (here.square().sum(1) - there.square().sum(1)) + volume


class ULALayer(GaussianLayer):
    """x' = x + h A A^T grad log gamma_b(x) + sqrt(2 h) A xi, and the same kernel back.

    h is the bath's step. One gradient a step: the point remembers its own.

    >>> import torch
    >>> from reverie.targets import Gaussian, GaussianStart, Target, ULALayer
    >>> from reverie.targets.kernels import Bath
    >>> layer = ULALayer(Bath(GaussianStart.of(1), b=1.0, step=0.1, scale=torch.eye(1).double()))
    >>> point = Target(Gaussian([0.0], [[1.0]]), 1).at(torch.ones(1, 1).double())
    >>> round(float(layer.mean_ahead(point)), 6), round(layer.noise**2, 6)  # 1 - h, 2 h
    (0.9, 0.2)
    """

    def __init__(self, bath: Bath, clip: float | None = None) -> None:
        super().__init__()
        self.bath, self.clip, self.unit = bath, clip, bath.scale
        self.noise = self.noise_back = math.sqrt(2 * bath.step)

    def mean_ahead(self, point: Point) -> Tensor:
        return point.x + self.bath.step * self._coloured(self.bath.gradient(point))

    def mean_back(self, point: Point) -> Tensor:
        return self.mean_ahead(point)
