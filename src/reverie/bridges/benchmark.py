"""Pairs of laws with a known entropic plan, and how far a plan is from it (Gushchin, Kolesov,
Mokrov, Karpikova, Spiridonov, Burnaev & Korotin 2023).

The near end is a standard normal; the potential is a mixture sum_k w_k N(b_k, B_k), and the far
end is what the plan makes of the near end:

    plan(y | x) = sum_k w_k(x) N(y; V_k (x / e + B_k^-1 b_k), V_k),   V_k = (1/e + B_k^-1)^-1,
    w_k(x) prop. to w_k N(x; b_k, B_k + e).

The pairs are drawn here, of the published form; they are not the published files.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reverie.bridges.coupling import Coupling

RADIUS, SPREADS = 5.0, (0.1, 1.0)  # of the centres' sphere; least and largest variance of a B_k


class EntropicPair(Coupling):
    """A pair in `dim` coordinates with its exact plan; every draw is fresh.

    rotated: each B_k has axes of its own, at random (a mixture of diagonal ones can then only come
    near the plan); else all are diagonal.
    Source: Gushchin, Kolesov, Mokrov, Karpikova, Spiridonov, Burnaev & Korotin 2023.

    >>> import torch
    >>> from reverie.bridges import EntropicPair
    >>> pair = EntropicPair(2, epsilon=1.0)
    >>> x0, x1 = pair.sample(100, generator=torch.Generator().manual_seed(0))
    >>> mean, covariance = pair.moments(x0)
    >>> x1.shape, mean.shape, covariance.shape
    (torch.Size([100, 2]), torch.Size([100, 2]), torch.Size([100, 2, 2]))
    """

    def __init__(
        self,
        dim: int,
        epsilon: float,
        *,
        components: int = 5,
        rotated: bool = False,
        seed: int = 0,
    ) -> None:
        draw = np.random.default_rng(seed)
        centres = draw.normal(size=(components, dim))
        centres *= RADIUS / np.linalg.norm(centres, axis=1, keepdims=True)
        low, high = np.log(SPREADS)
        spreads = np.exp(draw.uniform(low, high, size=(components, dim)))
        axes = np.broadcast_to(np.eye(dim), (components, dim, dim))
        if rotated:
            axes = np.linalg.qr(draw.normal(size=(components, dim, dim)))[0]
        self.dim, self.epsilon = dim, epsilon
        self.centres = torch.as_tensor(centres)  # (K, dim)
        self.axes, self.spreads = torch.as_tensor(axes.copy()), torch.as_tensor(spreads)
        self.variances = 1 / (1 / epsilon + 1 / self.spreads)  # of V_k along its axes

    def law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact plan given x (n, dim): log weights (n, K), means (n, K, dim)."""
        x, wide = x.double(), self.spreads + self.epsilon
        off = torch.einsum("nki,kij->nkj", x[:, None] - self.centres, self.axes)
        log = -0.5 * (off.square() / wide + wide.log()).sum(2)
        mean = self.centres + torch.einsum(
            "nkj,kij->nki", self.variances / self.epsilon * off, self.axes
        )
        return log.log_softmax(1), mean

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x = torch.randn((n, self.dim), generator=generator, dtype=torch.float64)
        log, mean = self.law(x)
        pick = torch.multinomial(log.exp(), 1, generator=generator)[:, 0]
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        y = mean[torch.arange(n), pick]
        for k in range(len(self.centres)):
            rows = pick == k
            y[rows] += noise[rows] * self.variances[k].sqrt() @ self.axes[k].T
        return x, y

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Exact mean (n, dim) and covariance (n, dim, dim) of the far end given x."""
        log, mean = self.law(x)
        weight = log.exp()
        centre = torch.einsum("nk,nkd->nd", weight, mean)
        off = (mean - centre[:, None]) * weight.sqrt()[..., None]
        inner = torch.einsum("kij,kj,klj->kil", self.axes, self.variances, self.axes)
        return centre, off.mT @ off + torch.einsum("nk,kij->nij", weight, inner)


def bures_square(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance (...) of Gaussians with means (..., d), cov (..., d, d)."""
    values, vectors = torch.linalg.eigh(cov)
    root = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ other_cov @ root).clamp(min=0).sqrt().sum(-1)
    traces = (torch.diagonal(c, dim1=-2, dim2=-1).sum(-1) for c in (cov, other_cov))
    return (mean - other_mean).square().sum(-1) + sum(traces) - 2 * cross


def conditional_uvp(
    found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor], variance: float
) -> float:
    """cBW2-UVP in percent of conditional moments (n, d), (n, d, d); variance: of the far end.

    100 / (variance / 2) times the mean of half the squared Bures distance. The moments are exact
    here, where the published ones are read off 1,000 samples each.
    Source: Gushchin et al. 2023.

    >>> import torch
    >>> from reverie.bridges import EntropicPair, conditional_uvp
    >>> pair = EntropicPair(2, epsilon=1.0)
    >>> x, _ = pair.sample(10, generator=torch.Generator().manual_seed(0))
    >>> mean, covariance = pair.moments(x)
    >>> off = (mean + 0.1, covariance)
    >>> round(conditional_uvp(off, (mean, covariance), variance=2.0), 3)  # percent
    1.0
    """
    return 100 * float(bures_square(*found, *exact).mean()) / variance
