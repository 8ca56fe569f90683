"""Exact increments of isotropic Brownian motion: the distance travelled, by a monotone map.

If xi is a standard normal tangent vector at x, the point exp_x(T(|xi|) xi / |xi|) has the law of
the heat kernel of duration tau once T carries the chi law of |xi| to the law of the distance,
density p(r, tau) times the area of the sphere of radius r. T is found from the two distribution
functions on a grid of log tau and |xi| and read by bilinear interpolation, to about 1e-4 of its
value; below the grid T is sqrt(tau) |xi|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from scipy import integrate, special
from torch import Tensor

LOG_DURATIONS = np.linspace(math.log(1e-4), math.log(40.0), 241)
LENGTHS = np.linspace(0.0, 8.0, 257)
RADII = 500


class RadialTable:
    """T of the kernel `log_density(r, tau)` in dimension `dim`.

    log_area(r): log area of the sphere of radius r up to a constant. furthest: the diameter, or
    infinity.
    """

    def __init__(
        self,
        log_density: Callable[[Tensor, Tensor], Tensor],
        log_area: Callable[[np.ndarray], np.ndarray],
        dim: int,
        furthest: float,
    ) -> None:
        self.log_density, self.log_area = log_density, log_area
        self.dim, self.furthest = dim, furthest

    @cached_property
    def table(self) -> Tensor:
        """T / sqrt(tau), (durations, lengths); built in about a second at the first use."""
        rows = [self._row(math.exp(log_tau)) for log_tau in LOG_DURATIONS]
        return torch.from_numpy(np.stack(rows))

    def _row(self, tau: float) -> np.ndarray:
        root = math.sqrt(tau)
        # half its dimension less one times tau is how fast a path runs off in curvature -1
        reach = 9 * root + 0.5 * (self.dim - 1) * tau + 2 * root * math.sqrt(self.dim)
        r = np.linspace(0, min(reach, self.furthest), RADII + 1)[1:]
        log_p = self.log_density(torch.from_numpy(r), torch.tensor([tau], dtype=torch.float64))
        log_f = log_p.numpy() + self.log_area(r)
        f = np.concatenate([[0.0], np.exp(log_f - log_f.max())])
        grid = np.concatenate([[0.0], r])
        below = integrate.cumulative_simpson(f, x=grid, initial=0)
        above = integrate.cumulative_simpson(f[::-1], x=-grid[::-1], initial=0)[::-1]
        below, above = (np.clip(part / below[-1], 0, 1) for part in (below, above))
        half = 0.5 * self.dim
        square = np.where(
            below < 0.5, special.gammaincinv(half, below), special.gammainccinv(half, above)
        )
        z = np.sqrt(2 * square)
        z, grid = z[np.isfinite(z)], grid[np.isfinite(z)]
        keep = np.diff(z, prepend=-1.0) > 0
        return np.interp(LENGTHS, z[keep], grid[keep]) / root

    def __call__(self, xi: Tensor, tau: Tensor) -> Tensor:
        """T(xi) of lengths xi (B,) and durations tau (B,), float64."""
        place = (tau.clamp(min=1e-300).log() - LOG_DURATIONS[0]) / np.diff(LOG_DURATIONS)[0]
        place = place.clamp(0, len(LOG_DURATIONS) - 1 - 1e-9)
        across = (xi / LENGTHS[1]).clamp(max=len(LENGTHS) - 1 - 1e-9)
        row, column = place.long(), across.long()
        up, right = place - row, across - column
        corner = self.table
        near = corner[row, column] * (1 - right) + corner[row, column + 1] * right
        far = corner[row + 1, column] * (1 - right) + corner[row + 1, column + 1] * right
        known = tau.clamp(max=math.exp(LOG_DURATIONS[-1])).sqrt()
        return known * ((1 - up) * near + up * far)
