"""Numbers with ends, and tables of such numbers beside symbols."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space
from reverie.spaces.mixed import Mixed


class Intervals(Space):
    """Numbers (d,), the j-th in [low_j, high_j]; either end may be infinite.

    low, high: (d,). InputError unless low < high throughout; `check` raises it on a row outside.

    >>> import torch
    >>> from reverie.spaces import Intervals
    >>> space = Intervals([0.0, -1.0], [float("inf"), 1.0])
    >>> space.check(torch.tensor([[2.0, 0.5]]))
    tensor([[2.0000, 0.5000]])
    """

    shape: tuple[int, ...]

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = (torch.as_tensor(end, dtype=torch.float64) for end in (low, high))
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise InputError("numbers with ends have one low and one high end each")
        if not (self.low < self.high).all():
            raise InputError("numbers with ends need low < high in every coordinate")
        self.shape = (len(self.low),)

    def as_points(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else data.float()

    def check(self, x: Tensor) -> Tensor:
        self._check_shape(x)
        inside = ((x >= self.low.to(x)) & (x <= self.high.to(x))).all(1)
        if not inside.all():
            raise InputError(f"row {int((~inside).nonzero()[0, 0])} lies outside its domain")
        return x

    def project(self, x: Tensor) -> Tensor:
        """The nearest points (B, d) within the ends."""
        return x.clamp(self.low.to(x), self.high.to(x))

    def __repr__(self) -> str:
        return f"Intervals({self.low.tolist()}, {self.high.tolist()})"


class Bounded(Mixed):
    """A `Mixed` of `Intervals` and then a `FiniteSet`, either of which may be missing.

    Points are rows (D,): numbers, and then a symbol for each site. InputError on other parts.

    >>> from reverie.spaces import Bounded, FiniteSet, Intervals
    >>> Bounded(Intervals([0.0], [1.0]), FiniteSet(3, sites=2)).shape
    (3,)
    """

    def __init__(self, *parts: Space) -> None:
        super().__init__(*parts)
        kinds = [type(part).__name__ for part in parts]
        if kinds not in (["Intervals"], ["FiniteSet"], ["Intervals", "FiniteSet"]):
            raise InputError(f"a bounded table holds Intervals, FiniteSet or both, not {kinds}")

    def __repr__(self) -> str:
        return f"Bounded({', '.join(map(repr, self.parts))})"
