"""The coordinates in which parameters are noised, and what the prior alone says in them.

A box is scaled to unit deviation: simulators are often close to linear in their parameters, and
a bent map of the box would hide it. Another prior of independent coordinates is carried to
N(0, I) by w = Phi^-1(F(theta)), F its cumulative distribution, and a Gaussian one by the root of
its covariance. In all three the noised prior is known in closed form, which several observations
need, and log p(theta | x) = log q(w | x) + log |dw / dtheta| inside the support.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Uniform

from reverie.errors import InputError

ROOT = math.sqrt(2 * math.pi)
EDGE = 1e-12  # of a cumulative distribution: w stays within 7.1
Guess = Callable[[Tensor, Tensor], Tensor]


class Coordinates:
    """An invertible map between parameters (B, d) and model coordinates w (B, d), in float64."""

    bounds: Tensor | None = None  # (2, d), of a box in model coordinates
    prior_guess: Guess | None = None  # E[w | y] of the prior alone, y = w + spread e, where known

    def to_model(self, theta: Tensor) -> Tensor:
        """Model coordinates of parameters inside the prior's support."""
        raise NotImplementedError

    def to_user(self, w: Tensor) -> Tensor:
        """Parameters from model coordinates."""
        raise NotImplementedError

    def log_volume(self, theta: Tensor) -> Tensor:
        """log |dw / dtheta| (B,) inside the support."""
        raise NotImplementedError

    def log_prior(self, w: Tensor) -> Tensor:
        """Log-density (B,) of the prior in model coordinates, up to a constant: N(0, I)."""
        return -0.5 * w.square().sum(1)

    def inside(self, theta: Tensor) -> Tensor:
        """Mask (B,) of the parameters to which the prior gives positive density."""
        return torch.isfinite(theta).all(1)


def normal_guess(y: Tensor, spread: Tensor) -> Tensor:
    """E[w | y] (B, d) for w ~ N(0, I) and y = w + spread e."""
    return y / (1 + spread.square())


def border_push(y: Tensor, spread: Tensor, bounds: Tensor) -> Tensor:
    """(E[w | y] - y) / spread (B, d) for w uniform in the box `bounds` (2, d).

    The mean of a truncated normal, (phi(a) - phi(b)) / (Phi(b) - Phi(a)) with a and b the scaled
    distances to the borders; states over 6 spreads outside are taken to lie at 6.
    """
    low, high = bounds.double()
    a = ((low - y.double()) / spread.double()).clamp(max=6.0)
    b = ((high - y.double()) / spread.double()).clamp(min=-6.0)
    turned = a + b > 0  # to the lower tail, where differences of Phi keep their digits
    left, right = torch.where(turned, -b, a), torch.where(turned, -a, b)
    mass = torch.special.ndtr(right) - torch.special.ndtr(left)
    density = (torch.exp(-0.5 * a.square()) - torch.exp(-0.5 * b.square())) / ROOT
    return (density / mass).to(y)


def box_guess(y: Tensor, spread: Tensor, bounds: Tensor) -> Tensor:
    """E[w | y] (B, d) for w uniform in the box `bounds` (2, d) and y = w + spread e."""
    return y + spread * border_push(y, spread, bounds)


class Affine(Coordinates):
    """(theta - mean) / std, each of shape (d,)."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.double(), std.double()

    def to_model(self, theta: Tensor) -> Tensor:
        return (theta - self.mean) / self.std

    def to_user(self, w: Tensor) -> Tensor:
        return w.double() * self.std + self.mean

    def log_volume(self, theta: Tensor) -> Tensor:
        return -self.std.log().sum().expand(len(theta))


class Standardised(Affine):
    """By the moments of `theta` (n, d); a prior's log_prob, if there is one, tells the support."""

    def __init__(self, theta: Tensor, prior: Any = None) -> None:
        super().__init__(theta.mean(0), theta.std(0))
        self.prior = prior
        if (self.std == 0).any():
            column = int((self.std == 0).nonzero()[0, 0])
            raise InputError(f"column {column} of theta is constant: leave it out")

    @classmethod
    def of(cls, mean: Tensor, std: Tensor, prior: Any = None) -> Standardised:
        """By moments (d,) that are known."""
        return cls(torch.stack([mean - std / math.sqrt(2), mean + std / math.sqrt(2)]), prior)

    def inside(self, theta: Tensor) -> Tensor:
        finite = super().inside(theta)
        if self.prior is None:
            return finite
        if isinstance(self.prior, Distribution):  # its log_prob raises outside the support
            return finite & _supported(self.prior, theta)
        return finite & torch.isfinite(torch.as_tensor(self.prior.log_prob(theta)))


