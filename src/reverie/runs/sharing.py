"""A network's calls, shared over processes: each answers for its own rows, and all hear all.

Inside `shared(network, ranks)` every process asks the network the same question, the rows
(B, *shape) of a whole batch. The network sees this process's rows alone, and what it says of them
is put together with what the others say, before it is returned: whatever is worked out from the
answers (a loss, the running law of noise levels, a curve, a sample) is the same in every process
and the same as in one. Gradients flow through a process's own answers: those of one loss of the
whole batch add up, over processes, to its gradient, however the answers are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from reverie.runs.ranks import Ranks

NAMES = ("state", "t", "condition")  # of a denoiser's arguments


class Calls:
    """What was asked: how many questions were shared, and how many each process answered alone."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.asked, self.shared, self.alone = ranks, [], 0, 0

    def take(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(NAMES, args, strict=False)) | kwargs
        rows = self._rows(given)
        self.asked.append(rows)
        if not rows:
            return None
        part = self.ranks.part(rows)
        return tuple(
            value[part] if isinstance(value, Tensor) and _length(value) == rows else value
            for value in (given[name] for name in NAMES if name in given)
        ), {}

    def _rows(self, given: dict[str, Any]) -> int:
        """How many rows are asked about; 0 where there are too few, or more than tensors."""
        rows = _length(given["state"])
        told = given.get("condition")
        plain = told is None or (isinstance(told, Tensor) and _length(told) in (0, 1, rows))
        return rows if rows >= self.ranks.count and plain and set(given) <= set(NAMES) else 0

    def join(self, _: nn.Module, __: Any, ___: Any, answer: Any) -> Any:
        rows = self.asked.pop()
        if not rows:
            self.alone += 1
            return None
        self.shared += 1
        return self.ranks.whole(answer, rows)


def _length(value: Tensor) -> int:
    return len(value) if value.ndim else 0


@contextmanager
def shared(network: nn.Module, ranks: Ranks) -> Iterator[Calls]:
    """Share the calls of `network` inside the block, which all processes must enter alike.

    network: `(state, t, condition)`; nothing changes where there is one process.
    """
    calls = Calls(ranks)
    if ranks.count == 1:
        yield calls
        return
    hooks = [
        network.register_forward_pre_hook(calls.take, with_kwargs=True),
        network.register_forward_hook(calls.join, with_kwargs=True),
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
