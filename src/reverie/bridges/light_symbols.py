"""The light bridge of symbols: a plan in closed form (DLightSB: Carrasco et al. 2025).

As in `light`, with potentials that are mixtures of products over sites:

    v(y) = sum_k a_k prod_d r_kd(y_d),    plan(y | x) = q(y | x) v(y) / c(x),
    c(x) = sum_k a_k prod_d sum_y q(y | x_d) r_kd(y),

q the reference from end to end. Minimising mean log c(x0) - mean log v(x1) over rows of the two
ends is minimising the KL from the plan. All conditional laws of a path are such mixtures, with the
reference of what is left to go for q.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.bridges.symbols import LEAST, SiteReference, SymbolBridge, draw_symbols

START = 0.5  # of a component's potential lies on a row of the far end


class ProductPotential(nn.Module):
    """v of one direction: `count` products of potentials (sites, V)."""

    def __init__(self, count: int, sites: int, symbols: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self.log_factor = nn.Parameter(torch.zeros(count, sites, symbols, dtype=torch.float64))

    def start(self, rows: Tensor) -> None:
        """Each component leans towards one of rows (count, sites)."""
        with torch.no_grad():
            spread = (1 - START) / self.log_factor.shape[2]
            law = torch.full_like(self.log_factor, spread)
            law.scatter_add_(2, rows[..., None], torch.full_like(law[..., :1], START))
            self.log_factor.copy_(law.log())

    def log_v(self, y: Tensor) -> Tensor:
        """log v (B,) at strings y (B, sites)."""
        site = torch.arange(y.shape[1])
        return (self.log_weight + self.log_factor[:, site, y].sum(2).T).logsumexp(1)

    def parts(self, x: Tensor, left: Tensor) -> Tensor:
        """log of sum_y left[x_d, y] r_kd(y): (B, count, sites), from strings x (B, sites)."""
        top = self.log_factor.amax(2, keepdim=True)
        seen = (self.log_factor - top).exp() @ left.T  # (count, sites, V)
        table = seen.clamp(min=LEAST).log() + top
        return table[:, torch.arange(x.shape[1]), x].movedim(1, 0)

    def log_c(self, x: Tensor, left: Tensor) -> Tensor:
        return (self.log_weight + self.parts(x, left).sum(2)).logsumexp(1)


class SymbolLight(SymbolBridge):
    """A bridge of strings with a product potential for each direction; `fit` trains one.

    Strings are (n, sites).
    Source: Carrasco et al. 2025 (DLightSB).

    >>> import torch
    >>> from reverie.bridges import SiteReference, SymbolLight
    >>> from reverie.processes import Uniform
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randint(3, (2, 100, 4), generator=noise)
    >>> reference = SiteReference.of_process(Uniform(3, 1), noise=1.0, steps=4)
    >>> bridge = SymbolLight.fit(a, b, reference, components=3, steps=2, generator=noise)
    >>> bridge.sample(a, generator=noise).shape, bridge.path(b, reverse=True).shape
    (torch.Size([100, 4]), torch.Size([5, 100, 4]))
    """

    def __init__(self, sites: int, reference: SiteReference, components: int = 50) -> None:
        super().__init__()
        self.sites, self.reference, self.components = sites, reference, components
        self.forwards = ProductPotential(components, sites, reference.symbols)
        self.backwards = ProductPotential(components, sites, reference.symbols)

    def potential(self, reverse: bool) -> ProductPotential:
        """That of the far end of a direction."""
        return self.backwards if reverse else self.forwards

    def _laws(self, x: Tensor, gone: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """Shares (B, count) of components given x, and (V, V) of what is left (one level)."""
        left = self.reference.toward(reverse)[self.reference.steps - int(gone[0])]
        potential = self.potential(reverse)
        with torch.no_grad():
            log = potential.log_weight + potential.parts(x, left).sum(2)
        return log.softmax(1), left

    def draw_ends(
        self,
        x: Tensor,
        gone: Tensor,
        *,
        reverse: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Ends (B, sites) of the plan itself, all sites together; gone: the same for all."""
        share, left = self._laws(x, gone, reverse)
        pick = torch.multinomial(share, 1, generator=generator)[:, 0]
        factor = self.potential(reverse).log_factor.detach().softmax(2)[pick]
        return draw_symbols(left[x] * factor, generator)

    def ends(self, x: Tensor, gone: Tensor, *, reverse: bool = False) -> Tensor:
        found = torch.empty((*x.shape, self.reference.symbols), dtype=torch.float64)
        for level in gone.unique():
            rows = gone == level
            share, left = self._laws(x[rows], gone[rows], reverse)
            potential = self.potential(reverse)
            factor = potential.log_factor.detach()
            own = potential.parts(x[rows], left).detach()  # each site's normaliser
            top = factor.amax(2, keepdim=True)
            weight = share[..., None] * (top[..., 0] - own).exp()  # (B, count, sites)
            mixed = torch.einsum("bkd,kdv->bdv", weight, (factor - top).exp())
            law = left[x[rows]] * mixed
            found[rows] = law / law.sum(-1, keepdim=True)
        return found

    def sample(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Far ends (n, sites) of x, in one exact step."""
        self.check(x)
        return self.draw_ends(
            x, torch.zeros(len(x), dtype=torch.long), reverse=reverse, generator=generator
        )

    @classmethod
    def fit(
        cls,
        a: Tensor,
        b: Tensor,
        reference: SiteReference,
        *,
        components: int = 50,
        steps: int = 2000,
        batch: int = 512,
        rate: float = 0.03,
        directions: tuple[bool, ...] = (False, True),
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SymbolLight:
        """Train on rows a (n, sites) and b (m, sites) by Adam, with a falling rate.

        directions: reverse or not, which to fit. InputError on rows that are no such strings.
        """
        bridge = cls(a.shape[1], reference, components)
        for rows in (a, b):
            bridge.check(rows)
        for turn, reverse in enumerate(directions):
            near, far = (b, a) if reverse else (a, b)
            potential = bridge.potential(reverse)
            pick = torch.randint(len(far), (components,), generator=generator)
            potential.start(far[pick])
            optimiser = torch.optim.Adam(potential.parameters(), lr=rate)
            last = reference.toward(reverse)[-1]
            for k in range(steps):
                optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * k / steps))
                x0, x1 = (
                    rows[torch.randint(len(rows), (batch,), generator=generator)]
                    for rows in (near, far)
                )
                loss = potential.log_c(x0, last).mean() - potential.log_v(x1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if progress is not None:
                    progress(turn * steps + k + 1, len(directions) * steps)
        return bridge
