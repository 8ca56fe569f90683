"""Denoisers that lean towards an observation: they guess E[x | x_t, y] instead of E[x | x_t].

    xhat_y = xhat + D grad log p(y | x_t),    D = sigma^2 / alpha        (Tweedie's formula)

with the law of y given x_t approximated by N(A(xhat), noise^2 + J W J^T), J the Jacobian of A at
xhat, and a guess W of Cov[x | x_t]. Then, with (.)^T of xhat by automatic differentiation,

    grad log p(y | x_t) = (d xhat / d x_t)^T J^T u,    (noise^2 + J W J^T) u = y - A(xhat).

    MMPS    W = D (d xhat / d x_t)^T = Cov[x | x_t]: exact where the data are Gaussian and A linear
    PiGDM   W = r^2, r^2 = s^2 v / (s^2 + v), s = sigma / alpha, v the data's variance: exact for
            data that are N(m, v) in every coordinate (mode by mode, where modes differ)
    TMPD    J W J^T replaced by the sums of its rows: exact where it is diagonal

All drop the derivative of W, which is zero for Gaussian data only. The guess is that of no noised
law: plan with the model itself, and sample with the guided one (any sampler takes it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.inverse.krylov import gmres
from reverie.inverse.measurements import Measurement, Tangent
from reverie.processes import GaussianProcess, Process
from reverie.processes.gaussian import require_gaussian

INNER_ITERATIONS = 100  # of solves that need no derivative of the denoiser


class Guided(Denoiser):
    """A denoiser that leans towards y, given as its condition; subclasses say how, in `pull`.

    y: one observation, (*observed), or one for each state, (B, *observed). Without it the guess
    is the denoiser's own. Raises InputError on another process than Gaussian, and on a denoiser
    that automatic differentiation does not pass through.
    """

    process: GaussianProcess

    def __init__(self, denoiser: Denoiser, measurement: Measurement) -> None:
        super().__init__()
        self.process = gaussian_process(denoiser.process)
        self.denoiser, self.measurement, self.seen = denoiser, measurement, denoiser.seen

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Guided guess (B, *shape)."""
        if condition is None:
            return self.denoiser(state, t)
        y = self.measurement.check(condition, len(state)).to(state)
        clean, transposed = differentiable_guess(self.denoiser, state, t)
        tangent = self.measurement.tangent(clean)
        alpha, sigma = self.process.scales(t, state)

        def covariance(v: Tensor) -> Tensor:
            return in_modes(self.process, sigma.square() / alpha, transposed(v))

        towards = self.pull(tangent, y - tangent.value, covariance, sigma / alpha)
        return clean + covariance(towards)

    def pull(
        self,
        tangent: Tangent,
        residual: Tensor,
        covariance: Callable[[Tensor], Tensor],
        spread: Tensor,
    ) -> Tensor:
        """J^T u, (B, *shape), for the residual y - A(xhat).

        covariance: its product with D (d xhat / d x_t)^T. spread: sigma / alpha.
        """
        raise NotImplementedError

    def solve(self, product: Callable[[Tensor], Tensor], residual: Tensor, most: int) -> Tensor:
        """u of (noise^2 + product) u = residual, in `most` iterations."""
        shape = residual.shape
        variance = self.measurement.noise.to(residual).square()

        def total(u: Tensor) -> Tensor:
            u = u.reshape(shape)
            return (variance * u + product(u)).flatten(1)

        return gmres(total, residual.flatten(1), most).reshape(shape)


class MMPS(Guided):
    """Moment-matching posterior sampling: Cov[x | x_t] from the denoiser's own Jacobian.

    Exact for Gaussian data and a linear measurement when `iterations` reaches the number of
    observed numbers; each iteration is one more derivative of the denoiser. Keep them few with a
    network: its Jacobian is neither symmetric nor positive, and solving with it to the end makes
    single draws diverge (`Reconstruction.misfit` shows them). Source: Rozet, Andry, Lanusse &
    Louppe 2024 (there by conjugate gradients).
    The guess is E[x | x_t, y], (B, *shape). InputError on iterations below 1.

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.inverse import MMPS, Inpainting
    >>> from reverie.processes import VP
    >>> covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> values, vectors = torch.linalg.eigh(covariance)
    >>> prior = Linear(VP(), torch.zeros(2), values, vectors)
    >>> seen = Inpainting(torch.tensor([True, False]), noise=0.01)
    >>> guess = MMPS(prior, seen)(torch.zeros(1, 2), torch.tensor(1.0), torch.tensor([[1.0]]))
    >>> guess.round(decimals=1)  # the hidden coordinate follows
    tensor([[1.0000, 0.9000]])
    """

    def __init__(self, denoiser: Denoiser, measurement: Measurement, iterations: int = 3) -> None:
        super().__init__(denoiser, measurement)
        if iterations < 1:
            raise InputError(f"iterations is {iterations}; it must be at least 1")
        self.iterations = iterations

    def pull(
        self,
        tangent: Tangent,
        residual: Tensor,
        covariance: Callable[[Tensor], Tensor],
        spread: Tensor,
    ) -> Tensor:
        def product(u: Tensor) -> Tensor:
            return tangent.push(covariance(tangent.pull(u)))

        return tangent.pull(self.solve(product, residual, self.iterations))


