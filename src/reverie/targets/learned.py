"""Pairs whose kernels are learned: MCD, UHA, CMCD, DDS, PIS, DIS, DBS.

All of them move in the start's own units, where pi_0 = N(0, I), and are Gaussian kernels of K
steps, so that E exp(log w) = Z for any network. With g_k = grad log gamma_k on the annealed path,
h a step and u, v networks:

| name | forward mean | backward mean | source |
|---|---|---|---|
| MCD | x + h g | x' + h (g - u) | Doucet et al. 2022 (2208.07698) |
| CMCD | x + h (g + u) | x' + h (g - u) | Vargas et al. 2024 (2307.01050) |
| DBS | x + h (g + u) | x' + h (g - v) | Richter & Berner 2024 (2307.01198) |
| DDS | a x + b u, a^2 + b = 1 | a x' | Vargas et al. 2023 (2302.13834) |
| DIS | x + b (x / 2 + u) | (1 - b / 2) x' | Berner et al. 2024 (2211.01364) |
| PIS | x + dt u, from 0 | bridge to 0: t x' / (t + dt) | Zhang & Chen 2022 (2111.15141) |
| UHA | leapfrog after v' ~ N(c v, 1 - c^2) | v ~ N(c v' + (1 - c^2) u, 1 - c^2) | 2208.07698 |

The forms follow the specification of public code, not line by line. Nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.targets.annealing import Annealing, Progress, anneal
from reverie.targets.kernels import GaussianLayer
from reverie.targets.pair import Chain, Layer, PathPair, Rollout
from reverie.targets.starts import GaussianStart
from reverie.targets.target import Point, Target

LEARNED = ("mcd", "uha", "cmcd", "dds", "dis", "pis", "dbs")
STEPS = 64
FRICTION = 0.5  # of UHA: the share of a velocity that a step keeps, at the start of training
STEEPEST = 100.0  # norm beyond which a gradient is shortened before a network sees it
LAST_NOISE = 0.02  # b of DDS and DIS at the target's end
FIRST_NOISE = 0.25


class Control(nn.Module):
    """u(k, x): a network of the place and the step, and a gate on the target's gradient.

    It starts as `gate` times the gradient and nothing else.
    """

    def __init__(self, dim: int, steps: int, width: int = 64, gate: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(dim + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, dim),
        )  # fmt: skip
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gate = nn.Parameter(torch.full((steps, dim), gate))
        self.steps = steps

    def forward(self, k: int, x: Tensor, slope: Tensor) -> Tensor:
        """(n, dim) of places and gradients (n, dim)."""
        share = torch.tensor([(k + 0.5) / self.steps * 2**j for j in range(4)], dtype=x.dtype)
        told = torch.cat([torch.sin(math.pi * share), torch.cos(math.pi * share)])
        seen = torch.cat([x, told.expand(len(x), -1)], 1)
        length = slope.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return self.body(seen) + self.gate[k] * slope * (STEEPEST / length).clamp(max=1)


class AnnealedLayer(GaussianLayer):
    """MCD, CMCD and DBS: ULA on gamma_b, with what is learned ahead and back (None: nothing).

    log_step: log h (K,), shared by the layers of a pair.

    >>> import torch
    >>> from reverie.targets import AnnealedLayer, Gaussian, Target
    >>> log_step = torch.nn.Parameter(torch.tensor([0.1]).log())
    >>> layer = AnnealedLayer(0, 1.0, log_step, ahead=None, back=None)
    >>> point = Target(Gaussian([0.0], [[1.0]]), 1).at(torch.ones(1, 1).double())
    >>> round(float(layer.mean_ahead(point).detach()), 6)  # x + h g, with g = -x
    0.9
    """

    def __init__(
        self,
        k: int,
        b: float,
        log_step: nn.Parameter,
        ahead: Control | None,
        back: Control | None,
    ) -> None:
        super().__init__()
        self.k, self.b, self.log_step = k, b, log_step
        self.control, self.control_back = ahead, back

    @property
    def step(self) -> Tensor:
        return self.log_step[self.k].exp()

    @property
    def noise(self) -> Tensor:  # type: ignore[override]
        return (2 * self.step).sqrt()

    @property
    def noise_back(self) -> Tensor:  # type: ignore[override]
        return (2 * self.step).sqrt()

    def _drift(self, point: Point) -> Tensor:
        return self.b * point.gradient - (1 - self.b) * point.x

    def mean_ahead(self, point: Point) -> Tensor:
        drift = self._drift(point)
        if self.control is not None:
            drift = drift + self.control(self.k, point.x, point.gradient)
        return point.x + self.step * drift

    def mean_back(self, point: Point) -> Tensor:
        drift = self._drift(point)
        if self.control_back is not None:
            drift = drift - self.control_back(self.k, point.x, point.gradient)
        return point.x + self.step * drift


class NoisingLayer(GaussianLayer):
    """DDS and DIS: the backward kernel is a step of noising, the forward one its learned reversal.

    exact: the Ornstein-Uhlenbeck step (DDS), else Euler's (DIS).
    """

    def __init__(self, k: int, b: float, exact: bool, control: Control) -> None:
        super().__init__()
        self.k, self.b, self.control = k, b, control
        self.keeps = math.sqrt(1 - b) if exact else 1 - 0.5 * b
        self.grows = self.keeps if exact else 1 + 0.5 * b
        self.noise = self.noise_back = math.sqrt(b)

    def mean_ahead(self, point: Point) -> Tensor:
        return self.grows * point.x + self.b * self.control(self.k, point.x, point.gradient)

    def mean_back(self, point: Point) -> Tensor:
        return self.keeps * point.x


class PinnedLayer(GaussianLayer):
    """PIS: Brownian steps with a drift, from 0; back over the bridge to 0."""

    def __init__(self, k: int, steps: int, control: Control) -> None:
        super().__init__()
        self.k, self.control = k, control
        self.dt, self.share = 1 / steps, k / (k + 1)
        self.noise, self.noise_back = math.sqrt(self.dt), math.sqrt(self.dt * self.share)

    def mean_ahead(self, point: Point) -> Tensor:
        return point.x + self.dt * self.control(self.k, point.x, point.gradient)

    def mean_back(self, point: Point) -> Tensor:
        return self.share * point.x


class DampedLayer(Layer):
    """UHA: the velocity is refreshed, then one leapfrog step on gamma_b, which keeps volumes."""

    def __init__(
        self, k: int, b: float, log_step: nn.Parameter, keep: nn.Parameter, control: Control
    ) -> None:
        super().__init__()
        self.k, self.b, self.log_step, self.keep, self.control = k, b, log_step, keep, control

    def ahead(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        share, noise = self._friction()
        old = _velocity(point)
        new = share * old + noise * _like(old, generator)
        new = new.detach() if detach else new
        ratio = self._ratio(old, new, point)
        moved = self._leap(point.moving(new), 1.0)
        return (_cut(moved) if detach else moved), ratio

    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        share, noise = self._friction()
        place = self._leap(point, -1.0)
        place = _cut(place) if detach else place
        new = _velocity(place)
        guess = noise**2 * self.control(self.k, _joined(place), place.gradient)
        old = share * new + guess + noise * _like(new, generator)
        old = old.detach() if detach else old
        return place.moving(old), self._ratio(old, new, place)

    def _friction(self) -> tuple[Tensor, Tensor]:
        share = torch.sigmoid(self.keep)
        return share, (1 - share.square()).sqrt()

    def _ratio(self, old: Tensor, new: Tensor, place: Point) -> Tensor:
        share, noise = self._friction()
        guess = noise**2 * self.control(self.k, _joined(place.moving(new)), place.gradient)
        there = ((old - share * new - guess) / noise).square().sum(1)
        here = ((new - share * old) / noise).square().sum(1)
        return 0.5 * (here - there)

    def _leap(self, point: Point, sign: float) -> Point:
        step = sign * self.log_step[self.k].exp()
        speed = _velocity(point) + 0.5 * step * self._slope(point)
        place = point.target.at(point.x + step * speed)
        return place.moving(speed + 0.5 * step * self._slope(place))

    def _slope(self, point: Point) -> Tensor:
        return self.b * point.gradient - (1 - self.b) * point.x


def _velocity(point: Point) -> Tensor:
    assert point.velocity is not None
    return point.velocity


def _joined(point: Point) -> Tensor:
    return torch.cat([point.x, _velocity(point)], 1)


def _cut(point: Point) -> Point:
    return point.target.at(point.x.detach(), _velocity(point).detach())


def _like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


class SpatialControl(Control):
    """A control of places and velocities (n, 2 dim) that answers with a velocity (n, dim)."""

    def __init__(self, dim: int, steps: int, width: int = 64) -> None:
        super().__init__(2 * dim, steps, width)
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        self.body[-1] = nn.Linear(last.in_features, dim)
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.body[-1].bias)  # type: ignore[arg-type]
        self.gate = nn.Parameter(torch.zeros(steps, dim))


class Whitened(PathPair):
    """A pair that lives in the start's own units, seen from outside in the target's."""

    def __init__(
        self, target: Target, start: GaussianStart, build: Callable[[Target], Chain]
    ) -> None:
        super().__init__()
        self.target, self.frame = target, start
        self.inner = build(whitened(target, start))

    @property
    def steps(self) -> int:
        """K, layers of the chain."""
        return len(self.inner.layers)

    def rollout(
        self,
        n: int,
        *,
        direction: str = "forward",
        ends: Tensor | None = None,
        generator: torch.Generator | None = None,
        detach: bool = False,
    ) -> Rollout:
        """See `PathPair`; backward paths end in the start's units."""
        inner = None if ends is None else self.frame.whitened(ends)
        found = self.inner.rollout(
            n, direction=direction, ends=inner, generator=generator, detach=detach
        )
        x = self.frame.mean + found.states @ self.frame.scale.T
        return Rollout(x if direction == "forward" else found.states, *found[1:])


