"""Many samples around one record: a clump of samples that is centred on a row of the pool.

Around each row of the pool, samples and pool rows are counted outwards. Fresh draws and pool rows
are exchangeable, so before the j-th other pool row come, by chance, so many samples as white balls
in a draw without replacement: whatever the law. A clump is a row where this has probability below
a thousandth over all rows, and which is

    narrow     more of the samples within twice the radius lie within the radius than pool rows
               do, or, where there are few, than a smooth density of the pool's dimension has there
    centred    the samples' mean is no farther from the row than its error

A generator that fits badly, and puts many samples where the pool has few, is neither. The clump
is laid to the row at its centre (to a training row, where several are within the error); rows
within its reach are not counted again. Samples that
equal a row are left to `verbatim`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.fact import Fact, Match, beyond_held
from reverie.auditing.facts.near import OUTWARDS, Closest, Pool
from reverie.auditing.facts.neighbours import nearest

SAMPLES = (8, 16, 32, 64)  # counted outwards from every row
GROWTH = 1.5 ** np.arange(-2, 7)  # radii that are then tried around a flagged row
LEVEL, FLAGGED, NARROW = 1e-3, 1e-5, 1e-5
WORK = 2e10  # products that may be spent
NUMBERS = 2e6  # of pool rows, and of samples, that density is read from
WORK_ROW = 4e8  # numbers read when flagged rows are looked into
MOST = 64  # clumps
FEW = 4  # pool rows that weigh as much as a smooth density
ERRORS = 3.0  # standard errors of the centre
STEPS = 8


@dataclass(frozen=True, eq=False)
class Clump:
    """Samples (k,) around a row of the distinct pool, and the radius that holds them."""

    place: int
    samples: np.ndarray
    radius: float
    distance: np.ndarray
    centre: np.ndarray


def spikes(space: CommonSpace, pool: Pool, closest: Closest) -> Fact:
    """The fact of clumps of samples; rows that are equal are left to `verbatim`."""
    left = closest.samples
    found = clumps(pool, space.drawn, closest) if len(left) >= SAMPLES[0] else []
    n, m = int((pool.train & ~pool.held).sum()), int((pool.held & ~pool.train).sum())
    ours = [c for c in found if pool.train[c.place] and not pool.held[c.place]]
    held = sum(bool(pool.held[c.place] and not pool.train[c.place]) for c in found)
    samples = np.unique(np.concatenate([c.samples for c in ours] or [left[:0]]))
    sure = len(ours) > 0 and 2 * len(ours) * m > 3 * held * n
    return Fact(
        "spike", None, len(samples), len(space.drawn), len(ours), n, held, m,
        sure=sure, beyond=sure or beyond_held(len(ours), n, held, m),
        train_rows=np.sort(pool.row[[c.place for c in ours]]) if ours else pool.row[:0],
        sample_rows=samples, records=_records(ours, pool),
    )  # fmt: skip


def clumps(pool: Pool, drawn: np.ndarray, closest: Closest) -> list[Clump]:
    """The clumps among the samples of `closest`, the most surprising first.

    Asked are the rows that are nearest to some sample, those of most samples first.
    """
    rng = np.random.default_rng(0)
    width, left = drawn.shape[1], closest.samples
    count = np.bincount(closest.place, minlength=len(pool.points))
    rows = _some(len(pool.points), width, rng)
    left = left[_some(len(left), width, rng)]
    most = int(max(WORK / (width * (len(rows) + len(left))), 64))
    queries = np.argsort(-count, kind="stable")[: min(most, int((count > 0).sum()))]
    known = 2 * len(queries) > len(rows) == len(pool.points)  # worth its while, and kept
    others = pool.points[rows]
    to_pool = (
        pool.outwards[queries] if known else nearest(pool.points[queries], others, OUTWARDS)[0]
    )
    surprise, radius = _surprise(pool.points[queries], to_pool, len(rows), drawn[left])
    order = np.argsort(surprise, kind="stable")
    order = order[(surprise[order] < FLAGGED) & (radius[order] <= pool.reach)]
    found: list[Clump] = []
    free, samples = np.ones(len(pool.points), bool), drawn[left]
    used = np.zeros(len(left), bool)
    tried = int(max(WORK_ROW / (STEPS * (len(left) + len(free)) * width), 16))
    for place in order:
        row = queries[place]
        if not free[row]:
            continue
        if len(found) == MOST or tried == 0:
            break
        tried -= 1
        free[row] = False
        clump = _around(pool, samples, int(row), float(radius[place]))
        again = 2 * int(used[clump.samples].sum()) > len(clump.samples)
        if again or _stands(pool, samples, clump):
            gap = np.linalg.norm(pool.points[queries] - clump.centre, axis=1)
            free[queries[gap <= clump.radius]] = False
            if not again:
                used[clump.samples] = True
                found.append(replace(clump, samples=left[clump.samples]))
    return found


def _some(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """All of `count` rows, or at random as many as hold NUMBERS, and at least 5000."""
    most = int(max(NUMBERS / width, 5000))
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))


def _surprise(
    queries: np.ndarray, to_pool: np.ndarray, count: int, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least probability (Q,) over the radii, and the radius (Q,) at which it is least.

    to_pool: distances (Q, OUTWARDS) to the nearest of `count` pool rows.
    """
    to_samples = nearest(queries, drawn, SAMPLES[-1])[0]
    own = to_pool[:, 0] == 0  # a query that is a row of the pool is not its own neighbour
    least, radius = np.ones(len(queries)), np.zeros(len(queries))
    total = len(drawn) + count
    for k in SAMPLES:
        if k > to_samples.shape[1]:
            break
        reach = to_samples[:, k - 1]
        inside = (to_pool <= reach[:, None]).sum(1) - own
        seen, which = np.unique(inside, return_inverse=True)  # few counts, a costly law
        p = stats.hypergeom.sf(k - 1, total, len(drawn), np.minimum(k + seen, total))[which]
        p[inside >= to_pool.shape[1] - 1] = 1.0
        better = (p < least) & (reach > 0)
        least[better], radius[better] = p[better], reach[better]
    return least, radius


