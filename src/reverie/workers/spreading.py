"""`spread`: do many independent pieces of work, wherever there are workers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reverie.errors import InputError
from reverie.workers.cluster import on_ray
from reverie.workers.local import on_processes
from reverie.workers.pieces import (
    HERE,
    Board,
    Outcome,
    Piece,
    Ticker,
    Work,
    Workers,
    failure,
    fixed_threads,
)


def spread(
    work: Work,
    pieces: Iterable[Piece],
    *,
    workers: Workers = HERE,
    shared: Any = None,
    threads: int | None = None,
    folder: Path | None = None,
    gpu: bool = False,
    progress: Ticker | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yield (name, work(piece.given, shared, tell)) of every piece, as they end.

    work: a function of a module; tell(done) says how much of the piece's size is done. shared:
    what all pieces use, sent once to each worker. threads: of each piece (default those of
    `workers`, else as they are). folder: that the work writes to, which all machines must share.
    gpu: whether each piece takes one. progress: told the sum of what is done and of all.

    A worker that is killed is replaced and its piece done again, up to three times; Ctrl-C lets
    the pieces save and ends the workers. A piece that raises InputError does not stop the others;
    they end in an InputError that names it. Raises InputError on bad `workers`, or where there is
    no Ray.

    >>> from reverie.workers import Piece, spread
    >>> def square(given, shared, tell):
    ...     return given**2 + shared
    >>> dict(spread(square, [Piece("two", 2), Piece("three", 3)], shared=1))
    {'two': 5, 'three': 10}
    """
    pieces = list(pieces)
    workers.check()
    if not pieces:
        return
    board, threads = Board(pieces, progress), workers.threads if threads is None else threads
    if workers.here:
        outcomes = _one_by_one(work, pieces, shared, threads, board)
    else:
        threads = threads or workers.usual_threads()
        place = on_processes if workers.on == "local" else on_ray
        outcomes = place(work, pieces, shared, workers, threads, board, gpu=gpu, folder=folder)
    failed: dict[str, str] = {}
    faults: dict[str, str] = {}
    for piece, outcome in outcomes:
        board.finish(piece)
        if outcome.kind == "done":
            yield piece.name, outcome.value
        elif outcome.kind == "failed":
            failed[piece.name] = outcome.value
        else:
            faults[piece.name] = outcome.value
    if faults:
        for name, text in faults.items():
            print(f"{name}:\n{text}", file=sys.stderr)
        raise RuntimeError(f"{', '.join(faults)}: {_last_line(next(iter(faults.values())))}")
    if failed:
        raise failure(failed, len(pieces))


def _one_by_one(
    work: Work, pieces: list[Piece], shared: Any, threads: int | None, board: Board
) -> Iterator[tuple[Piece, Outcome]]:
    """In this process; a fault of the program is raised as it is."""
    for piece in pieces:
        try:
            with fixed_threads(threads):
                value = work(piece.ready().given, shared, partial(board.tell, piece.name))
            done = Outcome("done", value)
        except InputError as error:
            done = Outcome("failed", str(error))
        yield piece, done


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
