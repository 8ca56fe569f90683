"""Identities that every exact posterior mean obeys, and an error estimate that any guess allows.

For x_t = alpha x + sigma e and J the Jacobian of xhat in x_t:

    exact xhat   J symmetric, positive semi-definite;  Cov[x | x_t] = (sigma^2 / alpha) J
                 E|x - xhat|^2 = (sigma^2 / alpha) E tr J
    any xhat     E|x - xhat|^2 = E[2 (sigma^2 / alpha) tr J + |x_t / alpha - xhat|^2] - d s^2,
                 s = sigma / alpha: Stein's unbiased risk estimate, without clean data

(Kadkhodaie et al. 2024, arXiv 2310.02557, in their exploding-variance form.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import GaussianProcess

Guess = Callable[[Tensor, Tensor], Tensor]


def jacobian(denoiser: Guess, state: Tensor, t: Tensor | float) -> Tensor:
    """Jacobian (B, d, d) of the guess in the state (B, *shape): row i is d xhat_i / d x_t.

    d backward passes; rows of the batch must not influence one another.
    """
    given = torch.as_tensor(t, dtype=state.dtype).expand(len(state))
    with torch.enable_grad():
        leaf = state.detach().requires_grad_(True)
        guess = denoiser(leaf, given).flatten(1)
        rows = [
            torch.autograd.grad(guess[:, i].sum(), leaf, retain_graph=True)[0].flatten(1)
            for i in range(guess.shape[1])
        ]
    return torch.stack(rows, 1)


def asymmetry(matrices: Tensor) -> Tensor:
    """|J - J^T| / |J| in Frobenius norm, (B,); 0 for an exact posterior mean."""
    return (matrices - matrices.mT).flatten(1).norm(dim=1) / matrices.flatten(1).norm(dim=1)


def least_eigenvalue(matrices: Tensor) -> Tensor:
    """Least eigenvalue (B,) of the symmetric part; >= 0 for an exact posterior mean."""
    return torch.linalg.eigvalsh(0.5 * (matrices + matrices.mT))[:, 0]


def posterior_variance(
    denoiser: Guess, process: GaussianProcess, state: Tensor, t: Tensor | float
) -> Tensor:
    """(sigma^2 / alpha) tr J, (B,): E|x - xhat|^2 given the state if the guess is exact.

    Summed over dimensions, in squared units of the data.
    """
    alpha, sigma = _levels(process, state, t)
    trace = jacobian(denoiser, state, t).diagonal(dim1=1, dim2=2).sum(1)
    return sigma.square() / alpha * trace


def sure(denoiser: Guess, process: GaussianProcess, state: Tensor, t: Tensor | float) -> Tensor:
    """Stein's unbiased estimate (B,) of |x - xhat|^2, summed over dimensions, from states alone.

    A single value may be negative; its mean over states is the mean squared error of any guess.
    """
    alpha, sigma = _levels(process, state, t)
    given = torch.as_tensor(t, dtype=state.dtype).expand(len(state))
    with torch.no_grad():
        guess = denoiser(state, given).flatten(1)
    view = state.flatten(1) / alpha[:, None]
    noise = view.shape[1] * (sigma / alpha).square()
    apart = (view - guess).square().sum(1)
    return 2 * posterior_variance(denoiser, process, state, t) + apart - noise


def term_oracle(coefficients: Sequence[float] | np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean squared error (L,) of keeping the coefficients above the noise: sum min(c_k^2, s^2).

    coefficients: (K,) of a signal in an orthonormal basis; sigma: (L,). Where c_k^2 falls like
    k^-(a + 1) the error falls like sigma^(2a / (a + 1)); of k large coordinates it is k sigma^2.
    Kadkhodaie et al. 2024 set the slopes of trained networks against it.
    """
    energy = np.square(np.asarray(coefficients, dtype=np.float64))
    return np.minimum(energy, np.square(np.atleast_1d(sigma))[:, None]).sum(1)


def _levels(process: GaussianProcess, state: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    if not process.isotropic:
        raise InputError("these identities are written for one noise level per point")
    alpha, sigma = process.scales(t, state)
    return tuple(level.flatten().expand(len(state)) for level in (alpha, sigma))  # type: ignore[return-value]
