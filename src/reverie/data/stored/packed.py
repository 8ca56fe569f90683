"""Rows that are pictures or arrays of their own: files of a folder, or members of `.tar` shards.

A row is some bytes of a file; where they stand is known once and for all, so that any rows can be
read in any order. Decoding takes an interpreter's time, so that worker processes do it
(`decoders`), each at most one request ahead.
"""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.arrays import from_array
from reverie.data.options import Reading
from reverie.data.pictures import IMAGE_SUFFIXES, Changes, as_asked, pictures_in, pixels_of
from reverie.data.stored.archives import members
from reverie.data.stored.decoders import Decoders
from reverie.data.stored.npy import in_layout
from reverie.data.stored.rows import Piece, StoredRows, Watched, block_rows, pieces_of, ticker
from reverie.errors import InputError
from reverie.files import write_bytes

OPEN = 128  # files kept open
FILES = 256  # files of a folder whose hash is one
ARRAY, LABEL = ".npy", ".cls"
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(eq=False)
class Index:
    """Where rows stand: `files`, and for each row its file, offset and size (n,).

    labels (n,): the class of each row, or None; of their names in `classes`. others: how many
    members are no rows.
    """

    files: list[str]
    place: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    others: int = 0

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        known: dict[str, Any] = {"place": self.place, "offset": self.offset, "size": self.size,
                 "files": np.array(self.files), "classes": np.array(self.classes, dtype=str),
                 "others": np.array(self.others)}  # fmt: skip
        if self.labels is not None:
            known["labels"] = self.labels
        write_bytes(path, lambda file: np.savez(file, **known))

    @classmethod
    def load(cls, path: Path) -> Index:
        """What `save` wrote; InputError where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as known:
                labels = known["labels"] if "labels" in known.files else None
                return cls(
                    known["files"].tolist(), known["place"], known["offset"], known["size"],
                    labels, tuple(known["classes"].tolist()), int(known["others"]),
                )  # fmt: skip
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path} is damaged: fit anew") from error


@dataclass
class _Found:
    """An index in the making."""

    place: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    others: int = 0

    def index(self, files: list[str], classes: tuple[str, ...] = ()) -> Index:
        told = self.labels and len(self.labels) == len(self.place)
        labels = np.array(self.labels, np.int64) if told else None
        if told and not classes:
            classes = tuple(map(str, range(max(self.labels) + 1)))
        return Index(
            files, np.array(self.place, np.int32), np.array(self.offset, np.int64),
            np.array(self.size, np.int64), labels, classes if told else (), self.others,
        )  # fmt: skip


def index_folder(path: Path) -> Index:
    """The pictures of a folder, or of the folders of classes in it, by their names."""
    files, classes = pictures_in(path, Changes())
    found = _Found(list(range(len(files))), [0] * len(files), [p.stat().st_size for p, _ in files])
    found.labels = [label for _, label in files] if classes else []
    return found.index([str(p) for p, _ in files], tuple(classes))


def index_shards(shards: list[Path]) -> Index:
    """The samples of shards in the layout of WebDataset: a picture or a `.npy`, and maybe a label.

    Members of one name up to its first point are one sample.
    """
    found, tell = _Found(), ticker("reading shards")
    suffix = ""
    for number, shard in enumerate(shards):
        labels: dict[str, int] = {}
        rows: list[str] = []
        for name, offset, size in members(shard):
            folder, _, base = name.rpartition("/")
            stem, _, rest = base.partition(".")
            ending = f".{rest}".lower()
            if ending in (*IMAGE_SUFFIXES, ARRAY):
                if suffix and (ending == ARRAY) != (suffix == ARRAY):
                    raise InputError(f"{shard}: {name} is no {suffix}, as the members before it")
                suffix = suffix or ending
                if rows and rows[-1] == f"{folder}/{stem}":
                    raise InputError(f"{shard} holds two pictures or arrays called {stem}")
                rows.append(f"{folder}/{stem}")
                found.place.append(number)
                found.offset.append(offset)
                found.size.append(size)
            elif ending == LABEL:
                labels[f"{folder}/{stem}"] = _label(shard, name, offset, size)
            else:
                found.others += 1
        found.labels += [labels[row] for row in rows if row in labels]
        tell(number + 1, len(shards))
    if not found.place:
        raise InputError(f"{shards[0]}: no member is a picture or a .npy")
    if found.labels and len(found.labels) != len(found.place):
        raise InputError(f"{shards[0].parent}: some members have a label (.cls), others none")
    return found.index([str(shard) for shard in shards])


def _label(shard: Path, name: str, offset: int, size: int) -> int:
    with shard.open("rb") as file:
        file.seek(offset)
        text = file.read(min(size, 32)).strip()
    if not text.isdigit():
        raise InputError(f"{shard}: {name} holds {text.decode(errors='replace')!r}, no label")
    return int(text)


def shards_of(text: str) -> list[Path] | None:
    """The shards that a source names: one `.tar`, a pattern with `{000..999}`, or a folder of
    them; None where it names none. InputError on one that is missing."""
    braces = BRACES.search(text)
    if braces is not None and text.lower().endswith(".tar"):
        first, last, digits = int(braces[1]), int(braces[2]), len(braces[1])
        head, tail = text[: braces.start()], text[braces.end() :]
        paths = [Path(f"{head}{k:0{digits}d}{tail}") for k in range(first, last + 1)]
        if not paths:
            raise InputError(f"{text} names no shard: the first number is above the last")
    elif text.lower().endswith(".tar"):
        paths = [Path(text)]
    else:
        folder = Path(text)
        inside = sorted(folder.glob("*.tar")) if folder.is_dir() else []
        paths = [*inside, *_gaps(inside)]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is missing: {text} names {len(paths)} shards")
    return paths or None


def _gaps(shards: list[Path]) -> list[Path]:
    """Shards that a numbering skips."""
    parts = [re.fullmatch(r"(.*?)(\d+)", shard.stem) for shard in shards]
    if len(shards) < 2 or not all(parts):
        return []
    known = {(m[1], int(m[2])): len(m[2]) for m in parts if m}
    heads = {head for head, _ in known}
    numbers = [number for _, number in known]
    if len(heads) > 1 or max(numbers) - min(numbers) > 2 * len(numbers):
        return []
    head, digits = heads.pop(), max(known.values())
    return [
        shards[0].with_name(f"{head}{k:0{digits}d}.tar")
        for k in range(min(numbers), max(numbers) + 1)
        if (head, k) not in known
    ]


class PackedRows(StoredRows):
    """Rows at the places of an `Index`, decoded as `reading` asks; the first tells their shape."""

    lazy = True

    def __init__(self, index: Index, source: str, reading: Reading) -> None:
        self.index, self.source, self.reading = index, source, reading
        self.changes, self.bad = Changes(), []
        self.is_array = self._name(0).lower().endswith(ARRAY) if self._in_tar() else False
        self.cache: OrderedDict[int, Watched] = OrderedDict()
        self.heads: dict[bytes, tuple] = {}
        self.workers: Decoders | None = None
        self.decodes = not self.is_array
        first = self._first()
        self.one, self.kind, self.layout, self.notes = (
            (first.shape, first.dtype),
            "images",
            "hwc",
            (),
        )
        shape, self.dtype = first.shape, first.dtype
        if self.is_array:
            like = from_array(np.broadcast_to(np.zeros((), first.dtype), (1, *shape)), source)
            self.kind, self.layout, self.notes = like.kind, like.layout, like.notes
            shape, self.dtype = like.shape, like.values.dtype
        self.shape = (len(index.place), *shape)

    def _in_tar(self) -> bool:
        return self.index.files[0].lower().endswith(".tar")

    def _first(self) -> np.ndarray:
        """The first row that can be read."""
        for row in range(len(self.index.place)):
            try:
                return self._decoded(row)
            except InputError:
                if not self.reading.skip_bad:
                    raise
        raise InputError(f"{self.source} holds no picture that can be read")

    def take(self, rows: np.ndarray) -> np.ndarray:
        if self.workers is None or len(rows) < 2 * self.workers.count:
            return self.read(rows)
        raw = self.workers.take(rows)
        return np.frombuffer(raw, self.dtype).reshape(len(rows), *self.shape[1:])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """As `take`, in this process."""
        out = np.empty((len(rows), *self.one[0]), self.one[1])
        for place, row in enumerate(rows.tolist()):
            found = self._decoded(row)
            if found.shape != out.shape[1:] or found.dtype != out.dtype:
                raise InputError(
                    f"{self._named(row)} is of shape {found.shape} and {found.dtype}, but the "
                    f"first of {out.shape[1:]} and {out.dtype}: bring all to one size and mode, "
                    "or --size 64 --mode rgb does so for pictures"
                )
            out[place] = found
        return in_layout(out, self.layout) if self.is_array else out

    def start_workers(self, count: int | None = None) -> None:
        """Decode in processes of their own from now on, where that is possible."""
        if self.workers is None and not self.is_array:
            self.workers = Decoders.start(self.read, count)

    def sound(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows, block by block, with their places; with `skip_bad` without the unreadable."""
        size = block_rows(self.shape)
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            try:
                yield rows, self.take(rows)
            except InputError:
                if not self.reading.skip_bad:
                    raise
                rows = np.array([row for row in rows if self._is_sound(int(row))], np.int64)
                yield rows, self.take(rows)

    def _is_sound(self, row: int) -> bool:
        try:
            self._decoded(row)
        except InputError:
            self.bad.append(self._named(row))
            return False
        return True

    def _decoded(self, row: int) -> np.ndarray:
        """One row: (c, h, w) of a picture, or an array as it stands."""
        raw = self._bytes(row)
        if self.is_array:
            return self._array(raw, row)
        pixels = pixels_of(raw, self._label_of(row), self.changes)
        return np.moveaxis(as_asked(pixels, self.reading, self.changes), 2, 0)

    def _array(self, raw: bytes, row: int) -> np.ndarray:
        """A `.npy` whose header was seen before is its last bytes."""
        length = 10 + int.from_bytes(raw[8:10], "little")
        known = self.heads.get(raw[:length])
        try:
            if known is not None:
                shape, dtype = known
                return np.frombuffer(raw, dtype, offset=length).reshape(shape)
            found = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{self._named(row)} is not a plain NumPy array") from error
        if found.dtype.kind not in "fiub":
            raise InputError(f"{self._named(row)} holds {found.dtype}, not numbers")
        if raw[6] == 1 and found.flags.c_contiguous:
            self.heads[raw[:length]] = (found.shape, found.dtype)
        return found

    def _bytes(self, row: int) -> bytes:
        size = int(self.index.size[row])
        room = np.empty(size, np.uint8)
        file = self._file(int(self.index.place[row]))
        file.check()
        file.read(room.data, int(self.index.offset[row]))
        return room.tobytes()

    def _file(self, place: int) -> Watched:
        file = self.cache.get(place)
        if file is None:
            file = self.cache[place] = Watched(Path(self.index.files[place]))
            while len(self.cache) > OPEN:
                self.cache.popitem(last=False)
        else:
            self.cache.move_to_end(place)
        return file

    def _label_of(self, row: int) -> str:
        return self.index.files[int(self.index.place[row])]

    def _name(self, row: int) -> str:
        """The name of a row's member, read off its shard again."""
        file, offset = self._label_of(row), int(self.index.offset[row])
        if not self._in_tar():
            return Path(file).name
        return next((n for n, start, _ in members(Path(file)) if start == offset), "a member")

    def _named(self, row: int) -> str:
        file = self._label_of(row)
        return f"{file}: {self._name(row)}" if self._in_tar() else file

    def pieces(self) -> list[Piece]:
        files = [Path(file) for file in self.index.files]
        if self._in_tar():
            return [piece for file in files for piece in pieces_of(file)]
        return [Piece(str(f), f, 0, os.path.getsize(f)) for f in files]