class Boxed(Affine):
    """A uniform prior, scaled to mean 0 and deviation 1: the box is [-sqrt 3, sqrt 3]^d."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(0.5 * (low + high), (high - low) / math.sqrt(12))
        self.low, self.high = low.double(), high.double()
        bounds = math.sqrt(3) * torch.tensor([[-1.0], [1.0]]).expand(2, len(low))
        self.bounds = bounds
        self.prior_guess = partial(box_guess, bounds=bounds)

    def log_prior(self, w: Tensor) -> Tensor:
        return torch.zeros(len(w), dtype=torch.float64)

    def inside(self, theta: Tensor) -> Tensor:
        return ((theta >= self.low) & (theta <= self.high)).all(1)


class Normalised(Coordinates):
    """Phi^-1 of the cumulative distribution of each coordinate of an independent prior."""

    def __init__(self, prior: Distribution, each: Distribution) -> None:
        self.prior, self.each, self.prior_guess = prior, each, normal_guess

    def to_model(self, theta: Tensor) -> Tensor:
        return torch.special.ndtri(self.each.cdf(theta).double().clamp(EDGE, 1 - EDGE))

    def to_user(self, w: Tensor) -> Tensor:
        return self.each.icdf(torch.special.ndtr(w.double()).clamp(EDGE, 1 - EDGE))

    def log_volume(self, theta: Tensor) -> Tensor:
        w = self.to_model(theta)
        log_normal = -0.5 * w.square().sum(1) - w.shape[1] * math.log(ROOT)
        return self.prior.log_prob(theta).double() - log_normal

    def inside(self, theta: Tensor) -> Tensor:
        return _supported(self.prior, theta)


class Whitened(Coordinates):
    """A^-1 (theta - mean) for a prior N(mean, A A^T)."""

    def __init__(self, prior: MultivariateNormal) -> None:
        self.mean, self.root = prior.loc.double(), prior.scale_tril.double()
        self.prior_guess = normal_guess

    @classmethod
    def of(cls, mean: Tensor, root: Tensor) -> Whitened:
        """Of the prior N(mean, root root^T)."""
        return cls(MultivariateNormal(mean, scale_tril=root))

    def to_model(self, theta: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, (theta - self.mean).T, upper=False).T

    def to_user(self, w: Tensor) -> Tensor:
        return w.double() @ self.root.T + self.mean

    def log_volume(self, theta: Tensor) -> Tensor:
        return -self.root.diagonal().log().sum().expand(len(theta))


def coordinates(theta: Tensor, prior: Any = None) -> Coordinates:
    """The best coordinates known for parameters theta (n, d) drawn from `prior`.

    In closed form for a torch Independent(Uniform), a MultivariateNormal, and other independent
    coordinates that have `cdf` and `icdf`; standardised for any other prior, or none.
    Raises InputError that names the first row outside the prior's support.
    """
    found = _coordinates(theta, prior)
    outside = ~found.inside(theta)
    if outside.any():
        row = int(outside.nonzero()[0, 0])
        raise InputError(f"row {row} of theta lies outside the support of the prior")
    return found


def _coordinates(theta: Tensor, prior: Any) -> Coordinates:
    if isinstance(prior, MultivariateNormal):
        return Whitened(prior)
    each = prior.base_dist if isinstance(prior, Independent) else None
    if each is None or tuple(each.batch_shape) != tuple(theta.shape[1:]):
        return Standardised(theta, prior)
    if isinstance(each, Uniform):
        return Boxed(each.low, each.high)
    try:
        each.icdf(torch.full(each.batch_shape, 0.5))
    except NotImplementedError:
        return Standardised(theta, prior)
    return Normalised(prior, each)


def _supported(prior: Distribution, theta: Tensor) -> Tensor:
    return prior.support.check(theta)  # type: ignore[union-attr]
