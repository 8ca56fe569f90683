"""Other people's networks: one line makes an `nn.Module` a Denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.calling import ModuleCall, Time
from reverie.denoisers.conversions import PREDICTIONS, convert, unknown_prediction
from reverie.errors import InputError
from reverie.processes import GaussianProcess, JumpProcess, Process

LAWS = ("logits", "leave-one-out")
Limit = Callable[[Tensor], Tensor]


class Wrapped(Denoiser):
    """A user's module on Gaussian noise, read as a clean-data prediction; see `as_denoiser`.

    States and guesses keep the type they come in; the module works in its own.
    """

    process: GaussianProcess

    def __init__(self, call: ModuleCall, predicts: str, limit: Limit | None = None) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            raise unknown_prediction(predicts)
        gaussian = call.process.gaussian
        assert gaussian is not None
        self.call, self.process = call, gaussian
        self.predicts, self.limit = predicts, limit

    @property
    def module(self) -> nn.Module:
        return self.call.module

    def unlimited(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The guess before `limit`: what guidance combines."""
        value = self.call(state, t, condition)
        if value.shape != state.shape:
            raise InputError(
                f"the module returned shape {tuple(value.shape)} for states {tuple(state.shape)}"
            )
        wide = torch.promote_types(torch.promote_types(value.dtype, state.dtype), torch.float32)
        value, times = value.to(wide), torch.as_tensor(t)
        if self.predicts == "velocity" and self.call.data_at == 1:
            value = -value  # along a time that runs the other way
        clean = convert(value, state.to(wide), times, self.process, self.predicts, "clean")
        return clean.to(state.dtype)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        guess = self.unlimited(state, t, condition)
        return guess if self.limit is None else self.limit(guess)


class WrappedSymbols(Denoiser):
    """A user's module on symbols, whose numbers (B, *sites, S or S + 1) are a law of each site.

    Where its mask stands among its symbols, ours are renumbered on the way in, and its column of
    the mask is dropped on the way out. Channels may come first, (B, S, *sites), where the shape
    does not say that they come last.
    """

    process: JumpProcess

    def __init__(
        self, call: ModuleCall, process: JumpProcess, predicts: str, mask_id: int | None
    ) -> None:
        super().__init__()
        if predicts not in LAWS:
            raise InputError(
                f"predicts={predicts!r} is no law of symbols, which {type(process).__name__} "
                f"needs: choose one of {', '.join(LAWS)}"
            )
        hides = hasattr(process, "mask")
        if mask_id is not None and not hides:
            raise InputError(
                f"mask_id={mask_id}, but {type(process).__name__} hides no symbols behind a mask"
            )
        self.call, self.process, self.predicts = call, process, predicts
        self.mask_id = process.symbols if mask_id is None else int(mask_id)
        self.hides = hides

    @property
    def module(self) -> nn.Module:
        return self.call.module

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        logits = self._columns(self.call(self._theirs(state), t, condition), state)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.hides or self.predicts == "leave-one-out":
            return self.process.clean_law(logits, state, torch.as_tensor(t))
        return logits.softmax(-1)

    def _theirs(self, state: Tensor) -> Tensor:
        """The states in the module's own numbers."""
        symbols = self.process.symbols
        if not self.hides or self.mask_id == symbols:
            return state
        moved = state + (state >= self.mask_id).long() if self.mask_id >= 0 else state
        return torch.where(state == symbols, self.mask_id, moved)

    def _columns(self, value: Tensor, state: Tensor) -> Tensor:
        """Columns (B, *sites, S) of our symbols."""
        symbols = self.process.symbols
        allowed = (symbols, symbols + 1) if self.hides else (symbols,)
        if value.shape[:-1] != state.shape or value.shape[-1] not in allowed:
            first = value.ndim == state.ndim + 1 and value.shape[1] in allowed
            if not first or value.shape[2:] != state.shape[1:]:
                wanted = " or ".join(str((*state.shape, width)) for width in allowed)
                raise InputError(
                    f"the module returned shape {tuple(value.shape)} for states of "
                    f"{symbols} symbols; it should be {wanted}"
                )
            value = value.movedim(1, -1)
        if value.shape[-1] == symbols:
            return value
        place = self.mask_id if 0 <= self.mask_id <= symbols else symbols
        return torch.cat([value[..., :place], value[..., place + 1 :]], -1)


