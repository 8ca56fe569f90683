"""Pairs of Markov chains: the one contract of samplers that have no data.

A forward chain starts from a law pi_0 that is known and moves towards the target gamma; a backward
chain runs the other way. The log weight of a path x_0, ..., x_K is

    log w = log gamma(x_K) - log pi_0(x_0) + sum_k log B_k(x_{k-1} | x_k) / F_k(x_k | x_{k-1})

and since every kernel is normalised, E_F exp(log w) = Z and E_B exp(-log w) = 1 / Z whatever the
parameters are. So E_F log w <= log Z <= E_B log w: the evidence's lower bound (ELBO) needs the
forward chain alone, the upper bound (EUBO) draws of the target. Hagemann, Hertrich & Steidl 2021
(arXiv 2109.11375, 2111.12506); Doucet, Grathwohl, Matthews & Strathmann 2022 (arXiv 2208.07698).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.targets.target import Point, Target


class Rollout(NamedTuple):
    """Paths of one chain and what they weigh.

    states: (n, dim), where they end: of the forward chain x_K, of the backward chain x_0.
    log_weight: (n,), nats. valid: False where the weights are not normalised, because noise was
    clipped: then E exp(log_weight) is not Z and no interval may be read off them.

    >>> import torch
    >>> from reverie.targets import Chain, GaussianStart, Rollout, Target
    >>> target = Target(lambda x: -0.5 * x.square().sum(1), 1)
    >>> found = Chain(target, GaussianStart.of(1), []).rollout(3)
    >>> isinstance(found, Rollout), found.log_weight, found.valid  # log Z = log sqrt(2 pi)
    (True, tensor([0.9189, 0.9189, 0.9189], dtype=torch.float64), True)
    """

    states: Tensor
    log_weight: Tensor
    valid: bool


class Start(Protocol):
    """The law pi_0 that forward paths start from."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor: ...
    def log_prob(self, x: Tensor) -> Tensor: ...


class PathPair(nn.Module, ABC):
    """A forward and a backward chain over one target.

    >>> from reverie.targets import GaussianStart, PathPair, Rollout, Target
    >>> start = GaussianStart.of(1)
    >>> class Importance(PathPair):  # no steps
    ...     target = Target(lambda x: -0.5 * x.square().sum(1), 1)
    ...     def rollout(self, n, *, direction="forward", ends=None, generator=None):
    ...         x = start.sample(n, generator)
    ...         return Rollout(x, self.target(x) - start.log_prob(x), True)
    >>> Importance().rollout(2).log_weight  # log Z = log sqrt(2 pi)
    tensor([0.9189, 0.9189], dtype=torch.float64)
    """

    target: Target

    @abstractmethod
    def rollout(
        self,
        n: int,
        *,
        direction: str = "forward",
        ends: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """n paths. Backward ones start from `ends` (n, dim), draws of the target."""


class Layer(nn.Module, ABC):
    """One step of a pair: a kernel forward, a kernel backward, and the log ratio of both.

    Both methods return the moved point and log B(x | x') - log F(x' | x), (n,), in nats; of a
    deterministic step x' = T(x) that is log|det DT(x)|. detach: gradients do not follow the path.

    >>> import torch
    >>> from reverie.targets import Chain, Gaussian, GaussianStart, Layer, Target
    >>> class Scaled(Layer):  # x' = e^-1 x, of one coordinate
    ...     def ahead(self, point, generator=None, detach=False):
    ...         return point.target.at(point.x / torch.e), -torch.ones(len(point))
    ...     def back(self, point, generator=None, detach=False):
    ...         return point.target.at(point.x * torch.e), -torch.ones(len(point))
    >>> pair = Chain(Target(Gaussian([0.0], [[torch.e**-2]]), 1), GaussianStart.of(1), [Scaled()])
    >>> bool(pair.rollout(5).log_weight.abs().max() < 1e-9)  # exact: every weight is 1
    True
    """

    valid: bool = True
    share: float = 1.0  # of rows whose log ratio `train` asks of costly layers on their way back

    @abstractmethod
    def ahead(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        """x' given x, and the log ratio."""

    @abstractmethod
    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        """x given x', and the log ratio of the same pair."""


class Chain(PathPair):
    """A pair made of a start and layers, each of which is normalised.

    start: pi_0. layers: from the start to the target. momentum: the states carry a velocity, drawn
    from N(0, I) at both ends.

    >>> import torch
    >>> from reverie.targets import Chain, GaussianStart, Target, ULALayer, anneal
    >>> target = Target(lambda x: -0.5 * x.square().sum(1), 1)
    >>> noise = torch.Generator().manual_seed(0)
    >>> path = anneal(target, start=GaussianStart.of(1, 1.0), kernel="ula", n=256, generator=noise)
    >>> chain = Chain(target, path.start, [ULALayer(bath) for bath in path.baths])
    >>> weight = chain.rollout(4000, generator=noise).log_weight.exp()
    >>> round(float(weight.mean()), 1)  # sqrt(2 pi)
    2.5
    """

    def __init__(
        self, target: Target, start: Start, layers: Sequence[Layer], *, momentum: bool = False
    ) -> None:
        super().__init__()
        self.target, self.start, self.momentum = target, start, momentum
        self.layers = nn.ModuleList(layers)

    def rollout(
        self,
        n: int,
        *,
        direction: str = "forward",
        ends: Tensor | None = None,
        generator: torch.Generator | None = None,
        detach: bool = False,
        condition: Tensor | None = None,
    ) -> Rollout:
        """n paths; see `PathPair`. detach: gradients pass through kernels, not along paths.

        condition: of a `ConditionalTarget`, (1, c) for all paths or (n, c).
        """
        forward = direction_is_forward(direction, ends)
        layers = list(self.layers) if forward else list(self.layers)[::-1]
        x = self.start.sample(n, generator) if forward else ends
        assert x is not None
        if detach:
            x = x.detach()
        speed = _standard(x, generator) if self.momentum else None
        target = self.target if condition is None else self.target.conditioned(condition)
        first = point = target.at(x, speed)
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for layer in layers:
            assert isinstance(layer, Layer)
            step = layer.ahead if forward else layer.back
            point, ratio = step(point, generator, detach)
            total = total + ratio
        head, tail = (first, point) if forward else (point, first)
        total = total + tail.log_density - self.start.log_prob(head.x)
        if self.momentum:
            total = total + 0.5 * (_square(head.velocity) - _square(tail.velocity))
        valid = all(bool(layer.valid) for layer in layers)
        return Rollout(point.x, total, valid)


def direction_is_forward(direction: str, ends: Tensor | None) -> bool:
    """Whether the word says forward; InputError on other words, or ends that do not belong."""
    if direction not in ("forward", "backward"):
        raise InputError(f"direction is {direction!r}; it must be forward or backward")
    if direction == "backward" and ends is None:
        raise InputError("backward paths start from draws of the target: give them as ends=")
    return direction == "forward"


def _standard(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def _square(velocity: Tensor | None) -> Tensor:
    assert velocity is not None
    return velocity.square().sum(1)
