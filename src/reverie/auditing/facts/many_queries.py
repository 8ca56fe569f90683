"""Exact nearest neighbours of many queries, by as many workers as there are.

Every worker answers queries of its own on all points, and certifies them as `nearest` does: the
answer is that of one process. Workers of this machine read the points from one file, of which it
holds one copy; on Ray each machine holds one.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.auditing.facts.neighbours import BACKENDS, nearest
from reverie.errors import InputError
from reverie.files import write_bytes
from reverie.workers.pieces import HERE, Piece, Tell, Ticker, Workers, cores
from reverie.workers.spreading import spread

LEAST = 1024  # queries of a piece, below which reading the points outweighs the answer
TURNS = 4  # pieces for each worker, so that a slow one is no brake


@dataclass(frozen=True, eq=False)
class _Shared:
    """Points (N, d) and queries (Q, d), or the files they stand in; and how they are asked."""

    queries: np.ndarray | Path
    points: np.ndarray | Path
    k: int
    skip_self: bool
    backend: str


def nearest_many(
    queries: np.ndarray,
    points: np.ndarray,
    k: int = 1,
    *,
    skip_self: bool = False,
    backend: str = "own",
    workers: Workers = HERE,
    folder: str | Path | None = None,
    progress: Ticker | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, by `workers`: distances (Q, k) and indices (Q, k) among points (N, d).

    queries: (Q, d). folder: for the files that local workers read; default a temporary one, which
    is removed. progress: told the queries done, and all. Raises InputError where `nearest` does,
    and on bad workers.

    >>> import numpy as np
    >>> from reverie.auditing import nearest_many
    >>> points = np.array([[0.0], [1.0], [5.0]])
    >>> nearest_many(np.array([[4.0]]), points, k=2)
    (array([[1., 3.]]), array([[2, 1]]))
    """
    if workers.check().here:
        return nearest(queries, points, k, skip_self=skip_self, backend=backend, progress=progress)
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}; it is one of {', '.join(BACKENDS)}")
    if skip_self and len(queries) != len(points):
        raise InputError("skip_self: the queries must be the points")
    count = workers.jobs or cores()
    size = max(LEAST, -(-len(queries) // (TURNS * count)))
    pieces = [
        Piece(f"queries {start + 1} to {end}", (start, end), end - start)
        for start in range(0, len(queries), size)
        for end in [min(start + size, len(queries))]
    ]
    width = max(min(k, len(points) - int(skip_self)), 0)
    distance = np.empty((len(queries), width))
    index = np.empty((len(queries), width), dtype=np.int64)
    with ExitStack() as stack:
        held = queries, points
        if workers.on == "local":
            place = folder or stack.enter_context(tempfile.TemporaryDirectory())
            held = tuple(_filed(Path(place), *one) for one in enumerate((queries, points)))
        shared = _Shared(*held, k=width, skip_self=skip_self, backend=backend)
        for name, found in spread(
            _answered, pieces, workers=workers, shared=shared, progress=progress
        ):
            start, end = next(piece.given for piece in pieces if piece.name == name)
            distance[start:end], index[start:end] = found
    return distance, index


def _filed(folder: Path, place: int, values: np.ndarray) -> Path:
    """The file that holds `values`: its own where it is a whole .npy, else one in `folder`."""
    name = getattr(values, "filename", None)
    if isinstance(values, np.memmap) and name is not None and Path(name).suffix == ".npy":
        whole = np.load(name, mmap_mode="r", allow_pickle=False)
        if (whole.shape, whole.dtype, whole.offset) == (
            values.shape, values.dtype, values.offset
        ) and whole.strides == values.strides:  # fmt: skip
            return Path(name).resolve()
    path = folder.resolve() / f"nearest-{place}.npy"
    write_bytes(path, lambda file: np.save(file, values, allow_pickle=False))
    return path


def _answered(rows: tuple[int, int], shared: _Shared, tell: Tell) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of queries from `rows[0]` to `rows[1]`."""
    queries, points = (
        np.load(held, mmap_mode="r", allow_pickle=False) if isinstance(held, Path) else held
        for held in (shared.queries, shared.points)
    )
    own = np.asarray(queries[slice(*rows)])
    distance, index = nearest(
        own, points, shared.k + int(shared.skip_self), backend=shared.backend,
        progress=lambda done, _: tell(done),
    )  # fmt: skip
    if not shared.skip_self:
        return distance, index
    # itself to the end; where duplicates crowded it out, the last of them goes
    last = np.argsort(index == np.arange(*rows)[:, None], axis=1, kind="stable")[:, : shared.k]
    return np.take_along_axis(distance, last, 1), np.take_along_axis(index, last, 1)
