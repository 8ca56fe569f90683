"""One inverse problem to draw from: everything a method needs beside its own settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.inverse.guided import gaussian_process
from reverie.inverse.measurements import Measurement
from reverie.processes import GaussianProcess


@dataclass(frozen=True)
class Task:
    """Draw n points given y (n, *observed), on process times (K + 1,) from noisy to clean."""

    denoiser: Denoiser
    measurement: Measurement
    y: Tensor
    times: Tensor
    generator: torch.Generator | None = None

    @property
    def process(self) -> GaussianProcess:
        return gaussian_process(self.denoiser.process)

    def start(self, n: int | None = None) -> Tensor:
        """States (n, *shape) of the noisiest time; n is by default one for each row of y."""
        return self.process.sample_prior(
            len(self.y) if n is None else n,
            shape=self.measurement.shape,
            t=float(self.times[0]),
            generator=self.generator,
            dtype=self.y.dtype,
            device=self.y.device,
        )

    def check(self) -> Task:
        """Return self; InputError where denoiser and measurement are of different points."""
        shape, fixed = self.measurement.shape, self.process.space.shape
        if fixed is not None and fixed != shape:
            raise InputError(
                f"the measurement is of points of shape {shape}, but the denoiser's of {fixed}"
            )
        state = self.y.new_zeros(1, *shape)
        try:
            found = tuple(self.denoiser(state, self.times[:1].to(state)).shape[1:])
        except RuntimeError as error:
            raise InputError(
                f"the denoiser takes no points of shape {shape}, which the measurement is of, in "
                f"{self.y.dtype}"
            ) from error
        if found != shape:
            raise InputError(
                f"the measurement is of points of shape {shape}, but the denoiser's of {found}"
            )
        return self
