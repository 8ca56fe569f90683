"""Write a split without duplicates, and samples without near-copies, in the user's own formats."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.fairness.split import SplitReport
from reverie.data import ending_of, load, save_rows
from reverie.errors import InputError
from reverie.files import write_json

NOTE = (
    "Held-out rows that stand in training, verbatim or nearly, are left out, and rows that stand "
    "twice are kept once. Rows that occur often are now more likely in training than held out: "
    "fit anew on these rows, and for an exact audit split them anew at random."
)


def write_clean(
    folder: str | Path,
    train: Any,
    holdout: Any,
    samples: Any | None,
    split: SplitReport,
    flagged_samples: Sequence[int] = (),
) -> list[Path]:
    """Write `train`, `holdout` and `samples` without what an audit found, and `clean.json`.

    train, holdout, samples: the sets that were audited (samples None: only the split). split:
    their report. flagged_samples: rows of samples to leave out. The folder appears whole or not at
    all. Returns the paths. Raises InputError when the folder holds something already, when nothing
    would be left of a set, or when it cannot be written.
    """
    folder = Path(folder)
    free_folder(folder)
    rows: dict[str, np.ndarray] = {"train": split.clean[0], "holdout": split.clean[1]}
    sets = {name: load(x, mixed=True) for name, x in (("train", train), ("holdout", holdout))}
    if samples is not None:
        sets["samples"] = load(samples, mixed=True)
        rows["samples"] = np.setdiff1d(np.arange(len(sets["samples"])), list(flagged_samples))
    for name, kept in rows.items():
        if len(kept) == 0:
            raise InputError(f"cleaning would leave no row of {name}: nothing was written")
    names = {name: f"{name}{ending_of(data)}" for name, data in sets.items()}
    left_out = {
        name: np.setdiff1d(np.arange(len(data)), rows[name]).tolist()
        for name, data in sets.items()
    }
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for name, data in sets.items():
            save_rows(temporary / names[name], data.take(rows[name]))
        write_json(temporary / "clean.json", {"note": NOTE, "rows_left_out": left_out})
        os.chmod(temporary, 0o755)
        os.replace(temporary, folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary)
    return [folder / name for name in (*names.values(), "clean.json")]


def free_folder(folder: Path) -> None:
    """InputError unless `folder` can be made: it does not exist, or is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise InputError(f"{folder} exists already: name a new folder for the clean rows")
