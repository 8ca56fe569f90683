"""Orthonormal bases: points (B, *shape) to modes of the same shape and back, norms preserved.

Every basis groups its modes into `bands`, from coarse (0) to fine: octaves of frequency, scales of
a wavelet, single coordinates of the identity and of Karhunen-Loeve. DCT, Fourier and wavelets act
on the last two axes of a point, or on its only one; axes before them are channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.formerly import Formerly, keywords
from reverie.spaces.filters import level_matrix, low_pass


class Basis:
    """An orthonormal basis of points of `shape`; `name` rebuilds it, or is None.

    bands: (*shape) band of each mode, whole numbers from 0.

    >>> import torch
    >>> from reverie.spaces import Basis, basis_named
    >>> basis = basis_named("dct", (8,))
    >>> isinstance(basis, Basis), basis.count, basis.bands.tolist()
    (True, 4, [0, 1, 2, 2, 3, 3, 3, 3])
    """

    def __init__(self, shape: tuple[int, ...], bands: Tensor, name: str | None) -> None:
        self.shape, self.bands, self.name = tuple(shape), bands.reshape(shape), name

    @property
    def count(self) -> int:
        """Number of bands."""
        return int(self.bands.max()) + 1

    def to_modes(self, x: Tensor) -> Tensor:
        """Coefficients (B, *shape) of points (B, *shape)."""
        raise NotImplementedError

    def from_modes(self, modes: Tensor) -> Tensor:
        """Points (B, *shape) of coefficients (B, *shape)."""
        raise NotImplementedError


class Identity(Basis):
    """The coordinates themselves; every coordinate is a band.

    >>> import torch
    >>> from reverie.spaces import Identity
    >>> basis = Identity((3,))
    >>> basis.count, basis.to_modes(torch.ones(1, 3))
    (3, tensor([[1., 1., 1.]]))
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, torch.arange(math.prod(shape)), "identity")

    def to_modes(self, x: Tensor) -> Tensor:
        return x

    def from_modes(self, modes: Tensor) -> Tensor:
        return modes


class Frequencies(Basis):
    """Cosine transform ("dct", type II) or real Fourier series ("fourier") along each axis.

    Band 0 is the mean, band k the frequencies from 2^(k-1) to below 2^k, counted in half periods
    for "dct" and whole ones for "fourier"; in two dimensions the greater of the two counts.

    >>> import torch
    >>> from reverie.spaces import Frequencies
    >>> basis = Frequencies((8,), "dct")
    >>> modes = basis.to_modes(torch.ones(1, 8))  # a constant is its first mode
    >>> modes.abs().gt(1e-5).tolist()
    [[True, False, False, False, False, False, False, False]]
    """

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        axes = _axes(shape)
        self._axes = [_AXES[name](size) for size in axes]
        counts = [frequencies for _, frequencies in self._axes]
        count = counts[0] if len(axes) == 1 else np.maximum.outer(*counts)
        bands = np.where(count > 0, 1 + np.floor(np.log2(np.maximum(count, 1))), 0)
        super().__init__(shape, torch.from_numpy(bands).long().expand(shape), name)

    def to_modes(self, x: Tensor) -> Tensor:
        return _along(x, [torch.from_numpy(matrix).to(x) for matrix, _ in self._axes])

    def from_modes(self, modes: Tensor) -> Tensor:
        return _along(modes, [torch.from_numpy(matrix.T).to(modes) for matrix, _ in self._axes])


class Wavelet(Basis):
    """Periodic orthonormal wavelet transform, with `levels` scales (default: as many as fit).

    Modes are laid out as a pyramid: averages in the first corner, band 0; band k holds the details
    of scale depth - k + 1, so that the last band is the finest. The corner of side n / 2^j,
    transformed back with depth - j levels, is the image averaged j times.
    InputError on sides that do not halve as often as `depth` says, or an unknown wavelet.

    >>> import torch
    >>> from reverie.spaces import Wavelet
    >>> basis = Wavelet((4, 4), "haar", depth=2)
    >>> x = torch.arange(16.0).reshape(1, 4, 4)
    >>> basis.to_modes(x)[0, 0, 0], basis.from_modes(basis.to_modes(x)).allclose(x, atol=1e-5)
    (tensor(30.), True)
    """

    levels = Formerly("depth")

    @keywords(levels="depth")
    def __init__(
        self, shape: tuple[int, ...], wavelet: str = "haar", depth: int | None = None
    ) -> None:
        axes, filters = _axes(shape), low_pass(wavelet)
        most = min(_halvings(size) for size in axes)
        depth = most if depth is None else depth
        if not 1 <= depth <= most:
            raise InputError(
                f"a wavelet of {depth} levels needs sides that halve as often; "
                f"{' x '.join(map(str, axes))} halves {most} times"
            )
        self.wavelet, self.depth = wavelet, depth
        self._steps = [
            [level_matrix(filters, size >> level) for size in axes] for level in range(depth)
        ]
        bands = torch.full(axes, depth)
        for level in range(1, depth + 1):
            bands[tuple(slice(size >> level) for size in axes)] = depth - level
        super().__init__(shape, bands.expand(shape), f"{wavelet}/{depth}")

    def to_modes(self, x: Tensor) -> Tensor:
        modes = x.clone()
        for step in self._steps:
            corner = _corner(modes, step)
            corner.copy_(_along(corner, [torch.from_numpy(m).to(x) for m in step]))
        return modes

    def from_modes(self, modes: Tensor) -> Tensor:
        x = modes.clone()
        for step in reversed(self._steps):
            corner = _corner(x, step)
            corner.copy_(_along(corner, [torch.from_numpy(m.T).to(x) for m in step]))
        return x


