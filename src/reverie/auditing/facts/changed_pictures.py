"""Samples that are a training picture after a change: brightness, a shift, noise, JPEG.

Pictures are standardised (mean 0, norm 1). Each sample x, with one change undone, is laid beside
the pool; let p correlate with it best, over all changes. If x is p with noise, or with little
lost, what is left of x resembles no other picture q, and c(x, q) = c(x, p) c(p, q). So let

    margin = least over q of   (c(x, p) - c(x, q)) / (c(x, p) (1 - c(p, q)))

which is 1 for such an x, whatever the noise, and about 1/2 or less for a fresh picture, which
stands between p and its neighbours. A sample counts whose margin is above `MARGIN`.

The number that fresh pictures would give is counted on held-out and training rows that are taken
out. Candidates p and q come from exact neighbours in the leading components of the pool, where
noise is weak; correlations are of whole pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.change_names import named
from reverie.auditing.facts.fact import Fact, Match, beyond_chance, beyond_held
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.facts.picture_changes import Change, changes, standardised

SIDE = 32  # pixels that are compared, of larger pictures
NUMBERS = 2**28  # of standardised pool pictures
COMPONENTS, FIT = 48, 2000
CANDIDATES = 8
MARGIN, LEAST = 0.75, 0.5  # and the least correlation
LEVEL = 0.01  # of the one comparison with held-out rows, all changes together
BLOCK = 512  # pictures changed at a time
PROBES, WORK = 1000, 1.5e10  # pool rows taken out, and the products they may cost


@dataclass(frozen=True, eq=False)
class Found:
    """For each picture asked (Q,): its best pool row, change, correlation and margin."""

    row: np.ndarray
    change: np.ndarray
    correlation: np.ndarray
    margin: np.ndarray

    def part(self, rows: slice) -> Found:
        return Found(self.row[rows], self.change[rows], self.correlation[rows], self.margin[rows])

    @property
    def hit(self) -> np.ndarray:
        return (self.margin > MARGIN) & (self.correlation > LEAST)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Standardised pool pictures (N, p), their leading components (N, c) and the basis (p, c)."""

    whole: np.ndarray
    short: np.ndarray
    basis: np.ndarray
    side: int
    same: np.ndarray  # (N,) the first row of the same standardised picture

    @classmethod
    def of(cls, pool: np.ndarray) -> Pictures:
        channels, most = pool.shape[1], NUMBERS / len(pool)
        side = int(min(SIDE, max(8, np.sqrt(most / channels))))
        whole = np.concatenate([standardised(part, side) for part in _parts(pool)])
        some = whole[np.random.default_rng(0).permutation(len(whole))[:FIT]]
        _, vectors = np.linalg.eigh(some.T @ some) if some.shape[1] <= FIT else _thin(some)
        basis = np.ascontiguousarray(vectors[:, -COMPONENTS:])
        rounded = np.round(whole[:, :: max(1, whole.shape[1] // 64)], 4)
        same = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
        return cls(whole, whole @ basis, basis, side, same[1][same[2].ravel()])


def _thin(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of some.T @ some, where the rows are fewer than the columns."""
    values, left = np.linalg.eigh(some @ some.T)
    return values, some.T @ (left / np.sqrt(np.maximum(values, 1e-12)))


def changed_pictures(
    space: CommonSpace, equal: np.ndarray, *, products: bool = False
) -> list[Fact]:
    """The fact of pictures that come back changed; none for fewer than 8 pixels a side.

    equal: (S,) samples that equal a pool row, which are not counted again. products: also pairs of
    changes.
    """
    train, held, drawn = (data.values for data in space.sets)
    left = np.flatnonzero(~equal)
    if min(train.shape[-2:]) < 8 or len(left) == 0:
        return []
    pool = np.concatenate([train, held])
    pictures, maps = Pictures.of(pool), changes(train.shape[1:], products=products)
    n, m = len(train), len(held)
    probes = _probes(len(pool), len(maps))
    asked = np.concatenate([drawn[left].astype(pool.dtype, copy=False), pool[probes]])
    without = np.concatenate([np.full(len(left), -1), probes])
    both = search(pictures, pool, asked, maps, without)
    found, probed = both.part(slice(len(left))), int(both.part(slice(len(left), None)).hit.sum())
    hits = np.flatnonzero(found.hit)
    ours = hits[found.row[hits] < n]
    rows = np.unique(found.row[ours])
    theirs = len(np.unique(found.row[hits[found.row[hits] >= n]]))
    expected = len(left) * n / len(pool) * (probed + 1) / len(probes)
    sure = len(rows) * m > 3 * theirs * n and beyond_chance(len(rows), expected)
    names = named(pool, drawn, left, found.row, found.change, maps, ours)
    records = [
        Match(int(left[i]), int(found.row[i]), name, _apart(found.correlation[i]))
        for i, name in zip(ours, names, strict=True)
    ]
    return [
        Fact(
            "changed picture", _commonest(names), len(ours), len(drawn), len(rows), n, theirs, m,
            sure=sure, beyond=sure or beyond_held(len(rows), n, theirs, m, LEVEL),
            train_rows=rows, sample_rows=left[ours], records=records, expected=expected,
            probes=probed, probe_total=len(probes),
        )
    ]  # fmt: skip


def search(
    pictures: Pictures,
    pool: np.ndarray,
    asked: np.ndarray,
    maps: list[Change],
    without: np.ndarray | None = None,
) -> Found:
    """The best pool row of each picture asked (Q, ...), over all changes.

    Changes are undone on the pictures asked, or made on the pool where that is by far the smaller
    side, or where much is cut off. without:
    (Q,) a pool row that each may not find, -1 for none.
    """
    row, change = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
    best, margin = np.full(len(asked), -1.0), np.zeros(len(asked))
    for number, made, candidate, score, x in _laid_beside(pictures, pool, asked, maps):
        if without is not None:
            own = np.where(without[x] < 0, -1, pictures.same[without[x]])
            banned = pictures.same[candidate] == own[:, None]
            score = np.where(banned, -1.0, score)
        place = score.argmax(1)
        top = score[np.arange(len(score)), place]
        better = np.flatnonzero(top > best[x])
        if len(better) == 0:
            continue
        near = candidate[better]
        p = near[np.arange(len(near)), place[better]]
        to = x[better]
        best[to], row[to], change[to] = top[better], p, number
        margin[to] = _margin(pictures, made, near, score[better], p, top[better])
    return Found(row, change, best, margin)


def _laid_beside(
    pictures: Pictures, pool: np.ndarray, asked: np.ndarray, maps: list[Change]
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Per change and block of pictures asked (B,): the change's number, the pool's pictures,
    candidates (B, k), their correlations (B, k), and which pictures are asked (B,)."""
    plain = standardised(asked, pictures.side)
    for number, change in enumerate(maps):
        made, short = pictures.whole, pictures.short
        forward = change.lossy or (len(asked) > 4 * len(pool) and number > 0)
        if forward:
            made = np.concatenate(
                [standardised(change.apply(_real(part)), pictures.side) for part in _parts(pool)]
            )
            short = made @ pictures.basis
        for start in range(0, len(asked), BLOCK):
            x = np.arange(start, min(start + BLOCK, len(asked)))
            seen = plain[x]
            if not forward and number > 0:
                seen = standardised(change.undo(_real(asked[x])), pictures.side)
            candidate = nearest(seen @ pictures.basis, short, CANDIDATES)[1]
            yield number, made, candidate, np.einsum("bkp,bp->bk", made[candidate], seen), x


def _margin(
    pictures: Pictures, made: np.ndarray, near: np.ndarray, score: np.ndarray, p: np.ndarray,
    top: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """(B,) see the module; candidates (B, k), their correlations, the best row and its own."""
    alike = np.einsum("bkp,bp->bk", made[near], made[p])
    other = (pictures.same[near] != pictures.same[p][:, None]) & (score > -1)
    gap = np.maximum(1 - alike, 1e-6)
    value = (top[:, None] - score) / (np.maximum(top, 1e-6)[:, None] * gap)
    return np.where(other, value, np.inf).min(1)


def _real(pictures: np.ndarray) -> np.ndarray:
    return np.asarray(pictures, np.float32)


def _parts(pictures: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pictures), BLOCK):
        yield pictures[start : start + BLOCK]


def _probes(total: int, maps: int) -> np.ndarray:
    most = int(min(max(WORK / (total * maps * COMPONENTS), 100), PROBES, total))
    return np.sort(np.random.default_rng(0).choice(total, most, replace=False))


def _apart(correlation: Any) -> float:
    """Distance of two standardised pictures."""
    return float(np.sqrt(max(2 - 2 * float(correlation), 0.0)))


def _commonest(names: list[str]) -> str | None:
    """The changes that are found most, up to three."""
    count = Counter(names)
    often = [name for name, times in count.most_common(3) if times > 0.05 * len(names)]
    return "; ".join(often) + ("; others" if len(often) < len(count) else "") or None
