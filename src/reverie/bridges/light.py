"""LightSB: a Schrodinger bridge whose potential is a Gaussian mixture (Korotin, Gushchin & Burnaev
2024), so that conditional plans, drifts and paths are closed forms.

    v(y) = sum_k a_k N(y; r_k, e S_k),      plan(y | x) = exp(x.y / e) v(y) / c(x),
    loss = E log c(X0) - E log v(X1) = KL(true plan || plan) + constant,

convex in v: one fit, no iteration between the ends. It starts from cluster means: a rare mode that
no component starts near is not found later. Its plan has the law of X0 as given and learns
the other end; the way back has a mixture of its own, fitted with the ends exchanged. S_k is
diagonal. Everything is in the ends' own centres and in one common unit of length.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reverie.bridges.base import Bridge
from reverie.bridges.coupling import Coupling, Independent
from reverie.bridges.reference import Reference

LAST_RATE = 0.01  # of the learning rate, by a cosine: the end of a fit averages over batches
STARTING = 2048  # rows whose clusters a fit starts from
BALANCING = 100  # rounds that make all components as likely before a fit
WEIGHT_RATE = 3.0  # of the log weights, which run over tens where epsilon is small
Progress = Callable[[int, int], None]


class MixturePotential(nn.Module):
    """v of one direction: `count` components in `dim` coordinates, at regularisation epsilon."""

    def __init__(self, count: int, dim: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.log_weight = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self.centre = nn.Parameter(torch.zeros(count, dim, dtype=torch.float64))
        self.log_spread = nn.Parameter(torch.zeros(count, dim, dtype=torch.float64))

    def start(self, near: Tensor, far: Tensor, spread: Tensor) -> None:
        """Centres on rows far (count, dim), S = spread (dim,), and weights such that rows near
        (n, dim) use all components alike."""
        with torch.no_grad():
            self.centre.copy_(far)
            self.log_spread.copy_(spread.log().expand_as(self.log_spread))
            linear = near @ self.centre.T / self.epsilon
            for _ in range(BALANCING):
                used = (self.log_weight + linear).log_softmax(1).logsumexp(0)
                self.log_weight -= used - used.logsumexp(0) + math.log(len(used))

    def log_c(self, x: Tensor) -> Tensor:
        """log of the normaliser of the plan's rows x (B, dim): (B,)."""
        square, linear = x.square() @ self.log_spread.exp().T, 2 * x @ self.centre.T
        return (self.log_weight + (square + linear) / (2 * self.epsilon)).logsumexp(1)

    def log_v(self, y: Tensor) -> Tensor:
        """log v (B,) at y (B, dim)."""
        precision = (-self.log_spread).exp() / self.epsilon
        square = y.square() @ precision.T - 2 * y @ (precision * self.centre).T
        square = square + (precision * self.centre.square()).sum(1)
        volume = self.log_spread.sum(1) + y.shape[1] * math.log(2 * math.pi * self.epsilon)
        return (self.log_weight - 0.5 * (square + volume)).logsumexp(1)

    def far(self, y: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The law of the far end given y (B, dim), with a share left (B,) of the way to go.

        Log weights (B, K), means and variances (B, K, dim) of a mixture; left = 1 is the plan.
        """
        own = self.log_weight, self.centre, self.log_spread.exp()
        return far_law(*own, self.epsilon, y.double(), left.double())


def far_law(
    log_weight: Tensor, centre: Tensor, spread: Tensor, epsilon: float, y: Tensor, left: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`MixturePotential.far` of potentials (K, dim), or (B, K, dim) where each row has its own."""
    y, left = y[:, None], left.reshape(-1, 1, 1)
    mixed = left + spread * (1 - left)
    mean = (centre * left + y * spread) / mixed
    pull = 2 * centre * y - centre.square() * (1 - left) - y.square() * (1 - spread)
    log = (pull / mixed / epsilon - mixed.log()).sum(2) / 2
    return (log_weight + log).log_softmax(1), mean, epsilon * spread * left / mixed


class LightSB(Bridge):
    """A bridge with a mixture potential for each direction.

    centre0, centre1 (dim,), unit: the coordinates in which the mixtures live; `fit` trains one.
    Source: Korotin, Gushchin & Burnaev 2024.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, LightSB
    >>> bridge = LightSB(2, BrownianMotion(1.0), components=3)
    >>> mean, covariance = bridge.plan_moments(torch.zeros(5, 2))
    >>> mean.shape, covariance.shape
    (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """

    centre0: Tensor
    centre1: Tensor
    unit: Tensor

    def __init__(self, dim: int, reference: Reference, components: int = 20, unit: float = 1.0):  # noqa: ANN204
        super().__init__()
        self.reference, self.dim, self.components = reference, dim, components
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float64))
        for name in ("centre0", "centre1"):
            self.register_buffer(name, torch.zeros(dim, dtype=torch.float64))
        epsilon = reference.epsilon / unit**2
        self.forwards = MixturePotential(components, dim, epsilon)
        self.backwards = MixturePotential(components, dim, epsilon)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "components": self.components, "unit": float(self.unit)}

    def _potential(self, reverse: bool) -> MixturePotential:
        return self.backwards if reverse else self.forwards

    def _inside(self, y: Tensor, share: Tensor) -> Tensor:
        """Brownian coordinates to the mixtures': the centre moves from end to end."""
        s = share.double().reshape(-1, 1)
        return (y.double() - (1 - s) * self.centre0 - s * self.centre1) / self.unit

    def law(self, y: Tensor, share: Tensor, *, reverse: bool = False) -> tuple[Tensor, ...]:
        """Far end given y at share (B,): log weights (B, K), means and variances (B, K, dim)."""
        inside, left = self._inside(y, share), share if reverse else 1 - share
        log, mean, variance = self._potential(reverse).far(inside, left)
        centre = self.centre0 if reverse else self.centre1
        return log, centre + self.unit * mean, self.unit.square() * variance

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            log, mean, _ = self.law(y, share, reverse=reverse)
            return torch.einsum("bk,bkd->bd", log.exp(), mean).to(y)

    def plan_moments(self, x: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """Mean (B, dim) and covariance (B, dim, dim) of the far end given the near end x."""
        with torch.no_grad():
            y = self.to_brownian(x, 1.0 if reverse else 0.0)
            mean, cov = mixture_moments(*self.law(y, _at(y, reverse), reverse=reverse))
        scale = 1.0 if reverse else self.reference.last_scale
        return mean * scale, cov * scale**2

    exact_steps = True

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            log, mean, variance = self.law(y, share, reverse=reverse)
            return draw_mixture(log, mean, variance, generator).to(y)

    @classmethod
    def fit(
        cls,
        ends: Coupling,
        reference: Reference,
        *,
        components: int = 20,
        steps: int = 3000,
        batch: int = 512,
        rate: float = 0.02,
        directions: tuple[bool, ...] = (False, True),
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> LightSB:
        """Train on the two marginals of `ends` by Adam; directions: reverse or not, which to fit.

        progress(done, total) is told of the steps of all directions.
        """
        x0, x1 = ends.sample(4096, generator=generator)
        x1 = x1 / reference.last_scale
        unit = float(0.5 * (x0.var(0).mean() + x1.var(0).mean())) ** 0.5
        bridge = cls(x0.shape[1], reference, components, unit or 1.0)
        bridge.centre0.copy_(x0.mean(0))
        bridge.centre1.copy_(x1.mean(0))
        for turn, reverse in enumerate(directions):

            def tell(done: int, turn: int = turn) -> None:
                if progress is not None:
                    progress(turn * steps + done, len(directions) * steps)

            bridge._train(ends, reverse, steps, batch, rate, generator, tell)
        return bridge

    def _train(
        self,
        ends: Coupling,
        reverse: bool,
        steps: int,
        batch: int,
        rate: float,
        generator: torch.Generator | None,
        tell: Callable[[int], None],
    ) -> None:
        potential, scale = self._potential(reverse), self.reference.last_scale

        def draw(n: int) -> tuple[Tensor, Tensor]:
            x0, x1 = ends.sample(n, generator=generator)
            near = (x0.double() - self.centre0) / self.unit
            far = (x1.double() / scale - self.centre1) / self.unit
            return (far, near) if reverse else (near, far)

        near, far = draw(max(10 * self.components, STARTING))
        centres = spread_rows(far, self.components, generator)
        potential.start(near, centres, start_spread(far, potential.epsilon))
        places = [potential.centre, potential.log_spread]
        optimiser = torch.optim.Adam(
            [{"params": places}, {"params": [potential.log_weight], "lr": WEIGHT_RATE * rate}],
            lr=rate,
        )
        last = LAST_RATE
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda k: last + (1 - last) * 0.5 * (1 + math.cos(math.pi * k / steps))
        )
        for done in range(steps):
            near, far = draw(batch)
            loss = potential.log_c(near).mean() - potential.log_v(far).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            tell(done + 1)


def spread_rows(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Means (count, d) of clusters of rows (n, d), so that rare modes are not left out."""
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than components do no harm
        found = KMeans(count, n_init="auto", max_iter=30, random_state=seed).fit(rows.numpy())
    return torch.from_numpy(found.cluster_centers_).to(rows)


def start_spread(far: Tensor, epsilon: float) -> Tensor:
    """S (dim,) of the exact bridge between unit Gaussians of half the far end's variance.

    Of a standard normal near end and variance q: e S is the conditional variance of that plan.
    """
    variance = 0.5 * far.var(0).clamp(min=1e-4)
    plan = 2 * variance / ((4 * variance + epsilon**2).sqrt() + epsilon)
    return ((variance - plan.square()) / epsilon).clamp(min=1e-6)


def mixture_moments(log: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, d) and covariance (B, d, d) of mixtures (B, K) of diagonal Gaussians (B, K, d)."""
    weight = log.exp()
    centre = torch.einsum("bk,bkd->bd", weight, mean)
    off = (mean - centre[:, None]) * weight.sqrt()[..., None]
    inner = torch.einsum("bk,bkd->bd", weight, variance.expand_as(mean))
    return centre, off.transpose(1, 2) @ off + torch.diag_embed(inner)


def draw_mixture(
    log: Tensor, mean: Tensor, variance: Tensor, generator: torch.Generator | None
) -> Tensor:
    """One draw (B, d) of each mixture (B, K) of diagonal Gaussians (B, K, d)."""
    pick = torch.multinomial(log.exp(), 1, generator=generator)[..., None]
    pick = pick.expand(-1, 1, mean.shape[2])
    mean, variance = (v.expand_as(mean).gather(1, pick)[:, 0] for v in (mean, variance))
    return mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


def fit_light(a: Tensor, b: Tensor, reference: Reference, **settings: Any) -> LightSB:
    """LightSB between two sets of rows (n, dim); settings as of `LightSB.fit`.

    Source: Korotin, Gushchin & Burnaev 2024.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, fit_light
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(200, 2, generator=noise), torch.randn(200, 2, generator=noise) + 3
    >>> bridge = fit_light(a, b, BrownianMotion(1.0), components=2, steps=20, generator=noise)
    >>> bridge.sample(a, steps=1, generator=noise).mean().round(decimals=0)
    tensor(3.)
    """
    return LightSB.fit(Independent(a, b), reference, **settings)


def _at(y: Tensor, reverse: bool) -> Tensor:
    return torch.full((len(y),), 1.0 if reverse else 0.0, dtype=torch.float64)
