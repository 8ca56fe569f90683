"""Couplings: where a bridge's pairs of ends come from.

`sample(n)` draws pairs (x0, x1), each (n, d), with the two laws as marginals: independent rows,
rows that belong together, or an entropic plan, of all points or of minibatches (Fatras et al.
2020; Tong et al. 2024).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from reverie.bridges.reference import Reference
from reverie.bridges.sinkhorn import sinkhorn
from reverie.errors import InputError


class Coupling(ABC):
    """A law of pairs; a: rows (n, d) of the first end, b: rows (m, d) of the second."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise InputError(
                f"the ends have points of shape {tuple(a.shape[1:])} and {tuple(b.shape[1:])}; a "
                "bridge needs the same"
            )
        self.a, self.b = a, b

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n pairs (x0, x1), each (n, d)."""
        raise NotImplementedError


class Independent(Coupling):
    """Rows of both ends without regard to each other."""

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _rows(self.a, n, generator), _rows(self.b, n, generator)


class Paired(Coupling):
    """Row i of a belongs to row i of b. InputError where their numbers differ."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__(a, b)
        if len(a) != len(b):
            raise InputError(
                f"paired ends have a row of b for each row of a; these have {len(a)} and {len(b)}"
            )

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(self.a), (n,), generator=generator)
        return self.a[pick], self.b[pick]


class FromReference(Coupling):
    """x1 is the reference's own end of a path from x0: the start of iterative proportional
    fitting. Its second marginal is not b."""

    def __init__(self, a: Tensor, b: Tensor, reference: Reference) -> None:
        super().__init__(a, b)
        self.reference = reference

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x0 = _rows(self.a, n, generator)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        return x0, self.reference.last_scale * (x0 + self.reference.epsilon**0.5 * noise)


class Sinkhorn(Coupling):
    """Pairs of the entropic plan between all rows."""

    def __init__(self, a: Tensor, b: Tensor, reference: Reference) -> None:
        super().__init__(a, b)
        self.plan = sinkhorn(a, b / reference.last_scale, reference.epsilon)
        self.rows = self.plan.log_rows().exp()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(self.a), (n,), generator=generator)
        far = torch.multinomial(self.rows[pick], 1, generator=generator)[:, 0]
        return self.a[pick], self.b[far]


class MinibatchSinkhorn(Coupling):
    """Pairs of the entropic plans between `batch` rows of each end, drawn anew."""

    def __init__(self, a: Tensor, b: Tensor, reference: Reference, batch: int = 256) -> None:
        super().__init__(a, b)
        self.reference, self.batch = reference, batch

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        pairs = [self._some(generator) for _ in range(-(-n // self.batch))]
        x0, x1 = (torch.cat(ends)[:n] for ends in zip(*pairs, strict=True))
        return x0, x1

    def _some(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        x0, x1 = _rows(self.a, self.batch, generator), _rows(self.b, self.batch, generator)
        scale, epsilon = self.reference.last_scale, self.reference.epsilon
        plan = sinkhorn(x0, x1 / scale, epsilon, tolerance=1e-2, iterations=500)
        far = torch.multinomial(plan.log_rows().exp(), 1, generator=generator)[:, 0]
        return x0, x1[far]


def _rows(rows: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    return rows[torch.randint(len(rows), (n,), generator=generator)]
