"""The linear optimum where a process has one: Gaussian noise. A registry by process."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.linear import Linear
from reverie.processes import GaussianProcess, Process


@singledispatch
def linear_of(process: Process, points: Tensor) -> Denoiser | None:
    """The linear optimum of points (n, *shape), n > 1; None where the process has none.

    >>> import torch
    >>> from reverie.denoisers import linear_of
    >>> from reverie.processes import VP
    >>> rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> type(linear_of(VP(), rows)).__name__
    'Linear'
    """
    return None


linear_of.register(GaussianProcess, Linear.fit)
