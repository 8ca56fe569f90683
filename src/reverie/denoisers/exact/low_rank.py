"""The linear optimum of images and wide tables: a few leading modes, one variance for the rest.

    x ~ N(m, V diag(lambda) V^T + rho (I - V V^T))                  Tipping & Bishop 1999, eq. 7-8
    l(x_t) = m + C A (A C A + S^2)^-1 (x_t - A m)                   A = alpha, S = sigma, diagonal

The law costs O(d r) to store, to draw from and to denoise with. Of noise with one level the guess
is diagonal in V; of noise with several it is one r x r solve a level (Woodbury's identity). With
r = d it is the linear optimum itself, as `Linear`, which keeps all modes, has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from reverie.data import StoredPoints, some_rows
from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import GaussianProcess, require_gaussian

MODES = 64  # leading modes kept by default: two thin matrix products beside a network's call
ROWS_PER_MODE = 4  # fewer rows than this a mode tell its direction too badly
SKETCH = 1024  # beyond this many rows and coordinates the leading modes come from a sketch
LEAST_READ, NUMBERS_READ = 1024, 2**21  # rows of which moments are read, and numbers in them


@dataclass(frozen=True, eq=False)
class Moments:
    """N(mean, basis diag(spectrum) basis^T + rest (I - basis basis^T)), all in float64.

    mean: (*shape). basis: (d, r) with orthonormal columns. spectrum: (r,) variances, decreasing.
    rest: the variance of each direction outside the basis.
    InputError on fewer than two rows, or values that are not finite.
    Source: Tipping & Bishop 1999, eq. 7-8.

    >>> import torch
    >>> from reverie.denoisers import Moments
    >>> rows = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments.fit(rows, modes=2)
    >>> moments.basis.shape, round(moments.trace, 1)
    (torch.Size([6, 2]), 6.1)
    """

    mean: Tensor
    basis: Tensor
    spectrum: Tensor
    rest: float

    @property
    def dim(self) -> int:
        return self.mean.numel()

    @property
    def trace(self) -> float:
        """Total variance, tr C."""
        return float(self.spectrum.sum()) + self.rest * (self.dim - len(self.spectrum))

    @classmethod
    def fit(cls, rows: Tensor, modes: int = MODES) -> Moments:
        """Moments (1/N) of rows (N, *shape): at most `modes` modes, one to every four rows.

        The variance of the other directions is their mean, as maximum likelihood has it. Raises
        InputError on fewer than two rows, values that are not finite, or modes < 1.
        """
        if len(rows) < 2:
            raise InputError(f"a covariance needs at least two rows, not {len(rows)}")
        if modes < 1:
            raise InputError(f"modes is {modes}; keep at least one")
        points = rows.detach().flatten(1).double()
        if not torch.isfinite(points).all():
            raise InputError("rows hold a value that is not finite; moments need finite numbers")
        mean = points.mean(0)
        centred = points - mean
        count, dim = centred.shape
        kept = max(1, min(modes, dim, count // ROWS_PER_MODE))
        spectrum, basis = _leading(centred, kept)
        basis = basis.contiguous()  # as it is read again from a file: the last bits depend on it
        total = float(centred.square().sum()) / count
        left = max(total - float(spectrum.sum()), 0.0)
        rest = left / (dim - kept) if dim > kept else 0.0
        return cls(mean.reshape(rows.shape[1:]), basis, spectrum, rest)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points (n, *shape) in float64."""
        device = self.mean.device
        z = torch.randn((n, self.dim), generator=generator, dtype=torch.float64, device=device)
        inside = z @ self.basis
        root = self.rest**0.5
        moved = root * z + (inside * (self.spectrum.sqrt() - root)) @ self.basis.T
        return self.mean + moved.reshape(n, *self.mean.shape)

    def to(self, device: torch.device) -> Moments:
        """The same law on another device."""
        mean, basis, spectrum = (v.to(device) for v in (self.mean, self.basis, self.spectrum))
        return Moments(mean, basis, spectrum, self.rest)


