"""Covariance operators of random functions on [0, 1]^k, and their eigenpairs.

An operator of finite trace makes noise a random function, the same on every grid; white noise has
none, and what is measured with it drifts with the grid (Pidstrigach et al. 2024; Kerrigan, Ley &
Smyth 2023).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces import Functions


class Eigenpairs(NamedTuple):
    """values (m,), decreasing; functions (m, *shape), orthonormal in the grid's L2."""

    values: Tensor
    functions: Tensor


class Covariance:
    """A kernel k(x, y) = cov(f(x), f(y)) on [0, 1]^k; `k(x, x)` is the pointwise variance.

    >>> from reverie.processes import Covariance, Matern
    >>> from reverie.spaces import Functions
    >>> grid = Functions.regular(8)
    >>> isinstance(Matern(1.5, length=0.2), Covariance), Matern(1.5, length=0.2).on(grid).shape
    (True, torch.Size([8, 8]))
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariances (n, m) of the values at points x (n, k) and y (m, k), float64."""
        raise NotImplementedError

    def on(self, space: Functions) -> Tensor:
        """Covariance matrix (n, n) of the values on the grid."""
        return self(space.points, space.points)

    def eigenpairs(self, space: Functions, count: int | None = None) -> Eigenpairs:
        """The `count` (default: all n) leading eigenpairs of (Kf)(x) = int k(x, y) f(y) dy.

        By quadrature on the grid (Nystrom): W^(1/2) K W^(1/2) is symmetric and has the same
        eigenvalues as K W.
        """
        root = space.weights.sqrt()
        values, vectors = torch.linalg.eigh(root[:, None] * self.on(space) * root)
        functions = (vectors / root[:, None]).T.flip(0)[:count]
        kept = values.flip(0)[:count].clamp(min=0)
        return Eigenpairs(kept, functions.reshape(-1, *space.shape))


def covariance_named(name: str, length: float = 0.1, variance: float = 1.0) -> Covariance:
    """rbf, exponential, matern-1/2, matern-3/2 or matern-5/2; InputError on another name."""
    kernels = {"rbf": RBF, "exponential": Exponential}
    if name in kernels:
        return kernels[name](length, variance)
    smoothness = {f"matern-{twice}/2": twice / 2 for twice in (1, 3, 5)}
    if name in smoothness:
        return Matern(smoothness[name], length, variance)
    known = ", ".join([*kernels, *smoothness])
    raise InputError(f"no covariance is called {name!r}; choose one of {known}")


class Stationary(Covariance):
    """variance * profile(|x - y| / length); `name` is that of `covariance_named`."""

    name: str

    def __init__(self, length: float, variance: float = 1.0) -> None:
        if not (length > 0 and variance > 0):
            raise InputError(f"length is {length}, variance {variance}: both must be positive")
        self.length, self.variance = float(length), float(variance)

    def profile(self, distance: Tensor) -> Tensor:
        """Correlation at a distance in units of the length."""
        raise NotImplementedError

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        # by products cdist loses digits near 0, where the exponential kernel has its kink
        mode = "donot_use_mm_for_euclid_dist"
        return self.variance * self.profile(torch.cdist(x, y, compute_mode=mode) / self.length)


class RBF(Stationary):
    """exp(-r^2 / 2): functions with derivatives of every order.

    InputError unless length and variance are positive.

    >>> from reverie.processes import RBF
    >>> from reverie.spaces import Functions
    >>> RBF(length=0.5).on(Functions.regular(3)).round(decimals=3)
    tensor([[1.0000, 0.8010, 0.4110],
            [0.8010, 1.0000, 0.8010],
            [0.4110, 0.8010, 1.0000]], dtype=torch.float64)
    """

    name = "rbf"

    def profile(self, distance: Tensor) -> Tensor:
        return (-0.5 * distance.square()).exp()


class Matern(Stationary):
    """Matern kernel of smoothness `nu` = 1/2, 3/2 or 5/2: functions of any order below nu.

    InputError on another nu. Source: Rasmussen & Williams 2006, eq. 4.16-4.17, with
    r = |x - y| / length.

    >>> from reverie.processes import Matern
    >>> from reverie.spaces import Functions
    >>> Matern(2.5, length=0.5).on(Functions.regular(3)).round(decimals=2)
    tensor([[1.0000, 0.7300, 0.3500],
            [0.7300, 1.0000, 0.7300],
            [0.3500, 0.7300, 1.0000]], dtype=torch.float64)
    """

    def __init__(self, nu: float, length: float, variance: float = 1.0) -> None:
        super().__init__(length, variance)
        if nu not in (0.5, 1.5, 2.5):
            raise InputError(f"nu is {nu}; choose 0.5, 1.5 or 2.5 (beyond that, RBF)")
        self.nu = float(nu)
        self.name = f"matern-{2 * self.nu:.0f}/2"

    def profile(self, distance: Tensor) -> Tensor:
        r = math.sqrt(2 * self.nu) * distance
        factor = {0.5: 1.0, 1.5: 1 + r, 2.5: 1 + r + r.square() / 3}[self.nu]
        return factor * (-r).exp()


