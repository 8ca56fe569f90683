"""Worker processes that decode rows: asked for places, they answer with bytes.

They are forked, so that they share what is known of the files and need nothing sent; where a
system cannot fork, the caller decodes by itself. A worker that dies, or is told nothing because
its parent has died, ends; whoever waits for it gets a sentence.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from reverie.errors import InputError

MOST, PATIENCE = 8, 5.0  # workers, and seconds after which one looks whether its parent lives
FINE, WRONG = b"\0", b"!"


class Decoders:
    """`count` processes that run `read(places)`; see the module."""

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], count: int) -> None:
        self.count, self.lock = count, threading.Lock()
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        context = multiprocessing.get_context("fork")
        for _ in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(read, theirs, os.getpid()), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of forking beside threads: workers use none
                worker.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(worker)

    @classmethod
    def start(
        cls, read: Callable[[np.ndarray], np.ndarray], count: int | None = None
    ) -> Decoders | None:
        """Workers for all processors but one; None where processes cannot be forked."""
        if "fork" not in multiprocessing.get_all_start_methods():
            return None
        count = min(max((os.cpu_count() or 2) - 1, 1), MOST) if count is None else count
        return cls(read, count) if count > 0 else None

    def take(self, rows: np.ndarray) -> bytes:
        """The bytes of the rows at places (B,), in their order."""
        with self.lock:
            try:
                parts = np.array_split(np.ascontiguousarray(rows, np.int64), self.count)
                for pipe, part in zip(self.pipes, parts, strict=True):
                    pipe.send_bytes(part.tobytes())
                answers = [pipe.recv_bytes() for pipe in self.pipes]
            except (EOFError, OSError) as error:
                raise InputError(
                    "a worker that decodes rows has died (out of memory?); go on with --resume"
                ) from error
        for answer in answers:
            if answer[:1] == WRONG:
                raise InputError(answer[1:].decode())
        return b"".join(answer[1:] for answer in answers)


def _serve(read: Callable[[np.ndarray], np.ndarray], pipe: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    while os.getppid() == parent:
        try:
            if not pipe.poll(PATIENCE):
                continue
            rows = np.frombuffer(pipe.recv_bytes(), np.int64)
            try:
                answer = FINE + read(rows).tobytes()
            except InputError as error:
                answer = WRONG + str(error).encode()
            except Exception as error:  # a sentence for the parent, whatever it is
                answer = WRONG + f"rows could not be decoded ({error})".encode()
            pipe.send_bytes(answer)
        except (EOFError, OSError):
            return
