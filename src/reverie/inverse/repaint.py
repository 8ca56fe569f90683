"""RePaint: after every step, put the noised observation back; go back and forth to agree.

Only for masks, and it takes y to be exact. Source: Lugmayr et al. 2022, algorithm 1, with jumps of
one step. The known part is noised afresh, independently of the rest of the state, and the denoiser
does not know that it is known: what is left open follows it only through the state, so that draws
are biased, less with more resamplings and where the noise is small.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.inverse.guided import in_modes
from reverie.inverse.measurements import Inpainting
from reverie.inverse.task import Task
from reverie.processes import GaussianProcess


def repaint(task: Task, resamplings: int = 10) -> Tensor:
    """Draws (n, *shape), with y itself where it was observed.

    resamplings: how often each step is taken. Raises InputError on other measurements
    than masks, and where modes of a basis are noised differently.
    """
    if not isinstance(task.measurement, Inpainting):
        raise InputError("repaint needs an Inpainting measurement: use mmps for others")
    if resamplings < 1:
        raise InputError(f"resamplings is {resamplings}; it must be at least 1")
    process, state = task.process, task.start()
    if not process.isotropic and not torch.equal(process.to_modes(state), state):
        raise InputError(
            "repaint needs noise that is independent between coordinates, and this process noises "
            "the modes of a basis: use mmps"
        )
    known, mask = task.measurement.adjoint(task.y), task.measurement.mask.to(task.y.device)
    for t, s in pairwise(task.times):
        for left in reversed(range(resamplings)):
            clean = task.denoiser(state, t.to(state).expand(len(state)))
            free = process.reverse(clean, state, t, s, generator=task.generator)
            noised = process.corrupt(known, s, generator=task.generator)
            state = torch.where(mask, noised, free)
            if left:
                state = renoise(process, state, s, t, task.generator)
    clean = task.denoiser(state, task.times[-1].to(state).expand(len(state)))
    return torch.where(mask, known, clean)


def renoise(
    process: GaussianProcess,
    state: Tensor,
    s: Tensor,
    t: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw x_t given x_s at the cleaner s: the forward process between two levels."""
    alpha_s, sigma_s = process.scales(s, state)
    alpha_t, sigma_t = process.scales(t, state)
    kept = alpha_t / alpha_s
    spread = (sigma_t.square() - (kept * sigma_s).square()).clamp(min=0).sqrt()
    noise = torch.randn(state.shape, generator=generator, dtype=state.dtype, device=state.device)
    return in_modes(process, kept, state) + in_modes(process, spread, noise)
