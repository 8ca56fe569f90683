"""Conditional bridges in closed form: from noise to x given y, for every y at once.

The Schrodinger bridge between the laws of (z, y) and (x, y), with y frozen along the path, is the
bridge from z to the law of x given y, for each y (Shi, De Bortoli, Deligiannidis & Doucet 2022,
Proposition 1). Here its potential is the mixture of `light`, whose weights, centres and spreads a
network reads off y: minimising

    mean log c(z; y) - mean log v(x; y)

over joint draws is minimising the KL from the plan, averaged over y (`light`, for each y). Nothing
but joint draws is needed, no likelihood. Plans, drifts and paths are closed forms given the
network, so that x given y takes one exact step: no Gaussian step blurs a sharp edge, as the last
kernels of a chain do (`chain`).

Where noise is informed z is a point of N(m(y), s(y)^2), x's own mean and deviation given y by a
network fitted before (the paper's conditional reference), and the bridge lives in its units. So
the mixture has the shape of a law to learn, and not its place and size, which move with y.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reverie.bridges.light import draw_mixture, far_law, mixture_moments, spread_rows
from reverie.denoisers import ResidualMLP
from reverie.errors import InputError

LEAST_SPREAD, SPAN = -9.0, 0.05  # of log S; of a fit, over which weights are averaged
LEAST_UNIT = -7.0  # of log s(y), in deviations of x
STARTS = 8  # z of each row of a batch, in pairs of opposite ones: less noise in log c
CLUSTERED = 4096  # rows whose clusters the centres start from


class ConditionalLight(nn.Module):
    """From z ~ N(0, 1) to x given y, in units of x given y; sigma: of the Brownian reference.

    informed: z has x's mean and deviation given y, else all of x's. waves: radians a deviation of
    sines and cosines of y that the networks see, for few coordinates that tell much.
    dim: coordinates of x; told: of y. `fit` trains one, on joint rows x (n, dim) and y (n, told).
    Source: Shi et al. 2022, Proposition 1, with the potentials of Korotin et al. 2024.

    >>> import torch
    >>> from reverie.bridges import ConditionalLight
    >>> noise = torch.Generator().manual_seed(0)
    >>> y = torch.randn(500, 1, generator=noise)
    >>> x = torch.cat([y, -y], 1)
    >>> given = ConditionalLight.fit(x, y, steps=2, components=4, width=8, generator=noise)
    >>> given.sample(y[:3], generator=noise).shape, given.path(y[:3], steps=5).shape
    (torch.Size([3, 2]), torch.Size([6, 3, 2]))
    """

    moments: Tensor  # (2, dim): mean and deviation of x
    told_moments: Tensor  # (2, told)
    base: Tensor  # (components, dim): where the centres start

    def __init__(
        self,
        dim: int,
        told: int,
        *,
        components: int = 40,
        width: int = 128,
        depth: int = 2,
        sigma: float = 1.0,
        informed: bool = True,
        waves: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.dim, self.told, self.components, self.sigma = dim, told, components, sigma
        self.informed, self.waves = informed, waves
        self.register_buffer("moments", torch.tensor([[0.0], [1.0]]).repeat(1, dim))
        self.register_buffer("told_moments", torch.tensor([[0.0], [1.0]]).repeat(1, told))
        self.register_buffer("base", torch.zeros(components, dim))
        seen = (told * (1 + 2 * len(waves)),)
        self.body = ResidualMLP(seen, width, depth, out=components * (1 + 2 * dim))
        self.frame = ResidualMLP(seen, width, depth, out=2 * dim)

    @property
    def epsilon(self) -> float:
        return self.sigma**2

    def potential(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log weights (B, K), centres and log spreads (B, K, dim) of the potential at y."""
        raw = self._read(self.body, y).reshape(len(y), self.components, -1)
        weight, centre, spread = raw.split([1, self.dim, self.dim], 2)
        start = -math.log(self.epsilon) - 5.0  # components of deviation exp(-2.5)
        log_spread = LEAST_SPREAD + nn.functional.softplus(spread + start - LEAST_SPREAD)
        return 10 * weight[..., 0], self.base + centre, log_spread

    def units(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (B, dim) of standardised x given y, as fitted; 0 uninformed."""
        if not self.informed:
            nought = torch.zeros(len(y), self.dim).to(self.moments)
            return nought, nought
        mean, log_unit = self._read(self.frame, y).split(self.dim, 1)
        return mean, LEAST_UNIT + nn.functional.softplus(log_unit - LEAST_UNIT)

    def _read(self, network: nn.Module, y: Tensor) -> Tensor:
        seen = (y.to(self.moments) - self.told_moments[0]) / self.told_moments[1]
        angles = [seen * wave for wave in self.waves]
        parts = [part for angle in angles for part in (angle.sin(), angle.cos())]
        seen = torch.cat([seen, *parts], 1)
        return network(seen, seen.new_zeros(len(seen)))

    def loss(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """log c(z; y) - log v(x; y) (B,), of x (B, dim) in units of x given y; the mean over
        starts z (B, starts, dim) of the first."""
        weight, centre, log_spread = self.potential(y)
        spread, x = log_spread.exp(), x[:, None]
        linear = z.square() @ spread.transpose(1, 2) + 2 * z @ centre.transpose(1, 2)
        log_c = (weight[:, None] + linear / (2 * self.epsilon)).logsumexp(2).mean(1)
        off = (x - centre).square() / (self.epsilon * spread)
        volume = log_spread + math.log(2 * math.pi * self.epsilon)
        return log_c - (weight - 0.5 * (off + volume).sum(2)).logsumexp(1)

    def law(self, state: Tensor, y: Tensor, share: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Mixture of x given a state (B, dim) at share of the way, and y (B, told), in units of x
        given y: log weights (B, K), means and variances (B, K, dim)."""
        with torch.no_grad():
            weight, centre, log_spread = (v.double() for v in self.potential(y))
        left = torch.full((len(y),), 1 - share, dtype=torch.float64)
        return far_law(weight, centre, log_spread.exp(), self.epsilon, state.double(), left)

    def sample(self, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One x (n, dim) for each y (n, told), in one exact step."""
        return self.path(y, steps=1, generator=generator)[-1]

    def path(
        self, y: Tensor, *, steps: int = 20, generator: torch.Generator | None = None
    ) -> Tensor:
        """Paths (steps + 1, n, dim) from noise to x given y, in x's own units; the law of their
        ends does not depend on `steps`."""
        if y.ndim != 2 or y.shape[1] != self.told:
            raise InputError(
                f"this bridge is told rows of {self.told} numbers, not of shape "
                f"{tuple(y.shape[1:])}"
            )
        z = torch.randn(len(y), self.dim, generator=generator, dtype=torch.float64)
        states = [z]
        for k in range(steps):
            share, after = k / steps, (k + 1) / steps
            far = draw_mixture(*self.law(states[-1], y, share), generator)
            ratio = (after - share) / (1 - share)
            noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
            spread = self.sigma * (ratio * (1 - after)) ** 0.5
            states.append(states[-1] + ratio * (far - states[-1]) + spread * noise)
        with torch.no_grad():
            middle, log_unit = (v.double() for v in self.units(y))
        mean, deviation = self.moments.double()
        return mean + deviation * (middle + log_unit.exp() * torch.stack(states))

    def plan_moments(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, dim) and covariance (B, dim, dim) of x given z and y, in units of x given y."""
        return mixture_moments(*self.law(z, y))

    @classmethod
    def fit(
        cls,
        x: Tensor,
        y: Tensor,
        *,
        steps: int = 3000,
        batch: int = 512,
        rate: float = 2e-3,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        **network: Any,
    ) -> ConditionalLight:
        """Train on joint rows x (n, dim) and y (n, told) by Adam, if informed half as many steps
        before on the units; returns averaged weights.

        network: components, width, depth, sigma, informed, waves. InputError where the rows do
        not fit together.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
            raise InputError(
                f"a conditional bridge needs a row of y for each row of x, not shapes "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        bridge = cls(x.shape[1], y.shape[1], **network)
        x, y = x.float(), y.float()
        for buffer, rows in ((bridge.moments, x), (bridge.told_moments, y)):
            buffer.copy_(torch.stack([rows.mean(0), rows.std(0).clamp(min=1e-6)]))
        x = (x - bridge.moments[0]) / bridge.moments[1]
        first = max(1, steps // 2) if bridge.informed else 0

        def told(done: int) -> None:
            if progress is not None:
                progress(done, first + steps)

        def picked() -> Tensor:
            return torch.randint(len(x), (batch,), generator=generator)

        def surprise() -> Tensor:
            pick = picked()
            middle, log_unit = bridge.units(y[pick])
            return (log_unit + 0.5 * ((x[pick] - middle) / log_unit.exp()).square()).sum(1)

        _train(bridge.frame, surprise, first, rate, told)
        with torch.no_grad():
            middle, log_unit = bridge.units(y)
            x = (x - middle) / log_unit.exp()
        few = x[:CLUSTERED].double()
        bridge.base.copy_(spread_rows(few, bridge.components, generator).float())

        def divergence() -> Tensor:
            pick = picked()
            half = torch.randn(batch, STARTS // 2, x.shape[1], generator=generator)
            return bridge.loss(torch.cat([half, -half], 1), x[pick], y[pick])

        _train(bridge.body, divergence, steps, rate, lambda done: told(first + done))
        return bridge


def _train(
    network: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    rate: float,
    tell: Callable[[int], None],
) -> None:
    """Adam by a cosine on losses (B,); leaves the averaged weights in the network."""
    average = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for k in range(steps):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * k / steps))
        optimiser.zero_grad()
        loss().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        for kept, now in zip(average.parameters(), network.parameters(), strict=True):
            kept.data.lerp_(now.data, max(1 / (SPAN * steps + 1), 1 / (k + 1)))
        tell(k + 1)
    network.load_state_dict(average.state_dict())
