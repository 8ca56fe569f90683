"""What training loops share: the running average of weights, and the course of the learning rate.

After step k = 0, 1, ... it moves towards the weights by 1 - min(decay, (1 + k) / (10 + k))
(the warm-up of TensorFlow's ExponentialMovingAverage), so that the random start is soon forgotten.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Average(Generic[Net]):
    """The running average of the parameters of `network`, in their order, as `weights`."""

    def __init__(self, network: Net, decay: float) -> None:
        self.network, self.decay = network, decay
        self.weights = [p.detach().clone() for p in network.parameters()]

    def update(self, step: int) -> None:
        """Move towards the network's weights, after step 0, 1, ... of training."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [p.detach() for p in self.network.parameters()]
        torch._foreach_lerp_(self.weights, parameters, 1 - decay)  # type: ignore[attr-defined]

    def copy(self) -> list[Tensor]:
        """The averaged weights as they are now."""
        return [weight.clone() for weight in self.weights]

    def put(self) -> Net:
        """Give the network its averaged weights, for good; it returns in evaluation mode."""
        put(self.network, self.weights)
        return self.network.eval()

    def kept(self) -> Averaged[Net]:
        """The network with its averaged weights inside a `with` block, evaluating."""
        return Averaged(self)


class Averaged(Generic[Net]):
    """Puts averaged weights into a network for the length of a `with` block."""

    def __init__(self, average: Average[Net]) -> None:
        self.average = average
        self.own: list[Tensor] = []

    def __enter__(self) -> Net:
        self.own = [p.detach().clone() for p in self.average.network.parameters()]
        return self.average.put()

    def __exit__(self, *_: object) -> None:
        put(self.average.network, self.own)
        self.average.network.train()


def put(network: nn.Module, weights: list[Tensor]) -> None:
    """Copy `weights` into the network's parameters, in their order."""
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)


def learning_rate(
    step: int, steps: int, peak: float, warmup: int = 0, floor: float = 0.01
) -> float:
    """The rate at step 0, 1, ...: linear warm-up, then cosine decay to `floor` of the peak."""
    warm = min(1.0, (step + 1) / max(warmup, 1))
    done = max(0.0, (step - warmup) / max(steps - warmup, 1))
    fall = (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return peak * warm * (floor + fall)