class KarhunenLoeve(Basis):
    """Eigenvectors of a covariance (d, d), by falling variance; `spectrum` holds the variances.

    Every mode is a band. Raises InputError unless the covariance is symmetric and of d = prod of
    `shape` rows.

    >>> import torch
    >>> from reverie.spaces import KarhunenLoeve
    >>> basis = KarhunenLoeve((2,), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> basis.spectrum.round(decimals=6), basis.to_modes(torch.ones(1, 2)).abs().round(decimals=4)
    (tensor([3., 1.], dtype=torch.float64), tensor([[1.4142, 0.0000]]))
    """

    def __init__(self, shape: tuple[int, ...], covariance: Tensor) -> None:
        size = math.prod(shape)
        covariance = covariance.double()
        if covariance.shape != (size, size) or not torch.allclose(covariance, covariance.mT):
            raise InputError(
                f"a covariance of points {tuple(shape)} is a symmetric ({size}, {size}) matrix, "
                f"not {tuple(covariance.shape)}"
            )
        values, vectors = torch.linalg.eigh(covariance)
        super().__init__(shape, torch.arange(size), None)
        self.spectrum = values.flip(0).clamp(min=0).reshape(shape)
        self.vectors = vectors.flip(1)  # (d, d), one mode a column

    @classmethod
    def of(cls, data: Tensor) -> KarhunenLoeve:
        """Principal components of points (n, *shape), n > 1."""
        if len(data) < 2:
            raise InputError(f"a covariance needs at least two rows, not {len(data)}")
        points = data.flatten(1).double()
        return cls(tuple(data.shape[1:]), points.T.cov(correction=0).reshape(points.shape[1], -1))

    def to_modes(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.vectors.to(x)).reshape(x.shape)

    def from_modes(self, modes: Tensor) -> Tensor:
        return (modes.flatten(1) @ self.vectors.T.to(modes)).reshape(modes.shape)


def basis_named(name: str, shape: tuple[int, ...]) -> Basis:
    """The basis of a name: identity, dct, fourier, or a wavelet with its levels, as `haar/3`.

    Raises InputError on an unknown name and on shapes that do not fit.

    >>> from reverie.spaces import basis_named
    >>> basis = basis_named("haar/3", (8, 8))
    >>> basis.name, basis.count
    ('haar/3', 4)
    """
    if name == "identity":
        return Identity(shape)
    if name in _AXES:
        return Frequencies(shape, name)
    wavelet, _, levels = name.partition("/")
    if levels and not levels.isdigit():
        raise InputError(f"basis {name!r}: the levels of a wavelet are a whole number, as haar/3")
    return Wavelet(shape, wavelet, int(levels) if levels else None)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the axes that are transformed: the last two, or the only one."""
    if not shape:
        raise InputError("a basis needs points with at least one axis")
    return tuple(shape[-2:])


def _halvings(size: int) -> int:
    return (size & -size).bit_length() - 1


def _corner(modes: Tensor, step: list[np.ndarray]) -> Tensor:
    return modes[(..., *(slice(len(matrix)) for matrix in step))]


def _along(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """Apply one matrix to each of the last axes of x, (B, *shape)."""
    x = x @ matrices[-1].mT
    return matrices[0] @ x if len(matrices) == 2 else x


def _cosines(size: int) -> tuple[np.ndarray, np.ndarray]:
    """DCT-II matrix (size, size) and its frequencies in half periods."""
    k, place = np.arange(size)[:, None], np.arange(size) + 0.5
    matrix = np.cos(np.pi * k * place / size) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix, np.arange(size)


def _harmonics(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Real Fourier matrix (size, size) with rows 1, cos, sin, cos, ... and their frequencies."""
    frequency = (np.arange(size) + 1) // 2
    angle = 2 * np.pi * frequency[:, None] * np.arange(size) / size
    is_sine = (np.arange(size) % 2 == 0)[:, None]
    matrix = np.where(is_sine, np.sin(angle), np.cos(angle)) * math.sqrt(2 / size)
    alone = (frequency == 0) | (2 * frequency == size)  # no sine goes with these
    matrix[alone] = np.cos(angle[alone]) / math.sqrt(size)
    return matrix, frequency


_AXES = {"dct": _cosines, "fourier": _harmonics}
