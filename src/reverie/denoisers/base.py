"""The contract of a denoiser: `prediction = denoiser(state, t, condition=None)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def evaluating(denoiser: nn.Module) -> Iterator[None]:
    """Dropout and the like off inside the block; every submodule's mode is put back after it."""
    training = [module for module in denoiser.modules() if module.training]
    denoiser.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
