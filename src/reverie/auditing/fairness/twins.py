"""Twins across the split: persons or bursts of whom some rows are training rows, others held out.

A row in a burst of k + 1 near-twins has k neighbours close by, then a gap. Around a row, points of
a smooth law of dimension D lie like a Poisson process, so that the k-th and the next distance obey

    P(d_k / d_(k+1) < c) = c^(k D),     independently for every k,

and a gap tells a burst of any size: for one of eight in three dimensions a ratio of 1/2 has chance
5e-7. D is read off d_j / d_2j, whose power D is a Beta(j, j), at the scales j that a burst of size
k + 1 does not touch (beyond 3k, or below k/3), and the least over these scales and the quantiles
from 1% to 50% counts: rows of tables lie in clumps of fewer dimensions where they agree in most
columns. No row with a ratio above CAP is in a burst. Equal rows count once: they are verbatim,
which is counted elsewhere. Where a table has measurements, its columns of few values are left out:
the gap around the rows of a rare category is no burst. A second look takes all columns, and of the
bursts those whose rows are among the nearest LIKE of the pool in the measurements too.

Chance alone flags CHANCE of the rows. Bursts that are too loose for it (pairs in few dimensions)
are looked for once more at LOOSE, where more rows have to be found.

A law made of fewer than BURSTS tight clumps is a law of its own, and its rows no twins. A law of
many clumps with few rows each cannot be told from persons, by anyone: it is taken for persons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.fairness.views import narrow

LARGEST = 50  # rows of a burst
REACH = 128  # neighbours looked at
QUANTILES = (0.01, 0.03, 0.1, 0.5)
CHANCE, LOOSE = 1e-3, 5e-2  # share of rows that chance may flag, over all burst sizes
CAP = 0.5
FEW_VALUES, SEEN = (
    20,
    1000,
)  # a column with at most so many values among so many rows is no measure
MOST_COLUMNS = 4096
LIKE = 0.05  # share of the pool
LEAST, BURSTS = 5, 12  # held-out rows and bursts that make a split unfair
SHARES = {CHANCE: 0.05, LOOSE: 0.15}  # and the share of held-out rows, at each level
MOST = 2000  # rows of a side that are looked at, where not all are asked for


@dataclass(frozen=True, eq=False)
class Bursts:
    """Which pool rows lie in a burst; training rows stand first.

    rows: (Q,) rows looked at, of the pool. burst: (Q,) number of the burst from 0, -1 for none.
    members: the pool rows of each burst. n: number of training rows. chance: the level.
    """

    rows: np.ndarray
    burst: np.ndarray
    members: list[np.ndarray]
    n: int
    chance: float = CHANCE

    @property
    def straddling(self) -> np.ndarray:
        """Which bursts (B,) have rows on both sides."""
        return np.array([rows.min() < self.n <= rows.max() for rows in self.members], dtype=bool)

    @property
    def twins(self) -> np.ndarray:
        """Mask (Q,) of the rows looked at that lie in a burst with rows on both sides."""
        inside = self.burst >= 0
        out = np.zeros(len(self.rows), bool)
        out[inside] = self.straddling[self.burst[inside]] if self.members else False
        return out

    def merged(self) -> list[np.ndarray]:
        """Pool rows of the bursts, those that share a row joined."""
        if not self.members:
            return []
        rows = np.concatenate(self.members)
        owner = np.repeat(np.arange(len(self.members)), [len(m) for m in self.members])
        size = (len(self.members), int(rows.max()) + 1)
        table = coo_array((np.ones(len(rows), bool), (owner, rows)), size).tocsr()
        joined = connected_components(table @ table.T, directed=False)[1][owner]
        order = np.argsort(joined, kind="stable")
        parts = np.split(rows[order], np.flatnonzero(np.diff(joined[order])) + 1)
        return [np.unique(part) for part in parts]

    @property
    def held(self) -> tuple[int, int]:
        """Held-out rows looked at that have a twin in training, and all looked at."""
        held = self.rows >= self.n
        return int((self.twins & held).sum()), int(held.sum())

    @property
    def unfair(self) -> bool:
        """Whether so many held-out rows have twins, in so many bursts, that memory is rewarded."""
        found, looked = self.held
        many = found >= max(LEAST, SHARES[self.chance] * looked)
        return bool(many and self.straddling.sum() >= BURSTS)

    @property
    def one_sided(self) -> tuple[float, float]:
        """Shares of the training and the held-out rows that lie in bursts on their side only."""
        alone = (self.burst >= 0) & ~self.twins
        held = self.rows >= self.n
        return float(alone[~held].mean()), float(alone[held].mean())

    @property
    def size(self) -> float:
        """Median rows of a burst, of those that straddle if there are any."""
        across = self.straddling
        sizes = [
            len(m) for m, a in zip(self.members, across, strict=True) if a or not across.any()
        ]
        return float(np.median(sizes)) if sizes else 0.0


def find_bursts(
    members: np.ndarray,
    held: np.ndarray,
    seed: int = 0,
    most: int | None = MOST,
    tabular: bool = True,
) -> Bursts:
    """Bursts among training rows (n, d) and held-out rows (m, d) of one space.

    most: how many rows of a side are looked at, at random (None: all).
    tabular: the columns differ in kind, so that those of few values are left out. Rows in over 64
    coordinates are projected at random first.
    """
    sides = members, held
    if not tabular or members.shape[1] > MOST_COLUMNS:
        return _look(sides, seed, most)
    seen = _measures(members, held, seed)
    if seen.all():
        return _look(sides, seed, most)
    measured = members[:, seen], held[:, seen]
    found = _look(measured, seed, most)
    if found.unfair:
        return found
    whole = _alike(_look(sides, seed, most), np.concatenate(measured))
    return whole if whole.unfair else found


def _look(sides: tuple[np.ndarray, np.ndarray], seed: int, most: int | None) -> Bursts:
    """The bursts of rows as they stand."""
    (members, held), _ = narrow(list(sides), seed)
    pool, n = np.concatenate([members, held]), len(members)
    rng = np.random.default_rng((seed, 5))
    picked = [np.sort(rng.permutation(len(side))[:most]) for side in (members, held)]
    rows = np.concatenate([picked[0], n + picked[1]])
    code, first = _distinct(pool, seed)
    reach = min(REACH, len(first) - 1)
    if reach < 8:
        return Bursts(rows, np.full(len(rows), -1), [], n)
    asked, back = np.unique(code[rows], return_inverse=True)
    distance, index = _surroundings(pool[first], asked, reach)
    found = []
    for chance in SHARES:
        size = _burst_sizes(distance, chance)[back]
        found.append(_gather(rows, code, asked[back], size, index[back], n, chance))
        if found[-1].unfair:
            return found[-1]
    return found[0]


def _alike(found: Bursts, measured: np.ndarray) -> Bursts:
    """The bursts whose rows are near one another in the measurements (N, d) as well.

    Rows of one rare category stand apart from all others, and their measurements do not.
    """
    if not found.members:
        return found
    scale = measured.std(0)
    points = measured / np.where(scale > 0, scale, 1)
    kept, new = np.full(len(found.members) + 1, -1), []
    for k, rows in enumerate(found.members):
        gap = np.linalg.norm(points - points[rows[0]], axis=1)
        if (gap <= gap[rows].max()).sum() <= max(LIKE * len(points), len(rows)):
            kept[k] = len(new)
            new.append(rows)
    return replace(found, burst=kept[found.burst], members=new)


def _measures(members: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
    """Mask (d,) of the columns that hold measurements, if any do; else of all of them."""
    rng = np.random.default_rng((seed, 3))
    few = [rows[rng.permutation(len(rows))[:SEEN]] for rows in (members, held)]
    ordered = np.sort(np.concatenate(few), axis=0)
    chosen = (np.diff(ordered, axis=0) > 0).sum(0) >= FEW_VALUES
    return chosen if chosen.any() else np.ones(members.shape[1], bool)


def _distinct(pool: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Code (N,) of each row among the distinct ones, and a row of each code.

    Rows that agree in two random directions to nine digits are equal: rounding in a projection
    may set equal rows apart by its last digits.
    """
    directions = np.random.default_rng((seed, 11)).standard_normal((pool.shape[1], 2))
    shadow = pool @ directions
    scale = np.abs(shadow).max(0)
    shadow = np.round(shadow / np.where(scale > 0, scale, 1) * 1e10)
    _, first, code = np.unique(shadow, axis=0, return_index=True, return_inverse=True)
    return code.ravel(), first


