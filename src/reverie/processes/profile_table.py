"""An isotropic heat kernel of one duration, tabulated by distance: for many pairs at one level.

What is tabulated is log p + r^2 / (2 tau), which is smooth, with its slope by r: a cubic Hermite
interpolant in each cell. Cells are even over the sphere, and finer by themselves near the
antipode, where the kernel changes over lengths of order tau.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Radial = tuple[Tensor, Tensor]
CELLS = 3072  # in each of the two parts: log p to 1e-10, slopes to 1e-7
ANTIPODE = 30.0  # durations from the antipode at which the finer part begins
WORTH = 8 * CELLS  # pairs from which a table costs less than it saves
INSIDE = 1e-3  # of the ends: profiles are read no nearer to them


class ProfileTable:
    """(log p, pull) by distance r in [0, pi]; `profile(r, tau)` gives them exactly."""

    def __init__(self, profile: Callable[[Tensor, Tensor], Radial], tau: float) -> None:
        self.tau = tau
        self.edge = math.pi - min(ANTIPODE * tau, 0.5 * math.pi)
        first = torch.linspace(0, self.edge, CELLS + 1, dtype=torch.float64)
        second = torch.linspace(self.edge, math.pi, CELLS + 1, dtype=torch.float64)
        self.widths = (self.edge / CELLS, (math.pi - self.edge) / CELLS)
        nodes = torch.cat([first, second])
        log_p, pull = profile(nodes, torch.full((1,), tau, dtype=torch.float64))
        self.rest = log_p + 0.5 * nodes.square() / tau
        self.slope = nodes / tau - pull * nodes.sin()

    def __call__(self, r: Tensor) -> Radial:
        inner = r.clamp(INSIDE, math.pi - INSIDE)  # both answers are flat beyond
        fine = inner > self.edge
        width = torch.where(fine, self.widths[1], self.widths[0])
        place = torch.where(fine, inner - self.edge, inner) / width
        cell = place.floor().clamp(0, CELLS - 1)
        s = place - cell
        left = cell.long() + fine * (CELLS + 1)
        d0, d1 = self.slope[left] * width, self.slope[left + 1] * width
        start = self.rest[left]
        rise = self.rest[left + 1] - start
        c2, c3 = 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise
        rest = start + s * (d0 + s * (c2 + s * c3))
        slope = (d0 + s * (2 * c2 + 3 * s * c3)) / width
        travel = 0.5 * r.clamp(max=math.pi - INSIDE).square() / self.tau
        return rest - travel, (inner / self.tau - slope) / inner.sin()
