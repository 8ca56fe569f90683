"""Diffusion posterior sampling: after every step, go down the norm of what is left unexplained.

    x_s = ancestral step - zeta grad_{x_t} |y - A(xhat(x_t))|

in the variance-preserving state x / sqrt(alpha^2 + sigma^2), whatever the process (Chung et al.
2023, algorithm 1: the norm, not its square). It is biased even for Gaussian data: the pull knows
neither the noise of y nor what xhat leaves open, and its sum grows with the number of steps. Kept
as the field's baseline.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reverie.inverse.guided import differentiable_guess, in_modes, positive
from reverie.inverse.task import Task


def dps(task: Task, guidance_scale: float = 1.0) -> Tensor:
    """Draws (n, *shape); guidance_scale is zeta, which the paper sets between .3 and 1."""
    zeta = positive("guidance_scale", guidance_scale)
    process, state = task.process, task.start()
    for t, s in pairwise(task.times):
        clean, transposed = differentiable_guess(task.denoiser, state, _each(t, state))
        tangent = task.measurement.tangent(clean)
        residual = task.y - tangent.value
        norm = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(state.dtype).tiny)
        direction = residual / norm.reshape(-1, *(1,) * (residual.ndim - 1))
        downhill = transposed(tangent.pull(direction))
        scale = _total(process.scales(t, state)) * _total(process.scales(s, state))
        moved = process.reverse(clean, state, t, s, generator=task.generator)
        state = moved + in_modes(process, zeta * scale, downhill)
    return task.denoiser(state, _each(task.times[-1], state))


def _each(t: Tensor, state: Tensor) -> Tensor:
    return t.to(state).expand(len(state))


def _total(levels: tuple[Tensor, Tensor]) -> Tensor:
    """sqrt(alpha^2 + sigma^2), by which a state is its variance-preserving form."""
    alpha, sigma = levels
    return (alpha.square() + sigma.square()).sqrt()
