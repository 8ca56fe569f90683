"""What a denoiser's guess costs at given levels, row by row: what a loss curve is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from reverie.denoisers.base import Denoiser, state_type
from reverie.errors import InputError
from reverie.processes import Process


class NotFiniteError(InputError):
    """A denoiser's guess holds values that are not finite."""


MOST_NUMBERS = 2**25  # of the predictions that a block of rows asks for


def level_times(process: Process, levels: int | Sequence[float] | np.ndarray) -> np.ndarray:
    """Times (L,) of `levels` equal strata of the log clock over `t_range`, noisy to clean.

    Strata of the clock itself where it starts at 0. An array is taken as clock values (one clock).
    Raises InputError on fewer than two levels.

    >>> import numpy as np
    >>> from reverie.curve import level_times
    >>> from reverie.processes import EDM
    >>> times = level_times(EDM(0.02, 40), 4)
    >>> times.shape, bool((np.diff(times) < 0).all())
    ((4,), True)
    """
    if isinstance(levels, int):
        if levels < 2:
            raise InputError(f"a curve needs at least 2 levels, not {levels}")
        ends = process.clock(torch.tensor(process.t_range[::-1], dtype=torch.float64))
        is_log = bool((ends > 0).all())
        start, stop = (ends.log() if is_log else ends).reshape(2, -1).mean(1).tolist()
        clock = torch.linspace(start, stop, levels, dtype=torch.float64)
        times = process.time(clock.exp() if is_log else clock).clamp(*process.t_range)
        times[0], times[-1] = process.t_range[1], process.t_range[0]
        return times.numpy()
    return process.time(torch.as_tensor(np.asarray(levels), dtype=torch.float64)).numpy()


def as_points(denoiser: Denoiser, data: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Data as points of the process's space, on the device of the denoiser's parameters.

    data: (n, *shape). Coordinates take the parameters' type too, or float32 where that is coarser;
    symbols stay integers.

    >>> import numpy as np
    >>> import torch
    >>> from reverie.curve import as_points
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> denoiser = Linear(VP(), torch.zeros(3), torch.ones(3), torch.eye(3))
    >>> as_points(denoiser, np.zeros((4, 3))).shape
    torch.Size([4, 3])
    """
    points = denoiser.process.space.as_points(torch.as_tensor(data))
    weight = next((p for p in denoiser.parameters() if p.is_floating_point()), None)
    if weight is None:
        return points
    kind = state_type(denoiser) if points.is_floating_point() else points.dtype
    return points.to(weight.device, kind)


def block_rows(process: Process, data: torch.Tensor) -> int:
    """How many rows of data (n, *shape) may be predicted at once in bounded memory."""
    return max(1, MOST_NUMBERS // max(1, process.numbers * math.prod(data.shape[1:])))


def level_rates(
    denoiser: Denoiser,
    rows: torch.Tensor,
    times: np.ndarray,
    condition: Any,
    generator: torch.Generator | None,
) -> np.ndarray:
    """Rates (B, L) or (B, L, J) of one block: the mean over an antithetic pair.

    rows: (B, *shape). times: (L,). Nats per unit of clock.

    >>> import numpy as np
    >>> import torch
    >>> from reverie.curve import level_rates
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> rows = torch.tensor([[-1.0], [1.0]])
    >>> level_rates(Memoriser(VP(), rows), rows, np.array([0.9, 0.1]), None, None).shape
    (2, 2)
    """
    if condition is not None:
        condition = torch.cat([condition, condition])

    def guess(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        prediction = denoiser(state, t, condition)
        if not torch.isfinite(prediction).all():
            raise NotFiniteError(f"the denoiser's guess at t = {float(t[0]):.4g} is not finite")
        return prediction

    rates = [
        denoiser.process.probe(guess, rows, float(time), generator=generator).cpu().double()
        for time in times
    ]
    return torch.stack(rates, dim=1).numpy()


def variance_of_rows(data: torch.Tensor) -> float | None:
    """Variance of rows (n, *shape), mean over coordinates; None where they do not vary."""
    found = float(data.flatten(1).var(0, correction=0).mean())
    return found if found > 0 else None


class Moments:
    """Running mean and scatter of rows that arrive in blocks (Chan, Golub & LeVeque 1979)."""

    def __init__(self, cross: bool) -> None:
        self.count, self.cross = 0, cross
        self.mean, self.scatter = np.zeros(1), np.zeros(1)

    def add(self, rows: np.ndarray) -> None:
        count, mean = len(rows), rows.mean(0)
        shift, total = mean - self.mean, self.count + count
        centred = rows - mean
        inner = centred.T @ centred if self.cross else (centred**2).sum(0)
        outer = np.outer(shift, shift) if self.cross else shift**2
        self.scatter = self.scatter + inner + outer * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total
