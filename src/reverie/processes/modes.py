"""Gaussian noise in the modes of an orthonormal basis B, each with its own speed and variance:

    x_t = B^T [alpha(t_j) (B x)_j + sigma(t_j) sqrt(lambda_j) e_j],  t_j = t_0 + speed_j (t - t_0)

with alpha, sigma of one schedule and t_0 its cleanest time. `speed` stretches the clock of a mode
(Batzolis et al. 2021, arXiv 2111.13606, section 3; 2022, arXiv 2207.09786, section 3); `spectrum`
is lambda, the eigenvalues of the noise's covariance operator (trace-class noise: Kerrigan, Ley &
Smyth 2023; Lim et al. 2023). All speeds 1 and no spectrum is the schedule itself, in any basis.

The clock has one column per distinct speed, gamma(t_j): lambda_j divides the signal-to-noise ratio
of a mode at all times alike, so that it enters the rate,

    rate_j = 1/2 sum over the modes of speed j of (B (x - xhat))^2 / lambda,

which is the squared Cameron-Martin norm of the error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import float64
from reverie.processes.gaussian import GaussianProcess
from reverie.spaces.bases import Basis, basis_named

PerMode = Tensor | Sequence[float]


class ModalProcess(GaussianProcess):
    """`schedule` in the modes of `basis`, for points of `shape`.

    schedule: a Gaussian process with one clock. basis: a Basis, or its name (see `basis_named`).
    speed, spectrum: positive numbers, one per band of the basis (a list, coarse band first) or one
    per mode (a tensor of `shape`); default 1. t_range: default the schedule's. A mode whose speed
    exceeds 1 is read off the schedule beyond its own range, where its formula must still hold.
    Raises InputError on numbers that are not positive or not as many as bands or modes, on a basis
    of another shape, and where the clock of a mode is not finite, positive and decreasing in t.
    Source: Batzolis et al. 2021 (arXiv 2111.13606) and 2022 (arXiv 2207.09786), section 3.

    >>> import torch
    >>> from reverie.processes import VP, ModalProcess
    >>> process = ModalProcess(VP(), shape=(8, 8), basis="haar/2", speed=[1, 2, 4])
    >>> process.clock(0.1).shape, process.sample_prior(5).shape  # a clock for each speed
    (torch.Size([1, 3]), torch.Size([5, 8, 8]))
    """

    def __init__(
        self,
        schedule: GaussianProcess,
        *,
        shape: tuple[int, ...],
        basis: Basis | str = "identity",
        speed: PerMode | None = None,
        spectrum: PerMode | None = None,
        t_range: tuple[float, float] | None = None,
    ) -> None:
        shape = tuple(shape)
        super().__init__(schedule.t_range if t_range is None else t_range, shape)
        self.schedule = schedule
        self.basis = basis_named(basis, shape) if isinstance(basis, str) else basis
        if not schedule.isotropic:
            raise InputError("the schedule of a modal process has one clock; give it the speeds")
        if self.basis.shape != shape:
            raise InputError(f"the basis is of points {self.basis.shape}, not {shape}")
        self.speed, self.spectrum = speed, spectrum
        each = self._per_mode("speed", speed).flatten()
        self.speeds, self.column = each.unique(return_inverse=True)  # (J,) and (d,)
        self.columns = len(self.speeds)
        self.variance = None if spectrum is None else self._per_mode("spectrum", spectrum)
        self._check()

    def _per_mode(self, name: str, given: PerMode | None) -> Tensor:
        """Positive numbers (*shape) in float64, from one per band or one per mode."""
        if given is None:
            return torch.ones(self.basis.shape, dtype=torch.float64)
        values = torch.as_tensor(given, dtype=torch.float64)
        if not isinstance(given, Tensor) and values.shape == (self.basis.count,):
            values = values[self.basis.bands]
        if values.shape != self.basis.shape:
            raise InputError(
                f"{name} has shape {tuple(values.shape)}; give one number for each of the "
                f"{self.basis.count} bands (a list), or a tensor of shape {self.basis.shape}"
            )
        if not torch.isfinite(values).all() or (values <= 0).any():
            raise InputError(f"every {name} must be a positive number")
        return values

    def _check(self) -> None:
        clock = self.clock(torch.linspace(*self.t_range, 65, dtype=torch.float64))
        clock = clock.reshape(65, -1)
        if not (torch.isfinite(clock) & (clock > 0)).all() or (clock.diff(dim=0) >= 0).any():
            raise InputError(
                f"{type(self.schedule).__name__} has no decreasing, positive signal-to-noise "
                f"ratio at all speeds up to t = {self.t_range[1]:g}: lower the speeds or t_range"
            )

    @property
    def isotropic(self) -> bool:
        return self.columns == 1 and self.variance is None

    def to_modes(self, x: Tensor) -> Tensor:
        return self.basis.to_modes(x)

    def from_modes(self, modes: Tensor) -> Tensor:
        return self.basis.from_modes(modes)

    def _times(self, t: Tensor) -> Tensor:
        """Schedule times (B, J) of the J speeds."""
        start = self.schedule.t_range[0]
        return start + (t[:, None] - start) * self.speeds.to(t)

    def _of_modes(self, level: Tensor) -> Tensor:
        """Levels (B J,) of the schedule as (B,), or (B, *shape) of the modes."""
        if self.isotropic:
            return level
        assert self.space.shape is not None
        return level.reshape(-1, self.columns)[:, self.column].reshape(-1, *self.space.shape)

    def alpha(self, t: Tensor) -> Tensor:
        return self._of_modes(self.schedule.alpha(self._times(t).flatten()))

    def sigma(self, t: Tensor) -> Tensor:
        sigma = self._of_modes(self.schedule.sigma(self._times(t).flatten()))
        return sigma if self.variance is None else sigma * self.variance.to(t).sqrt()

    def gamma(self, t: Tensor) -> Tensor:
        gamma = self._of_modes(self.schedule.gamma(self._times(t).flatten()))
        return gamma if self.variance is None else gamma / self.variance.to(t)

    def clock(self, t: Tensor | float) -> Tensor:
        time = float64(t).reshape(-1)
        clock = self.schedule.clock(self._times(time).flatten())
        return clock.reshape(-1, self.columns) if self.columns > 1 else clock

    def time(self, u: Tensor | float) -> Tensor:
        if self.columns > 1:
            return super().time(u)
        start = self.schedule.t_range[0]
        return start + (self.schedule.time(u) - start) / float(self.speeds)

    def pool(self, squares: Tensor) -> Tensor:
        if self.variance is not None:
            squares = squares / self.variance.to(squares)
        squares = squares.flatten(1)
        if self.columns == 1:
            return squares.sum(1)
        pooled = squares.new_zeros(len(squares), self.columns)
        return pooled.index_add(1, self.column.to(squares.device), squares)

    def spec(self) -> dict[str, str]:
        """Settings of `build` besides the schedule's, as text; InputError where there are none."""
        if self.basis.name is None:
            raise InputError("a basis without a name, as of data, cannot be written to a run")
        assert self.space.shape is not None
        low, high = self.t_range
        written = {"basis": self.basis.name, "shape": "x".join(map(str, self.space.shape))}
        for name, given in (("speed", self.speed), ("spectrum", self.spectrum)):
            if isinstance(given, Tensor):
                raise InputError(f"a {name} per mode cannot be written to a run: give one a band")
            if given is not None:
                written[name] = "/".join(repr(float(value)) for value in given)
        if self.t_range != self.schedule.t_range:
            written |= {"from": repr(low), "to": repr(high)}
        return written
