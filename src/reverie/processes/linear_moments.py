"""What a linear SDE dX = A X db + B dW does to means and covariances, and which pairs are fit."""

from __future__ import annotations

import math

import torch
from scipy.linalg import solve_continuous_lyapunov
from torch import Tensor

from reverie.errors import InputError

JITTER = 1e-14  # of a variance: rounding may take a correlation past 1


def transition(drift: Tensor, diffusion: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
    """exp(A b) and int_0^b exp(A r) B B^T exp(A r)^T dr, (L, k, k) each, for durations b (L,).

    Van Loan 1978, theorem 1, over a short part of b, then doubled: all sums are of positive
    matrices, whatever b.
    """
    size = len(drift)
    reach = float(torch.linalg.matrix_norm(drift.detach(), 1)) * float(duration.detach().max())
    doublings = max(0, math.ceil(math.log2(reach))) if reach > 0 else 0
    both = torch.cat(
        [
            torch.cat([-drift, diffusion @ diffusion.mT], 1),
            torch.cat([torch.zeros_like(drift), drift.mT], 1),
        ]
    )
    flow = torch.linalg.matrix_exp(both * (duration / 2**doublings)[:, None, None])
    move = flow[:, size:, size:].mT
    noise = move @ flow[:, :size, size:]
    for _ in range(doublings):
        noise = noise + move @ noise @ move.mT
        move = move @ move
    return move, 0.5 * (noise + noise.mT)


def stationary(drift: Tensor, diffusion: Tensor) -> Tensor:
    """The covariance (k, k) with A S + S A^T = -B B^T."""
    square = (diffusion @ diffusion.mT).numpy()
    return torch.as_tensor(solve_continuous_lyapunov(drift.numpy(), -square))


def root(covariance: Tensor) -> Tensor:
    """Cholesky factor of covariances (L, k, k), however different their variances."""
    scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
    correlation = covariance / (scale[:, :, None] * scale[:, None, :])
    eye = torch.eye(covariance.shape[1]).to(covariance)
    return scale[:, :, None] * torch.linalg.cholesky(correlation + JITTER * eye)


def check_pair(drift: Tensor, diffusion: Tensor, data_dims: int) -> None:
    """Raise InputError unless the shapes agree and the drift is stable."""
    if drift.ndim != 2 or drift.shape[0] != drift.shape[1]:
        raise InputError(f"the drift has shape {tuple(drift.shape)}; it must be square")
    if diffusion.ndim != 2 or len(diffusion) != len(drift):
        raise InputError(
            f"the diffusion has shape {tuple(diffusion.shape)}; it needs {len(drift)} rows, one "
            "per variable of the drift"
        )
    if not (torch.isfinite(drift).all() and torch.isfinite(diffusion).all()):
        raise InputError("the drift and the diffusion must be finite")
    if data_dims < 1 or len(drift) % data_dims:
        raise InputError(
            f"data_dims is {data_dims}; the drift's {len(drift)} variables must be a multiple"
        )
    top = float(torch.linalg.eigvals(drift).real.max())
    if top >= 0:
        raise InputError(
            f"the drift has an eigenvalue of real part {top:.3g}: the process would never forget "
            "its start; all real parts must be negative"
        )


def check_reached(drift: Tensor, diffusion: Tensor, start: Tensor, duration: float) -> None:
    """Raise InputError unless all variables are noisy after `duration`."""
    move, noise = transition(drift, diffusion, torch.tensor([duration], dtype=torch.float64))
    covariance = noise + move @ start @ move.mT
    if not (covariance.diagonal(dim1=1, dim2=2) > 0).all() or _condition(covariance) > 1e12:
        raise InputError(
            "the noise does not reach every variable by t_min: drift and diffusion must be a "
            "controllable pair, or t_min larger"
        )


def _condition(covariance: Tensor) -> float:
    """Of the correlation matrix: variances of different size do no harm."""
    scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
    return float(torch.linalg.cond(covariance / (scale[:, :, None] * scale[:, None, :]))[0])
