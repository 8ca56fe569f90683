"""Someone else's module, called so that neither side notices the other's conventions.

It gets a copy of the states (it may work in place), in its own precision, the time in its own
words, and a label where it wants one; of an object it answers with, the tensor is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.conditions import NO_LABEL
from reverie.errors import InputError
from reverie.processes import Process
from reverie.processes.base import float64

TIMES = ("t", "sigma", "log-snr", "index", "none")
NAMES = ("sample", "logits", "prediction")  # of the tensor in an object that a module returns
STEPS = 1000
LATEST = 1 - 1e-3  # the total noise of masking is infinite at t = 1; as Sahoo et al. 2024
Time = str | Callable[[Tensor], Tensor]


class ModuleCall(nn.Module):
    """`module` as (state (B, *shape), t () or (B,), condition) -> a tensor; see `as_denoiser`."""

    def __init__(
        self,
        module: nn.Module,
        process: Process,
        time: Time = "t",
        steps: int | None = None,
        *,
        data_at: int = 0,
        scalar_time: bool = False,
        null: Any = None,
    ) -> None:
        super().__init__()
        if not callable(time) and time not in TIMES:
            raise InputError(
                f"time={time!r}: choose one of {', '.join(TIMES)}, or give a function of t"
            )
        if time == "log-snr" and not process.clock_is_snr:
            raise InputError(
                f"time='log-snr' needs Gaussian noise; {type(process).__name__} is told "
                "t, sigma, index or none"
            )
        if time == "sigma" and process.gaussian is None and not hasattr(process, "sigma"):
            raise InputError(f"{type(process).__name__} has no sigma: tell the module t or index")
        if data_at not in (0, 1):
            raise InputError(f"data_at={data_at!r}: the module's time of clean data is 0 or 1")
        own = getattr(process, "steps", None)  # of a process that is a table
        if time == "index" and own is not None and steps not in (None, own):
            raise InputError(
                f"steps={steps}, but {type(process).__name__} has {own} levels: leave steps out"
            )
        self.module, self.process, self.time = module, process, time
        self.steps = int(steps or own or STEPS)
        self.data_at, self.scalar_time, self.null = data_at, scalar_time, null

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        times = float64(t).to(state.device).reshape(-1).expand(len(state))
        condition = self._condition(condition, state)
        if not self.scalar_time:
            return self._ask(state, self._told(times), condition)
        levels, place = times.unique(return_inverse=True)
        told = self._told(levels)
        if len(levels) == 1:
            return self._ask(state, None if told is None else told[0], condition)
        answer = None
        for k in range(len(levels)):  # one scalar for a batch: one call a level
            rows = place == k
            some = condition[rows] if isinstance(condition, Tensor) else condition
            value = self._ask(state[rows], None if told is None else told[k], some)
            if answer is None:
                answer = value.new_zeros(len(state), *value.shape[1:])
            answer[rows] = value
        assert answer is not None
        return answer

    def _ask(self, state: Tensor, told: Tensor | None, condition: Any) -> Tensor:
        kind = precision_of(self.module)
        if kind is not None and state.is_floating_point():
            state = state.to(kind)
        words = () if told is None else (told,)
        extra = () if condition is None else (condition,)
        return tensor_in(self.module(state.clone(), *words, *extra), self.module)

    def _told(self, t: Tensor) -> Tensor | None:
        """What the module is told of times (L,) in float64: (L,), or None for nothing."""
        if self.time == "none":
            return None
        kind = precision_of(self.module) or torch.float32
        if callable(self.time):
            told = torch.as_tensor(self.time(t))
            wide = torch.promote_types(kind, torch.float32)
            return told.to(wide) if told.is_floating_point() else told
        if self.time == "t":
            return (1 - t if self.data_at else t).to(kind)
        if self.time == "index":
            time = 1 - t if self.data_at else t
            return ((time * self.steps).round().long() - 1).clamp(0, self.steps - 1)
        if self.time == "sigma" and self.process.gaussian is None:
            noise = getattr(self.process, "sigma")  # noqa: B009 - not on every process
            return noise(t.clamp(max=LATEST)).to(t.device, kind)
        gamma = self.process.clock(t).to(t).reshape(len(t), -1).mean(1)
        return (gamma.rsqrt() if self.time == "sigma" else gamma.log()).to(kind)

    def _condition(self, condition: Any, state: Tensor) -> Any:
        """The condition as the module takes it: its own null for none, for all or for a row."""
        condition = self.null if condition is None else condition
        if isinstance(condition, bool | int | float) or condition is self.null:
            condition = null_rows(condition, state)
        if isinstance(condition, Tensor) and condition.is_floating_point():
            kind = precision_of(self.module)
            return condition if kind is None else condition.to(kind)
        labels = isinstance(condition, Tensor) and condition.ndim == 1
        if labels and self.null is not None:
            none = null_rows(self.null, state).to(condition)
            return torch.where(condition == NO_LABEL, none, condition)
        return condition


def null_rows(null: Any, state: Tensor) -> Any:
    """A null condition, one for each state: numbers (B,), a tensor of one row (B, ...)."""
    if isinstance(null, bool | int | float):
        return torch.full((len(state),), null, device=state.device)
    if isinstance(null, Tensor):
        rows = null.to(state.device)
        rows = rows.reshape(1) if rows.ndim == 0 else rows
        return rows.expand(len(state), *rows.shape[1:]) if len(rows) == 1 else rows
    return null


def precision_of(module: Any) -> torch.dtype | None:
    """The type of a module's first floating-point parameter, or None where it has none.

    None too for an adapter that says `casts_itself = True`.
    """
    if getattr(module, "casts_itself", False):
        return None
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


def tensor_in(answer: Any, module: Any) -> Tensor:
    """The tensor in what a module returned: itself, `.sample` or the like, or `[0]`.

    InputError where there is none.
    """
    if isinstance(answer, Tensor):
        return answer
    found = [getattr(answer, name, None) for name in NAMES]
    if isinstance(answer, Mapping):
        found += [answer.get(name) for name in NAMES]
        found += list(answer.values()) if len(answer) == 1 else []
    elif isinstance(answer, tuple | list) and answer:
        found.append(answer[0])
    for value in found:
        if isinstance(value, Tensor):
            return value
    raise InputError(
        f"{type(module).__name__} returned {type(answer).__name__}, in which no tensor is found: "
        f"return a tensor, a tuple that starts with it, or an object with .{' or .'.join(NAMES)}"
    )
