"""Other people's networks: one line makes an `nn.Module` a Denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.conversions import PREDICTIONS, convert
from reverie.errors import InputError
from reverie.processes import GaussianProcess

TIMES = ("t", "sigma", "log-snr", "index")


class Wrapped(Denoiser):
    """A user's module, read as a clean-data prediction; see `as_denoiser`."""

    process: GaussianProcess

    def __init__(
        self, module: nn.Module, process: GaussianProcess, predicts: str, time: str, steps: int
    ) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            raise InputError(f"predicts={predicts!r}: choose one of {', '.join(PREDICTIONS)}")
        if time not in TIMES:
            raise InputError(f"time={time!r}: choose one of {', '.join(TIMES)}")
        self.module, self.process = module, process
        self.predicts, self.time, self.steps = predicts, time, steps

    def _time(self, t: Tensor, state: Tensor) -> Tensor:
        batch = state.shape[0]
        if self.time == "t":
            return t.to(state).expand(batch)
        if self.time == "index":
            index = (t.to(torch.float64) * self.steps).round().long() - 1
            return index.clamp(0, self.steps - 1).to(state.device).expand(batch)
        gamma = self.process.clock(t).to(state).reshape(t.numel(), -1).mean(1)
        return (gamma.rsqrt() if self.time == "sigma" else gamma.log()).expand(batch)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        extra = () if condition is None else (condition,)
        value = self.module(state, self._time(torch.as_tensor(t), state), *extra)
        if value.shape != state.shape:
            raise InputError(
                f"the module returned shape {tuple(value.shape)} for states {tuple(state.shape)}"
            )
        return convert(value, state, torch.as_tensor(t), self.process, self.predicts, "clean")


def as_denoiser(
    module: nn.Module,
    process: GaussianProcess,
    predicts: str = "clean",
    time: str = "t",
    steps: int = 1000,
) -> Denoiser:
    """Make a module a Denoiser, so that it has a curve, a plan and an audit.

    module: called as `module(state, time)` or `module(state, time, condition)`: (B, *shape).
    predicts: `clean`, `noise`, `velocity` (dx/dt of the process), `score` or `v`.
    time: what the module is told, (B,): `t` in [0, 1], `sigma` = sigma/alpha, `log-snr` = log
        gamma, or the `index` round(t * steps) - 1 of a discrete schedule of `steps` levels.
    Raises InputError on an unknown word or a module whose output has another shape.
    """
    return Wrapped(module, process, predicts, time, steps)
