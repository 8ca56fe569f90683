"""A variance-preserving process known at T levels only, as schedulers of trained models store it.

Level i = 0 (clean) to T - 1 (noise) has alpha^2 = alphas_cumprod[i] (Ho, Jain & Abbeel 2020,
section 2); it stands at t = (i + 1) / T. Between levels log gamma is linear in t.

A last level without signal (zero terminal SNR, Lin et al. 2024) is no number in log gamma. Four
schedulers of diffusers write 2^-24 in its place, which may lie above the level before: here it is
read as what it stands for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import float64
from reverie.processes.gaussian import VariancePreserving

NO_SIGNAL = 2.0**-24  # stands for a last alphas_cumprod of 0


class Tabulated(VariancePreserving):
    """x_t = sqrt(a) x + sqrt(1 - a) e with a from a table (T,), decreasing within (0, 1).

    Levels without signal at the noisy end (zero terminal SNR) and levels that rounding cannot
    tell apart at the clean end lie outside `t_range`: log gamma is not finite or not invertible
    there. Raises InputError when fewer than two levels are left.

    signal: (T,) the table, float64, with 0 for a last level that stands for it.
    Source: Ho, Jain & Abbeel 2020.

    >>> import torch
    >>> from reverie.processes import Tabulated
    >>> table = (1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0)  # DDPM
    >>> process = Tabulated(table)
    >>> process.index(process.time(1.0)).round(decimals=1)  # where signal and noise are level
    tensor([258.1000], dtype=torch.float64)
    """

    def __init__(self, alphas_cumprod: Tensor, shape: tuple[int, ...] | None = None) -> None:
        table = float64(alphas_cumprod).detach().cpu().reshape(-1)
        table = torch.where(_stands_for_none(table), 0.0, table)
        inside = (table > 0) & (table < 1)
        falls = torch.cat([table.diff() < 0, torch.ones(1, dtype=torch.bool)])
        noisy = int(inside.nonzero().max()) if inside.any() else 0
        bad = (~(inside & falls)[:noisy]).nonzero()
        clean = int(bad.max()) + 1 if len(bad) else 0
        if noisy - clean < 1:
            raise InputError(
                "a table of noise levels must hold at least two that decrease within (0, 1)"
            )
        steps = len(table)
        super().__init__(((clean + 1) / steps, (noisy + 1) / steps), shape)
        kept = table[clean : noisy + 1]
        self.steps, self.first, self.signal = steps, clean, table
        # no buffer: a module moved to half precision must keep its noise levels
        self.table = kept.log() - torch.log1p(-kept)

    def index(self, t: Tensor | float) -> Tensor:
        """Level t T - 1 (B,), fractional between levels."""
        return float64(t).reshape(-1) * self.steps - 1

    def log_gamma(self, t: Tensor) -> Tensor:
        table = self.table.to(t)
        place = t * self.steps - 1 - self.first
        left = place.detach().floor().long().clamp(0, len(table) - 2)
        return table[left] + (place - left) * (table[left + 1] - table[left])

    def time(self, u: Tensor | float) -> Tensor:
        goal = float64(u).reshape(-1).log()
        table = self.table.to(goal)
        right = torch.searchsorted(-table, -goal).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        return (self.first + right + (goal - low) / (high - low)) / self.steps


def _stands_for_none(table: Tensor) -> Tensor:
    """(T,) whether a level is the last and stands for one without signal."""
    last = torch.arange(len(table)) == len(table) - 1
    return last & (table == NO_SIGNAL)
