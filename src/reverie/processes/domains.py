"""Sets with Gaussians cut to them: finite sets, intervals, and their products.

N(z, v) cut to a set is the far end of a Brownian motion at z, with variance v to go, that is
conditioned to end in the set (Liu, Wu, Ye & Liu 2022, 2023). Means and draws are closed forms, and
tails are read where they keep their digits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from reverie.errors import InputError

FAR = 40.0  # deviations beyond which a Gaussian has no mass
TAIL = 3.0  # deviations beyond which a mass is read off the logarithms of tails
SQRT_HALF = math.sqrt(0.5)
LEAST = 1e-12  # variance below which a cut Gaussian is its nearest point


class Domain(ABC):
    """A set in `dim` coordinates, with Gaussians cut to it."""

    dim: int

    @abstractmethod
    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        """Mean (B, dim) of N(z, variance) cut to the set; z (B, dim), variance (B,)."""
        raise NotImplementedError

    @abstractmethod
    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """One draw (B, dim) of each cut Gaussian; always a point of the set."""
        raise NotImplementedError

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Mask (B,) of the points that lie in the set."""
        raise NotImplementedError


class Points(Domain):
    """Finitely many points (n, dim); log_weight (n,) tilts them, as a law of data does.

    InputError on points that are not rows of finite numbers.

    >>> import torch
    >>> from reverie.bridges import Points
    >>> points = Points(torch.tensor([[0.0], [1.0]]).double())
    >>> points.weights(torch.tensor([[0.5]]).double(), torch.ones(1).double())
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """

    def __init__(self, points: Tensor, log_weight: Tensor | None = None) -> None:
        if points.ndim != 2 or len(points) == 0 or not torch.isfinite(points).all():
            raise InputError("a finite domain is rows of numbers, at least one")
        self.points, self.dim = points.double(), points.shape[1]
        self.log_weight = torch.zeros(len(points)) if log_weight is None else log_weight

    def weights(self, z: Tensor, variance: Tensor) -> Tensor:
        """P(point | z) (B, n)."""
        square = torch.cdist(z.double(), self.points).square()
        log = self.log_weight - 0.5 * square / variance.double().clamp(min=LEAST)[:, None]
        return log.softmax(1)

    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        return (self.weights(z, variance) @ self.points).to(z)

    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        pick = torch.multinomial(self.weights(z, variance), 1, generator=generator)[:, 0]
        return self.points[pick].to(z)

    def contains(self, x: Tensor) -> Tensor:
        return (x[:, None] == self.points.to(x)).all(2).any(1)


