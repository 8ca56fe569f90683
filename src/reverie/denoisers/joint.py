"""Conditional denoisers made of a joint one: noise the condition too, faster or slower than x.

A denoiser of z = (x, y) knows E[x | x_t, y_t], which stands in for E[x | x_t, y]:

    CDiffE    y is noised as fast as x (Song et al. 2021): badly biased, even with exact scores
    CMDE      y is noised more slowly; the error falls to 0 with y's noise
    VS-CMDE   y's greatest noise is lowered while the joint denoiser is trained

Source: Batzolis, Stanczuk, Schonlieb & Etmann 2021 (arXiv 2111.13606), sections 3 and 4, and their
code for the schedule of VS-CMDE. With clean y it is their CDE, which needs nothing of this file: a
`Network` that is told y.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import GaussianProcess


class JointConditional(Denoiser):
    """E[x | x_t, y_t] with y_t drawn afresh at every call from the condition y (B, c, *rest).

    joint: a denoiser of points z = (x, y) joined along their first axis, x first; as a rule on a
    `ModalProcess` whose speeds are 1 for x and `speed_to` for y. process: that of x alone.
    generator: of y's noise. Raises InputError where a clock of x is none of the joint process's,
    and without a condition.
    Source: Batzolis et al. 2021 (arXiv 2111.13606), sections 3 and 4.

    >>> import torch
    >>> from reverie.denoisers import JointConditional, Linear
    >>> from reverie.processes import VP
    >>> turn = torch.tensor([[1, 1], [1, -1]]) / 2**0.5
    >>> joint = Linear(VP(), torch.zeros(2), torch.tensor([1.9, 0.1]), turn)
    >>> told = JointConditional(joint, VP(), generator=torch.Generator().manual_seed(0))
    >>> told(torch.zeros(3, 1), torch.tensor(0.1), torch.ones(3, 1)).shape  # E[x | x_t, y_t]
    torch.Size([3, 1])
    """

    process: GaussianProcess

    def __init__(
        self,
        joint: Denoiser,
        process: GaussianProcess,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        times = torch.linspace(*process.t_range, 9, dtype=torch.float64)
        ours, theirs = (p.clock(times).log().reshape(9, -1) for p in (process, joint.process))
        apart = (ours[:, :, None] - theirs[:, None]).abs().amax(0)
        if (apart.amin(1) > 1e-6).any():
            raise InputError("the process of x noises it otherwise than the joint process")
        self.joint, self.process, self.generator = joint, process, generator

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if condition is None:
            raise InputError("a joint model is sampled given y: pass condition=y")
        size = state.shape[1]
        clean = torch.cat([torch.zeros_like(state), condition], 1)
        noised = self.joint.process.corrupt(clean, t, generator=self.generator)
        return self.joint(torch.cat([state, noised[:, size:]], 1), t)[:, :size]


def speed_to(schedule: GaussianProcess, level: float) -> float:
    """The speed at which a mode of a `ModalProcess` on `schedule` ends at this sigma / alpha.

    InputError on a level below the schedule's cleanest.

    >>> from reverie.denoisers import speed_to
    >>> from reverie.processes import VE
    >>> round(speed_to(VE(0.01, 100), 1.0), 6)  # half way from .01 to 100, by ratio
    0.5
    """
    low, high = schedule.t_range
    clock = torch.tensor(level, dtype=torch.float64) ** -2
    speed = (float(schedule.time(clock)) - low) / (high - low)
    if speed <= 0:
        raise InputError(f"sigma / alpha = {level:g} lies below the schedule's cleanest level")
    return speed


def annealed_level(step: int, start: float, end: float, until: int) -> float:
    """Greatest noise of y at a training step: 1 / sigma is linear from 1 / start to 1 / end.

    Held at `end` from step `until` on (VS-CMDE; the authors' code goes on falling).
    Source: Batzolis et al. 2021, section 4. InputError unless 0 < end <= start.

    >>> from reverie.denoisers import annealed_level
    >>> [round(annealed_level(step, 10.0, 1.0, until=100), 3) for step in (0, 50, 100, 200)]
    [10.0, 1.818, 1.0, 1.0]
    """
    if not 0 < end <= start or until < 1:
        raise InputError(f"the level falls from start {start} to end {end} in {until} steps")
    share = min(step / until, 1.0)
    return 1 / ((1 - share) / start + share / end)
