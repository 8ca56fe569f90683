"""Samples near one training row: the same record with noise on its numbers.

A sample is near a row of the pool if it lies within a third of that row's distance to the nearest
other row, and within a quarter of a deviation per column (root mean square over the columns that
are numbers), so that a far-off row does not own half the space. Equal rows are `verbatim`.

The rows that fresh draws would come so near to are counted on the pool itself: each row (or some)
is taken out and asked whether it is near another. Within a smaller share q of the third, fresh
draws are fewer by q^D, and rows are counted within several q. D is half the dimension that the two
nearest distances of the pool show (Facco, d'Errico, Rodriguez, Laio 2017), at least 1, so that the
expectation is too high rather than too low. Rows that several samples are near to are held against
what crowds of samples would meet (`crowds`). Where a row and its nearest agree in all but c
columns, as on tables with categories, only those are free: such pairs are counted by their c, and
have D = c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.crowds import crowds, met_again
from reverie.auditing.facts.fact import Fact, Match, beyond_chance, beyond_held
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.facts.row_keys import row_keys

SHARE = 1 / 3  # of the distance to the nearest other row
NOISE = 0.25  # deviations per column
SHARES = tuple(2.0**-k for k in range(8))  # of SHARE
LOOKS = 1e10  # products that may be spent on asking rows of the pool
NUMBERS = 2**22  # compared at a time
COLUMNS = 64  # columns in which cells of other rows are sought
SPARE = 16  # neighbours among which one of another group is sought
OUTWARDS = 65  # pool rows within a radius that are told apart, and the row itself


@dataclass(frozen=True, eq=False)
class Fresh:
    """How near fresh draws come: the share that is near a row, and the pool's dimension.

    agreeing: (c, share) of those near rows that differ from the draw in c columns, fewer than D.
    """

    share: float
    dimension: float
    agreeing: tuple[tuple[int, float], ...] = ()

    @property
    def slow(self) -> float:
        """D, half the dimension."""
        return max(self.dimension / 2, 1.0)

    def within(self, q: float) -> float:
        """Share of fresh draws within q of the third."""
        agreeing = sum(share * q**columns for columns, share in self.agreeing)
        return self.share * q**self.slow + agreeing


@dataclass(frozen=True, eq=False)
class Pool:
    """Distinct rows (N, d) of the pool and what stands around them.

    row (N,): the first pool row of that value. train, held (N,): whether a row of either has it.
    group (N,): the unit that rows belong to. reach: the noise scale. atoms: share of
    fresh draws that fall on a value seen once, by Good and Turing: of the rows seen twice.
    """

    points: np.ndarray
    row: np.ndarray
    train: np.ndarray
    held: np.ndarray
    group: np.ndarray
    grouped: bool
    reach: float
    atoms: float

    @classmethod
    def of(cls, space: CommonSpace, keys: np.ndarray | None = None) -> Pool:
        """keys: equal for equal rows, if they are known."""
        rows = np.concatenate([space.members, space.held])
        keys = row_keys(rows) if keys is None else keys
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        first, place = first[order], np.argsort(order)[place]
        is_train = np.arange(len(rows)) < len(space.members)
        train, held = (
            np.bincount(place, side, minlength=len(first)) > 0 for side in (is_train, ~is_train)
        )
        group = np.arange(len(rows))
        if space.group_ids is not None:
            group = np.unique(np.concatenate(space.group_ids), return_inverse=True)[1]
        numbers = max(int(space.smooth.sum()), 1)
        return cls(
            rows if len(first) == len(rows) else rows[first], first, train, held, group[first],
            space.group_ids is not None, NOISE * np.sqrt(numbers),
            float(2 * (np.bincount(place) == 2).sum() / len(rows)),
        )  # fmt: skip

    @cached_property
    def fresh(self) -> Fresh:
        """See `fresh_rate`; measured once."""
        return fresh_rate(self)

    @cached_property
    def outwards(self) -> np.ndarray:
        """Distances (N, OUTWARDS) from every row to the nearest rows, itself the first."""
        return nearest(self.points, self.points, OUTWARDS)[0]

    def units(self, rows: np.ndarray) -> int:
        """How many units some rows (R,), or a mask (N,) of them, belong to."""
        return len(np.unique(self.group[rows]))

    def spacing(self, rows: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
        """Distance (R,) from each row to the nearest of another group, and not of `without`."""
        spare = SPARE if self.grouped else 2
        distance, index = nearest(self.points[rows], self.points, spare + 1)
        other = self.group[index] != self.group[rows][:, None]
        if without is not None:
            other &= index != without[:, None]
        distance = np.where(other, distance, np.inf)
        least = distance.min(1)
        return np.where(np.isfinite(least), least, 0.0)


@dataclass(frozen=True, eq=False)
class Closest:
    """Samples that equal no pool row (Q,), the distance (Q,) of each to the pool, and the distinct
    pool row (Q,) that is nearest."""

    samples: np.ndarray
    distance: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, space: CommonSpace, pool: Pool, equal: np.ndarray) -> Closest | None:
        """None where no column is a number, the pool is one value, or no sample is left."""
        left = np.flatnonzero(~equal)
        if len(pool.points) < 3 or len(left) == 0 or not space.smooth.any():
            return None
        queries = space.drawn if len(left) == len(space.drawn) else space.drawn[left]
        distance, place = (a[:, 0] for a in nearest(queries, pool.points, 1))
        return cls(left, distance, place)


def near(space: CommonSpace, pool: Pool, closest: Closest, total: int) -> Fact:
    """The fact of near copies among `total` samples; equal rows are left to `verbatim`."""
    left, distance, place = closest.samples, closest.distance, closest.place
    ratio = ratios_to(pool, distance, place)
    close = np.flatnonzero(ratio < SHARE)
    recombined = _recombined(space.members, space.drawn[left[close]], pool.points[place[close]])
    ratio[close[recombined]] = np.inf
    n, m = int((pool.train & ~pool.held).sum()), int((pool.held & ~pool.train).sum())
    per_share = total * n / len(pool.points)  # samples, for each training row
    expected = {q: per_share * (pool.fresh.within(q) + pool.atoms) for q in SHARES}
    met = {q: _rows_met(pool, place[ratio < q * SHARE]) for q in SHARES}
    sure = [q for q in SHARES if _too_many(*met[q], expected[q], n, m)]
    if not sure:
        again = np.flatnonzero(ratio < SHARE)
        again = again[met_again(place[again])]
        found = _rows_met(pool, place[again])
        if len(again) and len(found[0]):
            chances = crowds(space.drawn[left], lambda asked: reach_of(pool, place[asked]))
            chances *= expected[1.0] / max(total, 1)
            if _too_many(*found, chances, n, m):
                sure, met[1.0], expected[1.0] = [1.0], found, chances
    outnumber = beyond_held(
        *(pool.units(rows) for rows in (met[1.0][0], pool.train & ~pool.held)),
        *(pool.units(rows) for rows in (met[1.0][1], pool.held & ~pool.train)),
    )  # the rows of one unit are met together
    q = sure[0] if sure and not outnumber else 1.0  # what is shown is what was found
    rows, held = met[q]
    ours = np.flatnonzero((ratio < SHARE) & np.isin(place, rows))
    return Fact(
        "near", None, len(ours), len(space.drawn), len(rows), n, len(held), m,
        sure=bool(sure), beyond=bool(sure) or outnumber,
        train_rows=pool.row[rows], sample_rows=left[ours],
        records=_records(left[ours], pool.row[place[ours]], distance[ours]),
        expected=expected[q],
    )  # fmt: skip


def _rows_met(pool: Pool, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows that are training rows only, and held-out rows only."""
    rows = np.unique(place)
    train, held = pool.train[rows], pool.held[rows]
    return rows[train & ~held], rows[held & ~train]