class Box(Domain):
    """Intervals [low, high], one a coordinate; either end may be infinite.

    low, high: (dim,). InputError unless low < high in every coordinate.

    >>> import torch
    >>> from reverie.bridges import Box
    >>> box = Box([0.0, -1.0], [float("inf"), 1.0])
    >>> box.contains(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).double())
    tensor([ True, False])
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = (torch.as_tensor(v, dtype=torch.float64) for v in (low, high))
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise InputError("a box has one low and one high end for each coordinate")
        if not (self.low < self.high).all():
            raise InputError("a box needs low < high in every coordinate")
        self.dim = len(self.low)
        self.open = bool(self.low.isinf().any() or self.high.isinf().any())

    def _units(self, z: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Deviation (B, 1), and both ends (B, dim) in its units."""
        deviation = variance.double().clamp(min=LEAST).sqrt()[:, None]
        if not self.open:
            return deviation, (self.low - z) / deviation, (self.high - z) / deviation
        # an infinite end is one without mass beyond it: infinity has no gradient
        first, last = self.low.nan_to_num(neginf=0), self.high.nan_to_num(posinf=0)
        low, high = (first - z) / deviation, (last - z) / deviation
        low = torch.where(self.low.isinf(), (high.detach() - FAR).clamp(max=-FAR), low)
        high = torch.where(self.high.isinf(), (low.detach() + FAR).clamp(min=FAR), high)
        return deviation, low, high

    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        deviation, low, high = self._units(z.double(), variance)
        tail = (low > TAIL) | (high < -TAIL)  # there the plain formula has no digits
        some = bool(tail.any())
        first, last = (low, high) if not some else (low.masked_fill(tail, -1.0),
                                                    high.masked_fill(tail, 1.0))  # fmt: skip
        mass = (last * SQRT_HALF).erf() - (first * SQRT_HALF).erf()
        shift = (-0.5 * first.square()).exp() - (-0.5 * last.square()).exp()
        shift = 2 / math.sqrt(2 * math.pi) * shift / mass
        if some:
            shift = shift.index_put(
                tail.nonzero(as_tuple=True), _tail_shift(low[tail], high[tail])
            )
        return (z + deviation * shift).clamp(self.low, self.high).to(z)

    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        chance = torch.rand(z.shape, generator=generator, dtype=torch.float64)
        return self.quantile(z, variance, chance)

    def quantile(self, z: Tensor, variance: Tensor, chance: Tensor) -> Tensor:
        """The points (B, dim) that have these chances (B, dim) below them, or above where more of
        the interval lies to the right of the centre."""
        deviation, low, high = self._units(z.double(), variance)
        low, high, sign = _left(low, high)
        bottom, top = log_ndtr(low), log_ndtr(high)
        place = torch.logaddexp(bottom + torch.log1p(-chance), top + chance.log())
        unit = _inverse_log_ndtr(place).clamp(low, high)
        x = (z.double() + sign * deviation * unit).to(z)
        return x.clamp(self.low.to(z), self.high.to(z))

    def contains(self, x: Tensor) -> Tensor:
        return ((x >= self.low.to(x)) & (x <= self.high.to(x))).all(1)


class Product(Domain):
    """Domains side by side: the coordinates of each follow one another.

    >>> import torch
    >>> from reverie.bridges import Box, Points, Product
    >>> domain = Product([Box([0.0], [1.0]), Points(torch.tensor([[0.0], [1.0]]).double())])
    >>> domain.contains(torch.tensor([[0.3, 1.0], [0.3, 0.5]]).double())
    tensor([ True, False])
    """

    def __init__(self, parts: Sequence[Domain]) -> None:
        self.parts, self.widths = list(parts), [part.dim for part in parts]
        self.dim = sum(self.widths)

    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        pieces = zip(self.parts, z.split(self.widths, 1), strict=True)
        return torch.cat([part.mean(piece, variance) for part, piece in pieces], 1)

    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        pieces = zip(self.parts, z.split(self.widths, 1), strict=True)
        return torch.cat([part.draw(piece, variance, generator) for part, piece in pieces], 1)

    def contains(self, x: Tensor) -> Tensor:
        pieces = zip(self.parts, x.split(self.widths, 1), strict=True)
        return torch.stack([part.contains(piece) for part, piece in pieces]).all(0)


def _left(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The interval or its mirror image, whichever lies more to the left, and the sign of that."""
    sign = torch.where(low + high > 0, -1.0, 1.0)  # tails are read where they keep digits
    return torch.where(sign > 0, low, -high), torch.where(sign > 0, high, -low), sign


def _tail_shift(low: Tensor, high: Tensor) -> Tensor:
    """Mean of a standard normal cut to [low, high], also far from 0; logs of tails keep digits."""
    low, high, sign = _left(low, high)
    total = _log_difference(log_ndtr(high), log_ndtr(low))
    return sign * ((_log_density(low) - total).exp() - (_log_density(high) - total).exp())


def _log_density(x: Tensor) -> Tensor:
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


def _log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller))."""
    return larger + torch.log(-torch.expm1((smaller - larger).clamp(max=-1e-300)))


def _inverse_log_ndtr(log: Tensor) -> Tensor:
    """x with log Phi(x) = log: `ndtri`, and Newton steps in the tail where it has no digits."""
    x = ndtri(log.exp().clamp(min=1e-300, max=1 - 1e-16))
    far = log < -30
    x = torch.where(far, -(-2 * log.clamp(max=-1)).sqrt(), x)
    for _ in range(6):
        value = log_ndtr(x)
        slope = (_log_density(x) - value).exp()
        x = torch.where(far, x - (value - log) / slope, x)
    return x
