"""Dynamical regimes of an exact reversal: when it picks a class, and when it picks a point.

Time is that of the Ornstein-Uhlenbeck process, x_t = e^-t x_0 + sqrt(Delta_t) z with
Delta_t = 1 - e^-2t; the same level seen as exploding variance is sigma^2 = e^2t - 1.

    speciation   Lambda e^-2t = 1, Lambda the largest variance of the data
    collapse     ln n = 1/2 sum_i ln(1 + lam_i / sigma^2): the noised state has as many nats
                 about a Gaussian of that spectrum as it takes to name one of n points

The excess entropy is ln n - I(index; x_t), the nats that are still missing to name the point.
Speciation, cloning and collapse were read in the published code of Biroli et al. 2024; the
collapse of an arbitrary spectrum is a reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.theory import times
from reverie.theory.equivalents import atoms


def ou_time(sigma: np.ndarray | float) -> np.ndarray:
    """Ornstein-Uhlenbeck time at which the noise-to-signal ratio is `sigma` (any shape)."""
    return 0.5 * np.log1p(np.square(sigma))


def ve_sigma(t: np.ndarray | float) -> np.ndarray:
    """sigma / alpha at Ornstein-Uhlenbeck time `t` (any shape): sqrt(e^2t - 1)."""
    return np.sqrt(np.expm1(2 * np.asarray(t, dtype=np.float64)))


def speciation_time(spectrum: Sequence[float] | np.ndarray) -> float:
    """Time 1/2 ln Lambda at which the leading mode of the data drowns in the noise.

    spectrum: (d,) variances of the data, whose largest is Lambda. Raises InputError when no
    variance exceeds 1: that time would not be positive. Source: Biroli et al. 2024, their code.
    """
    top = _spectrum(spectrum).max()
    if top <= 1:
        raise InputError(f"the largest variance is {top:.4g}; speciation needs more than 1")
    return 0.5 * math.log(top)


def speciation_sigma(spectrum: Sequence[float] | np.ndarray) -> float:
    """The same as sigma / alpha: sqrt(Lambda - 1)."""
    return float(ve_sigma(speciation_time(spectrum)))


def cloning_probability(
    t: np.ndarray | float, separation: float, variance: float = 1.0
) -> np.ndarray:
    """P that two clones branched at time t end in the same class, for two even Gaussians.

    t: (L,). separation: |m|, half the distance between the means +m and -m (sqrt(d) times the
    distance per coordinate). variance: of each Gaussian, in every direction. Returns (L,), from
    1 (t = 0, distant classes) to 1/2. Source: Biroli et al. 2024, their code.
    """
    if separation < 0 or variance < 0:
        raise InputError("separation and variance cannot be negative")
    nodes, weights = np.polynomial.legendre.leggauss(400)
    moments = np.atleast_1d(np.asarray(t, dtype=np.float64))[:, None]
    if (moments <= 0).any():
        raise InputError("cloning times must be positive")
    decay = np.exp(-2 * moments)
    width = np.sqrt(1 - decay + variance * decay)
    mean = separation * np.sqrt(decay) / width
    # given the class +, y / width = mean + z and the posterior odds are exp(2 mean y / width)
    z = 12 * nodes
    same = np.tanh(mean * (mean + z)) ** 2
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return 0.5 + 0.5 * (12 * weights * density * same).sum(1)


def collapse_time(count: int, spectrum: Sequence[float] | np.ndarray) -> float:
    """Time below which the exact reversal of `count` points is drawn to one of them.

    spectrum: (d,) variances of the population, zeros allowed. Root of
    ln n = 1/2 sum ln(1 + lam / sigma^2): a reconstruction, from the condition of Biroli et al.
    2024. Raises InputError on fewer than two points or a spectrum without variance.
    """
    return float(ou_time(collapse_sigma(count, spectrum)))


def collapse_sigma(count: int, spectrum: Sequence[float] | np.ndarray) -> float:
    """The same as sigma / alpha."""
    lam = _spectrum(spectrum)
    if not (lam > 0).any():
        raise InputError("collapse needs a spectrum with some variance")
    return times.collapse_time(count, atoms(lam[lam > 0])).sigma


def isotropic_collapse_time(count: int, dim: int, variance: float = 1.0) -> float:
    """Collapse time 1/2 ln(1 + variance / (n^(2/d) - 1)) of an isotropic cluster.

    Source: Biroli et al. 2024, their code. Raises InputError on fewer than two points.
    """
    if count < 2 or dim < 1 or variance <= 0:
        raise InputError("collapse needs two points, one dimension and a positive variance")
    return float(ou_time(math.sqrt(variance) * math.exp(_log_isotropic_sigma(count, dim))))


def _log_isotropic_sigma(count: int, dim: int) -> float:
    exponent = 2 * math.log(count) / dim
    # ln(e^x - 1) = x + ln(1 - e^-x), which does not overflow when n is astronomical
    return -0.5 * (exponent + math.log(-math.expm1(-exponent)))


def gaussian_excess_entropy(
    count: int, spectrum: Sequence[float] | np.ndarray, t: np.ndarray | float
) -> np.ndarray:
    """Nats (L,) that noised states lack to name one of `count` Gaussian points; large d.

    ln n - 1/2 sum ln(1 + lam / sigma^2), cut at 0 below the collapse. spectrum (d,), t (L,).
    """
    lam, sigma = _spectrum(spectrum), np.atleast_1d(ve_sigma(t))[:, None]
    if count < 2 or (sigma <= 0).any():
        raise InputError("excess entropy needs at least two points and positive times")
    return np.maximum(math.log(count) - 0.5 * np.log1p(lam / sigma**2).sum(1), 0.0)


@dataclass(frozen=True, eq=False)
class ExcessEntropy:
    """Measured excess entropy ln n - I(index; x_t) of a training set, in nats per sample.

    t, sigma, nats, stderr: (L,), the error over draws of state and noise.
    """

    t: np.ndarray
    sigma: np.ndarray
    nats: np.ndarray
    stderr: np.ndarray
    count: int
    dim: int

    @property
    def ratio(self) -> np.ndarray:
        """(L,) of the ln n nats of the index, the share still missing: f / alpha in the field."""
        return self.nats / math.log(self.count)

    @property
    def density(self) -> np.ndarray:
        """(L,) the field's f, nats per dimension."""
        return self.nats / self.dim

    def crossing(self, share: float = 0.2) -> float:
        """Largest time at which the missing share falls below `share`, by interpolation.

        A finite training set still lacks some nats at the collapse, so a share of 0 is no
        definition of it. InputError if the share is not crossed.
        """
        below = self.ratio < share
        if below.all() or not below.any():
            raise InputError(f"the missing share does not cross {share} within these times")
        k = int(np.flatnonzero(below).max())
        if k + 1 == len(self.t):
            raise InputError(f"the missing share does not rise above {share} within these times")
        (t0, t1), (f0, f1) = self.t[k : k + 2], self.ratio[k : k + 2]
        return float(t0 + (share - f0) / (f1 - f0) * (t1 - t0))


