"""The noise schedules of the field, each with a clock that is inverted in closed form.

t in [0, 1], 0 = data, 1 = noise. Each `t_range` keeps log gamma finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import float64
from reverie.processes.gaussian import GaussianProcess, VariancePreserving

Shape = tuple[int, ...] | None


class VP(GaussianProcess):
    """Variance preserving, with linear beta: alpha^2 = exp(-b(t)).

    b(t) = beta_min t + (beta_max - beta_min) t^2 / 2.
    Source: Song et al. 2021, eq. 32-33 (beta from .1 to 20).
    InputError unless 0 <= beta_min <= beta_max and 0 < beta_max.

    >>> import torch
    >>> from reverie.processes import VP
    >>> state = VP().corrupt(torch.zeros(3, 2), 0.5)
    >>> state.shape, VP().clock(0.5).round(decimals=4)
    (torch.Size([3, 2]), tensor([0.0859], dtype=torch.float64))
    """

    def __init__(
        self,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        t_min: float = 1e-4,
        t_max: float = 1.0,
        shape: Shape = None,
    ) -> None:
        super().__init__((t_min, t_max), shape)
        if not 0 <= beta_min <= beta_max or beta_max <= 0:
            raise InputError(f"betas are {beta_min}, {beta_max}; need 0 <= beta_min <= beta_max")
        self.beta_min, self.beta_max = beta_min, beta_max

    def settings(self) -> dict[str, float]:
        low, high = self.t_range
        return dict(beta_min=self.beta_min, beta_max=self.beta_max, t_min=low, t_max=high)

    def log_decay(self, t: Tensor) -> Tensor:
        """b(t) = -log alpha^2 of the variance-preserving process."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def _time_of_decay(self, decay: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * slope * decay).sqrt())

    def alpha(self, t: Tensor) -> Tensor:
        return (-0.5 * self.log_decay(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.log_decay(t))).sqrt()

    def gamma(self, t: Tensor) -> Tensor:
        return 1 / torch.expm1(self.log_decay(t))

    def time(self, u: Tensor | float) -> Tensor:
        return self._time_of_decay(torch.log1p(1 / float64(u).reshape(-1)))


class SubVP(VP):
    """Sub-VP: alpha as in VP, sigma = 1 - exp(-b(t)) (Song et al. 2021, eq. 29).

    >>> import torch
    >>> from reverie.processes import SubVP
    >>> alpha, sigma = SubVP().scales(0.5, torch.zeros(1, 3))
    >>> (alpha**2 + sigma).round(decimals=6)
    tensor([[1.]])
    """

    def __init__(
        self,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        t_min: float = 1e-2,
        t_max: float = 1.0,
        shape: Shape = None,
    ) -> None:
        super().__init__(beta_min, beta_max, t_min, t_max, shape)

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.log_decay(t))

    def gamma(self, t: Tensor) -> Tensor:
        return 0.25 / torch.sinh(0.5 * self.log_decay(t)).square()

    def time(self, u: Tensor | float) -> Tensor:
        return self._time_of_decay(2 * torch.asinh(0.5 / float64(u).reshape(-1).sqrt()))


