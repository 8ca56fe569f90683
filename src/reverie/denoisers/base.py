"""The contract of a denoiser: `prediction = denoiser(state, t, condition=None)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reverie.processes import Process
from reverie.processes.times import bound_rate


class Denoiser(nn.Module):
    """Guesses what the process asks for (clean data, for Gaussian noise) from a state at t.

    `state` is (B, *shape), `t` is () or (B,); the prediction has the shape of `process.target`.
    seen: what it knows of the data, as `Seen` rows or their `Moments`: where runs start whose
    first level keeps signal; None where it knows nothing.

    >>> import torch
    >>> from reverie import Denoiser
    >>> from reverie.processes import EDM
    >>> class Standard(Denoiser):  # the exact guess for N(0, I) under x + sigma e
    ...     process = EDM(0.02, 40)
    ...     def forward(self, state, t, condition=None):
    ...         return state / (1 + self.process.sigma(t).to(state).reshape(-1, 1) ** 2)
    >>> Standard()(torch.ones(2, 3), torch.tensor([0.0, 1.0])).round(decimals=3)
    tensor([[1.0000, 1.0000, 1.0000],
            [0.0010, 0.0010, 0.0010]])
    """

    process: Process
    seen: Any = None

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        raise NotImplementedError

    def losses(
        self, rows: Tensor, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """What training lowers (B,): nats per unit of t that the guess costs at draws of X_t.

        rows: places (B,) of the points x (B, *shape) in the training set. By default the bound of
        the process (see `bound_rate`).
        """
        return bound_rate(self.process, self, x, t, generator=generator)


def one_level(t: Tensor) -> Tensor:
    """t (1,) where times (B,) are one number spread over a batch, as samplers give; else t."""
    return t[:1] if t.ndim == 1 and t.stride(0) == 0 and len(t) else t


def state_type(denoiser: nn.Module) -> torch.dtype:
    """The type that states are kept in: the parameters', and float32 at least.

    Noise levels span ten decades, which half precision cannot hold.
    """
    kinds = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
    return torch.promote_types(next(kinds, torch.float32), torch.float32)


@contextmanager
def evaluating(denoiser: nn.Module) -> Iterator[None]:
    """Dropout and the like off inside the block; every submodule's mode is put back after it.

    >>> from torch import nn
    >>> from reverie.denoisers import evaluating
    >>> module = nn.Dropout()
    >>> with evaluating(module):
    ...     print(module.training)
    False
    >>> module.training
    True
    """
    training = [module for module in denoiser.modules() if module.training]
    denoiser.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
