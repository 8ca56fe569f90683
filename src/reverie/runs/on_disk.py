"""A run whose rows stay on disk: what its folder keeps of them, and how they are opened again.

`split.npz` holds the places of the split (and of the rows that could be read, where some could
not), `index.npz` where members of archives stand, `rows.npy` the plain copy of rows that are
costly to read one by one. Hashes are of pieces, so that what has changed has a name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reverie.data import Dataset, Reading
from reverie.data.stored.dataset import HELD, StoredDataset, changed_piece
from reverie.data.stored.opening import open_stored
from reverie.data.stored.rows import StoredRows
from reverie.errors import InputError
from reverie.files import read_json, write_bytes
from reverie.runs.config import FitConfig

SPLIT, INDEX, PLAIN = "split.npz", "index.npz", "rows.npy"
Split = tuple[np.ndarray, np.ndarray]


def prepared(data: Dataset, path: Path | None, config: FitConfig) -> Dataset:
    """Stored rows, checked and made quick to read; others as they are.

    InputError on settings that need all rows in memory.
    """
    if not isinstance(data, StoredDataset):
        return data
    for name, wanted in (
        ("objective gap-fixed", config.objective == "gap-fixed"),
        ("follow_bias", config.follows),
    ):
        if wanted:
            raise InputError(f"{name} needs all rows in memory, and {data.source} stays on disk")
    plain = None if path is None else path / PLAIN
    try:
        return data.unpacked(plain).check(rows=2, constants=True)
    except BaseException:
        if plain is not None:
            plain.unlink(missing_ok=True)
        raise


def held_in_memory(data: Dataset) -> Dataset:
    """Held-out rows are few: in memory, unless a row is very large."""
    if isinstance(data, StoredDataset) and data.rows.size <= HELD:
        return data.in_full()
    return data


def keep_stored(path: Path, data: StoredDataset, split: Split) -> dict[str, Any]:
    """Write what the folder keeps of the rows, and return what data.json says of them."""
    root, places = data.rows.root()
    known: dict[str, Any] = dict(train=split[0], holdout=split[1])
    if places is not None:
        known["sound"] = places
    write_bytes(path / SPLIT, lambda file: np.savez(file, **known))
    index = getattr(root, "index", None)
    if index is not None:
        index.save(path / INDEX)
    plain = path / PLAIN
    return {
        "pieces": root.hashes(),
        "plain": StoredRows.hash_file(plain) if plain.exists() else None,
    }


def open_kept(path: Path, source: str, said: Reading, known: dict[str, Any]) -> StoredDataset:
    """The rows of a run on disk, verified piece by piece."""
    index = path / INDEX
    data = open_stored(source, said, index if index.exists() else None)
    assert data is not None
    changed = changed_piece(known["pieces"], data.rows.hashes())
    if changed is not None:
        raise InputError(f"{source} has changed since {path} was fitted on it: {changed}")
    with np.load(path / SPLIT, allow_pickle=False) as kept:
        if "sound" in kept.files:
            data = data.take(kept["sound"])
    plain = path / PLAIN
    if known["plain"] is not None:
        if not plain.exists():
            raise InputError(f"{plain} is missing: it held the rows of {source}; fit anew")
        changed = changed_piece(known["plain"], StoredRows.hash_file(plain))
        if changed is not None:
            raise InputError(f"{plain} is damaged ({changed}): fit anew")
        return data.beside(plain)
    data.rows.start_workers()
    return data


def split_of(path: Path) -> Split:
    """Places of the training and of the held-out rows of a run, wherever it keeps them."""
    if (path / SPLIT).exists():
        with np.load(path / SPLIT, allow_pickle=False) as kept:
            return kept["train"], kept["holdout"]
    info = read_json(path / "data.json")
    train, holdout = (np.asarray(info[k], dtype=np.int64) for k in ("train", "holdout"))
    return train, holdout


def in_hand(
    train: Dataset, holdout: Dataset, split: Split | None
) -> tuple[Dataset, Dataset, Split | None, Dataset | None]:
    """What a run holds: both splits in memory (of large ones on disk some rows, at random), their
    places in the data, and the training rows on disk, if they are."""
    if not isinstance(train, StoredDataset):
        return train, holdout, split, None
    few = [data.few_places if isinstance(data, StoredDataset) else slice(None)
           for data in (train, holdout)]  # fmt: skip
    kept = None if split is None else (split[0][few[0]], split[1][few[1]])
    return train.loaded(), holdout.loaded(), kept, train
