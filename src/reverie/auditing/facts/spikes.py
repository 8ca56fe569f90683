"""Many samples around one record: a clump of samples that is centred on a row of the pool.

Around each row of the pool, samples and pool rows are counted outwards. Fresh draws and pool rows
are exchangeable, so before the j-th other pool row come, by chance, so many samples as white balls
in a draw without replacement: whatever the law. A clump is a row where this has probability below
a millionth over all rows and radii, and which is

    narrow     more of the samples within twice the radius lie within the radius than a smooth
               density of the pool's dimension has there (2^-D)
    centred    the samples' mean is no farther from the row than its error

A generator that fits badly, and puts many samples where the pool has few, is neither. The clump
is laid to the row nearest its centre; rows within its reach are not counted again. Samples that
equal a row are left to `verbatim`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.fact import Fact, Match, beyond_held
from reverie.auditing.facts.near import Pool
from reverie.auditing.facts.neighbours import nearest

SAMPLES = (8, 16, 32, 64)  # counted outwards from every row
ROWS = 64  # pool rows within the radius that are told apart
GROWTH = 1.5 ** np.arange(-2, 9)  # radii that are then tried around a flagged row
LEVEL, FLAGGED, NARROW = 1e-6, 1e-4, 1e-3
WORK = 2e10  # products that may be spent on each side
TRIED, MOST = 512, 64  # flagged rows that are looked into, and clumps
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


def spikes(
    space: CommonSpace, equal: np.ndarray, pool: Pool | None = None
) -> Fact | None:
    """The fact of clumps of samples; None where no column is a number.

    equal: (S,) samples that equal a pool row, which are not counted.
    """
    pool = Pool.of(space) if pool is None else pool
    left = np.flatnonzero(~equal)
    if len(left) < SAMPLES[0] or len(pool.points) < 3 or not space.smooth.any():
        return None
    found = clumps(pool, space.drawn, left)
    n, m = int((pool.train & ~pool.held).sum()), int((pool.held & ~pool.train).sum())
    ours = [c for c in found if pool.train[c.place] and not pool.held[c.place]]
    held = sum(bool(pool.held[c.place] and not pool.train[c.place]) for c in found)
    samples = np.unique(np.concatenate([c.samples for c in ours] or [left[:0]]))
    sure = len(ours) > 0 and len(ours) * m > 3 * held * n
    return Fact(
        "spike", None, len(samples), len(space.drawn), len(ours), n, held, m,
        sure=sure, beyond=sure or beyond_held(len(ours), n, held, m),
        train_rows=np.sort(pool.row[[c.place for c in ours]]) if ours else pool.row[:0],
        sample_rows=samples, records=_records(ours, pool),
    )  # fmt: skip


def clumps(pool: Pool, drawn: np.ndarray, left: np.ndarray) -> list[Clump]:
    """The clumps among the samples `left`, the most surprising first."""
    rng = np.random.default_rng(0)
    width = drawn.shape[1]
    rows = _some(len(pool.points), len(pool.points), width, rng)
    asked = left[_some(len(left), len(pool.points), width, rng)]
    surprise, radius = _surprise(pool.points, pool.points[rows], drawn[asked])
    order = np.argsort(surprise, kind="stable")
    order = order[: int((surprise < FLAGGED / (len(surprise) * len(SAMPLES))).sum())]
    found: dict[int, Clump] = {}
    free, samples = np.ones(len(pool.points), bool), drawn[left]
    for row in order[:TRIED]:
        if not free[row] or len(found) == MOST:
            continue
        clump = _around(pool, samples, int(row), float(radius[row]))
        gap = np.linalg.norm(pool.points[order] - clump.centre, axis=1)
        free[order[gap <= clump.radius]] = False
        free[row] = False
        if clump.place not in found and _stands(pool, samples, clump):
            free[clump.place] = False
            found[clump.place] = replace(clump, samples=left[clump.samples])
    return list(found.values())


def _some(count: int, others: int, width: int, rng: np.random.Generator) -> np.ndarray:
    most = int(max(WORK / (width * max(others, 1)), 2000))
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))


def _surprise(
    queries: np.ndarray, pool: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least probability (Q,) over the radii, and the radius (Q,) at which it is least."""
    to_samples = nearest(queries, drawn, SAMPLES[-1])[0]
    to_pool = nearest(queries, pool, ROWS + 1)[0]
    own = to_pool[:, 0] == 0  # a query that is a row of the pool is not its own neighbour
    least, radius = np.ones(len(queries)), np.zeros(len(queries))
    total = len(drawn) + len(pool)
    for k in SAMPLES:
        if k > to_samples.shape[1]:
            break
        reach = to_samples[:, k - 1]
        inside = (to_pool <= reach[:, None]).sum(1) - own
        p = stats.hypergeom.sf(k - 1, total, len(drawn), np.minimum(k + inside, total))
        p[inside >= to_pool.shape[1] - 1] = 1.0
        better = (p < least) & (reach > 0)
        least[better], radius[better] = p[better], reach[better]
    return least, radius


def _around(pool: Pool, samples: np.ndarray, row: int, radius: float) -> Clump:
    """The clump that a flagged row belongs to: shifted to its centre, at its most telling size."""
    centre = pool.points[row]
    for _ in range(STEPS):
        gap = np.linalg.norm(samples - centre, axis=1)
        beyond = np.linalg.norm(pool.points - centre, axis=1)
        p = [_chance(gap, beyond, size) for size in radius * GROWTH]
        radius *= float(GROWTH[int(np.argmin(p))])
        inside = gap <= radius
        if not inside.any():
            break
        shifted = samples[inside].mean(0)
        if (shifted == centre).all():
            break
        centre = shifted
    place = int(np.linalg.norm(pool.points - centre, axis=1).argmin())
    gap = np.linalg.norm(samples - pool.points[place], axis=1)
    inside = np.flatnonzero(gap <= radius)
    return Clump(place, inside, radius, gap[inside], centre)


def _chance(to_samples: np.ndarray, to_pool: np.ndarray, radius: float) -> float:
    """Log probability of so many samples among all rows within the radius."""
    count, rows = int((to_samples <= radius).sum()), int((to_pool <= radius).sum())
    total = len(to_samples) + len(to_pool)
    return float(stats.hypergeom.logsf(count - 1, total, len(to_samples), count + rows))


def _stands(pool: Pool, samples: np.ndarray, clump: Clump) -> bool:
    """Is the clump surprising, narrow, and centred on its row? See the module."""
    count, point = len(clump.samples), pool.points[clump.place]
    if count < SAMPLES[0]:
        return False
    gap = np.linalg.norm(samples - point, axis=1)
    others = np.delete(np.linalg.norm(pool.points - point, axis=1), clump.place)
    looks = len(pool.points) * len(SAMPLES) * len(GROWTH)
    if _chance(gap, others, clump.radius) > np.log(LEVEL / looks):
        return False
    twice, dimension = int((gap <= 2 * clump.radius).sum()), 2 * pool.fresh[1]
    inside = samples[clump.samples]
    error = np.sqrt(inside.var(0).sum() / count)
    return bool(
        stats.binom.sf(count - 1, twice, 2.0**-dimension) <= NARROW
        and np.linalg.norm(inside.mean(0) - point) <= ERRORS * error
    )


def _records(found: list[Clump], pool: Pool) -> list[Match]:
    return [
        Match(int(s), int(pool.row[c.place]), f"one of {len(c.samples)} around it", float(d))
        for c in found
        for s, d in zip(c.samples, c.distance, strict=True)
    ]
