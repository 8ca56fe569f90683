"""A forward process with a learned linear part that always forgets towards N(0, I).

    dX = -1/2 (D + W) X db + D^(1/2) dW_b,   D = L L^T scaled to trace k,   W = K - K^T

keeps N(0, I) whatever L and K are: the linear case of the "complete recipe" that Du, Zhang, Yang &
Du 2023 parameterise (the form is reconstructed from their abstract and the recipe of Ma, Chen &
Fox 2015; the scale of D is fixed here, or it would only trade with time). L = I, K = 0 is variance
preserving; a D of rank one on (x, velocity) is damped Langevin diffusion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.processes.linear_sde import LinearSDE


class Flexible(LinearSDE):
    """Parameters `metric` L and `twist` K, (k, k) each, learned with `negative_elbo`.

    size: k, the variables that mix. data_dims: as in LinearSDE; by default all are data. metric,
    twist: where learning starts (default: variance preserving). duration: of b; at 10 the signal
    of the variance-preserving start has fallen to exp(-5). start: variance of auxiliary variables
    at t = 0, of 1 in the end. InputError where the start does not forget or is not reached.
    Source: Du, Zhang, Yang & Du 2023, reconstructed from its abstract; Ma, Chen & Fox 2015.

    >>> from reverie.processes import Flexible
    >>> process = Flexible(2)
    >>> [name for name, _ in process.named_parameters()], process.stationary().round(decimals=3)
    (['metric', 'twist'], tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64))
    """

    def __init__(
        self,
        size: int,
        *,
        data_dims: int | None = None,
        metric: Tensor | None = None,
        twist: Tensor | None = None,
        start: float = 0.04,
        duration: float = 10.0,
        t_min: float = 1e-5,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        metric = torch.eye(size) if metric is None else torch.as_tensor(metric)
        twist = torch.zeros(size, size) if twist is None else torch.as_tensor(twist)
        if metric.shape != (size, size) or twist.shape != (size, size):
            raise InputError(f"metric and twist must have shape {(size, size)}")
        dims = size if data_dims is None else data_dims
        super().__init__(
            *recipe(metric.double(), twist.double()),
            data_dims=dims,
            start=start * torch.eye(size - dims),
            duration=duration,
            t_min=t_min,
            shape=shape,
        )
        self.metric, self.twist = nn.Parameter(metric.float()), nn.Parameter(twist.float())

    def matrices(self) -> tuple[Tensor, Tensor]:
        return recipe(self.metric.double(), self.twist.double())


def recipe(metric: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Drift -(D + W)/2 and diffusion D^(1/2) with D = k L L^T / tr(L L^T), W = K - K^T."""
    half = metric * math.sqrt(len(metric)) / metric.norm()
    return -0.5 * (half @ half.mT + twist - twist.mT), half
