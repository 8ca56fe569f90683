"""Honest thirds of public tables: nothing was copied, so how often is something said?

    REVERIE_TABLES=FOLDER REVERIE_RDATA=FOLDER python bench_honest_thirds.py [SPLITS]

Each table is dealt at random into three parts of equal size, training, held-out and samples, of at
most 600 rows each, SPLITS times. Rows of one law: `unfair` should be said at most once in 100, and
the joint test reject about as often as its level, 5%. Tables with several rows of one subject
are dealt by rows, where such rows lie on both sides and the comparison is not fair, and by whole
subjects with `groups=`, as `--group` does on the command line, where it is.

Tables: four of scikit-learn, those of mwaskom/seaborn-data in the folder that REVERIE_TABLES
names, a CSV file each, and some of R's, which the package pydataset carries in an archive
(resources.tar.gz), of which REVERIE_RDATA names the folder `csv`.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn import datasets

from reverie.auditing import audit
from reverie.data import Dataset, load
from reverie.errors import InputError

MOST, LEVEL = 600, 0.05
SHIPPED = ("iris", "wine", "breast_cancer", "diabetes")
PLAIN = ("car_crashes", "diamonds", "geyser", "mpg", "penguins", "planets", "taxis", "tips",
         "titanic")  # fmt: skip
OF_R = ("MASS/Boston", "MASS/birthwt", "MASS/Pima.te", "MASS/survey", "datasets/quakes",
        "car/SLID", "vcd/Arthritis", "survival/lung", "survival/veteran")  # fmt: skip
SUBJECTS = {"geepack/dietox": "Pig", "survival/bladder": "id", "MASS/epil": "subject",
            "Ecdat/Males": "nr", "survival/cgd": "id", "Ecdat/Fatality": "state"}  # fmt: skip


def shipped(name: str) -> Dataset:
    table = getattr(datasets, f"load_{name}")()
    columns = tuple(map(str, table.feature_names))
    return Dataset(np.asarray(table.data), "table", name, columns=columns)


def thirds(data: Dataset, rng: np.random.Generator, units: np.ndarray | None) -> list[Dataset]:
    """Three parts at random, of rows or of whole units (n,)."""
    order = rng.permutation(len(data) if units is None else np.unique(units))
    parts = np.array_split(order, 3)
    if units is None:
        size = min(MOST, min(map(len, parts)))
        return [data.take(part[:size]) for part in parts]
    return [data.take(np.flatnonzero(np.isin(units, part))) for part in parts]


def counted(data: Dataset, splits: int, group: str | None = None) -> tuple[Counter, int, str]:
    """Findings, joint rejections, and the reason why a table cannot be judged."""
    findings, rejected = Counter(), 0
    units = None if group is None else data.values[:, list(data.columns or ()).index(group)]
    for seed in range(splits):
        train, held, drawn = thirds(data, np.random.default_rng(seed), units)
        try:
            verdict = audit(
                train, held, drawn, groups=group, metrics=False, power=False, seed=seed
            )
        except InputError as error:
            return findings, rejected, str(error)
        findings[verdict.finding] += 1
        rejected += verdict.p_joint is not None and verdict.p_joint < LEVEL
    return findings, rejected, ""


def row(name: str, data: Dataset, splits: int, group: str | None = None) -> tuple[int, int, int]:
    start = time.process_time()
    findings, rejected, why = counted(data, splits, group)
    done = sum(findings.values())
    said = ", ".join(f"{finding} {count}" for finding, count in findings.most_common())
    how = "rows" if group is None else f"by {group}"
    print(f"{name:18} {len(data):6,} {data.values.shape[1]:3}  {how:11} "
          f"{rejected:3} of {done:3}  {said}{why and f'refused: {why[:70]}'}"
          f"   ({time.process_time() - start:.0f} s)", flush=True)  # fmt: skip
    return findings["unfair"], rejected, done


def main() -> None:
    warnings.simplefilter("ignore")
    splits = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    known = [
        (Path(os.environ.get(variable, "/nowhere")) / f"{name}.csv", name)
        for variable, names in (("REVERIE_TABLES", PLAIN), ("REVERIE_RDATA", OF_R))
        for name in names
    ]
    print(f"Honest thirds, {splits} splits of each table (bench_honest_thirds.py)\n")
    print(f"{'table':18} {'rows':>6} {'col':>3}  {'dealt':11} {'p < .05':>10}  findings")
    sums = np.zeros(3, dtype=int)
    for name in SHIPPED:
        sums += row(name, shipped(name), splits)
    for path, name in known:
        if path.exists():
            sums += row(name, load(path, mixed=True), splits)
    print(f"\nwithout repeated units: unfair {sums[0]} of {sums[2]}, "
          f"joint rejections {sums[1]} of {sums[2]}\n", flush=True)  # fmt: skip
    for name, group in SUBJECTS.items():
        path = Path(os.environ.get("REVERIE_RDATA", "/nowhere")) / f"{name}.csv"
        if path.exists():
            data = load(path, mixed=True, keys=True)
            unnamed = data.with_columns([j for j, c in enumerate(data.columns or ()) if c])
            row(name, unnamed, splits)
            row(name, unnamed, splits, group)
    gone = [name for path, name in known if not path.exists()]
    if gone:
        print(f"left out, for no folder holds them: {', '.join(gone)}")


if __name__ == "__main__":
    main()
