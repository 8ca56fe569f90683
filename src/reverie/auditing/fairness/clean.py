"""Write a split without duplicates, and samples without near-copies, in the user's own formats.

Left out of the split are rows that stand twice, and of every burst of near-twins (see `twins`) all
but one row, which is drawn at random: so the sides of the rows that stay are as exchangeable as
those of all rows were. Left out of the samples is every one that is a training row, verbatim or
nearly (see `near_copies`), be the record named or not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.common_space import coder_of, encode, in_common
from reverie.auditing.facts.near_copies import near_copies
from reverie.auditing.fairness.alignment import Groups, align, split_off_groups
from reverie.auditing.fairness.split import SplitReport
from reverie.auditing.fairness.twins import BURSTS, CHANCE, SHARES, find_bursts
from reverie.auditing.metrics.features import Features, features_of
from reverie.data import Dataset, Scaler, ending_of, load, save_rows, set_apart, shared_rows
from reverie.errors import InputError
from reverie.files import write_json

NOTE = (
    "Held-out rows that stand in training, verbatim or nearly, are left out, rows that stand "
    "twice are kept once, and of a burst of near-twins one row stays, drawn at random. Samples "
    "that are training rows, verbatim or nearly, are left out. Rows that occur often are now more "
    "likely in training than held out: fit anew on these rows, and for an exact audit split them "
    "anew at random."
)


def write_clean(
    folder: str | Path,
    train: Any,
    holdout: Any,
    samples: Any | None,
    split: SplitReport,
    flagged_samples: Sequence[int] = (),
    *,
    features: Features | None = None,
    space: str | Scaler | None = None,
    groups: Groups | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write `train`, `holdout` and `samples` without what an audit found, and `clean.json`.

    train, holdout, samples: the sets that were audited (samples None: only the split). split:
    their report. flagged_samples: rows of samples to leave out in any case. features, space,
    groups: how rows are compared, as in `audit`; rows of one group are no twins of one another.
    The folder appears whole or not at all. Returns the paths. Raises InputError when the folder
    holds something already, when nothing would be left of a set, or when it cannot be written.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie.auditing import audit_split, write_clean
    >>> train, holdout = np.random.default_rng(0).normal(size=(2, 100, 4))
    >>> holdout[:7] = train[:7]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = audit_split(train, holdout)
    ...     paths = write_clean(f"{folder}/clean", train, holdout, None, found)
    ...     print(sorted(path.name for path in paths))
    ['clean.json', 'holdout.npy', 'train.npy']
    """
    folder = Path(folder)
    free_folder(folder)
    sets = {name: load(x, mixed=True) for name, x in (("train", train), ("holdout", holdout))}
    sets |= {} if samples is None else {"samples": load(samples, mixed=True)}
    arrays = _compared(list(sets.values()), features, space, groups)
    kept = split.clean if groups is not None else _without_twins(split, arrays, sets, seed)
    rows = {"train": kept[0], "holdout": kept[1]}
    if samples is not None:
        copied = near_copies(arrays[2], arrays[0]) | shared_rows(arrays[2], arrays[0])
        copied[list(flagged_samples)] = True
        rows["samples"] = np.flatnonzero(~copied)
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


def one_of_each(
    kept: tuple[np.ndarray, np.ndarray],
    arrays: Sequence[np.ndarray],
    seed: int = 0,
    tabular: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The kept rows of each side, of every burst of near-twins one, drawn at random.

    arrays: training and held-out rows in one space. Where bursts are no more than chance makes,
    all kept rows stay.
    """
    sides = [arrays[side][kept[side]] for side in (0, 1)]
    bursts = find_bursts(sides[0], sides[1], seed, most=None, tabular=tabular)
    alone = max(bursts.one_sided) >= SHARES[CHANCE] and len(bursts.members) >= BURSTS
    if not bursts.unfair and not alone:
        return kept
    rng = np.random.default_rng((seed, 17))
    stays = np.ones(len(kept[0]) + len(kept[1]), bool)
    for rows in bursts.merged():
        stays[rows] = False
        stays[rng.choice(rows)] = True
    fewer = kept[0][stays[: len(kept[0])]], kept[1][stays[len(kept[0]) :]]
    return one_of_each(fewer, arrays, seed, tabular)  # looser bursts show once these are gone


def _without_twins(
    split: SplitReport, arrays: list[np.ndarray], sets: dict[str, Dataset], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """One row of every burst, where there are bursts; else what a clean split keeps."""
    once = (
        np.flatnonzero(~split.repeated[0]),
        np.flatnonzero(~split.repeated[1] & ~split.shared & ~split.straddling),
    )
    kept = one_of_each(once, arrays, seed, sets["train"].kind != "images")
    return split.clean if kept is once else kept


def _compared(
    sets: list[Dataset],
    features: Features | None,
    space: str | Scaler | None,
    groups: Groups | None,
) -> list[np.ndarray]:
    """The sets in one space, without the columns that name rows."""
    aligned, _ = set_apart(align(split_off_groups(sets, groups)[0]))
    if features is not None:
        return encode(features_of(aligned, features), [])
    return in_common(aligned, coder_of(space, aligned), [])


def free_folder(folder: Path) -> None:
    """InputError unless `folder` can be made: it does not exist, or is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise InputError(f"{folder} exists already: name a new folder for the clean rows")
