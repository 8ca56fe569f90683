"""What a piece of work is, where it is done, and with how many threads.

A piece is a function of its argument alone and keeps what it has done in a folder of its own, if
it is long: then it may be begun anywhere, ended at any moment and begun again somewhere else. The
last bits of a product depend on the number of threads, so that number is a setting of the work and
not of the machine.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from reverie.errors import InputError

ATTEMPTS = 4  # of a piece whose worker was killed
PLACES = ("local", "ray")
Tell = Callable[[float], None]
Work = Callable[[Any, Any, Tell], Any]  # (given, shared, tell) -> result
Ticker = Callable[[int, int], None]


@dataclass(frozen=True)
class Workers:
    """Where pieces of work are done: `jobs` processes, `on` this machine or a Ray cluster.

    jobs: None is one here, and as many as there are on Ray. on: "local", or "ray": the cluster at
    RAY_ADDRESS, else one that is started on this machine and ended with the work. threads: of each
    piece; None is what the work says.

    >>> from reverie.workers import Workers
    >>> Workers().here, Workers(jobs=4).here, Workers(on="ray").here
    (True, False, False)
    """

    jobs: int | None = None
    on: str = "local"
    threads: int | None = None

    @property
    def here(self) -> bool:
        """Whether pieces are done one after another in this very process."""
        return self.on == "local" and self.jobs in (None, 1)

    def check(self) -> Workers:
        """Return self, or raise InputError that names the first bad setting."""
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.on not in PLACES:
            raise InputError(f"on is {self.on!r}; choose {' or '.join(PLACES)}")
        return self

    def usual_threads(self) -> int:
        """Threads of a piece where none are asked for: the cores that fall to each worker.

        In this process, those it has; on Ray one, which every machine of a cluster has.
        """
        if self.threads is not None:
            return self.threads
        if self.here:
            return torch.get_num_threads()
        if self.on == "ray":
            return 1
        return max(1, cores() // (self.jobs or 1))


HERE = Workers()


@dataclass(frozen=True)
class Piece:
    """One piece of work by its name: what its function is `given`, and how long it is.

    size: in any unit, for the estimate of the time left. prepare: called in this process just
    before the piece is given away.

    >>> from reverie.workers import Piece
    >>> Piece("n=10", {"n": 10}, size=2000).name
    'n=10'
    """

    name: str
    given: Any
    size: float = 1
    prepare: Callable[[], None] | None = None

    def ready(self) -> Piece:
        """The piece itself, prepared."""
        if self.prepare is not None:
            self.prepare()
        return self


class Outcome(NamedTuple):
    """How a piece ended: done, failed (bad input), fault (of the program) or stopped."""

    kind: str
    value: Any = None


class StoppedError(KeyboardInterrupt):
    """Whoever asked for the work is gone: save and leave, as after Ctrl-C."""


def attempt(work: Work, given: Any, shared: Any, threads: int | None, tell: Tell) -> Outcome:
    """Do one piece in this process."""
    try:
        with fixed_threads(threads):
            return Outcome("done", work(given, shared, tell))
    except InputError as error:
        return Outcome("failed", str(error))
    except Exception:
        return Outcome("fault", traceback.format_exc())


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[None]:
    """So many threads for torch and for the products of numpy inside the block; None: as it is."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def agreed_threads(kept: Any, workers: Workers, what: str) -> int:
    """Threads of every piece of `what`, whose note is `kept` where there is one.

    What was recorded stands, wherever the work goes on. Raises InputError where another number is
    asked for.
    """
    known = kept.get("threads") if isinstance(kept, dict) else None
    if known is None:
        return workers.usual_threads()
    if workers.threads not in (None, known):
        raise InputError(
            f"{what} was begun with {known} thread(s) a fit, which decide the last bits: leave "
            f"out threads={workers.threads}, or choose another folder"
        )
    return int(known)


@dataclass
class Board:
    """How far all pieces are, in one place; progress: told the sum of what is done, and of all."""

    pieces: Sequence[Piece]
    progress: Ticker | None = None
    running: dict[str, float] = field(default_factory=dict)
    finished: float = 0
    shown: int = 0

    def tell(self, name: str, done: float) -> None:
        """The piece `name` has done so much of its size."""
        self.running[name] = done
        self._show()

    def finish(self, piece: Piece) -> None:
        """The piece is done."""
        self.running.pop(piece.name, None)
        self.finished += piece.size
        self._show()

    def _show(self) -> None:
        total = int(sum(piece.size for piece in self.pieces))
        done = min(int(self.finished + sum(self.running.values())), total)
        # a piece that begins again is behind itself for a while: a bar does not go back
        if self.progress is not None and done > self.shown:
            self.shown = done
            self.progress(done, total)


def failure(failed: dict[str, str], count: int) -> InputError:
    """One sentence about the pieces that failed, each by its name."""
    if len(failed) == count and len(set(failed.values())) == 1:  # nothing of any one piece
        return InputError(next(iter(failed.values())))
    said = "; ".join(f"{name}: {text}" for name, text in failed.items())
    left = count - len(failed)
    kept = f"; the other {left} are done and kept" if left else ""
    few = "" if len(failed) == 1 else f"{len(failed)} of {count} failed: "
    return InputError(f"{few}{said}{kept}")