@torch.no_grad()
def excess_entropy(
    data: Tensor,
    t: Sequence[float] | np.ndarray,
    *,
    draws: int = 1000,
    generator: torch.Generator | None = None,
    chunk: int = 256,
) -> ExcessEntropy:
    """Measure the excess entropy of the empirical law of `data` (n, *shape) at times t (L,).

    `draws` noised points per time share indices and noise across times, in blocks of `chunk`
    states. Float64 throughout. Every term is log sum_j p(x_t | x_j) / p(x_t | x_i) >= 0 with i
    the true index, so the estimate is never negative. Raises InputError on fewer than two rows,
    values that are not finite, or times that are not positive and increasing.
    """
    times = np.atleast_1d(np.asarray(t, dtype=np.float64))
    points = data.flatten(1).double()
    if len(points) < 2 or not torch.isfinite(points).all():
        raise InputError("excess entropy needs at least two rows of finite numbers")
    if (times <= 0).any() or (np.diff(times) <= 0).any() or draws < 2:
        raise InputError("excess entropy needs positive increasing times and at least two draws")
    points = points - points.mean(0)
    device = points.device
    index = torch.randint(len(points), (draws,), generator=generator, device=device)
    noise = torch.randn(
        (draws, points.shape[1]), generator=generator, dtype=points.dtype, device=device
    )
    sigma = ve_sigma(times)
    terms = [
        _surplus(points, index[k : k + chunk], noise[k : k + chunk], sigma)
        for k in range(0, draws, chunk)
    ]
    nats = torch.cat(terms, 1).cpu().numpy()
    stderr = nats.std(1, ddof=1) / math.sqrt(draws)
    return ExcessEntropy(times, sigma, nats.mean(1), stderr, len(points), points.shape[1])


def _surplus(points: Tensor, index: Tensor, noise: Tensor, sigma: np.ndarray) -> Tensor:
    """log sum_j exp(-(|y - x_j|^2 - |y - x_i|^2) / 2 sigma^2), y = x_i + sigma z: (L, B)."""
    own, rows = points[index], torch.arange(len(index), device=points.device)
    half = 0.5 * points.square().sum(1)
    # with everything measured from x_i only two products are needed, whatever the level
    apart = half[None] + half[index][:, None] - own @ points.T
    along = noise @ points.T - (noise * own).sum(1, keepdim=True)
    apart[rows, index] = along[rows, index] = 0.0
    return torch.stack([(along / s - apart / s**2).logsumexp(1) for s in sigma.tolist()])


@torch.no_grad()
def last_switches(
    states: Sequence[Tensor], data: Tensor, t: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Per path, the last time t at which its nearest training point changes: (B,).

    states: along backward paths, (B, *shape) at each of the decreasing Ornstein-Uhlenbeck times
    t (L,); distances are to the shrunk points e^-t x_i. A path whose nearest point never changes
    gets the first time. Their mean is the collapse time that the code of Biroli et al. 2024
    measures on trained networks. Raises InputError when states and times differ in number.
    """
    times = np.asarray(t, dtype=np.float64)
    if len(times) != len(states) or len(states) < 2 or (np.diff(times) >= 0).any():
        raise InputError(f"{len(states)} states need as many decreasing times, and at least two")
    points = data.flatten(1)
    half = 0.5 * points.square().sum(1)
    nearest = np.stack(
        [
            (half * math.exp(-time) - state.flatten(1) @ points.T).argmin(1).cpu().numpy()
            for time, state in zip(times.tolist(), states, strict=True)
        ]
    )
    changed = np.vstack([np.ones((1, nearest.shape[1]), bool), nearest[1:] != nearest[:-1]])
    return times[len(times) - 1 - changed[::-1].argmax(0)]


def _spectrum(values: Sequence[float] | np.ndarray) -> np.ndarray:
    lam = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if lam.ndim != 1 or len(lam) == 0 or not np.isfinite(lam).all() or (lam < 0).any():
        raise InputError("a spectrum is a list (d,) of finite variances >= 0")
    return lam
