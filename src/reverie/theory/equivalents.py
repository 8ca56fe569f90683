"""Deterministic equivalents: what a sample covariance does to traces, without drawing one.

With S0 the covariance of N samples of a law with covariance Sigma (d eigenvalues lam), known mean,
R = (S0 + z I)^-1 and g = d/N, every trace follows from one number kappa(z), the root of

    kappa - z = g kappa df1(kappa),        df1 = (1/d) sum lam / (lam + kappa)

(Silverstein 1995; E[S0 R] ~ Sigma (Sigma + kappa)^-1). The traces below are the derivatives of
that relation, rearranged so that only positive terms are added: nothing cancels at small g or z.
All are asymptotic: the error is O(1/d) for data with concentrated quadratic forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import nnls

from reverie.errors import InputError

CELLS = 4_000_000  # numbers held at once: 32 MB in float64
NEWTON = 200
POLES = 80
NODES = 400


@dataclass(frozen=True)
class Atoms:
    """A covariance spectrum as a weighted list: values (m,) > 0, counts (m,) that sum to d.

    >>> import numpy as np
    >>> from reverie.theory import Atoms
    >>> spectrum = Atoms(np.array([4.0, 1.0]), np.array([2, 8]))  # two strong directions of ten
    >>> spectrum.dim, spectrum.sums(np.array(0.0), lambda lam, kappa: lam)[0]  # mean variance
    (10.0, array(1.6))
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def dim(self) -> float:
        return float(self.counts.sum())

    def sums(self, kappa: np.ndarray, *terms: Callable[..., np.ndarray]) -> list[np.ndarray]:
        """For each term f(lam, kappa): (1/d) sum f over the spectrum, in the shape of kappa."""
        flat = np.asarray(kappa, dtype=np.float64).ravel()
        out = [np.empty_like(flat) for _ in terms]
        share = self.counts / self.dim
        block = max(1, CELLS // len(self.values))
        for start in range(0, len(flat), block):
            part = slice(start, start + block)
            for values, term in zip(out, terms, strict=True):
                values[part] = term(self.values, flat[part, None]) @ share
        return [values.reshape(np.shape(kappa)) for values in out]


def atoms(spectrum: np.ndarray) -> Atoms:
    """The spectrum (d,) as atoms of one count each; InputError unless all are positive.

    >>> import numpy as np
    >>> from reverie.theory import atoms
    >>> atoms(np.array([2.0, 1.0])).counts
    array([1., 1.])
    >>> atoms(np.array([2.0, 0.0]))
    Traceback (most recent call last):
        ...
    reverie.errors.InputError: a spectrum is a list of finite positive variances
    """
    values = np.asarray(spectrum, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise InputError("a spectrum is a list of finite positive variances")
    return Atoms(values, np.ones_like(values))


def compress(spectrum: Atoms, width: float = 0.05) -> Atoms:
    """Fewer atoms with the same sums: two Gauss nodes in every `width` of log variance.

    The nodes carry the count, mean, variance and third moment of their bin; sums of functions that
    vary over one unit of log variance change as width^4, by less than 1e-6 at the default.
    """
    order = np.argsort(spectrum.values)
    values, counts = spectrum.values[order], spectrum.counts[order]
    bins = np.floor(np.log(values) / width).astype(np.int64)
    _, start = np.unique(bins, return_index=True)
    mass = np.add.reduceat(counts, start)
    if 2 * len(mass) >= len(values):
        return spectrum
    mean = np.add.reduceat(counts * values, start) / mass
    offset = values - np.repeat(mean, np.diff([*start, len(values)]))
    second = np.add.reduceat(counts * offset**2, start) / mass
    third = np.add.reduceat(counts * offset**3, start) / mass
    spread = np.sqrt(second)
    flat = spread <= 1e-9 * mean
    skew = np.where(flat, 0.0, third / np.where(flat, 1.0, spread) ** 3)
    root = np.sqrt(1 + skew**2 / 4)
    low, high = mean + spread * (skew / 2 - root), mean + spread * (skew / 2 + root)
    share = 0.5 * (1 + skew / 2 / root)  # of the lower node
    weights = np.concatenate([mass * share, mass * (1 - share)])
    return Atoms(np.concatenate([low, high]), weights)


def effective_ridge(z: np.ndarray, g: np.ndarray | float, spectrum: Atoms) -> np.ndarray:
    """kappa(z) >= z, (M,), of z >= 0 and g = d/N >= 0, () or (M,) each.

    Newton's method from the upper bound z + g mean(lam): the equation is convex in kappa, so the
    iterates fall onto the root monotonically. At z = 0 it is the largest root (0 where g < 1).
    Source: Silverstein 1995.

    >>> import numpy as np
    >>> from reverie.theory import atoms, effective_ridge
    >>> effective_ridge(np.array([0.0, 0.1]), 0.5, atoms(np.ones(10))).round(4)
    array([0.    , 0.1742])
    """
    z, g = np.broadcast_arrays(np.asarray(z, dtype=np.float64), np.asarray(g, dtype=np.float64))
    mean = float(spectrum.values @ spectrum.counts / spectrum.dim)
    goal, ratio = z.ravel(), g.ravel()
    kappa = goal + ratio * mean
    active = np.flatnonzero(kappa > 0)
    for _ in range(NEWTON):
        now, share = kappa[active], ratio[active]
        first, second = spectrum.sums(now, _df1, _df2)
        step = (now * (1 - share * first) - goal[active]) / (1 - share * second)
        kappa[active] = np.maximum(now - step, goal[active])
        active = active[step > 1e-15 * now]
        if len(active) == 0:
            break
    return kappa.reshape(z.shape)


def _df1(lam: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    return lam / (lam + kappa)


def _df2(lam: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    return (lam / (lam + kappa)) ** 2


@dataclass(frozen=True)
class Traces:
    """Normalised traces (1/d) tr of S0, R = (S0 + z)^-1 and Sigma; all in the shape of z.

    Reconstruction: derived from kappa for this library, not quoted from a paper's page.
    z, g: ridge and d/N, () or (M,).

    >>> import numpy as np
    >>> from reverie.theory import Traces, atoms
    >>> traces = Traces(np.array(0.1), np.array(0.5), atoms(np.ones(10)))
    >>> round(float(traces.r), 3), round(float(traces.s_r), 3)  # their mix: s_r + z r = 1
    (1.483, 0.852)
    """

    z: np.ndarray
    g: np.ndarray
    spectrum: Atoms

    @cached_property
    def kappa(self) -> np.ndarray:
        return effective_ridge(self.z, self.g, self.spectrum)

    @cached_property
    def _sums(self) -> list[np.ndarray]:
        def slope(lam: np.ndarray, kappa: np.ndarray) -> np.ndarray:
            return lam / (lam + kappa) ** 2

        def inverse(lam: np.ndarray, kappa: np.ndarray) -> np.ndarray:
            return 1 / (lam + kappa)

        def square(lam: np.ndarray, kappa: np.ndarray) -> np.ndarray:
            return 1 / (lam + kappa) ** 2

        return self.spectrum.sums(self.kappa, _df1, _df2, slope, inverse, square)

    @property
    def kappa_slope(self) -> np.ndarray:
        """d kappa / d z."""
        return 1 / (1 - self.g * self._sums[1])

    @property
    def r(self) -> np.ndarray:
        """R."""
        return self.kappa / self.z * self._sums[3]

    @property
    def r_sigma(self) -> np.ndarray:
        """R Sigma."""
        return self.kappa / self.z * self._sums[0]

    @property
    def r2(self) -> np.ndarray:
        """R^2."""
        _, _, slope, inverse, square = self._sums
        bent = self.g * self.kappa * slope * inverse / self.z + square
        return self.kappa * self.kappa_slope / self.z * bent

    @property
    def r2_sigma(self) -> np.ndarray:
        """R^2 Sigma."""
        return (self.kappa / self.z) ** 2 * self.kappa_slope * self._sums[2]

    @property
    def s_r(self) -> np.ndarray:
        """S0 R."""
        return self._sums[0]

    @property
    def s_r2(self) -> np.ndarray:
        """S0 R^2."""
        return self.kappa_slope * self._sums[2]

    @property
    def s2_r2(self) -> np.ndarray:
        """S0^2 R^2."""
        return self._sums[1] + self.g * self.kappa_slope * (self.kappa * self._sums[2]) ** 2

    @property
    def logdet(self) -> np.ndarray:
        """log(I + S0/z), so that its sum over d dimensions is log det."""
        lost = self.g * self._sums[0]  # 1 - z/kappa
        (grown,) = self.spectrum.sums(self.kappa, lambda lam, kappa: np.log1p(lam / kappa))
        return grown + _log_excess(lost) / self.g


def _log_excess(lost: np.ndarray) -> np.ndarray:
    """phi - 1 - log phi at phi = 1 - lost."""
    return -lost - np.log1p(-lost)


def kl_per_dim(
    ridge: np.ndarray | float,
    g: np.ndarray | float,
    spectrum: Atoms,
    true: Atoms | None = None,
    inflation: np.ndarray | float = 1.0,
) -> np.ndarray:
    """KL(N(mu, Sigma) || N(mu0, S0 + ridge I)) / d in nats; asymptotic (see the module).

    ridge >= 0 and g = d/N broadcast; infinite where ridge = 0 and N <= d. `true` is the spectrum
    of Sigma where it differs from that behind S0 (same counts, rescaled), `inflation` multiplies
    tr R Sigma: both serve an estimated mean. Reconstruction, checked against simulation.
    The result has their broadcast shape, as () or (B,).

    >>> import numpy as np
    >>> from reverie.theory import atoms, kl_per_dim
    >>> kl_per_dim(np.array([0.0, 0.1]), 0.5, atoms(np.ones(10))).round(3)  # a ridge helps
    array([0.347, 0.174])
    """
    ridge, g = np.broadcast_arrays(
        np.asarray(ridge, dtype=np.float64), np.asarray(g, dtype=np.float64)
    )
    true = spectrum if true is None else true
    kappa = effective_ridge(ridge, g, spectrum)
    first, grown = spectrum.sums(kappa, _df1, lambda lam, kappa: np.log1p(kappa / lam))
    phi = 1 - g * first
    shift = float(np.log(spectrum.values / true.values) @ true.counts / true.dim)
    with np.errstate(divide="ignore", invalid="ignore"):
        fit = inflation * first / phi - 1
        volume = np.log(phi) + grown + _log_excess(1 - phi) / g + shift
        kl = 0.5 * (fit + volume)
    return np.where((ridge > 0) | (g < 1), kl, np.inf)


@dataclass(frozen=True)
class SampleMeasure:
    """The spectrum of S0 as a discrete measure, for functions of S0 that are no resolvent.

    (1/d) tr f(S0) ~ sum mass f(nodes);  (1/d) tr f(S0) Sigma ~ sum overlap f(nodes).
    nodes, mass, overlap: (M,).

    >>> import numpy as np
    >>> from reverie.theory import SampleMeasure, atoms, sample_measure
    >>> measure = sample_measure(0.5, atoms(np.ones(10)))
    >>> isinstance(measure, SampleMeasure), round(float(measure.mass.sum()), 3)
    (True, 1.0)
    """

    nodes: np.ndarray
    mass: np.ndarray
    overlap: np.ndarray


def sample_measure(g: float, spectrum: Atoms) -> SampleMeasure:
    """Asymptotic spectrum of S0 at g = d/N, and Sigma's weight on its eigenvectors.

    Non-negative least squares on the two Stieltjes transforms tr R and tr R Sigma at 80 real
    poles: exact for what 1/(x + z) spans, which holds smooth functions of log x to about 1e-4.

    >>> import numpy as np
    >>> from reverie.theory import atoms, sample_measure
    >>> law = sample_measure(0.25, atoms(np.ones(10)))
    >>> round(float((law.mass * np.log(law.nodes)).sum()), 2)  # of Marchenko & Pastur: -0.137
    -0.14
    """
    top = float(spectrum.values.max()) * (1 + np.sqrt(g)) ** 2
    low = float(spectrum.values.min()) * (max(1 - np.sqrt(g), 1e-4) ** 2 if g < 1 else 1e-3)
    low = max(low, 1e-12 * top)
    poles = np.geomspace(0.1 * low, 10 * top, POLES)
    nodes = np.geomspace(0.5 * low, 1.01 * top, NODES)
    if g >= 1:
        nodes = np.concatenate([[0.0], nodes])
    traces = Traces(poles, np.full(POLES, g), spectrum)
    kernel = poles[:, None] / (nodes + poles[:, None])
    mass, overlap = (
        nnls(kernel / (poles * trace)[:, None], np.ones(POLES), maxiter=50 * NODES)[0]
        for trace in (traces.r, traces.r_sigma)
    )
    used = (mass > 0) | (overlap > 0)
    return SampleMeasure(nodes[used], mass[used], overlap[used])


def kl_through(
    measure: SampleMeasure, variance: np.ndarray, true: Atoms, inflation: float = 1.0
) -> float:
    """KL(N(mu, Sigma) || N(mu0, V)) / d in nats for V = variance(S0); asymptotic.

    variance: (M,), of the measure's nodes. `true` and `inflation` as in `kl_per_dim`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = float(np.where(measure.overlap > 0, measure.overlap / variance, 0.0).sum())
        volume = float(np.where(measure.mass > 0, measure.mass * np.log(variance), 0.0).sum())
    if not math.isfinite(fitted):
        return math.inf
    entropy = float(true.counts @ np.log(true.values)) / true.dim
    return 0.5 * (inflation * fitted - 1 + volume - entropy)


def seed_overlap(g: float) -> float:
    """Cosine between the generators x = S0^(1/2) z of two data sets of one isotropic law.

    (int sqrt(x) dMP)^2 at g = d/N, asymptotic; (8/(3 pi))^2 at N = d. Derived for this library;
    the order parameter is that of Maillard & Goldt 2026 (arXiv 2605.21402), from its abstract.
    InputError unless g > 0.

    >>> from reverie.theory import seed_overlap
    >>> round(seed_overlap(1.0), 4), round(seed_overlap(0.1), 4)
    (0.7205, 0.9748)
    """
    if not g > 0:
        raise InputError(f"g = d/N is {g}; it must be positive")
    # x = 1 + g + 2 sqrt(g) cos(angle) turns the Marchenko-Pastur law into a smooth integrand, for
    # which the midpoint rule in the angle converges geometrically (algebraically at g = 1)
    angle = (np.arange(20_000) + 0.5) * np.pi / 20_000
    root = np.sqrt(np.maximum(1 + g + 2 * np.sqrt(g) * np.cos(angle), 1e-300))
    return float((2 * np.mean(np.sin(angle) ** 2 / root)) ** 2)
