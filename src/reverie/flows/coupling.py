"""Affine couplings: half of the coordinates is scaled and shifted by what the other half says.

    x = (a, b),   T(x) = (a, b e^{s(a)} + t(a)),   log |det DT| = sum s

s is held within +-BOUND by a tanh, so that no layer can overflow; several layers reach any scale.
Dinh, Sohl-Dickstein & Bengio 2017 (arXiv 1605.08803), eq. 4 to 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.flows.base import Composed, Flow

BOUND = 2.0  # of a layer's log scales


class Coupling(Flow):
    """One affine coupling of points (n, dim); it starts as the identity.

    width: of the two hidden layers. told: numbers that a row is told. flip: which half moves.
    order: (dim,), a permutation of the coordinates that decides the halves. InputError where dim
    is 0.

    >>> import torch
    >>> from reverie.flows import Coupling
    >>> z, volume = Coupling(2, width=8)(torch.tensor([[1.0, 2.0]]))
    >>> z.detach(), volume.detach()
    (tensor([[1., 2.]]), tensor([0.]))
    """

    order: Tensor
    back: Tensor

    def __init__(
        self,
        dim: int,
        *,
        width: int = 64,
        told: int = 0,
        flip: bool = False,
        order: Tensor | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise InputError(f"a flow of {dim} coordinates moves nothing; dim must be at least 1")
        order = torch.arange(dim) if order is None else order
        self.register_buffer("order", order.flip(0) if flip else order)
        self.register_buffer("back", torch.argsort(self.order))
        self.keeps, self.moves = dim // 2, dim - dim // 2
        last = nn.Linear(width, 2 * self.moves)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # a single coordinate without anything told is moved by a constant
        self.body = nn.Sequential(
            nn.Linear(max(self.keeps + told, 1), width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, x: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, self.order].split([self.keeps, self.moves], 1)
        scale, shift = self._said(kept, told)
        z = torch.cat([kept, moved * scale.exp() + shift], 1)[:, self.back]
        return z, scale.sum(1)

    def inverse(self, z: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved = z[:, self.order].split([self.keeps, self.moves], 1)
        scale, shift = self._said(kept, told)
        x = torch.cat([kept, (moved - shift) * (-scale).exp()], 1)[:, self.back]
        return x, -scale.sum(1)

    def _said(self, kept: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = kept if told is None else torch.cat([kept, told.to(kept)], 1)
        seen = seen if seen.shape[1] else seen.new_ones(len(seen), 1)
        raw, shift = self.body(seen).chunk(2, 1)
        return BOUND * torch.tanh(raw / BOUND), shift


def couplings(dim: int, count: int, *, width: int = 64, told: int = 0, seed: int = 0) -> Composed:
    """`count` couplings on random halves: each coordinate moves in every second one at least.

    told: numbers that a row is told. seed: of halves and weights. InputError on count below 1.

    >>> from reverie.flows import couplings
    >>> len(couplings(4, 3, width=8).flows)
    3
    """
    if count < 1:
        raise InputError(f"{count} couplings are none; give at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flows: list[Flow] = []
        for k in range(count):
            order = torch.randperm(dim) if k % 2 == 0 else order  # noqa: F821
            flows.append(Coupling(dim, width=width, told=told, flip=k % 2 == 1, order=order))
        return Composed(flows)