class Cosine(GaussianProcess):
    """alpha = cos(angle), sigma = sin(angle), angle = pi/2 (t + s)/(1 + s).

    Source: Nichol & Dhariwal 2021, eq. 17, without the division by its value at t = 0.
    shape: of a point, where it is fixed. InputError unless t_max < 1, and offset > 0 or t_min > 0.

    >>> from reverie.processes import Cosine
    >>> Cosine().clock([0.1, 0.5, 0.9])  # signal-to-noise ratio alpha^2 / sigma^2
    tensor([3.4640e+01, 9.7537e-01, 2.4683e-02], dtype=torch.float64)
    """

    def __init__(
        self, offset: float = 0.008, t_min: float = 0.0, t_max: float = 0.99, shape: Shape = None
    ) -> None:
        super().__init__((t_min, t_max), shape)
        if offset < 0 or (offset == 0 and t_min == 0) or t_max >= 1:
            raise InputError("cosine needs offset > 0 or t_min > 0, and t_max < 1")
        self.offset = offset

    def settings(self) -> dict[str, float]:
        return dict(offset=self.offset, t_min=self.t_range[0], t_max=self.t_range[1])

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    def alpha(self, t: Tensor) -> Tensor:
        return self._angle(t).cos()

    def sigma(self, t: Tensor) -> Tensor:
        return self._angle(t).sin()

    def time(self, u: Tensor | float) -> Tensor:
        angle = torch.atan(1 / float64(u).reshape(-1).sqrt())
        return 2 / math.pi * (1 + self.offset) * angle - self.offset


