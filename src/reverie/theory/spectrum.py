"""Covariance spectra: of a power law, of data (streamed or randomised), of the law behind data.

The population's spectrum is narrower than the sample's. `population` undoes the spreading by
inverting the equation of `equivalents` (in the spirit of El Karoui 2008): a sample gives kappa(z)
and (1/d) sum lam / (lam + kappa) at every z, and non-negative least squares finds the lam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import get_blas_funcs
from scipy.optimize import nnls

from reverie.errors import InputError
from reverie.theory.equivalents import Atoms, atoms

BLOCK = 2**24  # numbers held at once: 128 MiB in float64
DENSE = 6144  # above this many variables and rows, an eigenproblem is solved approximately
RANK = 256
SWEEPS = 4
EQUATIONS = 120
GRID = 240
FLOORS = 0.3 ** np.arange(1, 12)
TOTAL = 1e2  # weight of the equation that all directions are counted
TOLERANCE = 1e-2

Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a sample covariance (1/n, about the sample mean).

    values: (r,) positive, decreasing. dim: coordinates that vary; constant: those that do not and
    are left out (dead pixels). error: largest error of any eigenvalue, in units of the data
    squared (0: computed exactly).

    >>> import numpy as np
    >>> from reverie.theory import Spectrum, spectrum_of
    >>> data = np.random.default_rng(0).standard_normal((1000, 3)) * [2, 1, 0]
    >>> spectrum = spectrum_of(data)
    >>> isinstance(spectrum, Spectrum), spectrum.values.round(1), spectrum.dim, spectrum.constant
    (True, array([3.9, 0.9]), 2, 1)
    """

    values: np.ndarray
    dim: int
    count: int
    constant: int = 0
    error: float = 0.0


def power_law(dim: int, k: float, trace: float | None = None) -> np.ndarray:
    """Spectrum (d,) proportional to nu^-k with the given trace (default d).

    InputError on fewer than one dimension.

    >>> from reverie.theory import power_law
    >>> power_law(4, k=1).round(2)
    array([1.92, 0.96, 0.64, 0.48])
    """
    if dim < 1:
        raise InputError(f"a spectrum needs at least one dimension, not {dim}")
    values = np.arange(1, dim + 1, dtype=np.float64) ** -k
    return values * ((dim if trace is None else trace) / values.sum())


def spectrum_of(data: Array, *, rank: int | None = None, seed: int = 0) -> Spectrum:
    """Spectrum of data (n, *shape), from one symmetric eigenproblem on the shorter side.

    Rows stream through in float64, so the data may be float32 or memory-mapped. Where both sides
    exceed 6144, or `rank` is given: `rank` leading eigenvalues by subspace iteration (Halko,
    Martinsson & Tropp 2011, algorithm 4.4), the exact remaining variance spread evenly, and the
    error stated. Raises InputError on fewer than two rows, values not finite, or constant data.

    >>> import numpy as np
    >>> from reverie.theory import spectrum_of
    >>> data = np.random.default_rng(0).standard_normal((1000, 2)) * [2, 1]
    >>> spectrum_of(data).values.round(1)
    array([4.2, 1. ])
    """
    rows = data.reshape(len(data), -1)
    count, dim = rows.shape
    if count < 2:
        raise InputError(f"a covariance needs at least two rows, not {count}")
    mean, variance = _moments(rows)
    total = float(variance.sum())
    if not np.isfinite(total):
        raise InputError("the data hold values that are not finite")
    if rank is None and min(count, dim) <= DENSE:
        values, error = _exact(rows, mean), 0.0
    else:
        values, error = _leading(rows, mean, total, min(rank or RANK, count - 1, dim), seed)
    values = np.sort(values)[::-1][: count - 1]  # centring takes one rank
    values = values[values > max(count, dim) * np.finfo(np.float64).eps * values.max(initial=0)]
    if len(values) == 0:
        raise InputError("the data do not vary: all rows are equal")
    constant = int((variance <= np.finfo(np.float32).eps ** 2 * variance.max()).sum())
    return Spectrum(values, dim - constant, count, constant, error)


