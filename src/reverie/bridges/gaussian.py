"""The Schrodinger bridge between Gaussians, in closed form, and the two classic iterations on it.

For the reference sqrt(epsilon) W and ends N(m0, S0), N(m1, S1) (Bunne, Hsieh, Cuturi & Krause
2023; Janati, Muzellec, Peyre & Cuturi 2020; spec section 2.2):

    D = (4 S0^1/2 S1 S0^1/2 + epsilon^2)^1/2,   Cov(X0, X1) = 1/2 (S0^1/2 D S0^-1/2 - epsilon).

It is written below without the inverse and the difference, so that singular ends keep their
digits: Cov = 2 S0^1/2 (D + epsilon)^-1 S0^1/2 S1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.reference import Reference
from reverie.errors import InputError


def plan_covariance(first: Tensor, second: Tensor, epsilon: float) -> Tensor:
    """Cov(X0, X1) (d, d) of the entropic plan between covariances, cost |x - y|^2 / 2.

    >>> import torch
    >>> from reverie.bridges import plan_covariance
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> float(plan_covariance(0.36 * one, 1.69 * one, 0.64))  # doctest: +ELLIPSIS
    0.52309...
    """
    half = _root(first)
    inner = 4 * half @ second @ half
    values, vectors = torch.linalg.eigh(0.5 * (inner + inner.T))
    weight = 1 / ((values.clamp(min=0) + epsilon**2).sqrt() + epsilon)
    return 2 * half @ (vectors * weight) @ vectors.T @ half @ second


def linear_plan_covariance(
    first: Tensor, second: Tensor, transition: Tensor, noise: Tensor
) -> Tensor:
    """Cov(X0, X1) under any linear-Gaussian reference X1 | x0 ~ N(transition x0 + b, noise).

    Whitened, y0 = noise^-1/2 transition x0 and y1 = noise^-1/2 x1, it is a Brownian problem with
    epsilon = 1. transition and noise (d, d) are invertible; b does not matter.
    """
    half = _root(noise)
    white = torch.linalg.inv(half)
    before, after = white @ transition @ first @ transition.T @ white, white @ second @ white
    plan = plan_covariance(before, after, 1.0)
    return torch.linalg.solve(transition, half @ plan @ half)


def path_gain(first: Tensor, second: Tensor, plan: Tensor, epsilon: float, s: float) -> Tensor:
    """K_s of the Markov drift m1 - m0 + K_s (y - m_s) that keeps every marginal of a mixture of
    Brownian bridges whose ends have covariance `plan`: (d, d)."""
    eye = torch.eye(len(first), dtype=first.dtype)
    slope = plan.T + s * second - (1 - s) * first - s * (plan + plan.T + epsilon * eye)
    return torch.linalg.solve(path_covariance(first, second, plan, epsilon, s), slope.T).T


def path_covariance(
    first: Tensor, second: Tensor, plan: Tensor, epsilon: float, s: float
) -> Tensor:
    """Covariance (d, d) at share s of Brownian bridges between Gaussian ends."""
    eye = torch.eye(len(first), dtype=first.dtype)
    between = s * (1 - s) * (plan + plan.T + epsilon * eye)
    return (1 - s) ** 2 * first + s**2 * second + between


def markov_projection(
    first: Tensor, second: Tensor, plan: Tensor, epsilon: float, steps: int = 64
) -> Tensor:
    """One iteration of Markovian fitting: Cov(X0, X1) (d, d) after the Markov projection.

    Markovian projection and refilled bridges (Shi, De Bortoli, Campbell & Doucet 2023) in closed
    form: the new plan is S0 Phi^T with Phi' = K_s Phi, by Runge-Kutta 4.
    """

    def slope(s: float, phi: Tensor) -> Tensor:
        return path_gain(first, second, plan, epsilon, s) @ phi

    phi, h = torch.eye(len(first), dtype=first.dtype), 1 / steps
    for k in range(steps):
        s = k * h
        one = slope(s, phi)
        two = slope(s + h / 2, phi + h / 2 * one)
        three = slope(s + h / 2, phi + h / 2 * two)
        four = slope(s + h, phi + h * three)
        phi = phi + h / 6 * (one + 2 * two + 2 * three + four)
    return first @ phi.T


class GaussianBridge(Bridge):
    """The exact bridge between N(mean0, cov0) and N(mean1, cov1), under any scalar reference.

    mean0, mean1: (d,). cov0, cov1: (d, d). InputError where the widths differ.
    Source: Bunne, Hsieh, Cuturi & Krause 2023.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, GaussianBridge
    >>> eye = torch.eye(1).double()
    >>> bridge = GaussianBridge(torch.zeros(1), eye, torch.ones(1), eye, BrownianMotion(1.0))
    >>> bridge.covariance.round(decimals=4)  # (sqrt(5) - 1) / 2
    tensor([[0.6180]], dtype=torch.float64)
    """

    mean0: Tensor
    cov0: Tensor
    mean1: Tensor
    cov1: Tensor
    plan: Tensor

    def __init__(
        self, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor, reference: Reference
    ) -> None:
        super().__init__()
        if mean0.shape != mean1.shape:
            raise InputError(
                f"the ends have {len(mean0)} and {len(mean1)} coordinates; a bridge needs the same"
            )
        self.reference, self.dim = reference, len(mean0)
        last = reference.last_scale
        named = dict(mean0=mean0, cov0=cov0, mean1=mean1 / last, cov1=cov1 / last**2)
        for name, value in named.items():
            self.register_buffer(name, value.double())
        self.register_buffer("plan", plan_covariance(self.cov0, self.cov1, reference.epsilon))

    @classmethod
    def fit(cls, a: Tensor, b: Tensor, reference: Reference) -> GaussianBridge:
        """The bridge between the Gaussians of two sets of rows (n, d)."""
        (mean0, cov0), (mean1, cov1) = moments(a), moments(b)
        return cls(mean0, cov0, mean1, cov1, reference)

    @property
    def covariance(self) -> Tensor:
        """Cov(X0, X1) (d, d), in the coordinates of the two ends."""
        return self.plan * self.reference.last_scale

    exact_steps = True

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        far = torch.empty_like(y)
        for s in share.unique():
            rows = share == s
            far[rows] = self.law(y[rows], float(s), reverse)[0]
        return far

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        far = torch.empty_like(y)
        for s in share.unique():
            rows = share == s
            mean, cov = self.law(y[rows], float(s), reverse)
            noise = torch.randn(mean.shape, generator=generator, dtype=y.dtype)
            far[rows] = mean + noise @ _root(cov).to(y)
        return far

    def law(self, y: Tensor, s: float, reverse: bool) -> tuple[Tensor, Tensor]:
        """Mean (B, dim) and covariance (dim, dim) of the far end given y (B, dim) at share s."""
        cov = path_covariance(self.cov0, self.cov1, self.plan, self.reference.epsilon, s)
        mean, far, across = (
            (self.mean0, self.cov0, (1 - s) * self.cov0 + s * self.plan)
            if reverse
            else (self.mean1, self.cov1, (1 - s) * self.plan.T + s * self.cov1)
        )
        gain = across @ torch.linalg.pinv(cov, hermitian=True)
        off = y - ((1 - s) * self.mean0 + s * self.mean1).to(y)
        return mean.to(y) + off @ gain.T.to(y), far - gain @ across.T


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of rows (n, d), float64."""
    rows = rows.double()
    mean = rows.mean(0)
    return mean, (rows - mean).T @ (rows - mean) / max(len(rows) - 1, 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a covariance; rounding below 0 is 0."""
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
