"""Mean, deviation, range and wholeness of rows in one pass, block by block.

Blocks are joined as Chan, Golub & LeVeque (1979) have it. Their size depends on the shape of a row
alone, so that rows in memory and the same rows on disk have the same statistics to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.data.stored.rows import block_rows, ticker


@dataclass(frozen=True)
class Statistics:
    """Of each column (d,), or of all numbers (): see the module."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray


def statistics_of(values: Any, *, pooled: bool) -> Statistics:
    """The statistics of rows (n, *shape), an array or `StoredRows`; pooled: over all numbers."""
    count, mean, std = 0, np.zeros(()), np.zeros(())
    low, high, whole = np.array(np.inf), np.array(-np.inf), np.array(True)
    for block in blocks_of(values):
        flat = block.reshape(len(block), -1).astype(np.float64)
        flat = flat.reshape(-1, 1) if pooled else flat
        more = len(flat)
        own = flat[:, 0].mean()[None] if pooled else flat.mean(0)
        spread = flat[:, 0].std()[None] if pooled else flat.std(0)
        total = count + more
        if count == 0:
            mean, std = own, spread
        else:
            shift = own - mean
            scatter = count * std**2 + more * spread**2 + shift**2 * (count * more / total)
            mean, std = mean + shift * (more / total), np.sqrt(scatter / total)
        low, high = np.minimum(low, flat.min(0)), np.maximum(high, flat.max(0))
        whole = whole & np.equal(flat, np.round(flat)).all(0)
        count = total
    return Statistics(mean, std, low, high, whole)


def blocks_of(values: Any) -> Iterator[np.ndarray]:
    """Rows in blocks of about as many numbers, whatever holds them."""
    size, tell = block_rows(values.shape), ticker("reading")
    for start in range(0, max(len(values), 1), size):
        yield values[start : start + size]
        tell(min(start + size, len(values)), len(values))
