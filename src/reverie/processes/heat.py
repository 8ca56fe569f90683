"""The heat kernel of each space: value, score, and draws. Durations tau (B,), in float64.

The generator is half the Laplacian; densities are in nats with respect to the volume of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import heat_hyperbolic, heat_kernels, heat_rotations
from reverie.processes.profile_table import WORTH, ProfileTable
from reverie.processes.radial_table import RadialTable
from reverie.spaces import Flat, Hyperbolic, Manifold, Product, Rotations, Sphere, Torus
from reverie.spaces.manifold import scale

WALK_STEPS = 100


class HeatKernel:
    """p_tau(state | x) of Brownian motion on `space`."""

    def __init__(self, space: Manifold) -> None:
        self.space = space

    @property
    def known(self) -> bool:
        """Whether there is a density, of which `score` is the gradient."""
        return True

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        """log p for all pairs of states (B, *shape) and points (N, *shape), (B, N)."""
        raise NotImplementedError

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        """Sum over points of weights (B, N) times the scores at the states, (B, *shape)."""
        raise NotImplementedError

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        """Gradient of log p by the state, a tangent vector (B, *shape), for paired points."""
        raise NotImplementedError

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """States (B, *shape) from points x and standard normal tangent vectors `noise` there."""
        raise NotImplementedError


class FlatHeat(HeatKernel):
    """The normal density, variance tau."""

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        square = self.space.distances(state, x).square()
        volume = 0.5 * self.space.dim * (2 * math.pi * tau[:, None]).log()
        return -0.5 * square / tau[:, None] - volume

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return (weights @ x - weights.sum(1, keepdim=True) * state) / tau[:, None]

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return (x - state) / tau[:, None]

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        return x + tau.sqrt()[:, None] * noise


class TorusHeat(HeatKernel):
    """A product of wrapped normal densities."""

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return self._pairs(state, x, tau)[0].sum(2)

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return torch.einsum("bn,bnk->bk", weights, self._pairs(state, x, tau)[1])

    def _pairs(self, state: Tensor, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        angle = self.space.log(x[None], state[:, None])
        return heat_kernels.circle(angle, tau[:, None, None])

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return heat_kernels.circle(self.space.log(x, state), tau[:, None])[1]

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.space.exp(x, tau.sqrt()[:, None] * noise)


class RadialHeat(HeatKernel):
    """Isotropic spaces: everything from log p and pull as functions of the distance."""

    def __init__(
        self,
        space: Manifold,
        profile: Callable[[Tensor, Tensor], heat_kernels.Radial],
        log_area: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        super().__init__(space)
        self.profile, self.log_area = profile, log_area
        self._last: ProfileTable | None = None  # a curve asks for one level several times

    @cached_property
    def table(self) -> RadialTable:
        return RadialTable(
            lambda r, tau: self.profile(r, tau)[0],
            self.log_area,
            self.space.dim,
            math.pi if self.space.compact else math.inf,
        )

    def _pairs(self, state: Tensor, x: Tensor, tau: Tensor) -> heat_kernels.Radial:
        """(log p, pull) of all pairs (B, N); many pairs of one duration go through a table."""
        r = self.space.distances(state, x)
        many = self.space.compact and r.numel() >= WORTH and not r.requires_grad
        if not many or not (tau == tau[0]).all():
            return self.profile(r, tau[:, None])
        if self._last is None or self._last.tau != float(tau[0]):
            self._last = ProfileTable(self.profile, float(tau[0]))
        return self._last(r)

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return self._pairs(state, x, tau)[0]

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        pull = self._pairs(state, x, tau)[1]
        mean = ((weights * pull) @ x.flatten(1)).reshape(state.shape)
        return self.space.tangent(state, mean)

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        pull = self.profile(self.space.distance(state, x), tau)[1]
        return scale(pull, self.space.tangent(state, x))

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        size = self.space.norm(x, noise)
        travel = self.table(size, tau.expand(len(x)))
        return self.space.exp(x, scale(travel / size.clamp(min=1e-300), noise))


class FourRotationsHeat(HeatKernel):
    """SO(4), from the kernel of S^3: see `heat_rotations`."""

    def __init__(self, space: Manifold) -> None:
        super().__init__(space)
        self.sphere = RadialHeat(Sphere(3), _sphere_profile(3), _log_power(np.sin, 2))

    def _turned(self, turn: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return heat_rotations.density_and_pull(turn, tau, self.sphere.profile)

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return self._turned(x.mT[None] @ state[:, None], tau[:, None])[0]

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        _, v, w = self._turned(x.mT[None] @ state[:, None], tau[:, None])
        mean = (torch.einsum("bn,bnk->bk", weights, part) for part in (v, w))
        return state @ heat_rotations.velocity(*mean)

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        _, v, w = self._turned(x.mT @ state, tau)
        return state @ heat_rotations.velocity(v, w)

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        table = self.sphere.table
        return heat_rotations.drawn(
            x, tau, x.mT @ noise, lambda size, half: table(size, half.expand(len(x)))
        )


class WalkHeat(HeatKernel):
    """Spaces whose kernel has no formula here: a geodesic random walk of WALK_STEPS steps.

    The score is Varadhan's log map over tau, right for tau -> 0 only (5% off at tau = .25 on the
    sphere).
    """

    @property
    def known(self) -> bool:
        return False

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        raise InputError(f"{self.space} has no heat kernel here, so it has no memoriser")

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        raise InputError(f"{self.space} has no heat kernel here, so it has no memoriser")

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return scale(1 / tau, self.space.log(state, x))

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        return walk(self.space, x, tau, WALK_STEPS, noise=noise, generator=generator)


class ProductHeat(HeatKernel):
    """Independent motions on the parts of a product."""

    space: Product

    @cached_property
    def parts(self) -> list[HeatKernel]:
        return [heat_kernel(part) for part in self.space.parts]

    @property
    def known(self) -> bool:
        return all(part.known for part in self.parts)

    def _each(self, method: str, tau: Tensor, *points: Tensor) -> list[Tensor]:
        columns = zip(self.parts, *(self.space.split(p) for p in points), strict=True)
        return [getattr(part, method)(*pieces, tau) for part, *pieces in columns]

    def log_density(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return torch.stack(self._each("log_density", tau, state, x)).sum(0)

    def mean_score(self, weights: Tensor, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        split = zip(self.parts, self.space.split(state), self.space.split(x), strict=True)
        return self.space.join(part.mean_score(weights, s, y, tau) for part, s, y in split)

    def score(self, state: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        return self.space.join(self._each("score", tau, state, x))

    def draw(
        self, x: Tensor, tau: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        split = zip(self.parts, self.space.split(x), self.space.split(noise), strict=True)
        return self.space.join(part.draw(y, tau, z, generator) for part, y, z in split)


def walk(
    space: Manifold,
    x: Tensor,
    tau: Tensor,
    steps: int,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Geodesic random walk of duration tau (B,) from x (De Bortoli et al. 2022, Algorithm 1).

    Each step is exp_x(sqrt(tau / steps) z), z standard normal in the tangent space; the weak error
    is O(1 / steps). noise: the first step's z.
    """
    root = (tau / steps).sqrt()
    for _ in range(steps):
        z = space.noise(x, generator=generator) if noise is None else noise
        x, noise = space.exp(x, scale(root, z)), None
    return x