class PiGDM(Guided):
    """Pseudo-inverse guidance: Cov[x | x_t] of data N(m, data_std^2) in every coordinate.

    Source: Song, Vahdat, Mardani & Kautz 2023, section 3, as a score (without its weights for
    DDIM steps).
    The guess is E[x | x_t, y], (B, *shape). InputError unless data_std is positive.

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.inverse import Inpainting, PiGDM
    >>> from reverie.processes import VP
    >>> prior = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> seen = Inpainting(torch.tensor([True, False]), noise=0.01)
    >>> guess = PiGDM(prior, seen)(torch.zeros(1, 2), torch.tensor(1.0), torch.tensor([[1.0]]))
    >>> guess.round(decimals=1)
    tensor([[1., 0.]])
    """

    def __init__(
        self, denoiser: Denoiser, measurement: Measurement, data_std: float = 1.0
    ) -> None:
        super().__init__(denoiser, measurement)
        self.data_std = positive("data_std", data_std)

    def pull(
        self,
        tangent: Tangent,
        residual: Tensor,
        covariance: Callable[[Tensor], Tensor],
        spread: Tensor,
    ) -> Tensor:
        remaining = remaining_variance(spread, self.data_std)

        def product(u: Tensor) -> Tensor:
            return tangent.push(in_modes(self.process, remaining, tangent.pull(u)))

        return tangent.pull(self.solve(product, residual, INNER_ITERATIONS))


class TMPD(Guided):
    """Tweedie moment projection: the diagonal that has the row sums of J Cov[x | x_t] J^T.

    Row sums below zero, which no variance can be, count as zero: where observed numbers pull
    against each other given x_t it overshoots, even for Gaussian data. Source: Boys et al. 2023.
    The guess is E[x | x_t, y], (B, *shape).

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.inverse import TMPD, Inpainting
    >>> from reverie.processes import VP
    >>> prior = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> seen = Inpainting(torch.tensor([True, False]), noise=0.01)
    >>> guess = TMPD(prior, seen)(torch.zeros(1, 2), torch.tensor(1.0), torch.tensor([[1.0]]))
    >>> guess.round(decimals=1)
    tensor([[1., 0.]])
    """

    def pull(
        self,
        tangent: Tangent,
        residual: Tensor,
        covariance: Callable[[Tensor], Tensor],
        spread: Tensor,
    ) -> Tensor:
        sums = tangent.push(covariance(tangent.pull(torch.ones_like(residual))))
        variance = self.measurement.noise.to(residual).square() + sums.clamp(min=0)
        return tangent.pull(residual / variance)


def remaining_variance(spread: Tensor, data_std: float) -> Tensor:
    """Var[x | x_t] for data of variance data_std^2: s^2 v / (s^2 + v) at s = sigma / alpha."""
    square = spread.square()
    return square * data_std**2 / (square + data_std**2)


def in_modes(process: GaussianProcess, factor: Tensor, x: Tensor) -> Tensor:
    """x (B, *shape) with its modes multiplied by `factor`."""
    return process.from_modes(factor * process.to_modes(x))


def differentiable_guess(
    denoiser: Denoiser, state: Tensor, t: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """xhat(x_t), (B, *shape), and v -> (d xhat / d x_t)^T v; both differentiable if x_t is.

    Raises InputError where the guess is cut off from the state.
    """
    outer = torch.is_grad_enabled() and state.requires_grad
    with torch.enable_grad():
        point = state if outer else state.detach().requires_grad_()
        clean = denoiser(point, t)
    if not clean.requires_grad:
        raise InputError(
            "the denoiser's guess cannot be differentiated by the state: guidance needs a "
            "denoiser without no_grad or detach inside"
        )

    def transposed(v: Tensor) -> Tensor:
        with torch.enable_grad():
            (product,) = torch.autograd.grad(
                clean, point, v, retain_graph=True, create_graph=outer
            )
        return product

    return clean if outer else clean.detach(), transposed


def gaussian_process(process: Process) -> GaussianProcess:
    """The process, or InputError where it is not Gaussian."""
    return require_gaussian(process, "an inverse problem")


def positive(name: str, value: float) -> float:
    """The value, or InputError where it is not a positive number."""
    if not 0 < value < float("inf"):
        raise InputError(f"{name} is {value}; it must be a positive number")
    return float(value)
