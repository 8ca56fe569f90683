"""The contract of a denoiser: `prediction = denoiser(state, t, condition=None)`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from reverie.processes import Process


class Denoiser(nn.Module):
    """Guesses what the process asks for (clean data, for Gaussian noise) from a state at t.

    `state` is (B, *shape), `t` is () or (B,); the prediction has the shape of `process.target`.
    """

    process: Process

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        raise NotImplementedError
