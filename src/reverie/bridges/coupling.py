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
    """A law of pairs; a: rows (n, d) of the first end, b: rows (m, d) of the second.

    InputError where the widths differ.

    >>> import torch
    >>> from reverie.bridges import Coupling
    >>> class Sorted(Coupling):  # the optimal plan on a line
    ...     def sample(self, n, *, generator=None):
    ...         pick = torch.randint(len(self.a), (n,), generator=generator)
    ...         return self.a.sort(0)[0][pick], self.b.sort(0)[0][pick]
    >>> pair = Sorted(torch.tensor([[2.0], [1.0]]), torch.tensor([[5.0], [7.0]])).sample(3)
    >>> pair[0].shape
    torch.Size([3, 1])
    """

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
    """Rows of both ends without regard to each other.

    a: (n, d), b: (m, d).

    >>> import torch
    >>> from reverie.bridges import Independent
    >>> x0, x1 = Independent(torch.zeros(10, 2), torch.ones(20, 2)).sample(5)
    >>> x0.shape, x1.shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _rows(self.a, n, generator), _rows(self.b, n, generator)


class Paired(Coupling):
    """Row i of a belongs to row i of b. InputError where their numbers differ.

    a, b: (n, d).

    >>> import torch
    >>> from reverie.bridges import Paired
    >>> a = torch.arange(10.0)[:, None]
    >>> x0, x1 = Paired(a, a + 100).sample(4)
    >>> (x1 - x0).flatten()
    tensor([100., 100., 100., 100.])
    """

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
    """Pairs of the entropic plan between all rows.

    a: (n, d), b: (m, d).

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, Sinkhorn
    >>> a, b = torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [8.0]])
    >>> x0, x1 = Sinkhorn(a, b, BrownianMotion(0.1)).sample(4)
    >>> (x1 - x0).abs().flatten()
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, a: Tensor, b: Tensor, reference: Reference) -> None:
        super().__init__(a, b)
        self.plan = sinkhorn(a, b / reference.last_scale, reference.epsilon)
        self.rows = self.plan.log_rows().exp()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(self.a), (n,), generator=generator)
        far = torch.multinomial(self.rows[pick], 1, generator=generator)[:, 0]
        return self.a[pick], self.b[far]


class MinibatchSinkhorn(Coupling):
    """Pairs of the entropic plans between `batch` rows of each end, drawn anew.

    a: (n, d), b: (m, d). Source: Tong et al. 2024.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, MinibatchSinkhorn
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(100, 2, generator=noise), torch.randn(100, 2, generator=noise)
    >>> pairs = MinibatchSinkhorn(a, b, BrownianMotion(0.3), batch=32)
    >>> [end.shape for end in pairs.sample(50, generator=noise)]
    [torch.Size([50, 2]), torch.Size([50, 2])]
    """

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
