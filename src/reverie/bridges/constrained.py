"""Bridges into a domain: every path ends inside, at any number of steps.

A Brownian motion conditioned to end in a set has, given the state z with variance v to go, a far
end of the law N(z, v) cut to the set, and drifts towards its mean: eta = (E[x | z] - z) / v per
unit of variance (Liu, Wu, Ye & Liu 2022, 2023). Cut Gaussians are closed forms on finite sets, on
intervals and on products, so that a step draws the far end from that law and then the Brownian
bridge to it: exact, and inside by construction. For the set {-1, 1}, eta = (tanh(z / v) - z) / v.

A network tilts the law: N(z + sqrt(v) f(z), v) cut to the domain. The papers add f to the drift
eta; here it is inside the cut, keeps every sample in the domain, and is of one order at all v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.reference import BrownianMotion, require_sigma
from reverie.denoisers import ResidualMLP
from reverie.errors import InputError
from reverie.processes.domains import Box as Box
from reverie.processes.domains import Domain as Domain
from reverie.processes.domains import Points as Points
from reverie.processes.domains import Product as Product
from reverie.processes.simplex_domain import Simplex as Simplex


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
        return y + self.left(share)[:, None].to(y).sqrt() * raw.to(y)

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