def _around(pool: Pool, samples: np.ndarray, row: int, radius: float) -> Clump:
    """The clump that a flagged row belongs to: shifted to its centre, at its most telling size."""
    centre, sizes = pool.points[row], np.minimum(radius * GROWTH, pool.reach)
    for _ in range(STEPS):
        gap = np.linalg.norm(samples - centre, axis=1)
        others = np.linalg.norm(pool.points - centre, axis=1)
        p = [_width(gap, others, size, pool.fresh.dimension) for size in sizes]
        radius = float(sizes[int(np.argmin(p))])
        inside = gap <= radius
        if not inside.any():
            break
        shifted = samples[inside].mean(0)
        if np.allclose(shifted, centre, rtol=0, atol=1e-3 * radius):
            break
        centre = shifted
    place = _row_at(pool, samples, centre, radius)
    gap = np.linalg.norm(samples - (pool.points[place] if place >= 0 else centre), axis=1)
    inside = np.flatnonzero(gap <= radius)
    return Clump(place, inside, radius, gap[inside], centre)


def _row_at(pool: Pool, samples: np.ndarray, centre: np.ndarray, radius: float) -> int:
    """The row at the centre, -1 if none is within its error: a training row, if there is one."""
    inside = samples[np.linalg.norm(samples - centre, axis=1) <= radius]
    if len(inside) < SAMPLES[0]:
        return -1
    error = ERRORS * np.sqrt(inside.var(0).sum() / len(inside))
    away = np.linalg.norm(pool.points - inside.mean(0), axis=1)
    away[away > error] = np.inf
    ours = np.where(pool.train & ~pool.held, away, np.inf)
    best = ours if np.isfinite(ours).any() else away
    return int(best.argmin()) if np.isfinite(best).any() else -1


def _width(gap: np.ndarray, others: np.ndarray, radius: float, dimension: float) -> float:
    """Log probability that so many of the samples within two radii lie within one.

    gap, others: distances of samples and pool rows. The chance of each is the pool rows' share,
    drawn towards that of a smooth density (2^-D) where they are few, and never below it.
    """
    inside, twice = int((gap <= radius).sum()), int((gap <= 2 * radius).sum())
    near, around = int((others <= radius).sum()), int((others <= 2 * radius).sum())
    smooth = 2.0**-dimension
    share = max(smooth, (near + FEW * smooth) / (around + FEW))
    return float(stats.binom.logsf(inside - 1, twice, share))


def _chance(to_samples: np.ndarray, to_pool: np.ndarray, radius: float) -> float:
    """Log probability of so many samples among all rows within the radius."""
    count, rows = int((to_samples <= radius).sum()), int((to_pool <= radius).sum())
    total = len(to_samples) + len(to_pool)
    return float(stats.hypergeom.logsf(count - 1, total, len(to_samples), count + rows))


def _stands(pool: Pool, samples: np.ndarray, clump: Clump) -> bool:
    """Is the clump surprising, narrow, and centred on its row? See the module."""
    count, point = len(clump.samples), pool.points[clump.place]
    if clump.place < 0 or count < SAMPLES[0]:
        return False
    gap = np.linalg.norm(samples - point, axis=1)
    others = np.delete(np.linalg.norm(pool.points - point, axis=1), clump.place)
    if _chance(gap, others, clump.radius) > np.log(LEVEL / len(pool.points)):
        return False
    return _width(gap, others, clump.radius, pool.fresh.dimension) <= np.log(NARROW)


def _records(found: list[Clump], pool: Pool) -> list[Match]:
    return [
        Match(int(s), int(pool.row[c.place]), f"one of {len(c.samples)} around it", float(d))
        for c in found
        for s, d in zip(c.samples, c.distance, strict=True)
    ]