def _surroundings(
    points: np.ndarray, asked: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices (Q, reach) of the nearest other points of each asked one."""
    if len(asked) == len(points):
        return nearest(points, points, reach, skip_self=True)
    distance, index = nearest(points[asked], points, reach + 1)
    return distance[:, 1:], index[:, 1:]


def _burst_sizes(distance: np.ndarray, chance: float) -> np.ndarray:
    """Neighbours (Q,) that lie in each row's burst, 0 for none; distance: (Q, reach)."""
    reach = distance.shape[1]
    ks = np.arange(1, min(LARGEST, reach // 2) + 1)
    dimension = _dimensions(distance, ks)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = distance[:, ks - 1] / distance[:, ks]
        level = np.log(np.nan_to_num(ratio, nan=1.0)) * ks * dimension + 2 * np.log(ks)
    level[ratio > CAP] = 0.0
    best = level.argmin(1)
    limit = np.log(chance * 6 / np.pi**2)
    return np.where(level[np.arange(len(level)), best] < limit, ks[best], 0)


def _dimensions(distance: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Dimension (len(ks),) for a gap after the k-th neighbour; 0 where no scale tells it."""
    scales = [2**i for i in range(10) if 2 ** (i + 1) <= distance.shape[1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [_dimension(distance[:, j - 1] / distance[:, 2 * j - 1], j) for j in scales]
    out = np.zeros(len(ks))
    for place, k in enumerate(ks):
        away = [d for d, j in zip(found, scales, strict=True) if j > 3 * k or 2 * j < k / 3]
        out[place] = min(away, default=0.0)
    return out


def _dimension(ratio: np.ndarray, j: int) -> float:
    """The least D for which ratio^D is above a Beta(j, j) at none of the quantiles."""
    at = np.quantile(np.nan_to_num(ratio, nan=1.0), QUANTILES)
    if at[0] <= 0 or at[-1] >= 1:
        return 0.0
    return float((np.log(beta.ppf(QUANTILES, j, j)) / np.log(np.minimum(at, 1 - 1e-12))).min())


def _gather(
    rows: np.ndarray, code: np.ndarray, own: np.ndarray, size: np.ndarray, index: np.ndarray,
    n: int, chance: float,
) -> Bursts:  # fmt: skip
    """Bursts as sets of pool rows: those of a row and of its `size` nearest distinct rows."""
    order = np.argsort(code, kind="stable")
    count = np.bincount(code)
    ends = np.cumsum(count)
    known: dict[tuple[int, ...], int] = {}
    burst, members = np.full(len(rows), -1), []
    for q in np.flatnonzero(size):
        codes = tuple(sorted([int(own[q]), *index[q, : size[q]].tolist()]))
        if codes not in known:
            known[codes] = len(members)
            spans = [order[ends[c] - count[c] : ends[c]] for c in codes]
            members.append(np.sort(np.concatenate(spans)))
        burst[q] = known[codes]
    return Bursts(rows, burst, members, n, chance)
