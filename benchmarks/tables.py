"""Tables that any tool can read, and the data sets that the scenarios are made of."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data import load
from reverie.errors import InputError

DATA = Path(
    os.environ.get("REVERIE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
SIDE = 400
ADULT = (
    "age", "workclass", "fnlwgt", "education", "edunum", "marital", "occupation", "relationship",
    "race", "sex", "gain", "loss", "hours", "country", "income",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Columns (c of them, each (n,) of float or str), or pictures (n, 1, h, w) of bytes."""

    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    pictures: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray) -> Table:
        """From numbers (n, d), or from pictures."""
        if rows.ndim > 2:
            return cls((), (), rows)
        return cls(tuple(f"x{j}" for j in range(rows.shape[1])), tuple(rows.T.astype(float)))

    def __len__(self) -> int:
        return len(self.columns[0] if self.pictures is None else self.pictures)

    def take(self, rows: np.ndarray) -> Table:
        if self.pictures is not None:
            return Table((), (), self.pictures[rows])
        return Table(self.names, tuple(column[rows] for column in self.columns))

    def put(self, name: str, column: np.ndarray) -> Table:
        """The table with a column replaced, or added."""
        kept = dict(zip(self.names, self.columns, strict=True)) | {name: column}
        return Table(tuple(kept), tuple(kept.values()))

    def over(self, other: Table) -> Table:
        """This table above another of the same columns."""
        if self.pictures is not None:
            return Table.of(np.concatenate([self.pictures, other.pictures]))
        both = zip(self.columns, other.columns, strict=True)
        return Table(self.names, tuple(np.concatenate(pair) for pair in both))

    @property
    def numeric(self) -> list[str]:
        return [n for n, c in zip(self.names, self.columns, strict=True) if c.dtype.kind == "f"]

    def moved(self, rng: np.random.Generator, share: float) -> Table:
        """Noise of `share` of a deviation on every number.

        Whole numbers stay whole, and where most rows have one value (no gain, no loss) it stays.
        """
        table = self
        for name in self.numeric:
            column = self.columns[self.names.index(name)]
            noisy = column + share * column.std() * rng.standard_normal(len(column))
            noisy = noisy.round() if (column == column.round()).all() else noisy
            values, count = np.unique(column, return_counts=True)
            stays = (column == values[count.argmax()]) & (2 * count.max() > len(column))
            table = table.put(name, np.where(stays, column, noisy))
        return table

    def write(self, path: Path) -> Path:
        """As CSV, or as .npy where it holds pictures."""
        if self.pictures is not None:
            np.save(path.with_suffix(".npy"), self.pictures)
            return path.with_suffix(".npy")
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.names)
            writer.writerows(zip(*[_cells(column) for column in self.columns], strict=True))
        return path.with_suffix(".csv")


def _cells(column: np.ndarray) -> list[str]:
    if column.dtype.kind != "f":
        return column.tolist()
    whole = (column == column.round()).all() and np.abs(column).max() < 1e15
    return [str(int(v)) if whole else repr(float(v)) for v in column]


def mixture(count: int, seed: int, d: int = 8) -> Table:
    """Rows of a mixture of five Gaussians, with the component as a category."""
    centres = 2 * np.random.default_rng(0).standard_normal((5, d))
    rng = np.random.default_rng((seed, 1))
    part = rng.integers(5, size=count)
    rows = centres[part] + rng.standard_normal((count, d))
    return Table.of(rows).put("part", np.array(list("abcde"))[part])


def breast(count: int, seed: int) -> Table:
    """569 rows of 30 numbers, and a category: whether the largest radius is above its median."""
    rows = load("breast-cancer").values
    rows = rows[np.random.default_rng(seed).permutation(len(rows))[:count]]
    kind = np.where(rows[:, 20] > 14.97, "large", "small")
    return Table.of(rows).put("kind", kind)


def adult(count: int, seed: int) -> Table:
    """Distinct rows of Adult; FileNotFoundError where it is not there."""
    with gzip.open(DATA / "adult" / "adult.data.gz", "rt") as file:
        rows = sorted({line for line in file.read().split("\n") if line})
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    cells = np.array([rows[i].split(", ") for i in order])
    numbers = (0, 2, 4, 10, 11, 12)
    columns = [cells[:, j].astype(float) if j in numbers else cells[:, j] for j in range(15)]
    return Table(ADULT, tuple(columns))


def tables() -> dict[str, tuple]:
    """Three data sets, two where Adult is not there: (rows a side, draw(count, seed), the category
    that is changed)."""
    found = {"mixture": (SIDE, mixture, "part"), "breast cancer": (189, breast, "kind")}
    there = (DATA / "adult" / "adult.data.gz").exists()
    return found | ({"Adult": (SIDE, adult, "sex")} if there else {})


def three(draw, side: int, seed: int, samples: int | None = None) -> list[Table]:
    """Training, held-out and sampled rows, disjoint and of one law."""
    sizes = (side, side, side if samples is None else samples)
    rows = draw(sum(sizes), seed)
    parts = np.split(np.arange(len(rows)), np.cumsum(sizes)[:2])
    return [rows.take(part) for part in parts]


def pictures() -> dict[str, np.ndarray]:
    found = {"digits": load("digits").values}
    with contextlib.suppress(InputError):
        found["Fashion"] = load("fashion-mnist").values
    return found
