"""The simplex: shares of k parts that sum to 1.

Distances are those of the metric sum_i dx_i^2 / x_i (Fisher and Rao), in which noise of mutation
and chance (Wright-Fisher) has unit strength everywhere. The additive log-ratios log(x_i / x_k),
i < k, map the interior onto R^(k-1), and the softmax maps it back (Aitchison 1982).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space

SUM_ERROR = 1e-4  # of shares that were written with four digits or more


class Simplex(Space):
    """Shares (k,), at least 0, that sum to 1. Raises InputError for k < 2.

    >>> import torch
    >>> from reverie.spaces import Simplex
    >>> space = Simplex(3)
    >>> z = space.log_ratios(torch.tensor([[0.2, 0.3, 0.5]]))
    >>> z.round(decimals=3), space.from_log_ratios(z).round(decimals=3)
    (tensor([[-0.9160, -0.5110]]), tensor([[0.2000, 0.3000, 0.5000]]))
    """

    shape: tuple[int, ...]

    def __init__(self, k: int) -> None:
        if k < 2:
            raise InputError(f"a simplex has two parts or more, not {k}")
        self.shape = (k,)

    def as_points(self, data: Tensor) -> Tensor:
        return data if data.is_floating_point() else data.double()

    def check(self, x: Tensor) -> Tensor:
        """Return `x` (B, k); InputError names the first row off the simplex."""
        self._check_shape(x)
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            raise InputError(f"row {_first(bad)} holds a value that is not finite")
        bad = (x < 0).any(1)
        if bad.any():
            row = _first(bad)
            raise InputError(
                f"row {row} holds the share {float(x[row].min()):g}; shares are at least 0"
            )
        total = x.double().sum(1)
        bad = (total - 1).abs() > SUM_ERROR
        if bad.any():
            row = _first(bad)
            raise InputError(f"row {row} sums to {float(total[row]):.6g}; shares must sum to 1")
        return x

    def project(self, x: Tensor) -> Tensor:
        """Shares (B, k) of rows that sum to about 1: what is negative becomes 0."""
        kept = x.clamp(min=0)
        return kept / kept.sum(1, keepdim=True)

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Fisher-Rao distances 2 arccos sum_i sqrt(x_i y_i), (B, N), at most pi."""
        return 2 * torch.acos((x.sqrt() @ y.sqrt().T).clamp(max=1))

    def log_ratios(self, x: Tensor) -> Tensor:
        """log(x_i / x_k), (B, k - 1). InputError names the first row with a share of 0."""
        bad = (x <= 0).any(1)
        if bad.any():
            raise InputError(f"row {_first(bad)} holds a share of 0, which has no logarithm")
        return (x[:, :-1] / x[:, -1:]).log()

    def from_log_ratios(self, z: Tensor) -> Tensor:
        """Shares (B, k) of log-ratios (B, k - 1): their softmax, with a last one of 0."""
        return torch.cat([z, torch.zeros_like(z[:, :1])], 1).softmax(1)

    def __repr__(self) -> str:
        return f"Simplex({self.shape[0]})"


def _first(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])
