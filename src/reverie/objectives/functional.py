"""Losses on functions: the squared norm in which a guess is compared with the truth.

    L2                |r|^2                    converges as the grid is refined, for any data
    Sobolev           |r|^2 + |r'|^2           needs noise with a derivative (Matern nu > 1)
    Cameron-Martin    |C^(-1/2) r|^2           the exact rate in nats; needs data smoother than
                                               the noise of covariance operator C

The guess of noise is off by alpha/sigma times the guess of x, so that the Cameron-Martin norm of
either is finite only where that of the data is (Kerrigan, Ley & Smyth 2023 use all three).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import Covariance, FunctionNoise
from reverie.spaces import Functions

SquareNorm = Callable[[Tensor], Tensor]  # functions (B, *shape) to (B,)
LEAST_POINTS = 64  # fewer show too few octaves to tell a law of decay
NEGLIGIBLE = 1e-3  # share of the norm in the last octave


def sobolev(space: Functions) -> SquareNorm:
    """Squared Sobolev norm of order 1, the gradient by differences on the grid.

    The norm takes functions (B, *shape) on the grid and returns (B,).

    >>> import torch
    >>> from reverie.objectives import sobolev
    >>> from reverie.spaces import Functions
    >>> grid = Functions.regular(200)
    >>> sobolev(grid)(grid.points.T).round(decimals=2)  # f(x) = x: 1/3 + 1
    tensor([1.3300], dtype=torch.float64)
    """
    return lambda residual: space.square_norm(residual) + space.slopes(residual)


def cameron_martin(process: FunctionNoise, data: Tensor | None = None) -> SquareNorm:
    """Squared Cameron-Martin norm of the process's noise, on its grid.

    data: functions (N, *shape) that a network is to be trained on; warns where they are rougher
    than the noise (see `excess_roughness`).

    >>> import torch
    >>> from reverie.objectives import cameron_martin
    >>> from reverie.processes import FunctionNoise, Matern
    >>> from reverie.spaces import Functions
    >>> process = FunctionNoise(Functions.regular(16), Matern(1.5, length=0.2))
    >>> cameron_martin(process)(torch.ones(2, 16)).shape
    torch.Size([2])
    """
    if data is not None:
        growth = excess_roughness(data, process.space, process.covariance)
        if growth >= 1:
            warnings.warn(
                "the data are rougher than the noise: each octave of modes adds "
                f"{growth:.2g} times what the one before it adds to the Cameron-Martin loss, "
                "which grows without bound as the grid is refined; use the L2 loss, or rougher "
                "noise",
                stacklevel=2,
            )
    return lambda residual: process.pool(process.to_modes(residual).square())


def spectral_cameron_martin(space: Functions, noise: Covariance, terms: int = 256) -> SquareNorm:
    """The same norm from the `terms` leading eigenpairs, sum_k <r, phi_k>^2 / lambda_k."""
    pairs = noise.eigenpairs(space, terms)
    if (pairs.values <= 0).any():
        raise InputError(f"the noise has fewer than {terms} positive eigenvalues on this grid")
    weighted = (space.weights * pairs.functions.flatten(1)).T / pairs.values.sqrt()
    return lambda residual: (residual.flatten(1) @ weighted.to(residual)).square().sum(1)


def excess_roughness(data: Tensor, space: Functions, noise: Covariance) -> float:
    """E <x, phi_k>^2 / lambda_k summed over an octave of modes, over that of the octave before it.

    data: (N, *shape). At 1 or more the sum over all modes, the squared Cameron-Martin norm of the
    data, diverges; 0 where the finer octave adds nothing to speak of. The octaves are modes n/8 to
    n/4 and n/4 to n/2 of n points: beyond that the grid's eigenvectors are not the operator's.
    Raises InputError on a grid of fewer than 64 points.
    """
    size = space.dim
    if size < LEAST_POINTS:
        raise InputError(f"a grid of {size} points is too coarse to judge smoothness: use 64")
    pairs = noise.eigenpairs(space, size // 2)
    weighted = (space.weights * pairs.functions.flatten(1)).T
    energy = (data.flatten(1).double() @ weighted).square().mean(0)
    floor = torch.finfo(torch.float64).eps * pairs.values[0]
    shares = energy / pairs.values.clamp(min=floor)
    coarse, fine = shares[size // 8 : size // 4].sum(), shares[size // 4 :].sum()
    if fine < NEGLIGIBLE * shares.sum():
        return 0.0
    return float(fine / coarse)


def random_observations(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """x (B, *shape) at 0 to `most` random points of each function, NaN elsewhere.

    Raises InputError where the grid has fewer than `most` points.
    """
    size = x[0].numel()
    if not 1 <= most <= size:
        raise InputError(f"most is {most}; observe at least 1 and at most all {size} points")
    device = x.device
    order = torch.rand(len(x), size, generator=generator, device=device).argsort(1).argsort(1)
    count = torch.randint(most + 1, (len(x), 1), generator=generator, device=device)
    return x.masked_fill((order >= count).reshape(x.shape), torch.nan)


class FunctionRegression(NamedTuple):
    """State and target (B, *shape), the norm of the error, and the condition of these rows."""

    state: Tensor
    target: Tensor
    norm: SquareNorm
    condition: Any = None

    def loss(self, guess: Tensor, scale: Tensor) -> Tensor:
        """scale * |guess - target|^2 per sample (B,)."""
        return self.norm(scale.sqrt() * (guess - self.target))


class FunctionLoss:
    """A noising for `Denoising`: denoising score matching in a norm of functions.

    norm: `space.square_norm` (default), `sobolev(space)` or `cameron_martin(process, data)`.
    observe: condition each row on up to so many of its own points, at random; 0 is none.
    Source: Kerrigan, Ley & Smyth 2023.

    >>> import torch
    >>> from reverie.objectives import FunctionLoss, sobolev
    >>> from reverie.processes import FunctionNoise, Matern
    >>> from reverie.spaces import Functions
    >>> grid = Functions.regular(16)
    >>> noising = FunctionLoss(FunctionNoise(grid, Matern(1.5, length=0.2)), sobolev(grid))
    >>> t, generator = torch.full((3,), 0.5), torch.Generator().manual_seed(0)
    >>> noising.draw(torch.arange(3), torch.zeros(3, 16), t, generator).state.shape
    torch.Size([3, 16])
    """

    def __init__(
        self, process: FunctionNoise, norm: SquareNorm | None = None, observe: int = 0
    ) -> None:
        self.process, self.observe = process, observe
        self.norm = process.space.square_norm if norm is None else norm

    def draw(
        self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator
    ) -> FunctionRegression:
        """States at times t (B,), and what the guess there should meet."""
        told = random_observations(x, self.observe, generator) if self.observe else None
        state = self.process.corrupt(x, t, generator=generator)
        return FunctionRegression(state, x, self.norm, told)
