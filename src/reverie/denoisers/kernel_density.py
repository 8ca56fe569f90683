"""A kernel density estimate on a manifold, the baseline of every likelihood on it.

    p(x) = (1 - w) mean_i p_tau(x | x_i) + w / volume

with the heat kernel of duration tau: on the sphere a von Mises-Fisher estimate of concentration
1/tau in all but name, on the torus the wrapped normal. It is the law of the noised training set,
the memoriser's, so a model that does not beat it has learned no more than a bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.heat import heat_kernel
from reverie.spaces import Manifold

PAIRS = 2**21  # in flight at a time


class KernelDensity:
    """The estimate of `data` (N, *shape) with duration `tau` and a share `uniform` of the volume.

    Raises InputError on rows off the manifold, tau <= 0, uniform outside [0, 1), or a uniform
    share on a space that is not compact.
    """

    def __init__(self, space: Manifold, data: Tensor, tau: float, uniform: float = 0.0) -> None:
        if not tau > 0 or not 0 <= uniform < 1:
            raise InputError(f"tau is {tau}, uniform {uniform}; need tau > 0, 0 <= uniform < 1")
        if uniform and not space.compact:
            raise InputError(f"{space} is not compact: there is no uniform share")
        self.space, self.data = space, space.check(data.double())
        self.tau, self.uniform = tau, uniform

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density in nats (B,) of points x (B, *shape), with respect to the volume."""
        heat = heat_kernel(self.space)
        tau = torch.tensor(self.tau, dtype=torch.float64)
        rows = max(1, PAIRS // len(self.data))
        log_mean = torch.cat(
            [
                heat.log_density(part, self.data, tau.expand(len(part))).logsumexp(1)
                for part in x.double().split(rows)
            ]
        ) - math.log(len(self.data))
        return self._mix(log_mean, self.uniform)

    def _mix(self, log_mean: Tensor, uniform: float) -> Tensor:
        if not uniform:
            return log_mean
        floor = torch.tensor(math.log(uniform) - self.space.log_volume, dtype=torch.float64)
        return torch.logaddexp(log_mean + math.log1p(-uniform), floor)

    @classmethod
    def fit(
        cls,
        space: Manifold,
        data: Tensor,
        validation: Tensor,
        taus: Iterable[float],
        uniforms: Iterable[float] = (0.001, 0.003, 0.01, 0.03, 0.05),
    ) -> KernelDensity:
        """The duration and the uniform share with the best mean log-density on `validation`."""
        best, shares = (-math.inf, 0.0, 0.0), tuple(uniforms)
        for tau in taus:
            bare = cls(space, data, tau)
            log_mean = bare.log_density(validation)
            scores = [(float(bare._mix(log_mean, w).mean()), tau, w) for w in shares]
            best = max(best, *scores)
        return cls(space, data, best[1], best[2])
