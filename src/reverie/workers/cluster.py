"""Pieces of work on a Ray cluster: one remote call for each, tried again where a machine dies.

The cluster is the one at RAY_ADDRESS, else one of this machine that ends with the work. A piece
is a call of a function, and Ray carries its argument and its result; what a fit has done so far
stands in its folder, so that a call that Ray repeats elsewhere goes on from there. That takes a
folder which all machines share, at the same path; each worker looks for a mark in it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reverie.errors import InputError
from reverie.files import write_text
from reverie.workers.pieces import ATTEMPTS, Board, Outcome, Piece, Work, Workers, attempt, cores

PATIENCE = 3.0  # seconds to find out whether anybody answers at an address
LOOK_EVERY, TOLD_EVERY = 0.5, 1.0  # seconds
GRACE = 30.0  # seconds that a piece has to save
AHEAD = 2  # calls for each free place, so that no worker waits for us
# an HTTP/2 client's first words, and the kind of frame with which a gRPC server must answer
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + b"\0" * 5
SETTINGS = 4
BLIND = "blind"


def on_ray(
    work: Work,
    pieces: list[Piece],
    shared: Any,
    workers: Workers,
    threads: int,
    board: Board,
    *,
    gpu: bool = False,
    folder: Path | None = None,
) -> Iterator[tuple[Piece, Outcome]]:
    """Yield every piece and how it ended."""
    with cluster(workers, threads) as ray, _marked(folder) as mark:
        slots = _slots(ray, threads, gpu)
        most = min(AHEAD * slots, workers.jobs or AHEAD * slots)
        told = _told(ray)
        call = ray.remote(num_cpus=threads, num_gpus=int(gpu), max_retries=ATTEMPTS - 1)(_piece)
        once = ray.put((work, shared))
        left, running = deque(pieces), {}
        try:
            while left or running:
                while left and len(running) < most:
                    piece = left.popleft().ready()
                    ref = call.options(name=piece.name).remote(
                        once, piece.given, piece.name, threads, told, mark
                    )
                    running[ref] = piece
                ended, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY)
                _show(ray, told, board)
                for ref in ended:
                    outcome = _outcome(ray, ref)
                    if outcome.kind == BLIND:  # it would take all pieces, and do none
                        raise InputError(outcome.value)
                    yield running.pop(ref), outcome
        finally:
            _stop(ray, list(running))


@contextmanager
def cluster(workers: Workers, threads: int) -> Iterator[Any]:
    """Ray, connected inside the block; raises InputError, within seconds, where there is none."""
    try:
        import ray
    except ImportError:
        raise InputError("on='ray' needs Ray: pip install 'reverie[cluster]'") from None
    if ray.is_initialized():  # the caller's own connection
        yield ray
        return
    quiet: dict[str, Any] = dict(log_to_driver=False, logging_level="error")
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            count = workers.jobs * threads if workers.jobs else cores()
            ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
    except InputError:
        raise
    except Exception as error:  # of many kinds
        first = str(error).strip().partition("\n")[0]
        where = f"no Ray cluster at RAY_ADDRESS={address}" if address else "Ray did not start"
        raise InputError(f"{where}: {first}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def where() -> str:
    """In words, the cluster that pieces will go to."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address:
        return f"on the Ray cluster at {address}"
    return "RAY_ADDRESS is not set: on a Ray of this machine, which ends with the command"


def _knock(address: str) -> None:
    """Raise InputError unless something that speaks Ray's protocol answers at host:port."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto":
        return
    text = f"no Ray cluster answers at RAY_ADDRESS={address}"
    if not host or not port.isdigit():
        raise InputError(f"{text}: it is HOST:PORT, as `ray start --head` says, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as line:
            line.settimeout(PATIENCE)
            line.sendall(HELLO)
            answer = line.recv(9)
    except OSError as error:
        raise InputError(f"{text} ({error.strerror or error})") from None
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise InputError(f"{text}: something else does")


def _slots(ray: Any, threads: int, gpu: bool) -> int:
    """How many pieces fit on the cluster at a time; InputError where none ever does."""
    count, most = 0, 0.0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        fit = int(has.get("CPU", 0) // threads)
        count += min(fit, int(has.get("GPU", 0))) if gpu else fit
        most = max(most, has.get("CPU", 0))
    if count == 0:
        raise InputError(
            f"no machine of the Ray cluster has {threads} CPU(s){' and a GPU' if gpu else ''} for "
            f"a piece; the largest has {most:g}: ask for fewer threads"
        )
    return count


@contextmanager
def _marked(folder: Path | None) -> Iterator[str | None]:
    """A file in `folder` by which workers know that they see it."""
    if folder is None:
        yield None
        return
    mark = Path(folder).resolve() / f".shared-{uuid.uuid4().hex}"
    write_text(mark, "")
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)


class _Told:
    """How far pieces say they are; an actor beside us."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}

    def tell(self, name: str, done: float) -> None:
        self.done[name] = done

    def all(self) -> dict[str, float]:
        done, self.done = self.done, {}
        return done


def _told(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(_Told).options(num_cpus=0, scheduling_strategy=here).remote()


def _show(ray: Any, told: Any, board: Board) -> None:
    if board.progress is None:
        return
    with suppress(ray.exceptions.RayError):  # progress alone is lost
        for name, done in ray.get(told.all.remote(), timeout=LOOK_EVERY).items():
            board.tell(name, done)


def _piece(
    once: tuple[Work, Any], given: Any, name: str, threads: int, told: Any, mark: str | None
) -> Outcome:
    """What runs on a worker."""
    if mark is not None and not Path(mark).exists():
        return Outcome(BLIND, (
            f"the machine {socket.gethostname()} does not see {Path(mark).parent}: workers on Ray "
            "need the output in a folder that all machines share, at the same path"
        ))  # fmt: skip
    said = 0.0

    def tell(done: float) -> None:
        nonlocal said
        if time.monotonic() - said > TOLD_EVERY:
            said = time.monotonic()
            told.tell.remote(name, done)

    work, shared = once
    usual = _as_it_was()
    try:
        return attempt(work, given, shared, threads, tell)
    except KeyboardInterrupt:
        return Outcome("stopped")
    finally:
        if usual is not None:
            signal.signal(signal.SIGINT, usual)


def _as_it_was() -> Any:
    """Let Ctrl-C be a KeyboardInterrupt, so that a fit that is cancelled saves; the former way."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, signal.default_int_handler)


def _outcome(ray: Any, ref: Any) -> Outcome:
    """How a call ended, in words where Ray gave it up."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return Outcome("failed", f"Ray gave it up after {ATTEMPTS} attempts: {first}")


def _stop(ray: Any, running: list[Any]) -> None:
    """Cancel what runs, and give it time to save."""
    if not running:
        return
    with suppress(ray.exceptions.RayError):
        for ref in running:
            ray.cancel(ref, force=False)
        ray.wait(running, num_returns=len(running), timeout=GRACE)
