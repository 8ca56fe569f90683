"""Schrodinger bridges between laws of strings of symbols: the reference, and what solvers share.

The reference runs the same Markov chain on every site, `steps` times the matrix K. Given both ends
its sites are independent bridges,

    P(x_k+1 | x_k, end) = K[x_k, x_k+1] K^(n-k-1)[x_k+1, end] / K^(n-k)[x_k, end],

so that a Markov bridge knows P(end | x_k), and a step draws an end and then a move towards it. A
guess of every site's end by itself is a projection: its sites move independently within a step
(CSBM: Ksenofontov & Korotin 2025), which is exact as the steps grow short.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.processes.jump import JumpProcess

LEAST = 1e-30  # below any probability that matters: its logarithm is finite


class SiteReference:
    """The chain K (V, V) of one site, taken `steps` times; each row of K is a law.

    InputError on matrices that are none.

    >>> from reverie.bridges import SiteReference
    >>> from reverie.processes import Uniform
    >>> reference = SiteReference.of_process(Uniform(3, 1), noise=1.0, steps=4)
    >>> reference.powers.shape, reference.powers[-1].sum(1).round(decimals=6).tolist()
    (torch.Size([5, 3, 3]), [1.0, 1.0, 1.0])
    """

    def __init__(self, kernel: Tensor, steps: int) -> None:
        kernel = kernel.double()
        square = kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1]
        if not square or steps < 1:
            raise InputError(
                f"a chain of sites is a (V, V) matrix and a number of steps, not "
                f"{tuple(kernel.shape)} and {steps}"
            )
        if (kernel < 0).any() or (kernel.sum(1) - 1).abs().max() > 1e-6:
            raise InputError("every row of a transition matrix is a law: not negative, of sum 1")
        self.steps, self.symbols = steps, len(kernel)
        powers = [torch.eye(self.symbols, dtype=torch.float64)]
        for _ in range(steps):
            powers.append(powers[-1] @ kernel)
        self.powers = torch.stack(powers)  # (steps + 1, V, V)

    @classmethod
    def of_process(cls, process: JumpProcess, noise: float, steps: int = 10) -> SiteReference:
        """The chain of a jump process on one site; noise: relaxation times in all."""
        sigma = torch.tensor([noise / steps], dtype=torch.float64)
        return cls(process.transition(sigma)[0], steps)

    def toward(self, reverse: bool) -> Tensor:
        """Powers (steps + 1, V, V) from the state of a path to what it runs to."""
        return self.powers.mT if reverse else self.powers

    def between(self, start: Tensor, end: Tensor, gone: Tensor, reverse: bool) -> Tensor:
        """Law (B, D, V) of the state after `gone` (B,) steps from start to end (B, D) each."""
        powers = self.toward(reverse)
        left = powers[self.steps - gone]
        first = powers[gone].gather(1, start[..., None].expand(-1, -1, self.symbols))
        last = left.gather(2, end[:, None, :].expand(-1, self.symbols, -1)).mT
        return first * last


class SymbolBridge(nn.Module, ABC):
    """A bridge between laws of strings (n, sites) of whole numbers below `reference.symbols`.

    A solver of one's own gives `ends`, P(end of a site | state).

    >>> import torch
    >>> from reverie.bridges import SiteReference, SymbolBridge
    >>> from reverie.processes import Uniform
    >>> class Free(SymbolBridge):  # ends of the reference itself
    ...     sites, reference = 2, SiteReference.of_process(Uniform(3, 1), noise=1.0, steps=4)
    ...     def ends(self, x, gone, *, reverse=False):
    ...         left = self.reference.toward(reverse)[self.reference.steps - gone]
    ...         return left.gather(1, x[..., None].expand(-1, -1, 3))
    >>> Free().path(torch.zeros(6, 2, dtype=torch.long)).shape
    torch.Size([5, 6, 2])
    """

    reference: SiteReference
    sites: int

    @abstractmethod
    def ends(self, x: Tensor, gone: Tensor, *, reverse: bool = False) -> Tensor:
        """P(end of a site | x) (B, sites, V) from states x (B, sites) after `gone` (B,) steps."""
        raise NotImplementedError

    def draw_ends(
        self,
        x: Tensor,
        gone: Tensor,
        *,
        reverse: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Ends (B, sites) given states; here every site by itself."""
        return draw_symbols(self.ends(x, gone, reverse=reverse), generator)

    def moves(self, x: Tensor, gone: Tensor, *, reverse: bool = False) -> Tensor:
        """P(next symbol of a site | x) (B, sites, V)."""
        powers = self.reference.toward(reverse)
        left = self.reference.steps - gone
        guess = self.ends(x, gone, reverse=reverse).double()
        seen = powers[left].gather(1, x[..., None].expand(-1, -1, self.reference.symbols))
        pulled = (guess / seen.clamp(min=LEAST)) @ powers[left - 1].mT
        return powers[1][x] * pulled

    def path(
        self, x: Tensor, *, reverse: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Paths (steps + 1, n, sites) from x (n, sites), forward in time."""
        self.check(x)
        states, n = [x], self.reference.steps
        for k in range(n):
            gone = torch.full((len(x),), k)
            end = self.draw_ends(states[-1], gone, reverse=reverse, generator=generator)
            law = self.toward(states[-1], end, gone, reverse)
            states.append(draw_symbols(law, generator))
        return torch.stack(states[::-1] if reverse else states)

    def toward(self, x: Tensor, end: Tensor, gone: Tensor, reverse: bool) -> Tensor:
        """Law (B, sites, V) of a step of the reference's bridge from x to `end`, up to factors."""
        powers = self.reference.toward(reverse)
        left = powers[self.reference.steps - gone - 1]
        last = left.gather(2, end[:, None, :].expand(-1, self.reference.symbols, -1)).mT
        return powers[1][x] * last

    def sample(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Far ends (n, sites) of x by a path at the reference's own steps."""
        rows = self.path(x, reverse=reverse, generator=generator)
        return rows[0] if reverse else rows[-1]

    def path_kl(
        self,
        x0: Tensor,
        x1: Tensor,
        *,
        reverse: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Nats (steps,) of each step, on the reference's bridges between rows x0, x1 (n, sites).

        The mean of KL(P(next | x, end) | moves(x)): its sum, over pairs of the bridge's own plan,
        is the information that a path shows about its end, where sites move independently.
        """
        start, end = (x1, x0) if reverse else (x0, x1)
        nats, x = [], start
        for k in range(self.reference.steps):
            gone = torch.full((len(x),), k)
            truth, guess = self.toward(x, end, gone, reverse), self.moves(x, gone, reverse=reverse)
            truth, guess = (p / p.sum(-1, keepdim=True) for p in (truth, guess))
            ratio = torch.log(truth.clamp(min=LEAST)) - torch.log(guess.clamp(min=LEAST))
            nats.append((truth * ratio).sum((1, 2)).mean())
            x = draw_symbols(truth, generator)
        return torch.stack(nats)

    def check(self, x: Tensor) -> None:
        """InputError unless x is rows (n, sites) of the reference's symbols."""
        whole = x.ndim == 2 and x.shape[1] == self.sites and not x.is_floating_point()
        if not whole or (
            len(x) and not 0 <= int(x.min()) <= int(x.max()) < self.reference.symbols
        ):
            raise InputError(
                f"rows of this bridge are {self.sites} whole numbers from 0 to "
                f"{self.reference.symbols - 1}"
            )


def draw_symbols(law: Tensor, generator: torch.Generator | None) -> Tensor:
    """One symbol (B, sites) of each law (B, sites, V), which need not sum to 1."""
    total = law.double().cumsum(-1)
    chance = torch.rand(law.shape[:-1], generator=generator, dtype=torch.float64)
    place = torch.searchsorted(total, (chance * total[..., -1])[..., None])[..., 0]
    return place.clamp(max=law.shape[-1] - 1)
