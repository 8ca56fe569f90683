"""A Gaussian process's denoiser, asked about the states of a linear SDE.

A state of a linear SDE knows x only through y = x + N(0, Gamma^-1) (`LinearSDE.statistic`). Where
Gamma is a number, the best guess is that of any Gaussian process at the same signal-to-noise
ratio: velocities change the path of a sampler, not what there is to learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import LinearSDE


class Transferred(Denoiser):
    """The denoiser of a Gaussian process, asked about the states of a linear SDE: no training.

    Exact wherever `denoiser` is. Raises InputError where the SDE mixes coordinates, or reaches
    signal-to-noise ratios that the denoiser's process does not.
    States are those of the SDE, the guess is (B, *shape).

    >>> import torch
    >>> from reverie.denoisers import Linear, Transferred
    >>> from reverie.processes import VP, CriticallyDamped
    >>> linear = Linear(VP(t_min=1e-6, beta_max=30), torch.zeros(5), torch.ones(5), torch.eye(5))
    >>> Transferred(linear, CriticallyDamped())(torch.zeros(3, 2, 5), torch.tensor(0.5)).shape
    torch.Size([3, 5])
    """

    process: LinearSDE

    def __init__(self, denoiser: Denoiser, process: LinearSDE) -> None:
        super().__init__()
        known = denoiser.process.gaussian
        if known is None or not known.isotropic or process.data_dims > 1:
            raise InputError(
                "a denoiser is transferred from a Gaussian process with one clock to a linear SDE "
                "that acts on every coordinate alike"
            )
        (low, high), (least, most) = (
            tuple(p.clock(torch.tensor(p.t_range[::-1])).tolist()) for p in (process, known)
        )
        if low < least or high > most:
            raise InputError(
                f"the process runs from signal-to-noise ratio {low:.3g} to {high:.3g}, but the "
                f"denoiser knows {least:.3g} to {most:.3g} only: widen its process's range"
            )
        self.denoiser, self.known, self.process = denoiser, known, process

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        y = self.process.statistic(state, t)
        time = self.known.time(self.process.clock(t))
        alpha, _ = self.known.scales(time, y)
        return self.denoiser(alpha * y, time.to(y).expand(len(y)), condition)
