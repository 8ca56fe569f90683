"""Measuring a denoiser's loss curve on rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from reverie.curve.gap import APPROXIMATE
from reverie.curve.loss_curve import LossCurve
from reverie.data import StoredPoints
from reverie.denoisers import Denoiser, Seen, condition_rows, evaluating
from reverie.denoisers.rates import (
    Moments,
    as_points,
    block_rows,
    level_rates,
    level_times,
    variance_of_rows,
)
from reverie.errors import InputError


@torch.no_grad()
def measure(
    denoiser: Denoiser,
    data: torch.Tensor | np.ndarray | StoredPoints,
    levels: int | Sequence[float] | np.ndarray = 64,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 1024,
    keep_samples: bool = False,
    condition: Any = None,
    label: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> LossCurve:
    """Measure the loss curve of `denoiser` on `data` (n, *shape), an array or a tensor.

    `StoredPoints` are read from disk block by block.

    levels: how many equal strata of log-SNR over the process's range, or clock values. Every row
    is noised at every level with one antithetic pair. `condition` (n, ...) goes row by row, or is
    one row for all: the areas without it and with it differ by I(x; condition). The rows stream
    through in blocks of `batch_size`; with `keep_samples` the rates (n, L) are kept.
    Returns a LossCurve in nats per unit of clock, summed over dimensions, with standard errors
    over rows; the label says so where the area is no information (`Process.area_exact`). Raises
    InputError on no rows or values that are not finite.

    >>> import torch
    >>> from reverie import measure
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import EDM
    >>> rows = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> copier = Memoriser(EDM(0.02, 40), rows[:100])
    >>> train, fresh = (measure(copier, part, levels=16) for part in (rows[:100], rows[100:]))
    >>> train.leak(fresh, until=100.0).nats > 1  # it knows its own rows better
    True
    """
    process = denoiser.process
    if len(data) == 0:
        raise InputError("a loss curve needs at least one row of data")
    on_disk = isinstance(data, StoredPoints)
    points = data if on_disk else process.space.check(as_points(denoiser, data))
    first = as_points(denoiser, points[:1])
    condition = condition_rows(condition, len(points), first)
    times = level_times(process, levels)
    clock = process.clock(torch.as_tensor(times)).numpy()
    weights = LossCurve(clock, np.ones_like(clock)).weights
    single, shares, kept = Moments(cross=False), Moments(cross=True), []
    spread = Moments(cross=False)
    batch_size = min(batch_size, block_rows(process, first))
    for start in range(0, len(points), batch_size):
        rows = points[start : start + batch_size]
        if on_disk:
            rows = process.space.check(as_points(denoiser, rows))
            spread.add(rows.flatten(1).cpu().double().numpy())
        extra = None if condition is None else condition[start : start + batch_size]
        with evaluating(denoiser):
            rates = level_rates(denoiser, rows, times, extra, generator)
        single.add(rates.reshape(len(rates), -1))
        shares.add((rates * weights).reshape(len(rates), len(times), -1).sum(2))
        if keep_samples:
            kept.append(rates.astype(np.float32))
        if progress is not None:
            progress(min(start + batch_size, len(points)), len(points))
    n = single.count
    scale = 1 / (n * max(n - 1, 1))
    stderr = np.sqrt(single.scatter * scale).reshape(clock.shape) if n > 1 else None
    return LossCurve(
        clock,
        single.mean.reshape(clock.shape),
        stderr,
        process,
        times,
        shares.scatter * scale if n > 1 else None,
        np.concatenate(kept) if kept else None,
        math.prod(points.shape[1:]),
        n,
        label if process.area_exact else f"{label}{APPROXIMATE}".strip(),
        _variance(points, spread) if process.gaussian is not None else None,
        Seen(points),
    )


def _variance(points: torch.Tensor | StoredPoints, spread: Moments) -> float | None:
    """As `variance_of_rows`; of rows on disk by the moments of their blocks."""
    if isinstance(points, torch.Tensor):
        return variance_of_rows(points)
    found = float((spread.scatter / spread.count).mean())
    return found if found > 0 else None