class VE(GaussianProcess):
    """Variance exploding: alpha = 1, sigma geometric in t (Song et al. 2021, eq. 30).

    shape: of a point, where it is fixed. InputError unless 0 < sigma_min < sigma_max.

    >>> import torch
    >>> from reverie.processes import VE
    >>> VE(0.01, 100).sigma(torch.tensor([0.0, 0.5, 1.0])).round(decimals=4)
    tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, shape: Shape = None
    ) -> None:
        super().__init__((0.0, 1.0), shape)
        if not 0 < sigma_min < sigma_max:
            raise InputError(
                f"sigmas are {sigma_min}, {sigma_max}; need 0 < sigma_min < sigma_max"
            )
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def settings(self) -> dict[str, float]:
        return dict(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, u: Tensor | float) -> Tensor:
        sigma = float64(u).reshape(-1).rsqrt()
        return (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class EDM(VE):
    """alpha = 1, sigma^(1/rho) linear in t: equal steps in t are the Karras plan.

    Source: Karras et al. 2022, eq. 5.
    shape: of a point, where it is fixed. InputError unless 0 < sigma_min < sigma_max and rho > 0.

    >>> from reverie.processes import EDM
    >>> process = EDM(0.02, 40)
    >>> process.sigma(process.time(4.0)).round(decimals=6)  # clock 1 / sigma^2 = 4
    tensor([0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        shape: Shape = None,
    ) -> None:
        super().__init__(sigma_min, sigma_max, shape)
        if rho <= 0:
            raise InputError(f"rho is {rho}; it must be positive")
        self.rho = rho

    def settings(self) -> dict[str, float]:
        return dict(sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)

    def sigma(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def time(self, u: Tensor | float) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        root = float64(u).reshape(-1) ** (-0.5 / self.rho)
        return (root - low) / (high - low)


class Rectified(GaussianProcess):
    """Linear interpolation: alpha = 1 - t, sigma = t (rectified flow; Liu et al. 2022).

    InputError unless 0 < t_min < t_max < 1.

    >>> import torch
    >>> from reverie.processes import Rectified
    >>> Rectified().alpha(torch.tensor([0.25, 0.5])), Rectified().sigma(torch.tensor([0.25, 0.5]))
    (tensor([0.7500, 0.5000]), tensor([0.2500, 0.5000]))
    """

    def __init__(self, t_min: float = 1e-3, t_max: float = 0.99, shape: Shape = None) -> None:
        super().__init__((t_min, t_max), shape)
        if t_min <= 0 or t_max >= 1:
            raise InputError(f"t_range is {(t_min, t_max)}; rectified needs 0 < t_min, t_max < 1")

    def settings(self) -> dict[str, float]:
        return dict(t_min=self.t_range[0], t_max=self.t_range[1])

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, u: Tensor | float) -> Tensor:
        return 1 / (1 + float64(u).reshape(-1).sqrt())


class LogLinear(VariancePreserving):
    """Log gamma linear in t from `high` at t_min to `low` at t_max.

    Source: Batzolis et al. 2022, arXiv 2207.09786 (from 10 to -10); Kingma et al. 2021, section 6.
    InputError unless high > low and 0 <= t_min < t_max <= 1.

    >>> from reverie.processes import LogLinear
    >>> LogLinear(high=4, low=-4, t_min=0).clock([0.0, 0.5, 1.0]).log().round(decimals=3)
    tensor([ 4.,  0., -4.], dtype=torch.float64)
    """

    def __init__(
        self,
        high: float = 10.0,
        low: float = -10.0,
        t_min: float = 1e-3,
        t_max: float = 1.0,
        shape: Shape = None,
    ) -> None:
        super().__init__((t_min, t_max), shape)
        if not low < high:
            raise InputError(f"log-SNR goes from high = {high} to low = {low}; need low < high")
        self.high, self.low = high, low

    def settings(self) -> dict[str, float]:
        start, stop = self.t_range
        return dict(high=self.high, low=self.low, t_min=start, t_max=stop)

    def log_gamma(self, t: Tensor) -> Tensor:
        start, stop = self.t_range
        return self.high + (self.low - self.high) * (t - start) / (stop - start)

    def time(self, u: Tensor | float) -> Tensor:
        start, stop = self.t_range
        share = (float64(u).reshape(-1).log() - self.high) / (self.low - self.high)
        return start + (stop - start) * share


class Custom(GaussianProcess):
    """A user's own alpha(t) and sigma(t); the clock is inverted by bisection to the last bit.

    Each function takes float64 times (B,) and returns (B,), or (B, *shape) for one speed per
    coordinate (then give `shape`). gamma must decrease in t over `t_range`, which is checked.
    InputError where it does not, or where an answer has another shape than `shape`.

    >>> import torch
    >>> from reverie.processes import Custom
    >>> process = Custom(lambda t: torch.ones_like(t), lambda t: 10 * t)
    >>> round(float(process.time(0.04)), 6)  # where alpha^2 / sigma^2 = 1 / 25
    0.5
    """

    def __init__(
        self,
        alpha: Callable[[Tensor], Tensor],
        sigma: Callable[[Tensor], Tensor],
        t_range: tuple[float, float] = (1e-3, 1 - 1e-3),
        shape: Shape = None,
    ) -> None:
        super().__init__(t_range, shape)
        self._alpha, self._sigma = alpha, sigma
        probe = torch.linspace(*self.t_range, 65, dtype=torch.float64)
        first = torch.broadcast_tensors(self._alpha(probe), self._sigma(probe))[0]
        if first.ndim > 1:
            if shape is None or tuple(first.shape[1:]) != tuple(shape):
                raise InputError(
                    f"alpha or sigma has shape {tuple(first.shape[1:])} per level: "
                    f"pass the same shape=, not {shape}"
                )
            self.columns = math.prod(shape)
        gamma = self.clock(probe).reshape(len(probe), -1)
        if not torch.isfinite(gamma).all() or (gamma <= 0).any():
            raise InputError("alpha^2/sigma^2 must be finite and positive over t_range")
        if (gamma.diff(dim=0) >= 0).any():
            raise InputError(
                "alpha^2/sigma^2 must decrease in t over t_range, for every coordinate"
            )

    def _shaped(self, level: Tensor, t: Tensor) -> Tensor:
        if self.columns == 1 or level.ndim > 1:
            return level
        assert self.space.shape is not None
        return level.reshape(-1, *(1,) * len(self.space.shape)).expand(len(t), *self.space.shape)

    def alpha(self, t: Tensor) -> Tensor:
        return self._shaped(self._alpha(t), t)

    def sigma(self, t: Tensor) -> Tensor:
        return self._shaped(self._sigma(t), t)


PROCESSES: dict[str, type[GaussianProcess]] = {
    "vp": VP,
    "sub-vp": SubVP,
    "cosine": Cosine,
    "ve": VE,
    "edm": EDM,
    "rectified": Rectified,
    "log-linear": LogLinear,
}
