"""The guess that a model is measured against: the best one of a simple family, by process.

`reference_of` is a `functools.singledispatch` registry: the linear optimum for Gaussian noise, and
None for a process that nobody registered.
"""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.linear import Linear
from reverie.processes import GaussianProcess, Process


@singledispatch
def reference_of(process: Process, points: Tensor) -> Denoiser | None:
    """The reference of points (n, *shape), n > 1, or None where the process has none."""
    return None


reference_of.register(GaussianProcess, Linear.fit)
