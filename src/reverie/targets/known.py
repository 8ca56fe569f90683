"""Targets whose normalising constant is known, or which others measure themselves on.

Each is a function of points (n, dim) -> (n,) with `.dim`, `.log_z` (nats; None where only a long
run tells), `.sample(n, generator)` where exact draws exist, and `.modes` (M, dim) where there are
several.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from reverie.errors import InputError

LOG_2PI = math.log(2 * math.pi)


class Known(ABC):
    """A target with what is known of it.

    >>> import math
    >>> import torch
    >>> from reverie.targets import Known
    >>> class Laplace(Known):
    ...     dim, log_z = 1, math.log(2)
    ...     def __call__(self, x):
    ...         return -x.abs().sum(1)
    >>> Laplace()(torch.tensor([[0.5], [-2.0]])), round(Laplace().log_z, 4)
    (tensor([-0.5000, -2.0000]), 0.6931)
    """

    dim: int
    log_z: float | None = 0.0
    modes: Tensor | None = None

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Log density (n,), nats."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (n, dim)."""
        raise InputError(f"{type(self).__name__} has no exact draws")


def _normal(n: int, dim: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=generator)


class Mixture(Known):
    """sum_m w_m N(mean_m, deviation_m^2 I), normalised: log Z = 0.

    means (M, dim); deviations and weights: a number, or M of them.

    >>> import torch
    >>> from reverie.targets import Mixture, mode_shares
    >>> pair = Mixture([[-3.0], [3.0]], deviations=0.5, weights=[1, 4])
    >>> x = pair.sample(4000, torch.Generator().manual_seed(0))
    >>> mode_shares(x, pair.modes).round(1).tolist(), pair.log_z
    ([0.2, 0.8], 0.0)
    """

    def __init__(self, means: Any, deviations: Any = 1.0, weights: Any = None) -> None:
        self.means = torch.as_tensor(means, dtype=torch.float64)
        count, self.dim = self.means.shape
        self.deviations = torch.as_tensor(deviations, dtype=torch.float64).expand(count)
        share = torch.ones(count) if weights is None else torch.as_tensor(weights)
        self.log_weights = (share.double() / share.sum()).log()
        self.modes = self.means if count > 1 else None

    def __call__(self, x: Tensor) -> Tensor:
        off = (x[:, None] - self.means).square().sum(2) / self.deviations.square()
        volume = self.dim * (self.deviations.log() + 0.5 * LOG_2PI)
        return torch.logsumexp(self.log_weights - 0.5 * off - volume, 1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        pick = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        return self.means[pick] + self.deviations[pick, None] * _normal(n, self.dim, generator)


class Gaussian(Known):
    """N(mean, cov), normalised: log Z = 0.

    mean (dim,), cov (dim, dim), positive definite.

    >>> import torch
    >>> from reverie.targets import Gaussian
    >>> law = Gaussian([0.0, 1.0], [[2.0, 1.0], [1.0, 2.0]])
    >>> round(float(law(torch.tensor([[0.0, 1.0]]))), 4)  # -log 2 pi - 1/2 log 3
    -2.3872
    """

    def __init__(self, mean: Any, cov: Any) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.dim = len(self.mean)
        self.scale = torch.linalg.cholesky(torch.as_tensor(cov, dtype=torch.float64))

    def __call__(self, x: Tensor) -> Tensor:
        off = torch.linalg.solve_triangular(self.scale, (x - self.mean).T, upper=False)
        volume = self.scale.diagonal().log().sum() + 0.5 * self.dim * LOG_2PI
        return -0.5 * off.square().sum(0) - volume

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + _normal(n, self.dim, generator) @ self.scale.T


class Funnel(Known):
    """Neal's funnel: x_1 ~ N(0, 3^2), the others N(0, e^{x_1}); normalised, nothing is clipped.

    >>> import torch
    >>> from reverie.targets import Funnel
    >>> round(float(Funnel(3)(torch.zeros(1, 3))), 4)  # -log 3 - 3/2 log 2 pi
    -3.8554
    """

    def __init__(self, dim: int = 10) -> None:
        self.dim = dim

    def __call__(self, x: Tensor) -> Tensor:
        neck, rest = x[:, 0], x[:, 1:]
        count = rest.shape[1]
        first = -0.5 * (neck / 3).square() - math.log(3) - 0.5 * LOG_2PI
        squares = rest.square().sum(1) * torch.exp(-neck)
        return first - 0.5 * (squares + count * (neck + LOG_2PI))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        noise = _normal(n, self.dim, generator)
        neck = 3 * noise[:, :1]
        return torch.cat([neck, torch.exp(0.5 * neck) * noise[:, 1:]], 1)


class ManyWell(Known):
    """dim / 2 double wells: log density 1/2 a + 6 a^2 - a^4 - b^2 / 2 of each pair (a, b).

    Unnormalised; log Z is 10.29348 a well, by quadrature. 2^(dim / 2) modes. InputError on an
    odd dim.

    >>> from reverie.targets import ManyWell
    >>> wells = ManyWell(4)
    >>> round(wells.log_z, 4), round(wells.right(), 3)
    (20.587, 0.844)
    """

    def __init__(self, dim: int = 32) -> None:
        if dim % 2:
            raise InputError(f"a many-well has pairs of coordinates, and {dim} is odd")
        self.dim, self.wells = dim, dim // 2
        self.log_z = self.wells * (math.log(_well_mass()) + 0.5 * LOG_2PI)

    def __call__(self, x: Tensor) -> Tensor:
        a, b = x[:, 0::2], x[:, 1::2]
        return (0.5 * a + 6 * a.square() - a.pow(4) - 0.5 * b.square()).sum(1)

    def right(self) -> float:
        """The share of a well's mass right of 0."""
        return quad(_well, 0, 6)[0] / _well_mass()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact but for the table of 20,001 places that a is read off."""
        grid = torch.linspace(-4, 4, 20_001, dtype=torch.float64)
        mass = torch.exp(0.5 * grid + 6 * grid**2 - grid**4)
        law = torch.cumsum(0.5 * (mass[1:] + mass[:-1]), 0)
        law = torch.cat([law.new_zeros(1), law / law[-1]])
        level = torch.rand(n, self.wells, dtype=torch.float64, generator=generator)
        place = torch.searchsorted(law, level).clamp(1, len(grid) - 1)
        part = (level - law[place - 1]) / (law[place] - law[place - 1]).clamp(min=1e-300)
        result = _normal(n, self.dim, generator)
        result[:, 0::2] = grid[place - 1] + part * (grid[1] - grid[0])
        return result


def _well(a: float) -> float:
    return math.exp(0.5 * a + 6 * a**2 - a**4)


def _well_mass() -> float:
    return quad(_well, -6, 6, points=[-1.7, 0, 1.7])[0]


class StudentMixture(Known):
    """A mixture of products of Student laws, normalised: log Z = 0.

    means (M, dim); dof: degrees of freedom (2: no coordinate has a variance).

    >>> import torch
    >>> from reverie.targets import StudentMixture
    >>> round(float(StudentMixture([[0.0]])(torch.zeros(1, 1))), 4)  # -log sqrt(8)
    -1.0397
    """

    def __init__(self, means: Any, dof: float = 2.0) -> None:
        self.means, self.dof = torch.as_tensor(means, dtype=torch.float64), dof
        count, self.dim = self.means.shape
        self.modes = self.means if count > 1 else None
        self.volume = (
            math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
        )

    def __call__(self, x: Tensor) -> Tensor:
        off = (x[:, None] - self.means).square() / self.dof
        each = (self.volume - 0.5 * (self.dof + 1) * torch.log1p(off)).sum(2)
        return torch.logsumexp(each, 1) - math.log(len(self.means))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A normal over the root of a chi-square, a sum of squares; dof must be whole."""
        pick = torch.randint(len(self.means), (n,), generator=generator)
        squares = torch.zeros(n, self.dim, dtype=torch.float64)
        for _ in range(int(self.dof)):
            squares += _normal(n, self.dim, generator).square()
        return self.means[pick] + _normal(n, self.dim, generator) / (squares / self.dof).sqrt()


class LogisticRegression(Known):
    """Posterior of a logistic regression, unnormalised: its Z is the marginal likelihood.

    rows (n, p), whose columns are divided by their deviations and joined by an intercept; labels
    (n,) of 0 and 1; prior N(0, deviation^2 I). centred: columns have their means taken off first.
    dim = p + 1, the intercept first.

    >>> import numpy as np
    >>> import torch
    >>> from reverie.targets import LogisticRegression
    >>> rows = np.random.default_rng(0).normal(size=(50, 2))
    >>> posterior = LogisticRegression(rows, rows[:, 0] > 0)
    >>> posterior.dim, round(float(posterior(torch.zeros(1, 3).double())), 3)
    (3, -37.414)
    """

    log_z = None

    def __init__(
        self, rows: Any, labels: Any, deviation: float = 1.0, *, centred: bool = True
    ) -> None:
        table = np.asarray(rows, dtype=np.float64)
        spread = table.std(0)
        middle = table.mean(0) if centred else 0.0
        table = (table - middle) / np.where(spread > 0, spread, 1.0)
        table = np.concatenate([np.ones((len(table), 1)), table], 1)
        sign = 2 * np.asarray(labels, dtype=np.float64) - 1
        self.signed = torch.from_numpy(table * sign[:, None])
        self.dim, self.deviation = table.shape[1], deviation

    def __call__(self, x: Tensor) -> Tensor:
        fit = torch.nn.functional.logsigmoid(x @ self.signed.T).sum(1)
        prior = -0.5 * (x / self.deviation).square().sum(1)
        return fit + prior - self.dim * (0.5 * LOG_2PI + math.log(self.deviation))


class CoxProcess(Known):
    """Posterior of a log-Gaussian Cox process on a grid of the unit square, in white coordinates.

    counts (m, m) of points in cells; the log intensity per unit of area is mean + L x with x
    standard normal and L L^T = variance exp(-distance / length), as in Moller et al. 1998. Its Z
    is the likelihood of the counts without factorials. dim = m^2. InputError on another shape.

    >>> import numpy as np
    >>> import torch
    >>> from reverie.targets import CoxProcess
    >>> process = CoxProcess(np.ones((3, 3)))
    >>> process.dim, process(torch.zeros(2, 9).double()).shape
    (9, torch.Size([2]))
    """

    log_z = None

    def __init__(
        self,
        counts: Any,
        variance: float = 1.91,
        length: float = 1 / 33,
        mean: float | None = None,
    ) -> None:
        table = np.asarray(counts, dtype=np.float64)
        if table.ndim != 2 or table.shape[0] != table.shape[1]:
            raise InputError(f"counts must be a square (m, m), not {table.shape}")
        m = len(table)
        self.dim, self.counts = m * m, torch.from_numpy(table.reshape(-1))
        self.mean = math.log(table.sum()) - 0.5 * variance if mean is None else mean
        place = np.stack(np.meshgrid(*[np.arange(m) / m] * 2, indexing="ij"), -1).reshape(-1, 2)
        far = np.linalg.norm(place[:, None] - place, axis=2)
        self.scale = torch.from_numpy(np.linalg.cholesky(variance * np.exp(-far / length)))

    def __call__(self, x: Tensor) -> Tensor:
        field = self.mean + x @ self.scale.T
        fit = field @ self.counts - field.exp().mean(1)
        return fit - 0.5 * x.square().sum(1) - 0.5 * self.dim * LOG_2PI


def forty_gaussians(seed: int = 0, width: float = 40.0) -> Mixture:
    """Forty Gaussians of deviation 1 in the plane, means uniform on [-width, width]^2.

    >>> import torch
    >>> from reverie.targets import forty_gaussians, mode_shares
    >>> target = forty_gaussians()
    >>> shares = mode_shares(target.sample(4000, torch.Generator().manual_seed(0)), target.modes)
    >>> len(shares), int((shares > 0).sum())
    (40, 40)
    """
    rng = np.random.default_rng(seed)
    return Mixture(rng.uniform(-width, width, (40, 2)))


def mode_shares(x: Tensor, modes: Tensor | Sequence[Sequence[float]]) -> np.ndarray:
    """The share of points (n, dim) that lie nearest to each of the modes (M, dim).

    >>> import torch
    >>> from reverie.targets import mode_shares
    >>> mode_shares(torch.tensor([[-1.0], [2.0], [3.0], [9.0]]), [[-2.0], [2.0]]).tolist()
    [0.25, 0.75]
    """
    places = torch.as_tensor(modes, dtype=x.dtype)
    near = torch.cdist(x, places).argmin(1)
    return np.bincount(near.numpy(), minlength=len(places)) / len(x)


def mode_coverage(shares: np.ndarray) -> float:
    """Entropy of the shares (M,) over that of equal ones: 1 where all are alike, 0 at one.

    >>> import numpy as np
    >>> from reverie.targets import mode_coverage
    >>> mode_coverage(np.array([0.5, 0.5, 0.0, 0.0])), mode_coverage(np.full(4, 0.25))
    (0.5, 1.0)
    """
    p = shares[shares > 0]
    return float(-(p * np.log(p)).sum() / math.log(len(shares)))