def _blocks(rows: Array, axis: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """Pieces of rows (axis 0) or columns (axis 1) in float64, `BLOCK` numbers at a time."""
    length, other = rows.shape[axis], rows.shape[1 - axis]
    size = max(1, BLOCK // other)
    for start in range(0, length, size):
        piece = slice(start, start + size)
        part = rows[piece] if axis == 0 else rows[:, piece]
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().numpy()
        yield piece, np.asarray(part, dtype=np.float64)


def _moments(rows: Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (d,), in two passes so that a large mean costs no digits."""
    mean, variance = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for _, part in _blocks(rows):
        mean += part.sum(0) / len(rows)
    for _, part in _blocks(rows):
        variance += ((part - mean) ** 2).sum(0) / len(rows)
    return mean, variance


def _exact(rows: Array, mean: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance, or of the Gram matrix where there are fewer rows."""
    count, dim = rows.shape
    scatter = np.zeros((min(count, dim),) * 2, order="F")
    (syrk,) = get_blas_funcs(("syrk",), (scatter,))  # half the work of a full product
    axis = 0 if count > dim else 1
    for piece, part in _blocks(rows, axis):
        centred = (part - mean).T if axis == 0 else np.asfortranarray(part - mean[piece])
        scatter = syrk(1.0 / count, centred, beta=1.0, c=scatter, lower=1, overwrite_c=1)
    return np.linalg.eigvalsh(scatter, UPLO="L")


def _leading(
    rows: Array, mean: np.ndarray, total: float, rank: int, seed: int
) -> tuple[np.ndarray, float]:
    """`rank` Ritz values and an even tail; the error is the largest residual or tail value."""
    count, dim = rows.shape

    def multiply(block: np.ndarray) -> np.ndarray:
        out = np.zeros_like(block)
        for _, part in _blocks(rows):
            centred = part - mean
            out += centred.T @ (centred @ block)
        return out / count

    extra = min(rank + 16, dim)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, extra)))[0]
    for _ in range(SWEEPS):
        basis = np.linalg.qr(multiply(basis))[0]
    image = multiply(basis)
    values, turn = np.linalg.eigh(basis.T @ image)
    values, turn = values[::-1][:rank], turn[:, ::-1][:, :rank]
    residual = np.linalg.norm(image @ turn - basis @ turn * values, axis=0)
    left = min(count - 1, dim) - rank
    tail = max(total - values.sum(), 0.0) / max(left, 1)
    spread = max(values[-1] + residual[-1] - tail, tail) if left else 0.0
    return np.concatenate([values, np.full(left, tail)]), float(max(residual.max(), spread))


def population(sample: Spectrum) -> Atoms:
    """Spectrum of the law behind Gaussian-like data, from that of a sample; a reconstruction.

    The counts sum to the directions in which the data vary, taken to be all varying coordinates
    where there are fewer samples than those. Variances far under kappa(0+) leave no trace in the
    sample beyond their sum: the least variance is set as high as the sample allows.
    Source: in the spirit of El Karoui 2008.

    >>> import numpy as np
    >>> from reverie.theory import population, spectrum_of
    >>> data = np.random.default_rng(0).standard_normal((100, 50))  # 50 variances of 1
    >>> sample = spectrum_of(data)
    >>> law = population(sample)
    >>> sample.values[:1].round(1), law.values.round(1)
    (array([2.6]), array([0.1, 1. , 1. ]))
    """
    freedom = sample.count - 1
    live = sample.dim if sample.count <= sample.dim else len(sample.values)
    values = sample.values * (sample.count / freedom)
    g = live / freedom
    z = np.geomspace(0.1 * values.min(), 30 * values.max(), EQUATIONS)
    seen = (values / (values + z[:, None])).sum(1) / live
    kappa = z / np.maximum(1 - g * seen, 1e-12)
    least = max(values.min() if g < 1 else 0.0, float(kappa.min()))
    weights, grid = np.zeros(0), np.zeros(0)
    for floor in FLOORS * min(least, values.max()):
        grid = np.geomspace(floor, 1.02 * values.max(), GRID)
        kernel = grid / (grid + kappa[:, None]) / seen[:, None]
        system = np.concatenate([kernel, np.full((1, GRID), TOTAL)])
        weights, misfit = nnls(system, np.r_[np.ones(EQUATIONS), TOTAL])
        if misfit < TOLERANCE * np.sqrt(EQUATIONS):
            break
    keep = weights > 0
    return Atoms(grid[keep], live * weights[keep] / weights.sum())


class Law(NamedTuple):
    """What a theory knows of the data: see `LinearTheory` for the fields."""

    spectrum: np.ndarray
    population: Atoms
    constant: int
    count: int | None


def read_law(source: Array | list[float] | Spectrum, debias: bool) -> Law:
    """The law behind a spectrum (d,), data (n, *shape), or the `Spectrum` of data.

    Raises InputError on variances that are negative beyond rounding, not finite, or all zero.
    """
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if not isinstance(source, Spectrum):
        source = np.asarray(source)
        if source.ndim > 1:
            source = spectrum_of(source)
    if isinstance(source, Spectrum):
        law = population(source) if debias else atoms(source.values)
        dead = source.constant + source.dim - round(law.dim)
        return Law(source.values, law, dead, source.count)
    values = np.sort(np.atleast_1d(source).astype(np.float64))[::-1]
    noise = len(values) * np.finfo(np.float64).eps * np.abs(values).max(initial=0)
    if not np.isfinite(values).all() or (values < -noise).any() or not (values > 0).any():
        raise InputError("a spectrum holds finite variances >= 0, one of them positive")
    live = values[values > noise]
    return Law(live, atoms(live), len(values) - len(live), None)
