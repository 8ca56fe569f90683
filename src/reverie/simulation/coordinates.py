"""The coordinates in which parameters are noised, and what the prior alone says in them.

A box is scaled to unit deviation: simulators are often close to linear in their parameters, and
any bent map of the box would hide it. Another prior of independent coordinates is carried to
N(0, I) by w = Phi^-1(F(theta)), F its cumulative distribution, and a Gaussian one by the root of
its covariance. In all three the noised prior is known in closed form, which several observations
need, and log p(theta | x) = log q(w | x) + log |dw / dtheta| inside the support.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Uniform

from reverie.errors import InputError

ROOT = math.sqrt(2 * math.pi)
EDGE = 1e-12  # of a cumulative distribution: w stays within 7.1


Guess = Callable[[Tensor, Tensor], Tensor]


class Coordinates(Protocol):
    """An invertible map of parameters (B, d), in float64."""

    bounds: Tensor | None  # (2, d) of a box, in these coordinates
    prior_guess: Guess | None  # E[w | y] of the prior alone, y = w + spread e

    def to_model(self, theta: Tensor) -> Tensor:
        """Model coordinates w (B, d) of parameters inside the prior's support."""
        ...

    def to_user(self, w: Tensor) -> Tensor:
        """Parameters (B, d) from model coordinates."""
        ...

    def log_volume(self, theta: Tensor) -> Tensor:
        """log |dw / dtheta| (B,) inside the support."""
        ...

    def inside(self, theta: Tensor) -> Tensor:
        """Mask (B,) of the parameters to which the prior gives positive density."""
        ...


def normal_guess(y: Tensor, spread: Tensor) -> Tensor:
    """E[w | y] (B, d) for w ~ N(0, I) and y = w + spread e."""
    return y / (1 + spread.square())


def box_guess(y: Tensor, spread: Tensor, bounds: Tensor) -> Tensor:
    """E[w | y] (B, d) for w uniform in the box `bounds` (2, d): y moved by `border_push`."""
    return y + spread * border_push(y, spread, bounds)


def border_push(y: Tensor, spread: Tensor, bounds: Tensor) -> Tensor:
    """Mean of a standard normal between the borders, seen from y in units of spread: (B, d).

    (phi(a) - phi(b)) / (Phi(b) - Phi(a)), a and b the scaled distances to the two borders; states
    more than 6 spreads outside are taken to lie there.
    """
    low, high = bounds.double()
    a = ((low - y.double()) / spread.double()).clamp(max=6.0)
    b = ((high - y.double()) / spread.double()).clamp(min=-6.0)
    left, right = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)  # the lower tail
    mass = torch.special.ndtr(right) - torch.special.ndtr(left)
    density = (torch.exp(-0.5 * a.square()) - torch.exp(-0.5 * b.square())) / ROOT
    return (density / mass).to(y)


class Standardised:
    """Less the mean of `theta` (n, d) and by its deviation; `prior`, if any, tells the support."""

    bounds, prior_guess = None, None

    def __init__(self, theta: Tensor, prior: Any = None) -> None:
        self.mean, self.std, self.prior = theta.mean(0), theta.std(0), prior
        if (self.std == 0).any():
            column = int((self.std == 0).nonzero()[0, 0])
            raise InputError(f"column {column} of theta is constant: leave it out")

    def to_model(self, theta: Tensor) -> Tensor:
        return (theta - self.mean) / self.std

    def to_user(self, w: Tensor) -> Tensor:
        return w * self.std + self.mean

    def log_volume(self, theta: Tensor) -> Tensor:
        return -self.std.log().sum().expand(len(theta))

    def inside(self, theta: Tensor) -> Tensor:
        finite = torch.isfinite(theta).all(1)
        if self.prior is None:
            return finite
        if isinstance(self.prior, Distribution):  # its log_prob raises outside the support
            return finite & self.prior.support.check(theta)  # type: ignore[union-attr]
        return finite & torch.isfinite(torch.as_tensor(self.prior.log_prob(theta)))


class Boxed:
    """A uniform prior on a box, scaled to mean 0 and deviation 1: the box is [-sqrt 3, sqrt 3]^d."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low, self.high = low.double(), high.double()
        self.middle = 0.5 * (self.low + self.high)
        self.std = (self.high - self.low) / math.sqrt(12)
        self.bounds = math.sqrt(3) * torch.tensor([[-1.0], [1.0]]).expand(2, len(low))

    def prior_guess(self, y: Tensor, spread: Tensor) -> Tensor:
        return box_guess(y, spread, self.bounds)

    def to_model(self, theta: Tensor) -> Tensor:
        return (theta - self.middle) / self.std

    def to_user(self, w: Tensor) -> Tensor:
        return w.double() * self.std + self.middle

    def log_volume(self, theta: Tensor) -> Tensor:
        return -self.std.log().sum().expand(len(theta))

    def inside(self, theta: Tensor) -> Tensor:
        return ((theta >= self.low) & (theta <= self.high)).all(1)


class Normalised:
    """Phi^-1 of the cumulative distribution of each coordinate of an independent prior."""

    bounds, prior_guess = None, staticmethod(normal_guess)

    def __init__(self, prior: Distribution, each: Distribution) -> None:
        self.prior, self.each = prior, each

    def to_model(self, theta: Tensor) -> Tensor:
        return torch.special.ndtri(self.each.cdf(theta).double().clamp(EDGE, 1 - EDGE))

    def to_user(self, w: Tensor) -> Tensor:
        return self.each.icdf(torch.special.ndtr(w.double()).clamp(EDGE, 1 - EDGE))

    def log_volume(self, theta: Tensor) -> Tensor:
        w = self.to_model(theta)
        normal = -0.5 * w.square().sum(1) - 0.5 * w.shape[1] * math.log(2 * math.pi)
        return self.prior.log_prob(theta).double() - normal

    def inside(self, theta: Tensor) -> Tensor:
        return self.prior.support.check(theta)  # type: ignore[union-attr]


class Whitened:
    """A^-1 (theta - mean) for a prior N(mean, A A^T)."""

    bounds, prior_guess = None, staticmethod(normal_guess)

    def __init__(self, prior: MultivariateNormal) -> None:
        self.mean, self.root = prior.loc.double(), prior.scale_tril.double()

    def to_model(self, theta: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, (theta - self.mean).T, upper=False).T

    def to_user(self, w: Tensor) -> Tensor:
        return w.double() @ self.root.T + self.mean

    def log_volume(self, theta: Tensor) -> Tensor:
        return -self.root.diagonal().log().sum().expand(len(theta))

    def inside(self, theta: Tensor) -> Tensor:
        return torch.isfinite(theta).all(1)


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
    if isinstance(each, Distribution) and tuple(each.batch_shape) == tuple(theta.shape[1:]):
        if isinstance(each, Uniform):
            return Boxed(each.low, each.high)
        try:
            each.icdf(torch.full(each.batch_shape, 0.5))
        except NotImplementedError:
            return Standardised(theta, prior)
        return Normalised(prior, each)
    return Standardised(theta, prior)