def ratios_to(pool: Pool, distance: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(Q,) distance over the spacing of the row; infinite beyond the noise scale."""
    ratio = np.full(len(distance), np.inf)
    inside = np.flatnonzero(distance <= pool.reach)
    rows, back = np.unique(place[inside], return_inverse=True)
    spacing = pool.spacing(rows)[back]
    good = spacing > 0
    ratio[inside[good]] = distance[inside[good]] / spacing[good]
    return ratio


def reach_of(pool: Pool, place: np.ndarray) -> np.ndarray:
    """(Q,) how far from its row, of places (Q,), a sample is near to it."""
    rows, back = np.unique(place, return_inverse=True)
    return np.minimum(SHARE * pool.spacing(rows), pool.reach)[back]


def fresh_rate(pool: Pool) -> Fresh:
    """How near left-out pool rows are to others (one near row added), and the dimension."""
    total, width = pool.points.shape
    most = int(min(max(LOOKS / (total * width), 200), total))
    asked = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    distance, index = nearest(pool.points[asked], pool.points, 3)
    distance, index = distance[:, 1:], index[:, 1:]  # the row itself comes first
    apart = (pool.group[index[:, 0]] != pool.group[asked]) & (distance[:, 0] > 0)
    asked, distance, index = asked[apart], distance[apart], index[apart]
    if len(asked) == 0:
        return Fresh(1.0, 1.0)
    place = index[:, 0]
    inside = np.flatnonzero(distance[:, 0] <= pool.reach)
    spacing = pool.spacing(place[inside], without=asked[inside])
    hits = np.zeros(len(asked), bool)
    hits[inside] = distance[inside, 0] < SHARE * spacing
    log = np.log(distance[:, 1] / distance[:, 0])
    dimension = min(max(len(log) / max(log.sum(), 1e-9), 1.0), width)
    # ranks leave the pool evenly spaced, which fresh draws are not: no rate below that of a
    # smooth density
    share = max((hits.sum() + 1) / len(asked), SHARE**dimension)
    free = _free_columns(pool.points, asked, place)
    return Fresh(float(share), float(dimension), _agreeing(free, hits, dimension / 2))


def _free_columns(points: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(R,) in how many columns each row differs from the other one."""
    size = max(1, NUMBERS // points.shape[1])
    return np.concatenate(
        [
            (points[rows[k : k + size]] != points[others[k : k + size]]).sum(1)
            for k in range(0, len(rows), size)
        ]
    )


def _agreeing(free: np.ndarray, hits: np.ndarray, most: float) -> tuple[tuple[int, float], ...]:
    """(c, share) of the rows that are near and differ in c < `most` columns; one row is added,
    which differs in c columns as often as all nearest rows do."""
    return tuple(
        (c, float((hits[free == c].sum() + (free == c).mean()) / len(free)))
        for c in range(1, int(np.ceil(most)))
        if (free == c).any()
    )


def _recombined(members: np.ndarray, drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mask (Q,) of samples whose cells, where they differ from the row, are other rows' cells.

    Noise makes values of its own; a generator that draws columns from the training columns comes
    near a row by the values of others. Only columns of mostly distinct values tell.
    """
    foreign, differ = np.zeros(len(drawn)), np.zeros(len(drawn))
    columns = np.random.default_rng(0).permutation(members.shape[1])[:COLUMNS]
    for j in columns if len(drawn) else ():
        values = np.unique(members[:, j])
        if 2 * len(values) > len(members):
            other = drawn[:, j] != rows[:, j]
            differ += other
            foreign += other & np.isin(drawn[:, j], values)
    return (differ > 0) & (2 * foreign > differ)


def _too_many(ours: np.ndarray, theirs: np.ndarray, expected: float, n: int, m: int) -> bool:
    """Are more training rows met than chance explains, and than held-out rows?"""
    outnumber = len(ours) * m > 3 * len(theirs) * n
    return outnumber and beyond_chance(len(ours), expected, len(SHARES))


def _records(samples: np.ndarray, rows: np.ndarray, distance: np.ndarray) -> list[Match]:
    order = np.argsort(distance, kind="stable")
    return [
        Match(int(samples[i]), int(rows[i]), "a little noise", float(distance[i])) for i in order
    ]