class Exponential(Matern):
    """exp(-r), the kernel of an Ornstein-Uhlenbeck path; eigenpairs in closed form for k = 1.

    InputError unless length and variance are positive.

    >>> from reverie.processes import Exponential
    >>> Exponential(length=0.5).eigenvalues(200).sum().round(decimals=2)  # the variance
    tensor(1., dtype=torch.float64)
    """

    def __init__(self, length: float, variance: float = 1.0) -> None:
        super().__init__(0.5, length, variance)
        self.name = "exponential"

    def frequencies(self, count: int) -> Tensor:
        """Roots omega (count,), increasing: l omega tan(omega/2) = 1, l omega + tan(omega/2) = 0.

        In turn, one in each interval (i pi, (i + 1) pi) (Ghanem & Spanos 1991, section 2.3.3).
        """
        index = torch.arange(count)
        low, high = (0.5 * math.pi * (index + end).double() for end in (0, 1))
        even = index % 2 == 0
        for _ in range(60):
            half = 0.5 * (low + high)
            scaled = 2 * self.length * half
            # without the tangent's poles, and times a factor that fixes the sign on the left
            below = torch.where(
                even,
                (scaled * half.sin() - half.cos()) * half.cos() < 0,
                (scaled * half.cos() + half.sin()) * half.sin() > 0,
            )
            low, high = torch.where(below, half, low), torch.where(below, high, half)
        return low + high

    def eigenvalues(self, count: int) -> Tensor:
        """The `count` leading eigenvalues on [0, 1]; all of them sum to the variance."""
        scaled = self.length * self.frequencies(count)
        return 2 * self.length * self.variance / (1 + scaled.square())

    def eigenpairs(self, space: Functions, count: int | None = None) -> Eigenpairs:
        if space.axes > 1:
            return super().eigenpairs(space, count)
        count = len(space.points) if count is None else count
        omega = self.frequencies(count)
        angle = omega[:, None] * (space.points[:, 0] - 0.5)
        even = torch.arange(count)[:, None] % 2 == 0
        sign = torch.where(even, 1.0, -1.0)
        square = 0.5 * (1 + sign * (omega.sin() / omega)[:, None])
        waves = torch.where(even, angle.cos(), angle.sin()) / square.sqrt()
        return Eigenpairs(self.eigenvalues(count), waves)


class PowerLaw(Covariance):
    """Cosine waves prod_a cos(pi k_a x_a) of variance ~ (cutoff^2 + |pi k|^2)^(-exponent).

    The Gaussian random field of (cutoff^2 - Laplacian)^(-exponent) with no slope at the boundary.
    axes: number k of arguments. modes: waves kept per axis (default: 256 for one axis, 32 for
    more). variance: the mean over [0, 1]^k.
    Raises InputError unless exponent > k/2: otherwise the trace grows without bound with `modes`.

    >>> from reverie.processes import PowerLaw
    >>> from reverie.spaces import Functions
    >>> field = PowerLaw(exponent=2, axes=2, modes=8)
    >>> field.on(Functions.regular((4, 4))).shape
    torch.Size([16, 16])
    """

    def __init__(
        self,
        exponent: float,
        cutoff: float = math.pi,
        variance: float = 1.0,
        *,
        axes: int = 1,
        modes: int | None = None,
    ) -> None:
        modes = (256 if axes == 1 else 32) if modes is None else modes
        if not exponent > 0.5 * axes:
            raise InputError(
                f"exponent is {exponent}; in {axes} dimensions only exponents above {axes / 2} "
                "make a random function (finite trace)"
            )
        if not (variance > 0 and cutoff > 0 and modes >= 1):
            raise InputError("variance and cutoff must be positive, and modes at least 1")
        self.index = torch.tensor(list(itertools.product(range(modes), repeat=axes)))
        square = (math.pi * self.index.double()).square().sum(1)
        raw = (cutoff**2 + square) ** -exponent
        order = raw.argsort(descending=True, stable=True)
        self.index, self.values = self.index[order], (variance * raw / raw.sum())[order]

    def waves(self, x: Tensor) -> Tensor:
        """Orthonormal cosine waves (m, n) at points x (n, k)."""
        angle = math.pi * self.index[:, None, :].double() * x
        scale = torch.where(self.index == 0, 1.0, math.sqrt(2)).double()
        return (scale[:, None, :] * angle.cos()).prod(2)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.waves(x).T * self.values @ self.waves(y)

    def eigenpairs(self, space: Functions, count: int | None = None) -> Eigenpairs:
        waves = self.waves(space.points)[:count]
        return Eigenpairs(self.values[:count], waves.reshape(-1, *space.shape))
