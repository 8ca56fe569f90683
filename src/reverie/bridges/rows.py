"""The rows of both ends that a bridge was fitted on, and those that it has not seen.

A bridge is audited as any model is, so that rows of either end are held out. Its folder names the
files they came from with a hash, and keeps rows that came from no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data import Dataset, Reading, load, split
from reverie.errors import InputError
from reverie.files import write_bytes

SHARE = 5  # one row in so many is held out
MOST = 10_000  # rows that are held out without being asked for


@dataclass(frozen=True)
class End:
    """All rows of one end, and the places of those trained on and of those held out."""

    data: Dataset
    train_rows: np.ndarray
    holdout_rows: np.ndarray

    @property
    def train(self) -> Dataset:
        """Rows that the bridge was fitted on."""
        return self.data.take(self.train_rows)

    @property
    def holdout(self) -> Dataset:
        """Rows that it has not seen; there may be none."""
        return self.data.take(self.holdout_rows)

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """What names these rows, for JSON; rows without a file go to `folder`/`name`.npy."""
        if self.data.in_memory:
            write_bytes(folder / f"{name}.npy", lambda file: np.save(file, self.data.values))
        return {
            "source": self.data.source,
            "shape": list(self.data.values.shape),
            "sha256": self.data.sha256(),
            "train": self.train_rows.tolist(),
            "holdout": self.holdout_rows.tolist(),
            "reading": None if self.data.reading is None else self.data.reading.to_json(),
        }

    @classmethod
    def read(cls, folder: Path, name: str, told: dict[str, Any], form: Any) -> End:
        """The rows that `write` named; InputError where they are gone or have changed.

        form: the Scaler of this end, which knows what its rows are.
        """
        stored = folder / f"{name}.npy"
        if stored.exists():
            values = load(stored).values.reshape(told["shape"])
            data = Dataset(values, form.kind, told["source"], form.layout, **form.of_table())
        else:
            said = None if told["reading"] is None else Reading.from_json(told["reading"])
            data = load(told["source"], reading=said, keys=True)
        if data.sha256() != told["sha256"]:
            raise InputError(f"{told['source']} has changed since {folder} was fitted on it")
        rows = (np.asarray(told[key], dtype=np.int64) for key in ("train", "holdout"))
        return cls(data, *rows)


def split_ends(
    first: Dataset, second: Dataset, holdout: int | None, paired: bool, seed: int
) -> tuple[End, End]:
    """Hold out `holdout` rows of each end (default a fifth), the same ones of paired ends.

    InputError where an end has too few rows, or paired ends have different numbers of them.
    """
    if paired and len(first) != len(second):
        raise InputError(
            f"paired ends have a row of b for each row of a; these have {len(first)} and "
            f"{len(second)}"
        )
    ends = []
    for place, data in enumerate((first, second)):
        count = min(len(data) // SHARE, MOST) if holdout is None else holdout
        if not 0 <= count <= len(data) - 2:
            raise InputError(
                f"cannot hold out {count} of the {len(data)} rows of {data.source}: at least two "
                "are fitted"
            )
        ends.append(End(data, *split(data, None, count, seed + (0 if paired else place))[:2]))
    return ends[0], ends[1]
