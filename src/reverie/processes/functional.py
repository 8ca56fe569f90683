"""Noise that is a random function: x_t = alpha x + sigma xi with xi of covariance operator C.

On a grid C is the matrix K of its kernel, whatever the quadrature weights, and the process is the
modal one in the eigenvectors of K. Its rate is 1/2 |C^(-1/2) (x - xhat)|^2, the squared
Cameron-Martin norm, which grows without bound as the grid is refined unless data are smoother than
the noise (Kerrigan, Ley & Smyth 2023); see `objectives.functional`.
"""

from __future__ import annotations

from torch import Tensor

from reverie.errors import InputError
from reverie.processes.covariance import Covariance, Stationary
from reverie.processes.gaussian import GaussianProcess
from reverie.processes.modes import ModalProcess
from reverie.processes.schedules import EDM
from reverie.spaces import Functions, KarhunenLoeve

NUGGET = 1e-6


class FunctionNoise(ModalProcess):
    """`schedule` (default EDM from .01 to 40) with noise of `covariance` on the grid of `space`.

    nugget: the least variance of a mode, in units of the mean. A smooth kernel's variances fall
    below rounding, and the clock divides by them. Costs n^3 once and n^2 a function, n points.
    Source: Kerrigan, Ley & Smyth 2023.

    >>> import torch
    >>> from reverie.processes import FunctionNoise, Matern
    >>> from reverie.spaces import Functions
    >>> process = FunctionNoise(Functions.regular(32), Matern(1.5, length=0.2))
    >>> process.corrupt(torch.zeros(4, 32), 0.5).shape
    torch.Size([4, 32])
    >>> process.on(Functions.regular(64)).sample_prior(4).shape  # the same noise, finer
    torch.Size([4, 64])
    """

    space: Functions

    def __init__(
        self,
        space: Functions,
        covariance: Covariance,
        schedule: GaussianProcess | None = None,
        nugget: float = NUGGET,
    ) -> None:
        basis = KarhunenLoeve(space.shape, covariance.on(space))
        super().__init__(
            EDM(0.01, 40.0) if schedule is None else schedule,
            shape=space.shape,
            basis=basis,
            spectrum=basis.spectrum.clamp(min=nugget * float(basis.spectrum.mean())),
        )
        self.space, self.covariance, self.nugget = space, covariance, nugget

    def network_scales(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """One level for the function: its pointwise deviation, which is the same on all grids.

        Level by level of the modes, a loss would weigh each alike, the finest of the grid as well.
        """
        alpha, sigma = (level.flatten(1) for level in self.scales(t, like))
        whole = (-1, *(1,) * (like.ndim - 1))
        return alpha[:, :1].reshape(whole), sigma.square().mean(1).sqrt().reshape(whole)

    def spec(self) -> dict[str, str]:
        if not isinstance(self.covariance, Stationary) or not self.space.uniform:
            raise InputError(
                "only noise of a named kernel on a regular grid can be written to a run"
            )
        length, variance = self.covariance.length, self.covariance.variance
        written = {"kernel": self.covariance.name, "shape": "x".join(map(str, self.space.shape))}
        numbers = {"length": length, "variance": variance, "nugget": self.nugget}
        return written | {key: repr(value) for key, value in numbers.items()}

    def on(self, space: Functions) -> FunctionNoise:
        """The same noise on another grid."""
        return FunctionNoise(space, self.covariance, self.schedule, self.nugget)
