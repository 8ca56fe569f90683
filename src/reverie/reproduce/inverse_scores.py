"""What the studies of inverse problems share: the methods, and readings that have a right value.

Where x and y are drawn from the model itself, draws of the exact posterior are exchangeable with
the truth: intervals cover at their level, and the misfit has mean 1, whatever the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.inverse import Inpainting, Reconstruction, reconstruct
from reverie.reproduce.tables import Row

DRAWS = 39  # of each observation: the second and the last but one then bound 90%
METHODS = ("mmps", "pigdm", "tmpd", "dps", "repaint", "twisted-smc")


def draws_of(
    denoiser: Denoiser,
    measurement: Inpainting,
    y: Tensor,
    times: Tensor,
    method: str,
    generator: torch.Generator,
    **settings: Any,
) -> Tensor:
    """DRAWS draws of each observation y (B, m): (B, DRAWS, *shape)."""
    options: dict[str, Any] = dict(
        method=method, plan=times, generator=generator, dtype=y.dtype, **settings
    )
    if method == "twisted-smc":
        each = (reconstruct(denoiser, measurement, v, DRAWS, **options).draws for v in y)
        return torch.stack(list(each))
    rows = y.repeat_interleave(DRAWS, 0)
    found = reconstruct(denoiser, measurement, rows, len(rows), **options)
    return found.draws.reshape(len(y), DRAWS, *measurement.shape)


def covered(truth: Tensor, draws: Tensor) -> Tensor:
    """1 where a truth (B, *shape) lies within the second and the last but one of its draws."""
    ordered = draws.sort(1).values
    return ((truth >= ordered[:, 1]) & (truth <= ordered[:, -2])).double()


def misfits(measurement: Inpainting, y: Tensor, draws: Tensor) -> np.ndarray:
    """Mean misfit (B,) of the draws (B, DRAWS, *shape) of each observation (B, m)."""
    pairs = zip(y, draws, strict=True)
    return np.array([float(Reconstruction(d, v, measurement).misfit().mean()) for v, d in pairs])


def mean_row(quantity: str, values: np.ndarray, known: float | None = None, note: str = "") -> Row:
    """The mean over observations (B,) and its standard error, beside the value it should have."""
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Row(quantity, float(values.mean()), known, "" if known is None else "D", error, note)
