"""Start the other processes of a fit on this machine: what `devices=` does without a launcher.

The caller stays and is process 0. The others are told a command and where to meet; what they say
goes into files that are read only where one of them fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch

from reverie.errors import InputError
from reverie.runs.ranks import LOST, STARTED, Ranks, join, left

HOST, GRACE = "127.0.0.1", 20.0  # seconds that a process may take to leave


@contextmanager
def crew(command: list[str], count: int, device: str, wait: float) -> Iterator[Ranks]:
    """Start `command` as processes 1 to count - 1, and be process 0 of their group inside.

    command: arguments of this Python. device: as in FitConfig. wait: seconds. Raises InputError
    where one of them ends before it should, with the last line that it said.
    """
    import torch.distributed as dist

    if device.startswith("cuda") and count > torch.cuda.device_count():
        raise InputError(f"devices is {count}, and there are {torch.cuda.device_count()} GPUs")
    store: Any = dist.TCPStore(  # type: ignore[attr-defined]
        HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=wait)
    )
    threads = torch.get_num_threads()
    share = max(1, threads // count)
    with tempfile.TemporaryDirectory(prefix="reverie-") as said:
        others = [
            _start(command, k, count, store.port, share, Path(said)) for k in range(1, count)
        ]
        torch.set_num_threads(share)
        try:
            _meet(store, others, wait)
            yield join(store, Ranks(0, count), device, wait)
        except InputError as error:
            raise _explained(error, others, Path(said)) from error
        finally:
            torch.set_num_threads(threads)
            left()
            _end(others)


def _start(
    command: list[str], index: int, count: int, port: int, threads: int, said: Path
) -> subprocess.Popen[bytes]:
    told = {
        "RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "MASTER_ADDR": HOST,
        "MASTER_PORT": port, "OMP_NUM_THREADS": threads, STARTED: 1,
    }  # fmt: skip
    with (said / str(index)).open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {name: str(value) for name, value in told.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _meet(store: Any, others: list[subprocess.Popen[bytes]], wait: float) -> None:
    """Wait until every process has said that it is here."""
    start, keys = monotonic(), [f"here{k + 1}" for k in range(len(others))]
    while not store.check(keys):
        if any(other.poll() is not None for other in others):
            raise InputError(LOST)
        if monotonic() - start > wait:
            raise InputError(f"the processes of this fit did not start within {wait:g} s")
        sleep(0.05)


def _explained(error: InputError, others: list[subprocess.Popen[bytes]], said: Path) -> InputError:
    """The error, or which process ended and what it said, where that is the reason."""
    if str(error) != LOST:
        return error
    start = monotonic()
    while all(other.poll() is None for other in others) and monotonic() - start < 2:
        sleep(0.05)  # its connection closes a moment before it is gone
    for index, other in enumerate(others, 1):
        if other.poll():
            lines = (said / str(index)).read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "nothing")
            return InputError(
                f"process {index} of this fit ended with code {other.returncode} (it said: "
                f"{last.removeprefix('reverie: ')}); what was saved last is in the run: continue "
                "it with --resume"
            )
    return error


def _end(others: list[subprocess.Popen[bytes]]) -> None:
    """Let the processes leave, and end those that do not."""
    start = monotonic()
    for other in others:
        try:
            other.wait(max(0.1, GRACE - (monotonic() - start)))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
