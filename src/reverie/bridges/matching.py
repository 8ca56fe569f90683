"""Bridges by regression: diffusion Schrodinger bridge matching and score and flow matching.

Given pairs of ends, the Markov process with the marginals of their Brownian bridges drifts to
E[far end | y_s]: a regression in each direction. Score and flow matching ([SF]2M: Tong et al.
2024) does it once, with pairs of an entropic plan: its flow and its score are linear in the
guesses of both ends. Bridge matching (DSBM: Shi, De Bortoli, Campbell & Doucet 2023; Peluchetti
2023) starts from any pairs and repeats it with the pairs that the fitted process makes, backward
from b, then forward from a, so that neither end drifts away. From pairs of the reference it makes
the iterates of proportional fitting.

The network F answers in units of what the closed form for Gaussian ends of the same moments
leaves open, coordinate by coordinate: guess = m(s) + k(s) (y - m_s) + d(s) F(y, s). Before
training the bridge is that Gaussian one; the loss is the squared error of F itself.

Online (alpha-DSBM: De Bortoli, Korshunova, Mnih & Doucet 2024, reconstructed) one network that is
told the direction meets pairs which its own average makes all along, without refits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reverie.bridges.alternating import alternate, online
from reverie.bridges.base import Bridge
from reverie.bridges.coupling import Coupling
from reverie.bridges.reference import Reference
from reverie.denoisers import ResidualMLP

CUT = 1e-3  # shares of the ends at which nothing is regressed
PLACES = 33  # shares at which a network's error is kept


class NetworkBridge(Bridge):
    """Two networks, one a direction, or one that is told it.

    shared: one for both. told_start: they see where the path began (paired ends).

    Points are (B, dim).
    Source: Tong et al. 2024 ([SF]2M); Shi, De Bortoli, Campbell & Doucet 2023 (DSBM).

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, NetworkBridge
    >>> bridge = NetworkBridge(2, BrownianMotion(1.0), width=16)
    >>> bridge.guess(torch.zeros(5, 2), torch.full((5,), 0.5)).shape
    torch.Size([5, 2])
    """

    moments: Tensor
    residual: Tensor

    def __init__(
        self,
        dim: int,
        reference: Reference,
        *,
        width: int = 128,
        depth: int = 2,
        told_start: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.reference, self.dim, self.shared = reference, dim, shared
        self.width, self.depth, self.told_start = width, depth, told_start
        self.register_buffer("moments", torch.tensor([0.0, 1, 0, 1])[:, None].repeat(1, dim))
        self.register_buffer("residual", torch.ones(2, PLACES, dim))
        seen = dim * (2 if told_start else 1) + shared
        self.forwards = ResidualMLP((seen,), width, depth, out=dim)
        if not shared:
            self.backwards = ResidualMLP((seen,), width, depth, out=dim)

    def settings(self) -> dict[str, Any]:
        own = {"width": self.width, "depth": self.depth, "told_start": self.told_start}
        return {**super().settings(), **own, "shared": self.shared}

    def body(self, reverse: bool) -> nn.Module:
        """The network of one direction."""
        return self.backwards if reverse and not self.shared else self.forwards

    def gaussian(self, y: Tensor, share: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Of y (B, dim) at shares (B,): y in units of its deviation, and mean and deviation of the
        far end, were the ends Gaussian with independent coordinates."""
        mean0, var0, mean1, var1 = self.moments
        s, epsilon = share.to(y).reshape(-1, 1), self.reference.epsilon
        plan = 2 * var0 * var1 / ((4 * var0 * var1 + epsilon**2).sqrt() + epsilon)
        total = (1 - s) ** 2 * var0 + s**2 * var1 + s * (1 - s) * (2 * plan + epsilon)
        far_mean, far, across = (
            (mean0, var0, (1 - s) * var0 + s * plan)
            if reverse
            else (mean1, var1, (1 - s) * plan + s * var1)
        )
        off = y - (1 - s) * mean0 - s * mean1
        open_ = (far - across.square() / total).clamp(min=1e-12)
        return off / total.sqrt(), far_mean + across / total * off, open_.sqrt()

    def answer(
        self, y: Tensor, share: Tensor, reverse: bool, start: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """F, mean and deviation, (B, dim) each: the guess is mean + deviation * F."""
        seen, mean, deviation = self.gaussian(y, share, reverse)
        if self.told_start:
            begun = y if start is None else start
            at = torch.full_like(share, float(reverse))
            seen = torch.cat([seen, self.gaussian(begun.to(y), at, reverse)[0]], 1)
        if self.shared:
            seen = torch.cat([seen, torch.full_like(seen[:, :1], 1.0 if reverse else -1.0)], 1)
        raw = self.body(reverse)(seen, 2 * share.to(y) - 1)
        return raw.reshape(len(y), -1), mean, deviation

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            raw, mean, deviation = self.answer(y.to(self.moments), share, reverse, start)
        return (mean + deviation * raw).to(y)

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The guess with a Gaussian of the mean squared error it had on the last pairs."""
        with torch.no_grad():
            raw, mean, deviation = self.answer(y.to(self.moments), share, reverse, start)
        place = (share.to(self.moments) * (PLACES - 1)).round().long()
        noise = torch.randn(y.shape, generator=generator)
        error = self.residual[int(reverse), place].sqrt() * noise
        return (mean + deviation * (raw + error)).to(y)

    def fitted(
        self, x0: Tensor, x1: Tensor, reverse: bool, generator: torch.Generator | None
    ) -> None:
        """Mean squared errors of F at PLACES shares, of pairs (n, dim)."""
        y0, y1 = x0.to(self.moments), (x1 / self.reference.last_scale).to(self.moments)
        with torch.no_grad():
            for place, s in enumerate(torch.linspace(CUT, 1 - CUT, PLACES)):
                error = self.errors(y0, y1, s.expand(len(y0)), reverse, generator)
                self.residual[int(reverse), place] = error.mean(0)

    def loss(
        self, x0: Tensor, x1: Tensor, reverse: bool, generator: torch.Generator | None
    ) -> Tensor:
        """Mean squared error of F, of pairs (B, dim)."""
        share = CUT + (1 - 2 * CUT) * torch.rand(len(x0), generator=generator)
        y0, y1 = x0.to(self.moments), (x1 / self.reference.last_scale).to(self.moments)
        return self.errors(y0, y1, share, reverse, generator).mean()

    def errors(
        self,
        y0: Tensor,
        y1: Tensor,
        share: Tensor,
        reverse: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Squared errors (B, dim) of F on bridges between y0 and y1 at shares (B,)."""
        s, noise = share[:, None], torch.randn(y0.shape, generator=generator)
        y = (1 - s) * y0 + s * y1 + (self.reference.epsilon * s * (1 - s)).sqrt() * noise
        far, start = (y0, y1) if reverse else (y1, y0)
        raw, mean, deviation = self.answer(y, share, reverse, start)
        return (raw - (far - mean) / deviation).square()

    def take_moments(self, y0: Tensor, y1: Tensor) -> None:
        """Moments of rows (n, dim) of both ends, in Brownian coordinates."""
        rows = [y0.mean(0), y0.var(0), y1.mean(0), y1.var(0)]
        least = 1e-8 * max(float(rows[1].max()), float(rows[3].max()), 1e-12)
        self.moments.copy_(torch.stack(rows))
        self.moments[1::2] = self.moments[1::2].clamp(min=least)


def fit_matching(
    coupling: Coupling,
    reference: Reference,
    *,
    rounds: int = 0,
    steps: int = 2000,
    batch: int = 256,
    rate: float = 2e-3,
    width: int = 128,
    depth: int = 2,
    path_steps: int = 20,
    pool: int = 5000,
    told_start: bool = False,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NetworkBridge:
    """Fit both directions to the pairs of `coupling`, then refit `rounds` times to their own.

    rounds = 0 is [SF]2M where the coupling is an entropic plan, and bridge matching elsewhere;
    rounds > 0 is DSBM. steps: of each fit; pool: pairs simulated before a refit, in `path_steps`.
    Returns the bridge with averaged weights.
    Source: Tong et al. 2024 ([SF]2M); Shi et al. 2023 and Peluchetti 2023 (DSBM).

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, Independent, fit_matching
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(200, 2, generator=noise), torch.randn(200, 2, generator=noise) + 3
    >>> pairs, settings = Independent(a, b), {"steps": 5, "width": 8, "generator": noise}
    >>> bridge = fit_matching(pairs, BrownianMotion(1.0), **settings)
    >>> bridge.sample(a, steps=4, generator=noise).shape
    torch.Size([200, 2])
    """
    bridge = _fresh(coupling, reference, generator, width, depth, told_start=told_start)
    return alternate(
        bridge, coupling, rounds=rounds, steps=steps, batch=batch, rate=rate, pool=pool,
        path_steps=path_steps, generator=generator, progress=progress,
    )  # fmt: skip


def fit_online(
    coupling: Coupling,
    reference: Reference,
    *,
    steps: int = 4000,
    batch: int = 256,
    rate: float = 2e-3,
    width: int = 128,
    depth: int = 2,
    path_steps: int = 20,
    pool: int = 4096,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NetworkBridge:
    """alpha-DSBM: one network for both directions, without refits; see `alternating.online`.

    coupling: of rows (n, dim). steps: in all, a quarter of them on the pairs of the coupling.
    Source: De Bortoli, Korshunova, Mnih & Doucet 2024, reconstructed.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, Independent, fit_online
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(200, 2, generator=noise), torch.randn(200, 2, generator=noise) + 3
    >>> settings = {"steps": 4, "width": 8, "path_steps": 2, "generator": noise}
    >>> bridge = fit_online(Independent(a, b), BrownianMotion(1.0), **settings)
    >>> bridge.sample(b, reverse=True, steps=4, generator=noise).shape
    torch.Size([200, 2])
    """
    bridge = _fresh(coupling, reference, generator, width, depth, shared=True)
    return online(
        bridge, coupling, steps=steps, batch=batch, rate=rate, pool=pool, path_steps=path_steps,
        generator=generator, progress=progress,
    )  # fmt: skip


def _fresh(
    coupling: Coupling,
    reference: Reference,
    generator: torch.Generator | None,
    width: int,
    depth: int,
    **kind: bool,
) -> NetworkBridge:
    """A network bridge that starts from the moments of both ends."""
    x0, x1 = coupling.sample(4096, generator=generator)
    bridge = NetworkBridge(x0.shape[1], reference, width=width, depth=depth, **kind)
    bridge.take_moments(x0, x1 / reference.last_scale)
    return bridge
