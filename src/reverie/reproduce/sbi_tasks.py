"""Four simulators of the sbibm benchmark (Lueckmann et al. 2021), written from their definitions.

Each task has a prior, a simulator `simulate(theta)` (n, d) -> (n, m), and where it is known the
likelihood, by which its reference posteriors can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Uniform


@dataclass(frozen=True)
class Task:
    """A prior, a simulator and its log-likelihood (theta (n, d), x (n, m)) -> (n,)."""

    prior: Distribution
    simulate: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]


def box(edge: float, dim: int) -> Independent:
    """Uniform on [-edge, edge]^dim."""
    return Independent(Uniform(-edge * torch.ones(dim), edge * torch.ones(dim)), 1)


def _moon_shift(theta: Tensor) -> Tensor:
    first = -(theta[:, 0] + theta[:, 1]).abs()
    return torch.stack([first, theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)


def _two_moons(theta: Tensor) -> Tensor:
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    crescent = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)
    return crescent + _moon_shift(theta)


def _two_moons_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    """p = N(r; .1, .01^2) / (pi r) on the right half of the ring of radius r about the shift."""
    moved = x - _moon_shift(theta) - torch.tensor([0.25, 0.0])
    radius = moved.norm(dim=1)
    value = Normal(0.1, 0.01).log_prob(radius) - math.log(math.pi) - radius.log()
    return torch.where(moved[:, 0] > 0, value, -torch.inf)


def _gaussian_linear(theta: Tensor) -> Tensor:
    return theta + math.sqrt(0.1) * torch.randn(theta.shape)


def _gaussian_linear_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    return Normal(theta, math.sqrt(0.1)).log_prob(x).sum(1)


def _gaussian_mixture(theta: Tensor) -> Tensor:
    narrow = torch.rand(len(theta), 1) < 0.5
    return theta + torch.where(narrow, 0.1, 1.0) * torch.randn(theta.shape)


def _gaussian_mixture_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    each = [Normal(theta, scale).log_prob(x).sum(1) for scale in (1.0, 0.1)]
    return torch.stack(each).logsumexp(0) - math.log(2)


def _slcp_law(theta: Tensor) -> MultivariateNormal:
    first, second = theta[:, 2].square(), theta[:, 3].square()
    cross = theta[:, 4].tanh() * first * second
    rows = [torch.stack([first.square(), cross], 1), torch.stack([cross, second.square()], 1)]
    return MultivariateNormal(theta[:, :2], torch.stack(rows, 1) + 1e-6 * torch.eye(2))


def _slcp(theta: Tensor) -> Tensor:
    return _slcp_law(theta).sample((4,)).transpose(0, 1).flatten(1)


def _slcp_likelihood(theta: Tensor, x: Tensor) -> Tensor:
    return _slcp_law(theta).log_prob(x.reshape(-1, 4, 2).transpose(0, 1)).sum(0)


TASKS = {
    "two_moons": Task(box(1.0, 2), _two_moons, _two_moons_likelihood),
    "gaussian_linear": Task(
        Independent(Normal(torch.zeros(10), math.sqrt(0.1)), 1),
        _gaussian_linear,
        _gaussian_linear_likelihood,
    ),
    "gaussian_mixture": Task(box(10.0, 2), _gaussian_mixture, _gaussian_mixture_likelihood),
    "slcp": Task(box(3.0, 5), _slcp, _slcp_likelihood),
}
