"""The processes that make one fit together: which one this is, its part, and whether all agree.

Every process draws the randomness of the whole batch from the same generator and works out its
own rows, so that what comes out does not depend on how many there are. They speak through
torch.distributed alone; `torchrun`, `accelerate launch` and `fit(devices=...)` start them.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from reverie.errors import InputError

Made = TypeVar("Made")
STARTED = "REVERIE_STARTED"  # set where `fit(devices=...)` started this process
GROUP = "reverie"
LOST = (
    "another process of this fit has ended or does not answer; what was saved last is in the "
    "run: continue it with --resume"
)
# of errors that torch.distributed raises where a process is gone, whatever their class
SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")


class SaidElsewhereError(InputError):
    """An InputError that the first process tells as well."""


@dataclass(frozen=True)
class Ranks:
    """This process among `count` that make one fit; `index` 0 is the one that writes.

    >>> from reverie.runs.ranks import Ranks
    >>> Ranks(index=1, count=2).part(5)
    slice(2, 5, None)
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0

    def part(self, rows: int, index: int | None = None) -> slice:
        """The rows, of so many, that this process works out, or process `index`."""
        place = self.index if index is None else index
        return slice(rows * place // self.count, rows * (place + 1) // self.count)

    # --- what all of them do together ---------------------------------------------------------

    def whole(self, own: Tensor, rows: int) -> Tensor:
        """All rows (rows, ...) from the part of each; gradients flow into this one's alone."""
        import torch.distributed as dist

        most = max(_length(self.part(rows, k)) for k in range(self.count))
        sent = own.detach().new_zeros((most, *own.shape[1:]))
        sent[: len(own)] = own.detach()
        got = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(got, sent)
        pieces = [got[k][: _length(self.part(rows, k))] for k in range(self.count)]
        pieces[self.index] = own
        return torch.cat(pieces)

    def mean(self, value: float) -> float:
        """The mean of a number over processes."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self.count

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is up in any process."""
        if self.count == 1:
            return flags
        import torch.distributed as dist

        up = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(up, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in up)

    def told(self, row: dict[str, float]) -> dict[str, float]:
        """The first process's numbers: decisions that follow from them are one."""
        if self.count == 1:
            return row
        import torch.distributed as dist

        values = torch.tensor(list(row.values()), dtype=torch.float64)
        dist.broadcast(values, 0)
        return dict(zip(row, values.tolist(), strict=True))

    def texts(self, text: str) -> list[str]:
        """What every process says."""
        if self.count == 1:
            return [text]
        import torch.distributed as dist

        said = torch.frombuffer(bytearray(text.encode() + b"\n"), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(said)]))
        most = int(max(lengths))
        got = [torch.zeros(most, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(got, torch.cat([said, said.new_zeros(most - len(said))]))
        return [
            bytes(piece[: int(n)].tolist()).decode()[:-1]
            for piece, n in zip(got, lengths, strict=True)
        ]

    def agreed(self, make: Callable[[], Made]) -> Made:
        """What `make` returns; an InputError in one process is one in all, and none waits."""
        if self.count == 1:
            return make()
        made, said = [], ""
        try:
            made.append(make())
        except InputError as error:
            said = str(error)
        told = [text for text in self.texts(said) if text]
        if told:
            raise InputError(told[0]) if self.first else SaidElsewhereError(told[0])
        return made[0]

    def same(self, what: str, value: str) -> None:
        """Raise InputError in all processes where one holds another value of `what`."""
        values = self.texts(value)
        others = [k for k, other in enumerate(values) if other != values[0]]
        if others:
            text = (
                f"process {others[0]} of {self.count} has {what} other than process 0: give all "
                "of them the same data and settings"
            )
            raise InputError(text) if self.first else SaidElsewhereError(text)


ALONE = Ranks()


def _length(part: slice) -> int:
    return part.stop - part.start


def launched() -> tuple[int, int]:
    """Index and count that a launcher gave this process, (0, 1) without one; needs no torch.

    Raises InputError where the launcher's variables are no numbers.
    """
    try:
        index, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError as error:
        raise InputError("RANK and WORLD_SIZE are set, but are no numbers: unset them") from error
    return (index, count) if "RANK" in os.environ else (0, 1)


def local_index() -> int:
    """Which of the processes on its machine this one is."""
    return int(os.environ.get("LOCAL_RANK", launched()[0]))


def joined(device: str, wait: float) -> Ranks:
    """The processes that a launcher started, joined; ALONE where none did.

    device: as in FitConfig, `cpu` or `cuda`. wait: seconds. Raises InputError where the others do
    not come.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        found = Ranks(dist.get_rank(), dist.get_world_size())
        return found if found.count > 1 else ALONE
    index, count = launched()
    if count < 2:
        return ALONE
    if STARTED in os.environ:
        place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        limit = timedelta(seconds=wait)
        store: Any = dist.TCPStore(place, port, timeout=limit)  # type: ignore[attr-defined]
        store.set(f"here{index}", "1")
        return join(store, Ranks(index, count), device, wait)
    return join(None, Ranks(index, count), device, wait)


def join(store: Any, ranks: Ranks, device: str, wait: float) -> Ranks:
    """Enter the group of processes that meet at `store`, or where a launcher says.

    Raises InputError on too few GPUs, and where the others do not come.
    """
    import torch.distributed as dist

    kind = device.partition(":")[0]
    if kind == "cuda":
        found = torch.cuda.device_count()
        if local_index() >= found:
            raise InputError(
                f"process {ranks.index} needs a GPU of its own, and there are {found}"
            )
        torch.cuda.set_device(local_index())
    elif kind != "cpu":
        raise InputError(f"a fit of many processes needs device cpu or cuda, not {device}")
    given = {}
    if store is not None:
        place: Any = dist.PrefixStore(GROUP, store)  # type: ignore[attr-defined]
        given = {"store": place, "rank": ranks.index, "world_size": ranks.count}
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
            timeout=timedelta(seconds=wait),
            **given,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {ranks.index} of {ranks.count} did not meet the others within {wait:g} s: "
            f"{str(error).splitlines()[0]}"
        ) from error
    atexit.register(left)
    return ranks


def left() -> None:
    """Leave the group, if this process is in one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def answered(ranks: Ranks) -> Iterator[None]:
    """Inside the block, a process that is gone is an InputError, not a fault of the program."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if ranks.count == 1 or not any(sign in text for sign in SIGNS):
            raise
        raise InputError(LOST) from error
