"""A kernel estimate with several durations at once, and the score of its noised law.

    p(x) = sum_h sum_i w_ih p_(tau_h)(x | x_i) + w_0 / volume

Brownian motion adds its own duration to every tau_h, so that the estimate is a model with an exact
score at every level. On spheres and tori the heat kernel is replaced by the von Mises-Fisher law
(von Mises, on each circle) of the same mean, to which it is very close (Roberts & Ursell 1960):
one product of matrices and one exponential a pair. `adaptive_mixture` fits the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from scipy import special
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import Brownian
from reverie.spaces import Manifold, Sphere, Torus

FLOAT32_CONCENTRATION = 2e5  # beyond it a cosine's rounding in float32 moves a logit by 1e-2
LEAST_LOG_WEIGHT = -60.0  # smaller weights would be slow subnormals
Parts = Iterator[tuple[Tensor, Tensor]]


class KernelMixture(Denoiser):
    """The estimate over `data` (N, *shape) with durations `taus` (H,), as a denoiser.

    weights: (N, H + 1) of each row and duration, or (H + 1,) for all rows alike, the last column
    the uniform share; their sum is made 1. Raises InputError on rows off the manifold, a space
    without uniform law, or durations that are not positive.

    >>> import math
    >>> import torch
    >>> from reverie.denoisers import KernelMixture
    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Sphere
    >>> north = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    >>> estimate = KernelMixture(Brownian(Sphere(2)), north, [0.1], torch.tensor([0.0, 1.0]))
    >>> 4 * math.pi * estimate.log_density(north, 0.5).exp().round(decimals=6)  # uniform alone
    tensor([1.0000], dtype=torch.float64)
    """

    process: Brownian
    data: Tensor
    shares: Tensor  # (N, H + 1), with mean 1 over rows and sum 1 over durations

    def __init__(
        self, process: Brownian, data: Tensor, taus: list[float], weights: Tensor
    ) -> None:
        super().__init__()
        if not process.space.compact:
            raise InputError(f"{process.space} is not compact: there is no uniform share")
        if not taus or min(taus) <= 0:
            raise InputError(f"durations are {taus}; they must be positive")
        self.process, self.taus = process, [float(tau) for tau in taus]
        self.register_buffer("data", process.space.check(data.double()), persistent=False)
        shares = weights.double().expand(len(data), len(taus) + 1)
        self.register_buffer("shares", shares / shares.sum(1).mean(), persistent=False)

    @property
    def weights(self) -> Tensor:
        """The weight of each duration and of the uniform law (H + 1,); their sum is 1."""
        return self.shares.mean(0)

    @classmethod
    def chosen(
        cls,
        process: Brownian,
        data: Tensor,
        validation: Tensor,
        taus: Iterable[float],
        uniforms: Iterable[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2),
    ) -> KernelMixture:
        """The estimate with one duration and a uniform share, those best on `validation` rows.

        It is the kernel estimate that density models on a manifold are to beat.
        """
        best, shares = (-math.inf, 0.0, 0.0), tuple(uniforms)
        for tau in taus:
            bare = cls(process, data, [tau], torch.ones(2))
            near, even = bare.read(validation.to(bare.kind), torch.zeros(()))[0].double().T
            near, even = near + math.log(2), even + math.log(2)
            for w in shares:
                mixed = torch.logaddexp(near + math.log1p(-w), even + math.log(w))
                best = max(best, (float(mixed.mean()), tau, w))
        _, tau, w = best
        return cls(process, data, [tau], torch.tensor([1 - w, w]))

    @property
    def kind(self) -> torch.dtype:
        """The type in which states are best read: float32 where differences of cosines serve."""
        return torch.float32 if self._by_cosines else torch.float64

    @property
    def _by_cosines(self) -> bool:
        return isinstance(self.process.space, Sphere | Torus)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The score (B, *shape)."""
        return self.read(state, t)[1]

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Log-density in nats (B,) of the estimate noised to t."""
        return self.read(state, torch.as_tensor(t))[0].logsumexp(1)

    def read(self, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the weighted parts (B, H + 1) at the states, and the score (B, *shape)."""
        tau = self.process.tau(t).to(state.device).expand(len(state))
        durations = [tau + h for h in self.taus]
        parts = self._von_mises_fisher if self._by_cosines else self._heat
        each = list(parts(state, durations))
        even = self.weights[-1].log() - self.process.space.log_volume
        log_parts = [log_p.to(state) for log_p, _ in each] + [even.to(state).expand(len(state))]
        log_parts = torch.stack(log_parts, 1)
        scores = torch.stack([score.to(state) for _, score in each], 1)
        return log_parts, torch.einsum("bh,bh...->b...", log_parts.softmax(1)[:, :-1], scores)

    def _heat(self, state: Tensor, taus: list[Tensor]) -> Parts:
        """(log-density (B,), score (B, *shape)) for each duration, by the heat kernel."""
        heat, y = self.process.heat, state.double()
        for tau, share in zip(taus, self.shares.T, strict=False):  # without the uniform share
            logits = heat.log_density(y, self.data, tau) + share.log()
            score = heat.mean_score(logits.softmax(1), y, self.data, tau)
            yield logits.logsumexp(1) - math.log(len(self.data)), score

    def _von_mises_fisher(self, state: Tensor, taus: list[Tensor]) -> Parts:
        """The same by cosines: they serve all durations, with one exponential a pair."""
        space = self.process.space
        circles = space.dim if isinstance(space, Torus) else 1
        laws = [von_mises_fisher(tau, space.dim // circles) for tau in taus]
        kind, at = state.dtype, state
        if max(float(k.max()) for k, _ in laws) > FLOAT32_CONCENTRATION:
            # the concentration multiplies what a rounded point lacks in length, too
            at = space.project(state.double())
        points = space.features(self.data)
        cosine = space.features(at) @ points.to(at).T
        top = cosine.detach().amax(1, keepdim=True)
        gap, points = (cosine - top).to(kind), points.to(kind)  # small: now float32 will do
        for (k, at_mode), share in zip(laws, self.shares.T.to(kind), strict=False):
            kernel = (gap * k.to(kind)[:, None]).clamp(min=LEAST_LOG_WEIGHT).exp()
            total = kernel @ share[:, None]
            log_p = (k.to(at) * (top - circles)[:, 0]).to(kind) + total[:, 0].log()
            mean = k.to(kind)[:, None] * (kernel @ (share[:, None] * points)) / total
            log_p = log_p + circles * at_mode.to(kind) - math.log(len(points))
            yield log_p, _pull_back(space, state, mean)


def _pull_back(space: Manifold, state: Tensor, covector: Tensor) -> Tensor:
    """The tangent vector of a derivative by the space's features."""
    if isinstance(space, Torus):
        by_cosine, by_sine = covector.chunk(2, 1)
        return state.cos() * by_sine - state.sin() * by_cosine
    return space.tangent(state, covector)


def von_mises_fisher(tau: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Concentration (B,) of the law on S^dim with mean exp(-dim tau / 2), and its log at the mode.

    k = R (p - R^2) / (1 - R^2), p = dim + 1: the approximation of Banerjee et al. 2005 (eq. 4.4),
    exact at both ends.
    """
    shrink = -torch.expm1(-dim * tau)  # 1 - R^2
    r = (-0.5 * dim * tau).exp()
    k = r * (dim + shrink) / shrink
    order = 0.5 * (dim - 1)
    bessel = torch.from_numpy(special.ive(order, k.detach().numpy()))
    half = 0.5 * (dim + 1) * math.log(2 * math.pi)
    return k, order * k.log() - half - bessel.log()
