"""Pieces of work on processes of this machine, each begun anew and given one piece at a time.

Functions and arguments go through pipes between our own processes. Ctrl-C reaches a worker as a
wish: a fit ends its step and saves, and the worker leaves. A worker whose parent is gone does the
same.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from reverie.errors import InputError
from reverie.workers.pieces import (
    ATTEMPTS,
    Board,
    Outcome,
    Piece,
    StoppedError,
    Work,
    Workers,
    attempt,
)

TOLD_EVERY = 0.2  # seconds between two words of a piece about how far it is
GRACE = 30.0  # seconds that a piece has to save


class _Worker:
    """A process, our end of its pipe, and the piece it is at."""

    def __init__(self, place: int, work: Work, shared: Any, threads: int, gpu: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.place, self.payload = place, _packed((work, shared))
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, threads, place if gpu else None)
        )
        self.piece: Piece | None = None
        self.is_ready = False
        with _deaf_to_interrupts():
            self.process.start()
        theirs.close()

    def give(self, piece: Piece) -> None:
        self.piece = piece
        _say(self.connection, piece.ready().given)

    def take(self) -> tuple[str, Any]:
        """The next word: ready, told, or ended; ("died", exit code) where the process is gone."""
        try:
            word, value = _hear(self.connection)
            if word == "ready":
                self.is_ready = True
                self.connection.send_bytes(self.payload)
            return word, value
        except (EOFError, OSError):
            self.process.join(GRACE)
            return "died", self.process.exitcode

    def leave(self) -> None:
        """Ask it to save and leave, if it is at something."""
        if self.piece is not None and self.process.is_alive() and self.process.pid is not None:
            with suppress(OSError):
                os.kill(self.process.pid, signal.SIGINT)
        self.connection.close()

    def end(self, deadline: float) -> None:
        """Wait for it until `deadline`, then end it."""
        self.process.join(max(deadline - time.monotonic(), 0))
        for end in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                end()
                self.process.join(2)


def on_processes(
    work: Work,
    pieces: list[Piece],
    shared: Any,
    workers: Workers,
    threads: int,
    board: Board,
    *,
    gpu: bool = False,
    folder: Path | None = None,  # all processes of a machine see it
) -> Iterator[tuple[Piece, Outcome]]:
    """Yield every piece and how it ended."""
    left, tries = deque(pieces), dict.fromkeys((piece.name for piece in pieces), 0)
    count = min(workers.jobs or 1, len(pieces))
    crew = [_Worker(place, work, shared, threads, gpu) for place in range(count)]
    try:
        while left or any(worker.piece for worker in crew):
            for connection in wait([worker.connection for worker in crew]):
                worker = next(w for w in crew if w.connection is connection)
                word, value = worker.take()
                if word == "told" and worker.piece is not None:
                    board.tell(worker.piece.name, value)
                if word == "ended" and worker.piece is not None:
                    piece, worker.piece = worker.piece, None
                    yield piece, value
                if word == "died":
                    ended = _mourn(worker, value, left, tries)
                    crew.remove(worker)
                    if ended is not None:
                        yield ended
                    if left:
                        crew.append(_Worker(worker.place, work, shared, threads, gpu))
                elif worker.is_ready and worker.piece is None and left:
                    with suppress(OSError):  # it died: the next word says so
                        worker.give(left.popleft())
    finally:
        for worker in crew:
            worker.leave()
        deadline = time.monotonic() + GRACE
        for worker in crew:
            worker.end(deadline)


def _mourn(
    worker: _Worker, code: int | None, left: deque[Piece], tries: dict[str, int]
) -> tuple[Piece, Outcome] | None:
    """Put the piece of a dead worker back; what is to be said where it has died too often."""
    worker.connection.close()
    if not worker.is_ready and code is not None and code > 0:
        raise InputError(
            "a worker process could not start (what it said stands above): a script of your own "
            'must call this under `if __name__ == "__main__":`'
        )
    piece = worker.piece or (left.popleft() if left else None)
    if piece is None:
        return None
    tries[piece.name] += 1
    if tries[piece.name] < ATTEMPTS:
        left.appendleft(piece)
        return None
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    text = f"its process was ended {ATTEMPTS} times ({how}); the machine may lack memory"
    return piece, Outcome("failed", text)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that starts inside the block leaves Ctrl-C to us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _packed(what: Any) -> bytes:
    try:
        return pickle.dumps(what)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise InputError(
            f"this work cannot be given to other processes ({error}): leave out jobs"
        ) from error


def _say(connection: Connection, what: Any) -> None:
    """Tensors as plain bytes: torch would hand them over in shared memory, which may be small."""
    connection.send_bytes(pickle.dumps(what))


def _hear(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


def serve(connection: Connection, threads: int, place: int | None) -> None:
    """What a worker process does: take a piece, tell how far it is, hand over how it ended.

    place: of the worker among others, where each takes a GPU of the machine in turn.
    """
    if place is not None and torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    told = 0.0

    def tell(done: float) -> None:
        nonlocal told
        if time.monotonic() - told < TOLD_EVERY:
            return
        told = time.monotonic()
        try:
            _say(connection, ("told", done))
        except OSError:
            raise StoppedError from None

    try:
        _say(connection, ("ready", None))
        work, shared = _hear(connection)
        while True:
            given = _hear(connection)
            _say(connection, ("ended", attempt(work, given, shared, threads, tell)))
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the work is done, or nobody waits for it any more
