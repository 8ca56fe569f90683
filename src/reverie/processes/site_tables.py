"""Tables over a site's symbols: read at every site of a state, and drawn from."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError

MOST_STATES = 4096  # of a chain with a table of rates: 128 MiB
BLOCK = 2**22  # weights whose running sums are in memory at a time


def check_alphabet(symbols: int, kind: str) -> None:
    """InputError where a chain would need a table of states by states that is too large."""
    if symbols > MOST_STATES:
        raise InputError(
            f"{kind} noise keeps tables of symbols by symbols: {symbols} are too many (at most "
            f"{MOST_STATES}); masking is linear in the symbols"
        )


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, *sites) of a table (M, C), (1, M, C) or (B, M, C): (B, *sites, C)."""
    if table.ndim == 2 or len(table) == 1:
        return table.reshape(table.shape[-2:])[index]
    row = torch.arange(len(index), device=index.device)
    return table[row.reshape(-1, *(1,) * (index.ndim - 1)), index]


def drawn_from(law: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw an index (*shape) from weights (*shape, M), in float64: float32 sums would bias it."""
    variates = torch.rand(
        law.shape[:-1], generator=generator, dtype=torch.float64, device=law.device
    )
    return inverse_cdf(law, variates)


def inverse_cdf(law: Tensor, variates: Tensor) -> Tensor:
    """Indices (*shape) where the running sum of weights (*shape, M) passes variates in [0, 1)."""
    count = law.shape[-1]
    rows = zip(
        law.reshape(-1, count).split(max(1, BLOCK // count)),
        variates.reshape(-1).split(max(1, BLOCK // count)),
        strict=True,
    )
    return torch.cat([_passed(*part) for part in rows]).reshape(variates.shape)


def _passed(law: Tensor, variates: Tensor) -> Tensor:
    """`inverse_cdf` of a block: weights (R, M), variates (R,)."""
    running = law.double().cumsum(-1)
    place = variates * running[..., -1]
    return (running <= place[..., None]).sum(-1).clamp(max=law.shape[-1] - 1)


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """One uniform variate in float64 for every site of x."""
    return torch.rand(x.shape, generator=generator, dtype=torch.float64, device=x.device)


def times_of(t: Tensor | float) -> Tensor:
    """A time or times as (T,) in float64."""
    return torch.as_tensor(t, dtype=torch.float64).reshape(-1)


def shared_level(t: Tensor | float) -> Tensor:
    """Times (T,), one of them where all are equal: a table per level, not per row."""
    times = times_of(t)
    return times[:1] if len(times) > 1 and bool((times == times[0]).all()) else times


def fit_level(level: Tensor, state: Tensor) -> Tensor:
    """A level (T,) shaped to broadcast against (B, *sites, M)."""
    return level.reshape(-1, *(1,) * state.ndim)


def off_diagonal(rates: Tensor) -> Tensor:
    """The rates of jumps alone, 0 on the diagonal."""
    return rates - rates.diagonal().diag()
