"""Bridges of symbols by regression: discrete Markovian fitting with networks (CSBM).

A network answers with P(end of a site | x_k), the reference's own law multiplied by what it has
learned, and is fitted by cross-entropy to bridges of the reference between given ends; then, by
turns, to the ends that it makes (Ksenofontov & Korotin 2025), or online with one network for both
directions (alpha-CSBM: Carrasco et al. 2025). See `alternating`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.bridges.alternating import alternate, online
from reverie.bridges.coupling import Coupling
from reverie.bridges.symbols import LEAST, SiteReference, SymbolBridge, draw_symbols
from reverie.denoisers import ResidualMLP


class SymbolNetwork(SymbolBridge):
    """Two networks, one a direction; shared: one that is told the direction.

    >>> import torch
    >>> from reverie.bridges import SiteReference, SymbolNetwork
    >>> from reverie.processes import Uniform
    >>> reference = SiteReference.of_process(Uniform(3, 1), noise=1.0, steps=4)
    >>> bridge = SymbolNetwork(2, reference, width=8)
    >>> bridge.ends(torch.zeros(5, 2, dtype=torch.long), torch.zeros(5, dtype=torch.long)).shape
    torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        sites: int,
        reference: SiteReference,
        *,
        width: int = 128,
        depth: int = 2,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.sites, self.reference, self.shared = sites, reference, shared
        size = sites * reference.symbols
        self.forwards = ResidualMLP((size + shared,), width, depth, out=size)
        if not shared:
            self.backwards = ResidualMLP((size,), width, depth, out=size)

    def body(self, reverse: bool) -> nn.Module:
        """The network of one direction."""
        return self.backwards if reverse and not self.shared else self.forwards

    def log_ends(self, x: Tensor, gone: Tensor, reverse: bool) -> Tensor:
        """log P(end of a site | x) (B, sites, V)."""
        n, size = self.reference.steps, self.reference.symbols
        seen = nn.functional.one_hot(x, size).float().flatten(1)
        if self.shared:
            seen = torch.cat([seen, torch.full_like(seen[:, :1], 1.0 if reverse else -1.0)], 1)
        raw = self.body(reverse)(seen, 2 * gone.float() / n - 1).reshape(len(x), self.sites, size)
        left = self.reference.toward(reverse)[n - gone]
        own = left.gather(1, x[..., None].expand(-1, -1, size)).clamp(min=LEAST).log()
        return (raw + own.float()).log_softmax(-1)

    def ends(self, x: Tensor, gone: Tensor, *, reverse: bool = False) -> Tensor:
        with torch.no_grad():
            return self.log_ends(x, gone, reverse).exp()

    def loss(
        self, x0: Tensor, x1: Tensor, reverse: bool, generator: torch.Generator | None
    ) -> Tensor:
        """Cross-entropy in nats, summed over sites, of the ends of pairs (B, sites)."""
        gone = torch.randint(self.reference.steps, (len(x0),), generator=generator)
        start, end = (x1, x0) if reverse else (x0, x1)
        x = draw_symbols(self.reference.between(start, end, gone, reverse), generator)
        log = self.log_ends(x, gone, reverse)
        return -log.gather(2, end[..., None]).sum((1, 2)).mean()

    def fitted(
        self, x0: Tensor, x1: Tensor, reverse: bool, generator: torch.Generator | None
    ) -> None:
        """Nothing is read off pairs after a fit."""


def fit_symbol_matching(
    coupling: Coupling,
    reference: SiteReference,
    *,
    rounds: int = 3,
    steps: int = 1000,
    batch: int = 256,
    rate: float = 2e-3,
    width: int = 128,
    depth: int = 2,
    pool: int = 5000,
    together: bool = False,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SymbolNetwork:
    """Fit both directions to the pairs of `coupling` (rows of whole numbers), then to their own.

    rounds: refits of `steps` each; together: one network without refits, of `steps` steps in all.
    Returns the bridge with averaged weights. InputError on rows that are no such strings.
    Source: Ksenofontov & Korotin 2025 (CSBM); Carrasco et al. 2025 (alpha-CSBM).

    >>> import torch
    >>> from reverie.bridges import Independent, SiteReference, fit_symbol_matching
    >>> from reverie.processes import Uniform
    >>> noise = torch.Generator().manual_seed(0)
    >>> pairs = Independent(*torch.randint(3, (2, 100, 4), generator=noise))
    >>> reference = SiteReference.of_process(Uniform(3, 1), noise=1.0, steps=4)
    >>> settings = {"rounds": 1, "steps": 2, "width": 8, "generator": noise}
    >>> fit_symbol_matching(pairs, reference, **settings).sample(pairs.a, generator=noise).shape
    torch.Size([100, 4])
    """
    bridge = SymbolNetwork(
        coupling.a.shape[1], reference, width=width, depth=depth, shared=together
    )
    for rows in (coupling.a, coupling.b):
        bridge.check(rows)
    if together:
        return online(
            bridge, coupling, steps=steps, batch=batch, rate=rate, pool=pool, path_steps=0,
            generator=generator, progress=progress,
        )  # fmt: skip
    return alternate(
        bridge, coupling, rounds=rounds, steps=steps, batch=batch, rate=rate, pool=pool,
        path_steps=0, generator=generator, progress=progress,
    )  # fmt: skip