def whitened(target: Target, start: GaussianStart) -> Target:
    """The target in the start's units, of the same Z; its evaluations count as the target's."""
    volume = start.scale.diagonal().log().sum()

    def log_density(y: Tensor) -> Tensor:
        target.evaluations += len(y)
        target.gradients += len(y) * y.requires_grad
        return target.checked(start.mean + y @ start.scale.T) + volume

    def gradient(y: Tensor) -> Tensor:
        assert target.given is not None
        return target.given(start.mean + y @ start.scale.T) @ start.scale

    return Target(log_density, target.dim, gradient=None if target.given is None else gradient)


def learned_pair(
    method: str,
    target: Target,
    start: GaussianStart,
    *,
    steps: int | None = None,
    width: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Whitened:
    """An untrained pair by name (`LEARNED`), in float64; K = `steps`, by default 64.

    MCD, CMCD, DBS and UHA anneal: a pilot plans their temperatures and first steps. InputError on
    other names.

    >>> import torch
    >>> from reverie.targets import GaussianStart, Mixture, Target, learned_pair
    >>> target = Target(Mixture([[-1.0], [1.0]], 0.5), 1)
    >>> pair = learned_pair("dds", target, GaussianStart.of(1), steps=8, width=16)
    >>> weight = pair.rollout(4000, generator=torch.Generator().manual_seed(0)).log_weight.exp()
    >>> round(float(weight.mean().detach()), 1)  # Z = 1, untrained as it is
    1.0
    """
    if method not in LEARNED:
        raise InputError(f"no learned pair is called {method!r}; choose {', '.join(LEARNED)}")
    count = STEPS if steps is None else steps

    def build(inner: Target) -> Chain:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if method in ("dds", "dis"):
                return _noising(method, inner, count, width).double()
            if method == "pis":
                return _pinned(inner, count, width).double()
            path = anneal(
                inner, start=GaussianStart.of(inner.dim), kernel="ula", steps=count,
                generator=generator, progress=progress,
            )  # fmt: skip
            return _annealed(method, inner, path, width).double()

    return Whitened(target, start, build)


def _noising(method: str, target: Target, steps: int, width: int) -> Chain:
    control = Control(target.dim, steps, width, gate=0.5)
    # noise falls towards the target as a cosine
    share = torch.cos(0.5 * math.pi * torch.arange(steps) / steps) ** 2
    b = LAST_NOISE + (FIRST_NOISE - LAST_NOISE) * share
    layers: list[Layer] = [
        NoisingLayer(k, float(b[k]), method == "dds", control) for k in range(steps)
    ]
    return Chain(target, GaussianStart.of(target.dim), layers)


class LearnedMean(nn.Module):
    """N(m, s^2 I) with a learned m: the first step of PIS, from 0."""

    def __init__(self, dim: int, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = nn.Parameter(torch.zeros(dim)), deviation

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        mean = self.mean.expand(n, -1)
        return mean + self.deviation * _like(mean, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        off = ((x - self.mean) / self.deviation).square().sum(1)
        return -0.5 * off - x.shape[1] * (math.log(self.deviation) + 0.5 * math.log(2 * math.pi))


def _pinned(target: Target, steps: int, width: int) -> Chain:
    control = Control(target.dim, steps, width, gate=1.0)
    layers: list[Layer] = [PinnedLayer(k, steps, control) for k in range(1, steps)]
    return Chain(target, LearnedMean(target.dim, math.sqrt(1 / steps)), layers)


def _annealed(method: str, target: Target, path: Annealing, width: int) -> Chain:
    dim, steps = target.dim, path.steps
    unit = [float(torch.diagonal(bath.scale).log().min()) for bath in path.baths]
    ula = [math.log(bath.step) + 2 * u for bath, u in zip(path.baths, unit, strict=True)]
    start, b = path.start, [bath.b for bath in path.baths]
    if method == "uha":
        log_step = nn.Parameter(torch.tensor([0.5 * (v + math.log(2.0)) for v in ula]))
        keep = nn.Parameter(torch.tensor(math.log(FRICTION / (1 - FRICTION))))
        control = SpatialControl(dim, steps, width)
        damped: list[Layer] = [DampedLayer(k, b[k], log_step, keep, control) for k in range(steps)]
        return Chain(target, start, damped, momentum=True)
    log_step = nn.Parameter(torch.tensor(ula))
    shared = Control(dim, steps, width)
    ahead = None if method == "mcd" else shared
    back = Control(dim, steps, width) if method == "dbs" else shared
    layers: list[Layer] = [AnnealedLayer(k, b[k], log_step, ahead, back) for k in range(steps)]
    return Chain(target, start, layers)
