"""Fourteen scenarios, each on several data sets, as tables that any tool can read.

A scenario says what is true: rows are copied, or they are not, or the comparison is unfair, or the
units differ, or a filter left a hole. Rows stand 400 a side where a data set has as many. Every
case is made from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reverie.auditing.facts.near_copies import near_copies
from tables import SIDE, Table, pictures, tables, three

TITLES = {
    1: "fresh draws",
    2: "samples equal a few rows, plain or noisy",
    3: "few verbatim rows; few held-out rows",
    4: "training rows with one cell changed",
    5: "training pictures, changed",
    6: "other units",
    7: "honest fits",
    8: "private histograms",
    9: "drift, later rows, swapped sets, augmented rows",
    10: "several rows a person, split by row",
    11: "a perfect generator, near-copies refused",
    12: "a constant column, no-data cells",
    13: "counts in three columns",
    14: "samples about few hub rows",
}


@dataclass(frozen=True)
class Case:
    """What a tool is shown, and the truth: copies, honest, unfair, units or hole."""

    scenario: int
    name: str
    truth: str
    train: Table
    holdout: Table
    samples: Table


def changed(rows: Table, name: str) -> Table:
    """Every row with its category `name` replaced by the next one."""
    column = rows.columns[rows.names.index(name)]
    values, code = np.unique(column, return_inverse=True)
    return rows.put(name, values[(code + 1) % len(values)])


def first(made: Table, fresh: Table, share: float) -> Table:
    """`share` of the rows from `made`, the others fresh."""
    count = max(round(share * len(fresh)), 1)
    return made.take(np.arange(count)).over(fresh.take(np.arange(count, len(fresh))))


def fresh(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        for k in (0, 1):
            yield Case(1, f"{name}, set {k}", "honest", *three(draw, side, 20 * seed + k))
    rng = np.random.default_rng((5, seed))
    laws = {"t of 1.5, d = 8": lambda: rng.standard_t(1.5, (SIDE, 8)),
            "ties": lambda: rng.binomial(12, 0.5, (SIDE, 4)).astype(float)}  # fmt: skip
    for name, law in laws.items():
        yield Case(1, name, "honest", *(Table.of(law()) for _ in range(3)))


def few_rows(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        # as many samples as there may be: a tenth of them lie about three rows
        side, samples = (125, 319) if name == "breast cancer" else (side, 5 * side)
        train, held, drawn = three(draw, side, 20 * seed + 2, samples)
        rng = np.random.default_rng((2, seed))
        for rows, share, noise in ((1, 1.0, 0.0), (5, 1.0, 0.05), (3, 0.1, 0.0), (3, 0.1, 0.05)):
            copy = train.take(rng.integers(rows, size=len(drawn)))
            scale = train.moved(rng, 0.0) if noise == 0 else None
            copy = copy if scale is not None else _near(train, copy, rng, noise)
            told = f"{name}, {share:.0%} equal {rows} rows" + (f" + {noise} sd" if noise else "")
            yield Case(2, told, "copies", train, held, first(copy, drawn, share))


def _near(train: Table, copy: Table, rng: np.random.Generator, noise: float) -> Table:
    """Noise of a share of the training rows' deviation."""
    both = train.over(copy).moved(rng, noise)
    return both.take(np.arange(len(train), len(both)))


def verbatim(seed: int) -> Iterator[Case]:
    for name, (_, draw, _) in tables().items():
        n, m, s = (360, 60, 120) if name == "breast cancer" else (1200, 200, 480)
        rows = draw(n + m + s, 20 * seed + 3)
        train, held = rows.take(np.arange(n)), rows.take(np.arange(n, n + m))
        drawn = rows.take(np.arange(n + m, len(rows)))
        yield Case(3, f"{name}, 10 of {s} at 6 : 1", "copies", train, held,
                   first(train, drawn, 10 / s))  # fmt: skip
        yield Case(3, f"{name}, 10% with 20 held-out rows", "copies", train,
                   held.take(np.arange(20)), first(train, drawn, 0.1))  # fmt: skip


def one_cell(seed: int) -> Iterator[Case]:
    for name, (side, draw, category) in tables().items():
        train, held, drawn = three(draw, side, 20 * seed + 4)
        for share in (1.0, 0.1, 0.01):
            yield Case(4, f"{name}, {share:.0%}, {category}", "copies", train, held,
                       first(changed(train, category), drawn, share))  # fmt: skip