def heat_kernel(space: Manifold) -> HeatKernel:
    """The heat kernel of a space; one table of increments serves all equal spaces.

    Closed or series forms: spheres, tori, SO(3), SO(4), H^n up to n = 16, flat space and their
    products. SO(n) beyond 4 and H^n beyond 16 have a random walk only.
    """
    return _kernel(repr(space), _Held(space))


class _Held:
    """A space that does not count in a cache's key."""

    def __init__(self, space: Manifold) -> None:
        self.space = space

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Held)


@lru_cache(maxsize=64)
def _kernel(name: str, held: _Held) -> HeatKernel:
    space = held.space
    if isinstance(space, Product):
        return ProductHeat(space)
    if isinstance(space, Torus):
        return TorusHeat(space)
    if isinstance(space, Flat):
        return FlatHeat(space)
    if isinstance(space, Sphere):
        return RadialHeat(space, _sphere_profile(space.dim), _log_power(np.sin, space.dim - 1))
    if isinstance(space, Rotations) and space.n == 3:
        return RadialHeat(space, heat_kernels.rotation, lambda r: 2 * np.log(np.sin(r / 2)))
    if isinstance(space, Rotations) and space.n == 4:
        return FourRotationsHeat(space)
    if isinstance(space, Hyperbolic) and space.dim <= heat_hyperbolic.MOST_DIMENSIONS:
        return RadialHeat(space, _hyperbolic_profile(space.dim), _log_sinh(space.dim - 1))
    return WalkHeat(space)


def _sphere_profile(dim: int) -> Callable[[Tensor, Tensor], heat_kernels.Radial]:
    if dim > 1:
        return lambda r, tau: heat_kernels.sphere(r, tau, dim)

    def circle(r: Tensor, tau: Tensor) -> heat_kernels.Radial:
        r, tau = torch.broadcast_tensors(r, tau)
        inside = r.clamp(heat_kernels.LEAST_ANGLE, math.pi - heat_kernels.LEAST_ANGLE)
        return heat_kernels.circle(r, tau)[0], -heat_kernels.circle(inside, tau)[1] / inside.sin()

    return circle


def _hyperbolic_profile(dim: int) -> Callable[[Tensor, Tensor], heat_kernels.Radial]:
    if dim < 4:
        return heat_kernels.hyperbolic_two if dim == 2 else heat_kernels.hyperbolic_three
    return lambda r, tau: heat_hyperbolic.hyperbolic(r, tau, dim)


def _log_sinh(power: int) -> Callable[[np.ndarray], np.ndarray]:
    # the sinh of a far radius to a high power is no float64
    return lambda r: power * (r + np.log(np.maximum(-np.expm1(-2 * r), 1e-300)) - math.log(2))


def _log_power(
    base: Callable[[np.ndarray], np.ndarray], power: int
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda r: power * np.log(np.maximum(base(r), 1e-300))
