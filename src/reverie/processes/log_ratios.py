"""Gaussian noise on the log-ratios of shares: diffusion in softmax coordinates.

Data and samples are shares on the simplex, states are log-ratios log(x_i / x_k) with noise, and
clock, rate and reversal are those of any Gaussian process (Benton et al. 2022, section 6.4, use
such a process as the baseline of Wright-Fisher noise). Shares of 0 have no log-ratios.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from reverie.processes.base import Draw, Process, State
from reverie.processes.gaussian import GaussianProcess
from reverie.processes.schedules import VP
from reverie.spaces import Simplex


class LogRatios(Process):
    """`base` (default VP) on the k - 1 log-ratios of k shares; the prediction is log-ratios.

    Points are positive shares (B, k) that sum to 1, states log-ratios (B, k - 1) with noise.
    Source: Benton et al. 2022, section 6.4.

    >>> import torch
    >>> from reverie.processes import LogRatios
    >>> shares = torch.tensor([[0.2, 0.3, 0.5]])
    >>> process = LogRatios(3)
    >>> process.corrupt(shares, 0.5).shape, process.target(None, shares, 0.5).round(decimals=3)
    (torch.Size([1, 2]), tensor([[-0.9160, -0.5110]]))
    """

    space: Simplex

    def __init__(self, k: int, base: GaussianProcess | None = None) -> None:
        super().__init__()
        self.space, self.base = Simplex(k), base or VP()
        self.t_range, self.monotone = self.base.t_range, self.base.monotone
        self.clock_label = self.base.clock_label

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """Draw n states (n, k - 1) of the base's prior."""
        one: Draw = {**draw, "shape": (self.space.shape[0] - 1,)}
        return self.base.sample_prior(n, **one)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.base.corrupt(self.space.log_ratios(x), t, end=end, generator=generator)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        return self.base.corrupt_pair(self.space.log_ratios(x), t, generator=generator)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return self.base.log_kernel(state, self.space.log_ratios(x), t)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return self.space.log_ratios(x)

    def clock(self, t: Tensor | float) -> Tensor:
        return self.base.clock(t)

    def time(self, u: Tensor | float) -> Tensor:
        return self.base.time(u)

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.base.rate(prediction, self.space.log_ratios(x), state, t)

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.base.reverse(prediction, state, t, s, generator=generator)

    def readout(self, state: State) -> Tensor:
        return self.space.from_log_ratios(state)
