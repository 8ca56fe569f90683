"""Bridges into a domain: every path ends inside, at any number of steps.

A Brownian motion conditioned to end in a set has, given the state z with variance v to go, a far
end of the law N(z, v) cut to the set, and drifts towards its mean: eta = (E[x | z] - z) / v per
unit of variance (Liu, Wu, Ye & Liu 2022, 2023). Cut Gaussians are closed forms on finite sets, on
intervals and on products, so that a step draws the far end from that law and then the Brownian
bridge to it: exact, and inside by construction. For the set {-1, 1}, eta = (tanh(z / v) - z) / v.

A network tilts the law: N(z + v f(z), v) cut to the domain. The papers add f to the drift eta;
here it is inside the cut, and keeps every sample in the domain.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from reverie.bridges.base import Bridge
from reverie.bridges.reference import BrownianMotion, require_sigma
from reverie.denoisers import ResidualMLP
from reverie.errors import InputError

FAR = 40.0  # deviations beyond which a Gaussian has no mass
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

    def _cut(self, z: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Deviation (B, 1), ends in its units (B, dim) and a sign that puts them below 0."""
        deviation = variance.double().clamp(min=LEAST).sqrt()[:, None]
        # an infinite end is one without mass beyond it: infinity has no gradient
        first, last = self.low.nan_to_num(neginf=0), self.high.nan_to_num(posinf=0)
        low, high = (first - z) / deviation, (last - z) / deviation
        low = torch.where(self.low.isinf(), (high.detach() - FAR).clamp(max=-FAR), low)
        high = torch.where(self.high.isinf(), (low.detach() + FAR).clamp(min=FAR), high)
        sign = torch.where(low + high > 0, -1.0, 1.0)  # tails are read where they keep digits
        first = torch.where(sign > 0, low, -high)
        return deviation, first, torch.where(sign > 0, high, -low), sign

    def mean(self, z: Tensor, variance: Tensor) -> Tensor:
        deviation, low, high, sign = self._cut(z.double(), variance)
        total = _log_difference(log_ndtr(high), log_ndtr(low))
        shift = (_log_density(low) - total).exp() - (_log_density(high) - total).exp()
        return (z + sign * deviation * shift).clamp(self.low, self.high).to(z)

    def draw(
        self, z: Tensor, variance: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        deviation, low, high, sign = self._cut(z.double(), variance)
        chance = torch.rand(z.shape, generator=generator, dtype=torch.float64)
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


class DomainBridge(Bridge):
    """Brownian motion from `origin` (dim,), conditioned to end in a domain. Forward only.

    Source: Liu, Wu, Ye & Liu 2022, 2023.

    >>> import torch
    >>> from reverie.bridges import Box, DomainBridge
    >>> bridge = DomainBridge(Box([1.0], [2.0]))
    >>> points = bridge.generate(100, steps=10, generator=torch.Generator().manual_seed(0))
    >>> bool(((points >= 1) & (points <= 2)).all())
    True
    """

    exact_steps = True
    reference: BrownianMotion
    origin: Tensor

    def __init__(self, domain: Domain, sigma: float = 1.0, origin: Tensor | None = None) -> None:
        super().__init__()
        self.domain, self.dim = domain, domain.dim
        self.reference = BrownianMotion(require_sigma(sigma))
        zero = torch.zeros(domain.dim, dtype=torch.float64)
        self.register_buffer("origin", zero if origin is None else origin.double())

    def left(self, share: Tensor) -> Tensor:
        """Variance (B,) to go."""
        return self.reference.epsilon * (1 - share.double())

    def centre(self, y: Tensor, share: Tensor) -> Tensor:
        """Centre (B, dim) of the Gaussian that is cut to the domain: the state itself here."""
        return y

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        self._forward_only(reverse)
        with torch.no_grad():
            return self.domain.mean(self.centre(y, share), self.left(share))

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self._forward_only(reverse)
        with torch.no_grad():
            return self.domain.draw(self.centre(y, share), self.left(share), generator)

    def step(
        self,
        y: Tensor,
        start: float,
        end: float,
        *,
        origin: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if end == 1.0:  # the far end itself, without the rounding of a way to it
            share = torch.full((len(y),), start, dtype=torch.float64)
            return self.far_end(y, share, generator=generator)
        return super().step(y, start, end, origin=origin, generator=generator)

    def generate(
        self, n: int, *, steps: int = 50, generator: torch.Generator | None = None
    ) -> Tensor:
        """n points (n, dim) of the domain, by paths from the origin."""
        start = self.origin.expand(n, self.dim)
        return self.path(start, steps=steps, generator=generator)[-1]

    def _forward_only(self, reverse: bool) -> None:
        if reverse:
            raise InputError(
                "a bridge into a domain runs one way: from its origin into the domain"
            )


def data_bridge(
    points: Tensor, weights: Tensor | None = None, sigma: float = 1.0, origin: Tensor | None = None
) -> DomainBridge:
    """The exact mixture of bridges to points (n, dim) of these weights: the memoriser.

    weights: (n,), default even. origin: (dim,).

    >>> import torch
    >>> from reverie.bridges import data_bridge
    >>> points = torch.tensor([[-1.0], [1.0]]).double()
    >>> bridge = data_bridge(points)
    >>> drawn = bridge.generate(20, steps=10, generator=torch.Generator().manual_seed(0))
    >>> drawn.abs().unique().round(decimals=3)
    tensor([1.], dtype=torch.float64)
    """
    start = torch.zeros(points.shape[1]) if origin is None else origin
    share = torch.full((len(points),), 1 / len(points)) if weights is None else weights
    off = (points.double() - start.double()).square().sum(1)
    tilt = share.double().log() + 0.5 * off / sigma**2
    return DomainBridge(Points(points, tilt), sigma, start)


class LearnedDomainBridge(DomainBridge):
    """A network shifts the Gaussian that is cut to the domain."""

    exact_steps = False

    def __init__(
        self,
        domain: Domain,
        sigma: float = 1.0,
        origin: Tensor | None = None,
        *,
        width: int = 128,
        depth: int = 2,
    ) -> None:
        super().__init__(domain, sigma, origin)
        self.body = ResidualMLP((domain.dim,), width, depth)

    def centre(self, y: Tensor, share: Tensor) -> Tensor:
        raw = self.body(y.float() / self.reference.sigma, 2 * share.float() - 1)
        return y + self.left(share)[:, None].to(y) * raw.to(y) / self.reference.sigma

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Path KL up to a constant, weighted by the variance to go: errors of the far end."""
        s = torch.rand(len(x), generator=generator, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        spread = (self.reference.epsilon * s * (1 - s)).sqrt()[:, None]
        y = (1 - s[:, None]) * self.origin + s[:, None] * x + spread * noise
        guess = self.domain.mean(self.centre(y, s), self.left(s))
        weight = 1 / (self.left(s) + 1e-3 * self.reference.epsilon)
        return 0.5 * (weight * (guess - x).square().sum(1)).mean()


def fit_domain_bridge(
    data: Tensor,
    domain: Domain,
    *,
    sigma: float = 1.0,
    steps: int = 1000,
    batch: int = 256,
    rate: float = 3e-3,
    generator: torch.Generator | None = None,
    **network: Any,
) -> LearnedDomainBridge:
    """Fit a bridge from the data's mean into a domain; InputError where a row lies outside.

    data: (n, dim).
    Source: Liu, Wu, Ye & Liu 2022, 2023; the network's f stands inside the cut here.

    >>> import torch
    >>> from reverie.bridges import Box, fit_domain_bridge
    >>> noise = torch.Generator().manual_seed(0)
    >>> data, settings = torch.rand(50, 1, generator=noise), {"width": 8, "depth": 1}
    >>> bridge = fit_domain_bridge(data, Box([0.0], [1.0]), steps=2, generator=noise, **settings)
    >>> points = bridge.generate(20, steps=5, generator=noise)
    >>> bool(((points >= 0) & (points <= 1)).all())
    True
    """
    data = data.double()
    outside = int((~domain.contains(data)).sum())
    if outside:
        raise InputError(f"{outside} of {len(data)} rows lie outside the domain")
    bridge = LearnedDomainBridge(domain, sigma, data.mean(0), **network)
    optimiser = torch.optim.Adam(bridge.body.parameters(), lr=rate)
    for k in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 2 * (steps - k) / steps)
        rows = data[torch.randint(len(data), (batch,), generator=generator)]
        loss = bridge.loss(rows, generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bridge.body.parameters(), 1.0)
        optimiser.step()
    return bridge


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
