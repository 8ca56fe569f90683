"""Samples near one training row: the same record with noise on its numbers.

A sample is near a row of the pool if it lies within a third of that row's distance to the nearest
other row, and within a quarter of a deviation per column (root mean square over the columns that
are numbers), so that a far-off row does not own half the space. Equal rows are `verbatim`.

The rows that fresh draws would come so near to are counted on the pool itself: each row (or some)
is taken out and asked whether it is near another. Within a smaller share q of the third, fresh
draws are fewer by q^D. D is half the dimension that the two nearest distances of the pool show
(Facco, d'Errico, Rodriguez, Laio 2017), at least 1, so the expectation is too high rather than
too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.fact import Fact, Match, beyond_chance, beyond_held
from reverie.auditing.facts.neighbours import nearest
from reverie.data import row_codes

SHARE = 1 / 3  # of the distance to the nearest other row
NOISE = 0.25  # deviations per column
SHARES = tuple(2.0**-k for k in range(8))  # of SHARE
LOOKS = 2e10  # products that may be spent on asking rows of the pool
SPARE = 16  # neighbours among which one of another group is sought


@dataclass(frozen=True, eq=False)
class Pool:
    """Distinct rows (N, d) of the pool and what stands around them.

    row (N,): the first pool row of that value. train, held (N,): whether a row of either has it.
    group (N,): the unit that rows belong to. reach: the noise scale.
    """

    points: np.ndarray
    row: np.ndarray
    train: np.ndarray
    held: np.ndarray
    group: np.ndarray
    grouped: bool
    reach: float

    @classmethod
    def of(cls, space: CommonSpace) -> Pool:
        rows = np.concatenate([space.members, space.held])
        _, first, place = np.unique(row_codes(rows)[0], return_index=True, return_inverse=True)
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
        )  # fmt: skip

    @cached_property
    def fresh(self) -> tuple[float, float]:
        """See `fresh_rate`; measured once."""
        return fresh_rate(self)

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


def near(space: CommonSpace, equal: np.ndarray, pool: Pool | None = None) -> Fact | None:
    """The fact of near copies; None where no column is a number or the pool is one value.

    equal: (S,) samples that equal a pool row, which are not counted again.
    """
    pool = Pool.of(space) if pool is None else pool
    left = np.flatnonzero(~equal)
    if len(pool.points) < 3 or len(space.drawn) == 0 or not space.smooth.any():
        return None
    distance, place = (a[:, 0] for a in nearest(space.drawn[left], pool.points, 1))
    ratio = ratios_to(pool, distance, place)
    close = ratio < SHARE
    count, counted = left[close], place[close]
    owned = pool.train[counted] & ~pool.held[counted]
    n, m = int((pool.train & ~pool.held).sum()), int((pool.held & ~pool.train).sum())
    held = len(np.unique(counted[pool.held[counted] & ~pool.train[counted]]))
    rows = np.unique(counted[owned])
    share, dimension = pool.fresh
    expected = len(space.drawn) * n / len(pool.points) * share
    sure = any(
        _too_many(q, ratio, place, pool, expected * q**dimension, n, m) for q in SHARES
    )
    return Fact(
        "near", None, int(owned.sum()), len(space.drawn), len(rows), n, held, m,
        sure=sure,
        beyond=sure or beyond_held(len(rows), n, held, m),
        train_rows=pool.row[rows], sample_rows=count[owned],
        records=_records(count[owned], pool.row[counted[owned]], distance[close][owned]),
        expected=expected,
    )  # fmt: skip


def ratios_to(pool: Pool, distance: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(Q,) distance over the spacing of the row; infinite beyond the noise scale."""
    ratio = np.full(len(distance), np.inf)
    inside = np.flatnonzero(distance <= pool.reach)
    rows, back = np.unique(place[inside], return_inverse=True)
    spacing = pool.spacing(rows)[back]
    good = spacing > 0
    ratio[inside[good]] = distance[inside[good]] / spacing[good]
    return ratio


def fresh_rate(pool: Pool) -> tuple[float, float]:
    """Share of left-out pool rows that are near another (one added), and half the dimension."""
    total, width = pool.points.shape
    most = int(min(max(LOOKS / (total * width), 200), total))
    asked = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    distance, index = nearest(pool.points[asked], pool.points, 3)
    distance, index = distance[:, 1:], index[:, 1:]  # the row itself comes first
    if pool.grouped:
        apart = pool.group[index[:, 0]] != pool.group[asked]
        asked, distance, index = asked[apart], distance[apart], index[apart]
    if len(asked) == 0:
        return 1.0, 1.0
    place = index[:, 0]
    inside = np.flatnonzero(distance[:, 0] <= pool.reach)
    spacing = pool.spacing(place[inside], without=asked[inside])
    hits = int((distance[inside, 0] < SHARE * spacing).sum())
    log = np.log(distance[:, 1] / distance[:, 0])
    dimension = len(log) / max(log.sum(), 1e-9)
    return (hits + 1) / len(asked), max(float(dimension) / 2, 1.0)


def _too_many(
    q: float, ratio: np.ndarray, place: np.ndarray, pool: Pool, expected: float, n: int, m: int
) -> bool:
    """Are more training rows met within q SHARE than chance explains, and than held-out rows?"""
    rows = np.unique(place[ratio < q * SHARE])
    ours = int((pool.train[rows] & ~pool.held[rows]).sum())
    theirs = int((pool.held[rows] & ~pool.train[rows]).sum())
    return ours * m > 3 * theirs * n and beyond_chance(ours, expected, len(SHARES))


def _records(samples: np.ndarray, rows: np.ndarray, distance: np.ndarray) -> list[Match]:
    order = np.argsort(distance, kind="stable")
    return [
        Match(int(samples[i]), int(rows[i]), "a little noise", float(distance[i])) for i in order
    ]
