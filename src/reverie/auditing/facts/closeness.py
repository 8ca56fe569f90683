"""How close samples come to each row of the pool, and to each group of rows.

A unit is what changes sides as a whole when training and held-out labels are exchanged: a row, or
all rows of a group (a person). Nothing inside a group is evidence, so a row's surroundings are the
rows of other groups; a group is as close as its closest row, and its samples are those of its
rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.facts.surroundings import around, is_long_work, reference_rows
from reverie.auditing.nulls.rank_tests import ratios
from reverie.data import row_codes

NEIGHBOUR = 5
TIE = 1 + 1e-12
FEW_CELLS = 0.5  # cells per pool row: below it a discrete table is counted cell by cell


@dataclass(frozen=True, eq=False)
class Closeness:
    """Pool rows (N) and units (U); ratios are in units of the distance to other pool rows."""

    pool: np.ndarray  # (N, d)
    to_samples: np.ndarray  # (N,) distance to the nearest sample
    nearest_sample: np.ndarray  # (N,)
    spacing: np.ndarray  # (N, 5) distances to the nearest rows of other units
    neighbours: np.ndarray  # (N, 5) their indices
    counts: np.ndarray  # (U,) samples whose nearest pool row is in the unit, ties split equally
    is_member: np.ndarray  # (U,) of bool
    unit: np.ndarray  # (N,) unit of each row
    smooth: np.ndarray  # (d,) coordinates that are numbers, not categories
    reference: int = 0  # pool rows among which neighbours were looked up (0: all), `surroundings`

    @property
    def by_row(self) -> bool:
        return len(self.is_member) == len(self.unit)

    @property
    def notes(self) -> list[str]:
        """What the reader is told about the neighbours."""
        if not self.reference:
            return []
        return [
            f"Of {len(self.pool):,} real rows, {self.reference:,} chosen by their content set the "
            "scale around each; near-copies were measured against all."
        ]

    def row_ratio(self, place: int) -> np.ndarray:
        """(N,) distance to the nearest sample over that to the `place`-th pool row (-1: 5th)."""
        return ratios(self.to_samples, self.spacing[:, place])

    def unit_ratio(self, place: int) -> np.ndarray:
        """(U,) the least ratio among the rows of each unit."""
        return least_of_units(self.row_ratio(place), self.unit, len(self.is_member))

    def closest_rows(self) -> np.ndarray:
        """(U,) the row of each unit with the least ratio to the 5th neighbour."""
        order = np.lexsort((self.row_ratio(-1), self.unit))
        return order[np.unique(self.unit[order], return_index=True)[1]]


def least_of_units(values: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """(U,) the least of values (N,) in each unit."""
    if units == len(values):
        return values
    least = np.full(units, np.inf)
    np.minimum.at(least, unit, values)
    return least


def closeness(space: CommonSpace) -> Closeness:
    """Measure all distances that the tests need, once."""
    pool = np.concatenate([space.members, space.held])
    row_is_member = np.arange(len(pool)) < len(space.members)
    unit, is_member = np.arange(len(pool)), row_is_member
    if space.group_ids is not None:
        _, first, unit = np.unique(
            np.concatenate(space.group_ids), return_index=True, return_inverse=True
        )
        is_member = row_is_member[first]
    to_samples, nearest_sample = _to_samples(space, pool)
    cells = None if space.cells is None else np.concatenate(space.cells[:2])
    reference = 0
    if cells is not None and space.group_ids is None and _few(len(np.unique(cells)), len(pool)):
        spacing, neighbours = _cell_surroundings(pool, cells)
    elif is_long_work(pool):
        spacing, neighbours = around(pool, unit, to_samples, NEIGHBOUR)
        reference = len(reference_rows(pool))
    else:
        spacing, neighbours = _surroundings(pool, unit, len(is_member))
    row_counts = nearest_counts(space, pool)
    counts = np.bincount(unit, row_counts, minlength=len(is_member))
    return Closeness(
        pool, to_samples, nearest_sample, spacing, neighbours, counts, is_member, unit,
        space.smooth, reference,
    )  # fmt: skip


def _surroundings(pool: np.ndarray, unit: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (N, 5) and indices (N, 5) of the nearest rows of other units."""
    if units == len(pool):
        return _distinct_surroundings(pool)
    spare = int(np.bincount(unit).max()) - 1
    distance, index = nearest(pool, pool, NEIGHBOUR + spare, skip_self=True)
    order = np.argsort(unit[index] == unit[:, None], axis=1, kind="stable")[:, :NEIGHBOUR]
    return np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1)


