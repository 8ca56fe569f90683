"""Copies among all training rows, where these are too many for memory: read in pieces.

The tests of an audit exchange labels of training and held-out rows, which a random part of the
training rows allows as well: they are made on such a part. A copied row may not be in it, so that
copies are sought among all rows: the nearest training row of every sample, exactly, and whether

    verbatim    it is the sample
    near        the sample lies within a third of the way from it to its nearest other row

Held-out rows are the yardstick, as if they were samples: they are fresh draws of the same source,
so that as many of them would be met by chance. A count is beyond it where its rate is surely over
three times theirs (`beyond_held`); no fit leans to equality, so that where no held-out row is
equal to a training row, equal samples need be surely more than these alone. Columns are divided by
their deviations, all pixels by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.facts.fact import LEVEL, Match, beyond_held, listed
from reverie.auditing.facts.neighbours import nearest
from reverie.data import Dataset, StoredRows, load, row_codes
from reverie.data.statistics import statistics_of
from reverie.data.stored.dataset import StoredDataset
from reverie.data.stored.rows import Piece
from reverie.errors import InputError

SHARE = 1 / 3  # of the distance to the nearest other row
TESTED = 20_000  # training rows that the tests compare
OTHERS = 4  # neighbours of a row among which one of another value is sought

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MetRows:
    """How many of `total` queries met a training row, and how many distinct rows they met."""

    queries: int
    rows: int
    total: int

    @property
    def rate(self) -> float:
        return self.rows / max(self.total, 1)


@dataclass(frozen=True)
class AllRows:
    """What a search among all `train` rows found; see the module.

    verbatim, near (which counts those too): of the samples and of the held-out rows. records: the
    samples that are beyond the yardstick, with the rows they give away. tested: training rows that
    the tests compare.
    """

    train: int
    tested: int
    verbatim: tuple[MetRows, MetRows]
    near: tuple[MetRows, MetRows]
    records: list[Match] = field(default_factory=list)

    @property
    def beyond(self) -> bool:
        """Do samples meet more rows than held-out rows do, by more than an honest fit might?"""
        return _equal_beyond(*self.verbatim) or _beyond(*self.near)

    def sentences(self) -> list[str]:
        """The counts in plain words, and what was not asked of all rows."""
        lines = [
            f"Copies were sought among all {self.train:,} training rows, read in pieces; the "
            f"tests compare {self.tested:,} of them, drawn at random, and so do the counts of "
            "rows that agree in all but a few cells, of changed pictures and of spikes."
        ]
        for what, (ours, theirs) in (
            ("are equal to", self.verbatim),
            ("nearly reproduce", self.near),
        ):
            lines.append(
                f"{ours.queries:,} of {ours.total:,} samples {what} one of {ours.rows:,} training "
                f"rows, and so do {theirs.queries:,} of {theirs.total:,} held-out rows (one of "
                f"{theirs.rows:,})."
            )
        if self.beyond:
            rows = listed(sorted({match.train_row for match in self.records}))
            lines.append(
                f"That is beyond what held-out rows show by chance: training rows {rows} are "
                "given away."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"beyond": self.beyond, "sentences": self.sentences()}


def _beyond(ours: MetRows, theirs: MetRows) -> bool:
    return beyond_held(ours.rows, ours.total, theirs.rows, theirs.total)


def _equal_beyond(ours: MetRows, theirs: MetRows) -> bool:
    if theirs.rows or not theirs.total:
        return _beyond(ours, theirs)
    return (ours.total / (ours.total + theirs.total)) ** ours.rows <= LEVEL


def on_disk(source: Any) -> StoredDataset | None:
    """The rows of a source that stays on disk, by its size or by its kind; else None."""
    if isinstance(source, str | Path):
        source = load(source, mixed=True)
    return source if isinstance(source, StoredDataset) else None


def to_test(data: StoredDataset) -> Dataset:
    """The rows that tests compare: TESTED at random, in memory."""
    if len(data) <= TESTED:
        return data.loaded()
    rows = np.random.default_rng(0).choice(len(data), TESTED, replace=False)
    return data.take(np.sort(rows)).loaded()


def search_all(
    train: StoredDataset,
    holdout: Dataset,
    samples: Dataset,
    *,
    tested: int = TESTED,
    progress: Progress | None = None,
) -> AllRows:
    """Look for copies of any training row among samples, and among held-out rows to compare with.

    holdout, samples: rows (m, *shape), (s, *shape) in memory. progress: called with the work done
    and in all. Memory beyond these is bounded, whatever the number of training rows. Raises
    InputError on rows of other shapes.
    """
    for name, data in (("holdout", holdout), ("samples", samples)):
        if data.shape != train.shape:
            raise InputError(
                f"{name} has points of shape {data.shape}; those of train are {train.shape}"
            )
    points = _Scaled(train.rows, _deviations(train, holdout))
    asked = [points.scaled(data.values) for data in (samples, holdout)]
    queries = np.concatenate(asked)
    tell = progress or (lambda done, total: None)
    distance, index = (
        a[:, 0]
        for a in nearest(queries, points, 1, progress=lambda d, t: tell(d, 2 * t))
    )  # fmt: skip
    rows, back = np.unique(index, return_inverse=True)
    spacing = _spacing(points, rows, lambda d, t: tell(t + d, 2 * t))[back]
    sides = slice(0, len(samples)), slice(len(samples), None)
    values = (samples.values, holdout.values)
    equal = np.concatenate(
        [_equal(train.rows[index[s]], v) for s, v in zip(sides, values, strict=True)]
    )
    near = equal | (distance < SHARE * spacing)
    verbatim, close = (
        (_met(mask[sides[0]], index[sides[0]]), _met(mask[sides[1]], index[sides[1]]))
        for mask in (equal, near)
    )
    found = AllRows(len(train), tested, verbatim, close)
    if not found.beyond:
        return found
    named = [
        Match(int(s), int(index[s]), None if equal[s] else "a little noise", float(distance[s]))
        for s in np.flatnonzero(near[sides[0]])
    ]
    return AllRows(len(train), tested, verbatim, close, named)


def _met(mask: np.ndarray, index: np.ndarray) -> MetRows:
    return MetRows(int(mask.sum()), len(np.unique(index[mask])), len(mask))


def _spacing(points: _Scaled, rows: np.ndarray, progress: Progress) -> np.ndarray:
    """Distance (R,) of each row to the nearest row of another value; 0 where all are equal."""
    near = nearest(points[rows], points, OTHERS, progress=progress)[0]
    near = np.where(near > 0, near, np.inf).min(1)
    return np.where(np.isfinite(near), near, 0.0)


def _equal(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (n,) of the pairs of rows that are equal, in the coarser of their types."""
    if len(rows) == 0:
        return np.empty(0, bool)
    first, second = row_codes(rows, others)
    return first == second


def _deviations(train: StoredDataset, holdout: Dataset) -> np.ndarray:
    """Deviation (d,) of each column of real rows, or one of all pixels; 1 where it is 0."""
    some = np.concatenate([to_test(train).values, holdout.values])
    std = statistics_of(some, pooled=train.kind == "images").std
    return np.where(std > 0, std, 1.0)


class _Scaled(StoredRows):
    """Rows on disk as points (n, d) over the deviations of their columns."""

    def __init__(self, rows: StoredRows, scale: np.ndarray) -> None:
        self.rows, self.scale, self.source = rows, scale, rows.source
        self.shape = (len(rows), int(np.prod(rows.shape[1:], dtype=np.int64)))
        self.dtype = np.dtype(np.float64)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.scaled(self.rows[rows])

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), -1) / self.scale

    def pieces(self) -> list[Piece]:
        return self.rows.pieces()
