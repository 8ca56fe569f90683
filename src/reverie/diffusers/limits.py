"""What a scheduler does to the clean guess before it steps: it is part of what a pipeline runs.

`clip_sample` clamps the guess to [-r, r]. `thresholding` (Saharia et al. 2022, section 2.3) clamps
each row to [-s, s] and divides it by s, where s is a quantile of its absolute values, at least 1
and at most `sample_max_value`. Where both are on, schedulers threshold.

DDIM alone steps along the noise of the guess before its limit, unless its `step` is told
`use_clipped_model_output=True`; every other scheduler steps along that of the limited guess, as
the samplers here do. `sample(..., "ddim", unlimited_noise=True)` is DDIM's own step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

IDLE = ("TCDScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")  # have it, never use it


def limit_of(scheduler: Any) -> Callable[[Tensor], Tensor] | None:
    """What `scheduler` does to guesses (B, *shape), or None where it leaves them alone.

    A setting counts only if the scheduler's own class takes it: `from_config` carries along those
    of the scheduler before.
    """
    config, taken = scheduler.config, inspect.signature(type(scheduler).__init__).parameters
    if type(scheduler).__name__ in IDLE:
        return None

    def is_on(name: str) -> bool:
        return name in taken and bool(getattr(config, name, False))

    if is_on("thresholding") and getattr(config, "predict_x0", True):
        ratio = float(config.dynamic_thresholding_ratio)
        most = float(config.sample_max_value)
        return lambda guess: thresholded(guess, ratio, most)
    if is_on("clip_sample"):
        reach = float(getattr(config, "clip_sample_range", 1.0))
        return lambda guess: guess.clamp(-reach, reach)
    return None


def thresholded(guess: Tensor, ratio: float, most: float = 1.0) -> Tensor:
    """Rows of `guess` (B, *shape) within [-s, s], divided by s, their quantile `ratio` of |x|."""
    wide = guess.to(torch.promote_types(guess.dtype, torch.float32)).flatten(1)
    # at most first, as schedulers do: sample_max_value = 1 is plain clipping
    scale = wide.abs().quantile(ratio, dim=1, keepdim=True).clamp(min=1.0, max=most)
    return (wide.clamp(-scale, scale) / scale).reshape(guess.shape).to(guess.dtype)