def changed_pictures(seed: int) -> Iterator[Case]:
    for name, images in pictures().items():
        order = np.random.default_rng((6, seed)).permutation(len(images))[: 3 * SIDE]
        parts = np.split((images[order] * (255 // images.max())).astype(np.uint8), 3)
        noise = 25 * np.random.default_rng((7, seed)).standard_normal(parts[0].shape)
        kinds = {"brightened": parts[0] + 25.0, "mirrored": parts[0][..., ::-1],
                 "inverted": 255.0 - parts[0], "noise of 25": parts[0] + noise}  # fmt: skip
        for kind, made in kinds.items():
            copies = Table.of(np.clip(made, 0, 255).round().astype(np.uint8))
            for share in (1.0, 0.1):
                yield Case(5, f"{name}, {share:.0%} {kind}", "copies", *map(Table.of, parts[:2]),
                           first(copies, Table.of(parts[2]), share))  # fmt: skip


def units(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        train, held, drawn = three(draw, side, 20 * seed + 8)
        other = drawn
        for column in train.numeric:
            real = train.columns[train.names.index(column)]
            values = drawn.columns[drawn.names.index(column)]
            if name == "mixture":  # lengths in cm, beside metres
                values, real = values + 170, real + 170
                train = train.put(column, real)
                held = held.put(column, held.columns[held.names.index(column)] + 170)
                other = other.put(column, values / 100)
            else:
                other = other.put(column, (values - real.mean()) / max(real.std(), 1e-9))
        yield Case(6, f"{name}, samples scaled", "units", train, held, other)


def honest_fits(seed: int) -> Iterator[Case]:
    for name, (n, d) in {"d = 2": (SIDE, 2), "d = 3": (SIDE, 3), "d = 8": (SIDE, 8)}.items():
        law = 0.5 * np.eye(d) + 0.5
        rng = np.random.default_rng((9, d, seed))
        train, held, third = (rng.multivariate_normal(np.zeros(d), law, n) for _ in range(3))
        made = {
            "Gaussian": rng.multivariate_normal(train.mean(0), np.cov(train.T), n),
            "BIC mixture": bic_mixture(rng, train, n),
            "Scott kernel": scott(rng, train, n),
            "copula": copula(rng, train, n),
            "bootstrap of a third set": scott(rng, third, n),
        }
        for kind, rows in made.items():
            yield Case(7, f"{kind}, {name}", "honest", *map(Table.of, (train, held, rows)))


def bic_mixture(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """The mixture of least BIC whose components all hold more rows than there are columns.

    A component of fewer rows has a singular covariance, held up by a constant of the program
    alone: its likelihood has no bound, so that BIC says nothing, and it repeats the rows it holds.
    """
    from sklearn.mixture import GaussianMixture

    fits = [GaussianMixture(k, random_state=0).fit(rows) for k in range(1, 6)]
    fits = [f for f in fits if np.bincount(f.predict(rows), minlength=len(f.weights_)).min()
            > rows.shape[1]]  # fmt: skip
    best = min(fits, key=lambda fit: fit.bic(rows))
    best.random_state = int(rng.integers(2**31))
    return best.sample(count)[0]


def scott(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    n, d = rows.shape
    noise = rng.multivariate_normal(np.zeros(d), np.cov(rows.T), count)
    return rows[rng.integers(n, size=count)] + n ** (-1 / (d + 4)) * noise


def copula(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Gaussian, with the empirical margins."""
    n, d = rows.shape
    scores = stats.norm.ppf((rows.argsort(0).argsort(0) + 0.5) / n)
    rank = stats.norm.cdf(rng.multivariate_normal(np.zeros(d), np.corrcoef(scores.T), count))
    return np.take_along_axis(np.sort(rows, 0), np.minimum((rank * n).astype(int), n - 1), 0)


def histograms(seed: int) -> Iterator[Case]:
    for levels in ((3, 3, 3), (4, 4, 4), (4, 4, 4, 4)):
        cells = int(np.prod(levels))
        for epsilon in (1.0, 0.3):
            rng = np.random.default_rng((10, cells, int(10 * epsilon), seed))
            law = rng.dirichlet(np.ones(cells))
            train, held = rng.choice(cells, (2, SIDE), p=law)
            noisy = np.bincount(train, minlength=cells) + rng.laplace(0, 1 / epsilon, cells)
            made = np.maximum(noisy, 0)
            drawn = rng.choice(cells, SIDE, p=made / made.sum())
            sets = [np.stack(np.unravel_index(x, levels), 1) for x in (train, held, drawn)]
            yield Case(8, f"{cells} cells, epsilon {epsilon}", "honest",
                       *(Table.of(x.astype(float)) for x in sets))  # fmt: skip


def not_alike(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        train, held, drawn = three(draw, side, 20 * seed + 11)
        rng = np.random.default_rng((11, seed))
        column = train.numeric[0]
        there = held.columns[held.names.index(column)]
        yield Case(9, f"{name}, drift of 2 sd", "unfair", train,
                   held.put(column, (there + 2 * there.std()).round(6)), drawn)  # fmt: skip
        days = [rng.uniform(*ends, len(t)).round(6) for ends, t in
                (((0, 0.8), train), ((0.8, 1), held), ((0, 0.8), drawn))]  # fmt: skip
        dated = [t.put("days", d) for t, d in zip((train, held, drawn), days, strict=True)]
        yield Case(9, f"{name}, held-out rows later", "unfair", *dated)
        yield Case(9, f"{name}, swapped", "unfair", train, held,
                   held.take(rng.integers(len(held), size=len(drawn))))  # fmt: skip
        few = train.take(np.repeat(np.arange(side // 8), 8))
        yield Case(9, f"{name}, augmented 8 times", "unfair", few.moved(rng, 0.05), held, drawn)


def persons(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        for size in (10, 3):
            people = draw(3 * side // size, 20 * seed + 12)
            rng = np.random.default_rng((12, size, seed))
            rows = people.take(np.repeat(np.arange(len(people)), size)).moved(rng, 0.05)
            parts = np.array_split(rng.permutation(len(rows)), 3)
            yield Case(10, f"{name}, {size} rows a person", "unfair", *map(rows.take, parts))


def filtered(seed: int) -> Iterator[Case]:
    for name, d in (("normal", 2), ("normal", 3), ("mixture", 2)):
        rng = np.random.default_rng((13, d, len(name), seed))
        sizes = np.cumsum((SIDE, SIDE, 4000))
        rows = rng.standard_normal((sizes[2], d))
        if name == "mixture":
            rows += (
                4
                * np.random.default_rng(0).standard_normal((5, d))[rng.integers(5, size=len(rows))]
            )
        train, held, drawn = np.split(rows, sizes[:2])
        kept = drawn[~near_copies(drawn, train)]
        yield Case(11, f"{name}, d = {d}, {len(kept):,} samples", "hole",
                   *map(Table.of, (train, held, kept)))  # fmt: skip


def spoiled(seed: int) -> Iterator[Case]:
    for name, (side, draw, _) in tables().items():
        train, held, drawn = three(draw, side, 20 * seed + 14)
        rng = np.random.default_rng((14, seed))
        copies = first(train, drawn, 0.1)
        constant = [t.put("batch", np.full(len(t), 3.0)) for t in (train, held)]
        noisy = copies.put("batch", 3 + 5 * rng.standard_normal(len(copies)))
        yield Case(12, f"{name}, copies, noise on a constant", "copies", *constant, noisy)
        column = train.numeric[0]
        holed = train.columns[train.names.index(column)].copy()
        holed[7] = -9999.0
        yield Case(12, f"{name}, copies, a no-data cell", "copies", train.put(column, holed), held,
                   copies)  # fmt: skip
        yield Case(12, f"{name}, fresh, a no-data cell", "honest", train.put(column, holed), held,
                   drawn)  # fmt: skip


def counts(seed: int) -> Iterator[Case]:
    for n in (100, 150, 200):
        rng = np.random.default_rng((15, n, seed))
        sets = [rng.poisson(2.0, (k, 3)).astype(float) for k in (n, n, SIDE)]
        yield Case(13, f"Poisson(2), {n} rows a side", "honest", *map(Table.of, sets))


def hubs(seed: int) -> Iterator[Case]:
    """The samples lie in a core that holds k rows of the pool, by chance all of them training."""
    for k in (1, 3, 4):
        rng = np.random.default_rng((16, k, seed))
        pool = rng.standard_normal((2 * SIDE, 4))
        pool *= (9 + rng.random((2 * SIDE, 1))) / np.linalg.norm(pool, axis=1)[:, None]
        pool[:k] = 1 + 0.5 * rng.standard_normal((k, 4))
        drawn = 1 + 0.5 * rng.standard_normal((SIDE, 4))
        sets = (pool[:SIDE], pool[SIDE:], drawn)
        yield Case(14, f"{k} hub rows", "honest", *map(Table.of, sets))


MAKERS = {
    1: fresh, 2: few_rows, 3: verbatim, 4: one_cell, 5: changed_pictures, 6: units,
    7: honest_fits, 8: histograms, 9: not_alike, 10: persons, 11: filtered, 12: spoiled,
    13: counts, 14: hubs,
}  # fmt: skip


def every(seed: int = 0, scenarios: Iterable[int] = MAKERS) -> Iterator[Case]:
    """All cases of the scenarios, in their order; another seed gives other rows of the same."""
    for number in scenarios:
        yield from MAKERS[number](seed)
