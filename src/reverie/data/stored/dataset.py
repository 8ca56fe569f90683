"""A Dataset whose rows stay on disk, and what is asked of all of them: block by block."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from reverie.data.dataset import Dataset, few_places
from reverie.data.no_data import HUGE
from reverie.data.stored.npy import NpyRows
from reverie.data.stored.rows import StoredRows, ticker
from reverie.data.stored.unpacked import Unpacked, unpack
from reverie.errors import InputError

HELD = 2**26  # numbers of held-out rows that are
UNPACKED = 2**32  # bytes of decoded pictures that a run may keep beside its weights
KEYED = 64  # numbers of a row that tell rows apart at first sight


@dataclass(frozen=True, eq=False)
class StoredDataset(Dataset):
    """Rows that stay on disk; `values` are `StoredRows`.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie.data import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/rows.npy", np.arange(12.0).reshape(6, 2))
    ...     data = load(f"{folder}/rows.npy", stored=True)
    ...     data.is_stored, data.take(np.array([5, 1])).loaded().values.tolist()
    (True, [[10.0, 11.0], [2.0, 3.0]])
    """

    vary: np.ndarray | None = None  # (d,) which columns take more than one value, once checked

    @property
    def rows(self) -> StoredRows:
        return cast(StoredRows, self.values)

    @property
    def is_stored(self) -> bool:
        return True

    @property
    def in_memory(self) -> bool:
        return False

    def take(self, rows: np.ndarray) -> StoredDataset:
        told = None if self.conditions is None else self.conditions[rows]
        places = None if self.folder_of is None else self.folder_of[rows]
        taken: Any = self.rows.of(rows)
        return replace(self, values=taken, conditions=told, folder_of=places)

    @property
    def few_places(self) -> np.ndarray:
        """Places of the rows that `few` takes."""
        return few_places(self.rows.shape)

    def few(self) -> Dataset:
        return self._at(self.few_places)

    loaded = few

    def in_full(self) -> Dataset:
        """All rows in memory, whatever they take."""
        return self._at(np.arange(len(self)))

    def _at(self, rows: np.ndarray) -> Dataset:
        part = self.take(rows)
        plain: dict[str, Any] = {
            k: v for k, v in vars(part).items() if k in Dataset.__dataclass_fields__
        }
        plain["values"] = self.rows[rows]
        return Dataset(**plain)

    def sha256(self) -> str:
        """Hash of the hashes of its pieces."""
        return of_hashes(self.rows.hashes())

    def check(self, rows: int = 2, *, constants: bool = False) -> StoredDataset:
        """As of a Dataset, in one pass; with `skip_bad` without the rows that cannot be read."""
        self.check_rows(rows)
        kept, first, vary, done = [], None, None, 0
        tell = ticker("checking")
        for places, block in self.rows.sound():
            flat = block.reshape(len(block), -1)
            self._check_block(flat, places)
            if len(flat) and first is None:
                first, vary = flat[0].copy(), np.zeros(flat.shape[1], bool)
            if vary is not None and not vary.all():
                vary |= (flat != first).any(0)
            kept.append(places)
            done = done + len(places)
            tell(min(done, len(self)), len(self))
        here = np.concatenate(kept)
        tell(len(self), len(self))
        found = self if len(here) == len(self) else self._without_bad(here)
        found.check_rows(rows)
        if first is None or vary is None:
            return found
        of_numbers = self.values.ndim == 2 and not constants
        if not vary.any() or (of_numbers and not vary.all()):
            column = int(np.argmin(vary))
            raise InputError(
                f"{self.source}: {self.name(column)} is constant ({first[column]:g}) over all "
                "rows; drop it"
            )
        return replace(found, vary=vary)

    def still_columns(self) -> np.ndarray:
        if self.vary is None or self.values.ndim != 2 or self.kind not in ("table", "vectors"):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(~self.vary)

    def _check_block(self, flat: np.ndarray, places: np.ndarray) -> None:
        """InputError on what is no finite number, or stands for a missing cell."""
        if flat.dtype.kind != "f" and self.kind == "images":
            return
        finite = np.isfinite(flat)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise InputError(
                f"{self.source}: row {places[row]}, {self.name(column)} is not a finite number; "
                "drop or fill missing values first"
            )
        if self.kind != "images" and max(flat.max(initial=0), -flat.min(initial=0)) >= HUGE:
            row, column = np.argwhere(np.abs(flat) >= HUGE)[0]
            raise InputError(
                f"{self.source}: row {places[row]}, {self.name(column)} is "
                f"{flat[row, column]:.8g}, no measurement but the mark of a missing cell; drop or "
                "fill it"
            )

    def _without_bad(self, here: np.ndarray) -> StoredDataset:
        bad = getattr(self.rows, "bad", [])
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        note = f"{len(self) - len(here)} rows could not be read and are left out ({shown})"
        return replace(self.take(here), notes=(*self.notes, note))

    def unpacked(self, path: Path | None) -> StoredDataset:
        """The same rows, written plainly where single ones are costly to read and there is room.

        path: the file to write, in a run's folder; None writes one that nobody sees. Pictures of
        over UNPACKED bytes stay as they are, and are decoded by worker processes.
        """
        rows = self.rows
        if not rows.decodes:
            return self
        rows.start_workers()
        if rows.lazy and rows.nbytes > UNPACKED:
            return self
        plain, kept = unpack(rows, path)
        note = f"written once as plain rows, {plain.nbytes / 2**20:,.0f} MiB"
        found = self if len(kept) == len(self) else self._without_bad(kept)
        values: Any = Unpacked(found.rows, plain)
        return replace(found, values=values, notes=(*found.notes, note))

    def shared_count(self, held: np.ndarray, train: np.ndarray) -> int:
        """How many held-out rows stand verbatim among the training rows, in one pass.

        Rows are told apart by at most KEYED of their numbers at first, and then by all of them.
        """
        rows = self.rows
        width = int(np.prod(rows.shape[1:], dtype=np.int64))
        some = np.sort(np.random.default_rng(0).permutation(width)[:KEYED])
        sought = rows[held].reshape(len(held), -1) if len(held) else np.empty((0, width))
        keys = _keys(sought[:, some])
        is_train = np.zeros(len(rows), bool)
        is_train[train] = True
        known: dict[bytes, list[int]] = {}
        for place, row in enumerate(sought):
            known.setdefault((row + row.dtype.type(0)).tobytes(), []).append(place)
        met, start, tell = np.zeros(len(held), bool), 0, ticker("looking for duplicates")
        for block in rows.blocks():
            flat = block.reshape(len(block), -1)
            here = np.isin(_keys(flat[:, some]), keys) & is_train[start : start + len(block)]
            for row in flat[here]:
                met[known.get((row + row.dtype.type(0)).tobytes(), [])] = True
            start += len(block)
            tell(start, len(rows))
        return int(met.sum())

    def beside(self, plain: Path) -> StoredDataset:
        """The same rows, read from the plain copy that `unpacked` wrote."""
        values: Any = Unpacked(self.rows, NpyRows(plain, self.source, plain=True))
        return replace(self, values=values)


def of_hashes(hashes: dict[str, str]) -> str:
    """One hash for many."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def changed_piece(known: dict[str, str], now: dict[str, str]) -> str | None:
    """The first piece that is another, or is not there any more; None where all are the same."""
    for name in (*known, *now):
        if known.get(name) != now.get(name):
            return name
    return None


def _keys(rows: np.ndarray) -> np.ndarray:
    """A number (n,) for each row, equal for equal rows."""
    flat = rows + rows.dtype.type(0) if rows.dtype.kind == "f" else rows
    weights = np.random.default_rng(1).standard_normal(rows.shape[1])
    total = np.zeros(len(rows))
    for j, weight in enumerate(weights):  # in one order, so that equal rows have equal sums
        total += weight * flat[:, j].astype(np.float64)
    return total