class Seen:
    """Rows of data (N, *shape) that a guess or a curve is of; their `Moments` once asked for.

    The rows are held, not copied. `points`: so many of them, at random, that moments cost little:
    about two million numbers, and at least 1,024 rows. InputError as `Moments.fit`.

    >>> import torch
    >>> from reverie.denoisers import Seen
    >>> seen = Seen(torch.randn(400, 6, generator=torch.Generator().manual_seed(0)))
    >>> seen.points.shape, round(seen.moments.trace, 1)
    (torch.Size([400, 6]), 6.1)
    """

    def __init__(self, rows: Tensor | StoredPoints) -> None:
        self.rows = rows

    @cached_property
    def points(self) -> Tensor:
        numbers = max(math.prod(self.rows.shape[1:]), 1)
        return some_rows(self.rows, max(LEAST_READ, NUMBERS_READ // numbers), 0)  # type: ignore[arg-type]

    @cached_property
    def moments(self) -> Moments:
        return Moments.fit(self.points)


def _leading(centred: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The leading `kept` eigenpairs of centred^T centred / n, largest first."""
    count, dim = centred.shape
    if min(count, dim) > SKETCH:
        # subspace iteration from a fixed start: any orthonormal basis makes a valid law, and the
        # variances are those of the rows along it
        start = torch.Generator(centred.device).manual_seed(0)
        width = min(2 * kept + 10, min(count, dim))
        probe = torch.randn(
            (dim, width), generator=start, dtype=centred.dtype, device=centred.device
        )
        for _ in range(8):
            probe = torch.linalg.qr(centred.T @ (centred @ probe)).Q
        small = centred @ probe
        values, turn = torch.linalg.eigh(small.T @ small / count)
        vectors = probe @ turn
    elif count < dim:
        values, left = torch.linalg.eigh(centred @ centred.T / count)
        vectors = centred.T @ left[:, -kept:]
        # directions without variance have no length: QR completes them to a basis
        vectors = torch.linalg.qr(vectors.flip(1)).Q.flip(1)
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred / count)
    return values[-kept:].flip(0).clamp(min=0), vectors[:, -kept:].flip(1)


class LowRankLinear(Denoiser):
    """The best affine guess for data of these `Moments`, for any Gaussian process.

    In float64 for states in float64 and several clocks, else in float32; the guess comes in the
    states' own type. Raises InputError on another process.
    States and guesses are (B, *shape).

    >>> import torch
    >>> from reverie.denoisers import LowRankLinear, Moments
    >>> from reverie.processes import VP
    >>> rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> LowRankLinear(VP(), Moments.fit(rows, modes=3))(rows[:2], torch.tensor(0.5)).shape
    torch.Size([2, 8])
    """

    process: GaussianProcess

    def __init__(self, process: GaussianProcess, moments: Moments) -> None:
        super().__init__()
        process = require_gaussian(process, "the linear guess")
        # plain attributes: a module moved to half precision must keep its moments
        self.process, self.moments, self.seen = process, moments, moments
        self._cast: dict[Any, tuple[Tensor, ...]] = {}

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        time = torch.as_tensor(t)
        if not self.process.isotropic:
            return self._several(state.double(), time).to(state)
        work = state if state.dtype == torch.float64 else state.float()
        mean, basis, spectrum = self.parts(work)
        alpha, sigma = (level.flatten(1) for level in self.process.scales(time, work))
        offset = work.flatten(1) - alpha * mean
        rest = self._gain(alpha, sigma, self.moments.rest)
        gain = self._gain(alpha, sigma, spectrum)
        moved = rest * offset + (offset @ basis * (gain - rest)) @ basis.T
        return (mean + moved).reshape(state.shape).to(state)

    @staticmethod
    def _gain(alpha: Tensor, sigma: Tensor, variance: Tensor | float) -> Tensor:
        return alpha * variance / (alpha.square() * variance + sigma.square())

    def parts(self, like: Tensor) -> tuple[Tensor, ...]:
        """mean (d,), basis (d, r) and spectrum (r,) in the type and place of `like`."""
        key = (like.dtype, like.device)
        if key not in self._cast:
            law = self.moments
            self._cast[key] = tuple(
                v.to(like) for v in (law.mean.flatten(), law.basis, law.spectrum)
            )
        return self._cast[key]

    def _several(self, state: Tensor, t: Tensor) -> Tensor:
        """m + C A (A C A + S^2)^-1 (x_t - A m) in the modes of the noise, where A, S differ."""
        process = self.process
        times, place = t.reshape(-1).unique(return_inverse=True)  # one solve per noise level
        alpha, sigma = (level.flatten(1) for level in process.scales(times, state))
        mean, basis, spectrum = self.parts(state)
        shape = self.moments.mean.shape
        axes = process.to_modes(basis.T.reshape(-1, *shape)).flatten(1).T
        centre = process.to_modes(mean.reshape(1, *shape)).flatten(1)
        rest, extra = self.moments.rest, spectrum - self.moments.rest
        own = rest * alpha.square() + sigma.square()
        scaled = alpha[:, :, None] * axes
        inner = scaled.mT @ (scaled / own[:, :, None])
        eye = torch.eye(len(extra), dtype=state.dtype, device=state.device)
        core = torch.linalg.solve(eye + extra[:, None] * inner, torch.diag(extra).expand_as(inner))
        offset = process.to_modes(state).flatten(1) - alpha[place] * centre
        white = offset / own[place]
        seen = torch.einsum("bd,bdr->br", white, scaled[place])
        seen = torch.einsum("brs,bs->br", core[place], seen)
        white = white - torch.einsum("bdr,br->bd", scaled[place], seen) / own[place]
        pulled = alpha[place] * white
        moved = rest * pulled + (pulled @ axes * extra) @ axes.T
        return process.from_modes((centre + moved).reshape(state.shape))