def _few(distinct: int, rows: int) -> bool:
    """On a table of few cells every row has equals, and being equal is no evidence."""
    return distinct <= FEW_CELLS * rows


def _distinct_surroundings(pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows that differ: a row that stands twice has surroundings too."""
    _, rows, place = np.unique(row_codes(pool)[0], return_index=True, return_inverse=True)
    if len(rows) <= NEIGHBOUR or _few(len(rows), len(pool)):
        return nearest(pool, pool, NEIGHBOUR, skip_self=True)
    distance, index = nearest(pool[rows], pool[rows], NEIGHBOUR, skip_self=True)
    return distance[place], rows[index][place]


def _cell_surroundings(pool: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for a discrete table: distinct rows are measured once, their equals counted."""
    _, rows, cell, size = np.unique(
        cells, return_index=True, return_inverse=True, return_counts=True
    )
    distance, index = nearest(pool[rows], pool[rows], NEIGHBOUR + 1)
    count = size[index]
    count[:, 0] -= 1  # the row itself, which is its own nearest
    upto = count.cumsum(1)
    place = np.stack([(upto <= k).sum(1) for k in range(NEIGHBOUR)], 1)
    place = np.minimum(place, index.shape[1] - 1)
    return (
        np.take_along_axis(distance, place, 1)[cell],
        rows[np.take_along_axis(index, place, 1)][cell],
    )


def _to_samples(space: CommonSpace, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) to the nearest sample and its index (N,); equal rows are measured once."""
    if space.cells is None:
        distance, index = nearest(pool, space.drawn, 1)
        return distance[:, 0], index[:, 0]
    _, rows, cell = np.unique(
        np.concatenate(space.cells[:2]), return_index=True, return_inverse=True
    )
    queries = np.unique(space.cells[2], return_index=True)[1]
    distance, index = nearest(pool[rows], space.drawn[queries], 1)
    return distance[cell, 0], queries[index[:, 0]][cell]


def nearest_counts(space: CommonSpace, pool: np.ndarray | None = None) -> np.ndarray:
    """(N,) how many samples have pool row j as nearest; ties are split equally.

    On a discrete table equal rows are handled as one, so that a tie of any size is split whole.
    pool: training over held-out rows, where they are stacked already.
    """
    if pool is None:
        pool = np.concatenate([space.members, space.held])
    if space.cells is None:
        return _tied_counts(space.drawn, pool, np.ones(len(space.drawn)), np.ones(len(pool)))
    members, held, drawn = space.cells
    _, rows, cell, size = np.unique(
        np.concatenate([members, held]), return_index=True, return_inverse=True, return_counts=True
    )
    _, queries, weight = np.unique(drawn, return_index=True, return_counts=True)
    counts = _tied_counts(space.drawn[queries], pool[rows], weight.astype(float), size)
    return (counts / size)[cell]


def _tied_counts(
    queries: np.ndarray, points: np.ndarray, weight: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """(P,) weight of the queries nearest to each point, ties split in proportion to `size`."""
    counts, left, k = np.zeros(len(points)), np.arange(len(queries)), NEIGHBOUR
    while len(left):
        distance, index = nearest(queries[left], points, k)
        tied = distance <= distance[:, :1] * TIE
        done = ~tied[:, -1] | (k >= len(points))  # else the tie may go on beyond the k-th
        share = (tied * size[index]).astype(float)[done]
        share *= (weight[left[done]] / share.sum(1))[:, None]
        counts += np.bincount(index[done].ravel(), share.ravel(), minlength=len(points))
        left, k = left[~done], min(4 * k, len(points))
    return counts
