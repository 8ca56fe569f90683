"""The reference of a Schrodinger bridge: any Gaussian noise, as a Brownian motion on a clock.

Every scalar linear-Gaussian reference is x_t = m(t) (x_0 + W_tau(t)): divided by its scale m it is
a Brownian motion on the clock tau, with tau(0) = 0. A bridge between laws a and b under it is the
Brownian bridge problem between a and b / m(1) with epsilon = tau(1), so that each solver is
written once, for Brownian motion on s = tau(t) / tau(1) in [0, 1] (spec section 2.2).

Reference time t in [0, 1] runs from the law a (t = 0) to the law b (t = 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import build
from reverie.processes.gaussian import GaussianProcess, require_gaussian


class Reference(ABC):
    """x_t = scale(t) (x_0 + W at clock(t)); t and both results are float64 of one shape.

    >>> import torch
    >>> from reverie.bridges import Reference
    >>> class Growing(Reference):  # variance t^2
    ...     def scale(self, t):
    ...         return torch.ones_like(t)
    ...     def clock(self, t):
    ...         return t**2
    >>> float(Growing().share(0.5)), float(Growing().epsilon)
    (0.25, 1.0)
    """

    @abstractmethod
    def scale(self, t: Tensor) -> Tensor:
        """m(t): what is left of x_0 at time t; m(0) = 1."""
        raise NotImplementedError

    @abstractmethod
    def clock(self, t: Tensor) -> Tensor:
        """tau(t): variance of x_t / m(t) given x_0, increasing from 0."""
        raise NotImplementedError

    @property
    def epsilon(self) -> float:
        """tau(1): the entropic regularisation of the static problem, cost |x - y|^2 / 2."""
        return float(self.clock(torch.ones((), dtype=torch.float64)))

    @property
    def last_scale(self) -> float:
        """m(1)."""
        return float(self.scale(torch.ones((), dtype=torch.float64)))

    def share(self, t: Tensor | float) -> Tensor:
        """s = tau(t) / tau(1), from 0 to 1."""
        return self.clock(torch.as_tensor(t, dtype=torch.float64)) / self.epsilon


@dataclass(frozen=True)
class BrownianMotion(Reference):
    """dX = sigma dW. InputError unless sigma > 0.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion
    >>> BrownianMotion(2.0).clock(torch.tensor([0.5, 1.0]).double())  # variance sigma^2 t
    tensor([2., 4.], dtype=torch.float64)
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        require_sigma(self.sigma)

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def clock(self, t: Tensor) -> Tensor:
        return self.sigma**2 * t


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Reference):
    """dX = -pull X dt + sigma dW. InputError unless sigma > 0 and pull > 0.

    >>> from reverie.bridges import OrnsteinUhlenbeck
    >>> round(float(OrnsteinUhlenbeck(1.0, pull=1.0).last_scale), 4)  # exp(-1)
    0.3679
    """

    sigma: float = 1.0
    pull: float = 1.0

    def __post_init__(self) -> None:
        require_sigma(self.sigma)
        if not 0 < self.pull < 50:
            raise InputError(f"the pull of an OU reference is {self.pull}; it must lie in (0, 50)")

    def scale(self, t: Tensor) -> Tensor:
        return (-self.pull * t).exp()

    def clock(self, t: Tensor) -> Tensor:
        return self.sigma**2 * torch.expm1(2 * self.pull * t) / (2 * self.pull)


class NoiseReference(Reference):
    """The noise of a Gaussian process between the ends of its t_range, times `sigma`.

    process: of one level for all coordinates, InputError elsewhere.

    >>> from reverie.bridges import NoiseReference
    >>> from reverie.processes import VP
    >>> reference = NoiseReference(VP(beta_max=2))
    >>> round(float(reference.last_scale), 3), round(float(reference.share(0.5)), 3)
    (0.592, 0.179)
    """

    def __init__(self, process: GaussianProcess, sigma: float = 1.0) -> None:
        self.process = require_gaussian(process, "a bridge's reference", one_level=True)
        self.sigma = require_sigma(sigma)

    def _place(self, t: Tensor) -> Tensor:
        low, high = self.process.t_range
        return (low + (high - low) * t).reshape(-1)

    def scale(self, t: Tensor) -> Tensor:
        start = self.process.alpha(self._place(torch.zeros_like(t)))
        return (self.process.alpha(self._place(t)) / start).reshape(t.shape)

    def clock(self, t: Tensor) -> Tensor:
        start = self._place(torch.zeros_like(t))
        apart = 1 / self.process.gamma(self._place(t)) - 1 / self.process.gamma(start)
        return (self.sigma**2 * self.process.alpha(start).square() * apart).reshape(t.shape)


def require_sigma(sigma: float) -> float:
    """sigma itself; InputError unless it is a positive number."""
    if not (0 < sigma < float("inf")):
        raise InputError(
            f"sigma is {sigma:g}; a bridge needs noise, sigma > 0 (at 0 it is a transport map)"
        )
    return float(sigma)


def reference_named(text: str, sigma: float = 1.0) -> Reference:
    """`brownian`, `ou` or `ou:pull=2`, or any Gaussian process, as `vp`; InputError otherwise.

    >>> from reverie.bridges import reference_named
    >>> reference_named("ou:pull=2", sigma=0.5)
    OrnsteinUhlenbeck(sigma=0.5, pull=2.0)
    """
    name, _, rest = text.partition(":")
    if name == "brownian" and not rest:
        return BrownianMotion(sigma)
    if name == "ou":
        key, _, value = (rest or "pull=1").partition("=")
        try:
            pull = float(value)
        except ValueError:
            pull = float("nan")
        if key != "pull" or pull != pull:
            raise InputError(f"{text!r} is no reference; write ou:pull=1")
        return OrnsteinUhlenbeck(sigma, pull)
    try:
        return NoiseReference(build(text), sigma)
    except InputError as error:
        raise InputError(
            f"{text!r} is no reference; choose brownian, ou:pull=1 or a Gaussian process ({error})"
        ) from error