def as_denoiser(
    module: nn.Module,
    process: Process,
    predicts: str = "clean",
    time: Time = "t",
    steps: int | None = None,
    *,
    data_at: int = 0,
    scalar_time: bool = False,
    null: Any = None,
    mask_id: int | None = None,
    limit: Limit | tuple[float, float] | None = None,
) -> Denoiser:
    """Make a module a Denoiser, so that it has a curve, a plan and an audit.

    module: called as `module(state, time)` or `module(state, time, condition)`: (B, *shape). It
        works in the precision of its own parameters, on a copy of the states, and may answer with
        a tensor, a tuple that starts with it, or an object with `.sample` or `.logits`.
    predicts: `clean`, `noise`, `velocity` (dx/dt of the process), `score` or `v`; on symbols
        `logits` of p(x | x_t) or, without a mask, `leave-one-out`: of p(x_i | x_t but site i).
    time: what the module is told, (B,): `t` in [0, 1], `sigma` = sigma/alpha (the total noise of
        symbols), `log-snr` = log gamma, the `index` round(t * steps) - 1 of a discrete schedule
        of `steps` levels (default the process's own, or 1000), `none`, or a function of t (B,),
        0 at clean data, whose answer is passed on: `lambda t: 1000 * (1 - t)`.
    data_at: the module's time of clean data. 1 tells it 1 - t, and turns its velocity round.
    scalar_time: tell it one scalar for a batch; rows of other times are asked in calls of their
        own.
    null: the condition it takes for none, a number such as -1 or a row (1, ...): passed where no
        condition is given, and in the place of labels -1.
    mask_id: the number of the mask among its symbols (default the last); see `WrappedSymbols`.
    limit: applied to the guess of clean data: (low, high), or a function, as samplers clip.
    Raises InputError on an unknown word, on a process that it cannot read, or a module whose
    output has another shape.

    >>> import torch
    >>> from reverie import as_denoiser
    >>> from reverie.processes import EDM
    >>> class Module(torch.nn.Module):
    ...     def forward(self, state, sigma):
    ...         return state / (1 + sigma[:, None] ** 2)  # the exact guess for N(0, I)
    >>> denoiser = as_denoiser(Module(), EDM(0.02, 40), predicts="clean", time="sigma")
    >>> denoiser(torch.ones(2, 3), denoiser.process.time(1.0))
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]])
    """
    call = ModuleCall(
        module, process, time, steps, data_at=data_at, scalar_time=scalar_time, null=null
    )
    if hasattr(process, "clean_law"):
        if limit is not None:
            raise InputError("limit is for numbers; a law of symbols has none")
        return WrappedSymbols(call, process, predicts, mask_id)  # type: ignore[arg-type]
    if process.gaussian is None:
        raise InputError(
            f"as_denoiser reads Gaussian noise and symbols; for {type(process).__name__} write a "
            "subclass of reverie.Denoiser that returns what its `target` averages to"
        )
    if predicts in LAWS or mask_id is not None:
        word = f"predicts={predicts!r}" if predicts in LAWS else f"mask_id={mask_id}"
        raise InputError(
            f"{word} is for symbols, but {type(process).__name__} noises numbers: choose predicts "
            f"among {', '.join(PREDICTIONS)}, or give a process such as Masking(symbols, sites)"
        )
    if isinstance(limit, tuple):
        low, high = limit
        return Wrapped(call, predicts, lambda guess: guess.clamp(low, high))
    return Wrapped(call, predicts, limit)
