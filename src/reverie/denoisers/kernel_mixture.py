"""A kernel estimate with several durations at once, and the score of its noised law.

    p(x) = sum_h w_h mean_i p_(tau_h)(x | x_i) + w_0 / volume

Brownian motion adds its own duration to every tau_h, so that the estimate is a model with an exact
score at every level. On spheres and tori the heat kernel is replaced by the von Mises-Fisher law
(von Mises, on each circle) of the same mean, to which it is very close (Roberts & Ursell 1960):
one product of matrices and one exponential a pair.
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
EM_STEPS = 60
Parts = Iterator[tuple[Tensor, Tensor]]


class KernelMixture(Denoiser):
    """The estimate over `data` (N, *shape) with durations `taus` (H,), as a denoiser.

    weights: (H + 1,), the last one the uniform share; by default they are fitted by expectation
    maximisation on leave-one-out densities of the rows. Raises InputError on rows off the
    manifold, a space without uniform law, or durations that are not positive.
    """

    process: Brownian
    data: Tensor
    weights: Tensor

    def __init__(
        self, process: Brownian, data: Tensor, taus: list[float], weights: Tensor | None = None
    ) -> None:
        super().__init__()
        if not process.space.compact:
            raise InputError(f"{process.space} is not compact: there is no uniform share")
        if not taus or min(taus) <= 0:
            raise InputError(f"durations are {taus}; they must be positive")
        self.process, self.taus = process, [float(tau) for tau in taus]
        self.register_buffer("data", process.space.check(data.double()), persistent=False)
        self.register_buffer("weights", torch.ones(len(taus) + 1, dtype=torch.float64))
        self.weights /= len(self.weights)
        if weights is not None:
            self.weights = weights.double() / weights.sum()
        else:
            self.maximise()

    @torch.no_grad()
    def maximise(self) -> None:
        """Fit the weights by expectation maximisation, every row left out of its own density."""
        parts = []
        for rows in torch.arange(len(self.data)).split(512):
            tau = torch.zeros(len(rows), dtype=torch.float64)
            parts.append(self._parts(self.data[rows], tau, rows)[0].double())
        log_parts = torch.cat(parts)
        for _ in range(EM_STEPS):
            self.weights = (log_parts + self.weights.log()).softmax(1).mean(0).clamp(min=1e-12)

    @classmethod
    def chosen(
        cls,
        process: Brownian,
        data: Tensor,
        validation: Tensor,
        taus: Iterable[float],
        uniforms: Iterable[float] = (0.001, 0.003, 0.01, 0.03, 0.1),
    ) -> KernelMixture:
        """The estimate with one duration and a uniform share, those best on `validation` rows.

        It is the kernel estimate that density models on a manifold are to beat.
        """
        best, shares = (-math.inf, 0.0, 0.0), tuple(uniforms)
        for tau in taus:
            bare = cls(process, data, [tau], torch.ones(2))
            near, even = bare.read(validation.double(), torch.zeros(()))[0].T + math.log(2)
            for w in shares:
                mixed = torch.logaddexp(near + math.log1p(-w), even + math.log(w))
                best = max(best, (float(mixed.mean()), tau, w))
        _, tau, w = best
        return cls(process, data, [tau], torch.tensor([1 - w, w]))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The score (B, *shape)."""
        return self.read(state, t)[1]

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Log-density in nats (B,) of the estimate noised to t."""
        return self.read(state, torch.as_tensor(t))[0].logsumexp(1)

    def read(
        self, state: Tensor, t: Tensor, leave_out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log of the weighted parts (B, H + 1) at the states, and the score (B, *shape).

        leave_out: row (B,) of the data that is not to count, state by state.
        """
        tau = self.process.tau(t).expand(len(state))
        log_parts, scores = self._parts(state, tau, leave_out)
        log_parts = log_parts + self.weights.log().to(log_parts)
        share = log_parts.softmax(1)[:, :-1]
        return log_parts, torch.einsum("bh,bh...->b...", share, scores)

    def _parts(
        self, state: Tensor, tau: Tensor, leave_out: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log-densities (B, H + 1) of each duration and of the uniform law, scores (B, H, ...)."""
        durations = [tau + h for h in self.taus]
        by_cosines = isinstance(self.process.space, Sphere | Torus)
        parts = self._von_mises_fisher if by_cosines else self._heat
        each = list(parts(state, durations, leave_out))
        even = state.new_full((len(state),), -self.process.space.log_volume)
        densities = torch.stack([*(log_p.to(state) for log_p, _ in each), even], 1)
        return densities, torch.stack([score.to(state) for _, score in each], 1)

    def _heat(self, state: Tensor, taus: list[Tensor], leave_out: Tensor | None) -> Parts:
        """(log-density (B,), score (B, *shape)) for each duration, by the heat kernel."""
        heat, y, count = (
            self.process.heat,
            state.double(),
            len(self.data) - (leave_out is not None),
        )
        for tau in taus:
            logits = heat.log_density(y, self.data, tau)
            if leave_out is not None:
                logits = logits.scatter(1, leave_out[:, None], -torch.inf)
            score = heat.mean_score(logits.softmax(1), y, self.data, tau)
            yield logits.logsumexp(1) - math.log(count), score

    def _von_mises_fisher(
        self, state: Tensor, taus: list[Tensor], leave_out: Tensor | None
    ) -> Parts:
        """The same by cosines: they serve all durations, with one exponential a pair."""
        space, count = self.process.space, len(self.data) - (leave_out is not None)
        circles = space.dim if isinstance(space, Torus) else 1
        laws = [von_mises_fisher(tau, space.dim // circles) for tau in taus]
        if max(float(k.max()) for k, _ in laws) > FLOAT32_CONCENTRATION:
            state = state.double()
        points = space.features(self.data).to(state)
        cosine = space.features(state) @ points.T
        if leave_out is not None:
            cosine = cosine.scatter(1, leave_out[:, None], -3.0 * circles)
        top = cosine.detach().amax(1, keepdim=True)
        for k, at_mode in laws:
            k = k.to(state)[:, None]
            weights = ((cosine - top) * k).clamp(min=LEAST_LOG_WEIGHT).exp()
            total = weights.sum(1, keepdim=True)
            log_p = (k * (top - circles) + total.log())[:, 0] - math.log(count)
            mean = k * (weights @ points) / total
            yield log_p + circles * at_mode, _pull_back(space, state, mean)


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
