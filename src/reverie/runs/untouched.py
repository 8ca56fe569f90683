"""Measuring a module in the middle of somebody's loop, without a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from reverie.errors import InputError


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Leave no trace: global generators, buffers, gradients and autocast are put back.

    Modes of the submodules are put back by what measures (`evaluating`).
    """
    devices = sorted({p.device for p in module.parameters() if p.device.type == "cuda"}, key=str)
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    numbers, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    kinds = {"cpu", *(d.type for d in devices)}
    with torch.random.fork_rng(devices=devices), torch.no_grad(), _full_precision(kinds):
        try:
            yield
        finally:
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
            np.random.set_state(numbers)  # noqa: NPY002
            random.setstate(plain)


@contextmanager
def _full_precision(kinds: set[str]) -> Iterator[None]:
    """Outside autocast: its cache of weights without gradients would spoil the loop's own step."""
    with ExitStack() as stack:
        for kind in sorted(kinds):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def bare(module: nn.Module) -> nn.Module:
    """The module inside wrappers of several devices and of compilation."""
    while True:
        name = type(module).__name__
        if name in ("FullyShardedDataParallel", "DeepSpeedEngine"):
            raise InputError(
                f"{name} keeps its weights in parts: watch a whole copy, such as an average"
            )
        inner = getattr(module, "_orig_mod", None)
        if inner is None and name in ("DistributedDataParallel", "DataParallel"):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def first_process() -> bool:
    """Whether this is the process that measures: the only one, or the first of several."""
    return not _several() or torch.distributed.get_rank() == 0


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def agreed(stop: bool, module: nn.Module) -> bool:
    """What the first process says, in all of them."""
    if not _several():
        return stop
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    flag = torch.tensor([int(stop)], device=device)
    torch.distributed.broadcast(flag, 0)
    return bool(flag.item())
