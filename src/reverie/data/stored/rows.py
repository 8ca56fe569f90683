"""Rows that stay on disk: read when they are asked for, in memory bounded by what is asked.

`StoredRows` has the shape and type of an array of rows and hands out some of them (`rows[places]`)
or all of them block by block. What asks for more than that, as an array's own methods would, gets
one sentence instead of a full memory.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from reverie.errors import InputError

BLOCK = 2**22  # numbers of a block (32 MiB in float64)
PIECE = 2**26  # bytes of a file that one hash is of

Ticker = Callable[[int, int], None]
_telling: ContextVar[Callable[[str], Ticker] | None] = ContextVar("telling", default=None)


def tell_with(ticker: Callable[[str], Ticker] | None) -> None:
    """Who is told how far a pass over stored rows is: ticker(title) takes (done, total)."""
    _telling.set(ticker)


def ticker(title: str) -> Ticker:
    """A callback (done, total) for a pass of this title; it does nothing where nobody asks."""
    made = _telling.get()
    return (lambda done, total: None) if made is None else made(title)


@dataclass(frozen=True)
class Piece:
    """A part of the data that has a hash of its own: a file, or bytes `start` to `stop` of it."""

    name: str
    path: Path
    start: int
    stop: int

    def sha256(self) -> str:
        """Hash of the bytes; InputError where there are fewer."""
        total, left = hashlib.sha256(), self.stop - self.start
        with opened(self.path) as file:
            file.seek(self.start)
            while left:
                part = file.read(min(left, 2**22))
                if not part:
                    raise InputError(f"{self.path} has been cut short")
                total.update(part)
                left -= len(part)
        return total.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for reading bytes; InputError where it cannot be."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error


def pieces_of(path: Path) -> list[Piece]:
    """A file in pieces of PIECE bytes."""
    size, found = path.stat().st_size, []
    for start in range(0, max(size, 1), PIECE):
        stop = min(start + PIECE, size)
        part = f", bytes {start:,} to {stop:,}" if size > PIECE else ""
        found.append(Piece(f"{path.name}{part}", path, start, stop))
    return found


class StoredRows(ABC):
    """Rows on disk: `shape` (n, *shape) and `dtype` of the whole; see the module.

    rows[places] reads the rows at an array of places of any shape, a slice, or one place.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie.data import StoredRows, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/rows.npy", np.arange(12.0).reshape(6, 2))
    ...     rows = load(f"{folder}/rows.npy", stored=True).values
    ...     isinstance(rows, StoredRows), rows.shape, rows[np.array([4, 0])].tolist()
    (True, (6, 2), [[8.0, 9.0], [0.0, 1.0]])
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype
    decodes = False  # whether a row costs more than reading its bytes
    lazy = False  # whether it may yet be read so, by worker processes

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows (B, *shape) at places (B,), which ascend and differ."""

    @abstractmethod
    def pieces(self) -> list[Piece]:
        """The files that the rows come from, in parts, each with a hash."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, were they in memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            return self.take(np.arange(*rows.indices(len(self))))
        if isinstance(rows, int | np.integer):
            return self.take(np.array([range(len(self))[int(rows)]]))[0]
        places = np.asarray(rows)
        if places.dtype == bool:
            places = np.flatnonzero(places)
        if places.size and not -len(self) <= places.min() <= places.max() < len(self):
            raise IndexError(f"{self.source} has {len(self)} rows")
        if (
            places.ndim == 1
            and (np.diff(places) > 0).all()
            and (not len(places) or places[0] >= 0)
        ):
            return self.take(places)
        known, back = np.unique(places % max(len(self), 1), return_inverse=True)
        found = self.take(known)
        return found[back.reshape(-1)].reshape(*places.shape, *self.shape[1:])

    def blocks(self, size: int | None = None) -> Iterator[np.ndarray]:
        """All rows in their order, `size` at a time (by default about BLOCK numbers)."""
        size = block_rows(self.shape) if size is None else size
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def sound(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `blocks`, with the places of the rows; without those that may be left out."""
        start = 0
        for block in self.blocks():
            yield np.arange(start, start + len(block)), block
            start += len(block)

    def of(self, rows: np.ndarray) -> SomeRows:
        """Only the rows at these places (B,), still on disk."""
        return SomeRows(self, np.asarray(rows))

    def start_workers(self, count: int | None = None) -> None:
        """Decode in worker processes from now on, where there is anything to decode."""
        return

    def hashes(self) -> dict[str, str]:
        """The hash of every piece, by its name."""
        found, tell, pieces = {}, ticker("hashing"), self.pieces()
        total = sum(piece.stop - piece.start for piece in pieces)
        done = 0
        for piece in pieces:
            found[piece.name] = piece.sha256()
            done += piece.stop - piece.start
            tell(done, total)
        return found

    @staticmethod
    def hash_file(path: Path) -> dict[str, str]:
        """The hash of every piece of a file, by its name."""
        return {piece.name: piece.sha256() for piece in pieces_of(path)}

    def root(self) -> tuple[StoredRows, np.ndarray | None]:
        """The source itself, and the places of these rows in it; None for all of them."""
        return self, None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        if hasattr(np.ndarray, name) and not name.startswith("__"):
            self._refuse()
        raise AttributeError(name)

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{self.source} is read from disk in pieces ({self.nbytes / 2**30:.2g} GiB), and this "
            "needs all rows in memory: use fewer rows, or stored=False"
        )


def block_rows(shape: tuple[int, ...]) -> int:
    """Rows of a block of about BLOCK numbers; the same for all rows of one shape."""
    return max(1, BLOCK // max(int(np.prod(shape[1:], dtype=np.int64)), 1))


class SomeRows(StoredRows):
    """Some of the rows of a source, in an order of their own: `places` (n,) in it."""

    def __init__(self, whole: StoredRows, places: np.ndarray) -> None:
        self.whole, self.places = whole, places
        self.source, self.dtype = whole.source, whole.dtype
        self.decodes, self.lazy = whole.decodes, whole.lazy
        self.shape = (len(places), *whole.shape[1:])

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.whole[self.places[rows]]

    def pieces(self) -> list[Piece]:
        return self.whole.pieces()

    def start_workers(self, count: int | None = None) -> None:
        self.whole.start_workers(count)

    def of(self, rows: np.ndarray) -> SomeRows:
        return SomeRows(self.whole, self.places[rows])

    def root(self) -> tuple[StoredRows, np.ndarray | None]:
        whole, places = self.whole.root()
        return whole, self.places if places is None else places[self.places]


class Watched:
    """An open file whose change while it is read is noticed."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
        self.known = self._state()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self.handle)
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """InputError where the file is another than when it was opened."""
        size = self._state()[0]
        if size < self.known[0]:
            raise InputError(f"{self.path} has been cut short while it was read")
        if self._state() != self.known:
            raise InputError(f"{self.path} has changed while it was read")

    def read(self, room: memoryview, start: int) -> None:
        """Fill `room` with the bytes from `start` on; InputError where there are too few."""
        while True:
            count = os.preadv(self.handle, [room], start)
            if count == len(room):
                return
            if count <= 0:
                raise InputError(f"{self.path} has been cut short while it was read")
            room, start = room[count:], start + count

    def __del__(self) -> None:
        handle = self.__dict__.get("handle")
        if handle is not None:
            os.close(handle)
