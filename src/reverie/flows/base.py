"""Normalizing flows: invertible maps whose Jacobian is known.

    z = T(x),   log p(x) = log N(T(x); 0, I) + log |det DT(x)|

A flow runs both ways, and each way returns the moved points with the log-determinant of that way,
so that the two of a round trip add up to 0. Papamakarios et al. 2021 (JMLR 22:57), eq. 1 to 9.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reverie.errors import InputError


class Flow(nn.Module, ABC):
    """An invertible map of points (n, dim), perhaps another one for each thing that it is told.

    told: (n, c) or None. Both ways return the points and the log-determinant (n,), nats, of that
    way. `reverie.testing.check_flow` holds one of your own to it.

    >>> import torch
    >>> from reverie.flows import Flow
    >>> class Doubled(Flow):
    ...     def forward(self, x, told=None):
    ...         return 2 * x, torch.full((len(x),), x.shape[1] * 0.6931)
    ...     def inverse(self, z, told=None):
    ...         return z / 2, torch.full((len(z),), -z.shape[1] * 0.6931)
    >>> Doubled()(torch.ones(1, 3))
    (tensor([[2., 2., 2.]]), tensor([2.0793]))
    """

    @abstractmethod
    def forward(self, x: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = T(x) and log |det DT(x)|."""

    @abstractmethod
    def inverse(self, z: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x with T(x) = z, and log |det DT^-1(z)|."""


class Identity(Flow):
    """The flow that moves nothing.

    >>> import torch
    >>> from reverie.flows import Identity
    >>> Identity()(torch.ones(1, 2))
    (tensor([[1., 1.]]), tensor([0.]))
    """

    def forward(self, x: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))

    def inverse(self, z: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z, z.new_zeros(len(z))


class Composed(Flow):
    """Flows (at least one) after each other; InputError on none.

    >>> import torch
    >>> from reverie.flows import Composed, Coupling
    >>> flow = Composed([Coupling(3, width=8), Coupling(3, width=8, flip=True)])
    >>> x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(flow.inverse(flow(x)[0])[0], x, atol=1e-6)
    True
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        super().__init__()
        if not flows:
            raise InputError("a composed flow needs at least one flow")
        self.flows = nn.ModuleList(flows)

    def forward(self, x: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for flow in self.flows:
            x, volume = flow(x, told)
            total = total + volume
        return x, total

    def inverse(self, z: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for flow in reversed(self.flows):
            assert isinstance(flow, Flow)
            z, volume = flow.inverse(z, told)
            total = total + volume
        return z, total


class FlowDensity(nn.Module):
    """The law of x where T(x) is standard normal: samples and log densities, exactly.

    flow: from data to noise. dim: coordinates. told: how many numbers a row is told (0: nothing).

    >>> import torch
    >>> from reverie.flows import FlowDensity, couplings
    >>> law = FlowDensity(couplings(2, 2, width=8), 2)  # untrained couplings are the identity
    >>> law.log_prob(torch.zeros(1, 2)).detach(), law.sample(5).shape  # - log 2 pi
    (tensor([-1.8379]), torch.Size([5, 2]))
    """

    def __init__(self, flow: Flow, dim: int, told: int = 0) -> None:
        super().__init__()
        self.flow, self.dim, self.told = flow, dim, told

    def log_prob(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """Log density (n,) of points (n, dim), nats."""
        z, volume = self.flow(x, told)
        normal = -0.5 * z.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)
        return normal + volume

    def sample(
        self, n: int, told: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (n, dim); told: (n, c), or (1, c) for all."""
        like = next(self.parameters())
        z = torch.randn(n, self.dim, dtype=like.dtype, device=like.device, generator=generator)
        return self.flow.inverse(z, None if told is None else told.expand(n, -1))[0]
