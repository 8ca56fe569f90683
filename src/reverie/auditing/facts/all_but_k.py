"""Samples that agree with one training row in all but k = 1, 2 columns of a table.

A sample counts at its least k only, where the columns that agree are two or more and exactly one
row of the pool agrees: a value that several rows share, or a sample that resembles several rows,
gives nobody away. So a training row with one cell changed counts even where cells agree often,
while fresh rows fall to training and held-out rows in proportion to their numbers. Tables hold
pairs of such rows by themselves (a car, and the same car a year later): real rows that agree so
are a yardstick, and by one row alone nobody is sure.

Every set of columns is hashed (`row_keys`), so time grows with rows times C(d, k).
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from reverie.auditing.facts.expected_matches import expected_matches
from reverie.auditing.facts.fact import Fact, Match, Repeated, listed
from reverie.auditing.facts.row_keys import Keys, agreeing, repeated, subsets
from reverie.auditing.facts.rows_of import Rows
from reverie.auditing.facts.verbatim import Agreement, agreement, judged

MOST = 2  # columns left out
LEAST = 2  # rows: one pair of records that differ in a cell is found in many a table
TELLING = 0.5  # matches that chance makes in all sets of columns that tell by themselves
WIDEST = 64  # columns of a table; vectors and pictures beyond are a matter of distance
WORK = 4e8  # rows times sets of columns
PROBES = 20_000  # held-out rows that are asked for their training rows


def deepest(rows: Rows) -> int:
    """The most columns that are left out: two must agree, and the time is bounded."""
    width, count = rows.train.shape[1], len(rows.pool) + len(rows.drawn)
    most = 0
    for k in range(1, MOST + 1):
        if width <= WIDEST and width - k >= 2 and len(subsets(width, k)) * count <= WORK:
            most = k
    return most


def all_but_k(rows: Rows, equal: Agreement, total: int) -> list[Fact]:
    """Up to two facts for each k up to `deepest`: sets of columns that tell by themselves, others.

    equal: `agreement` of the samples at k = 0; who equals a row is not asked again.
    """
    most = deepest(rows)
    if most == 0:
        return []
    n, facts = len(rows.train), []
    unequal = np.flatnonzero(~equal.met)
    alive, copied = unequal, (equal.row >= 0) & (equal.row < n)
    pool = Keys.of(rows.pool, record=rows.keys.record)
    for k in range(1, most + 1):
        near = agreement(pool, rows.drawn[alive], k)
        row, skipped = np.full(len(rows.drawn), -1), np.zeros(len(rows.drawn), np.int64)
        row[alive], skipped[alive] = near.row, near.skipped
        alive = alive[~near.met]
        copied |= (row >= 0) & (row < n)
        if not ((row >= 0) & (row < n)).any():
            facts.append(judged(rows, "all but k", _changed([], k), row, 0, 0, 0.0, []))
            continue
        chance = expected_matches(rows.train, rows.held, rows.drawn[~copied], total)
        expected = chance.without(subsets(rows.train.shape[1], k))
        told = _telling(expected)
        probes = _held_probes(rows, pool, k)
        for group in (told, ~told):
            some = np.where(group[skipped], row, -1)
            if not ((some >= 0) & (some < n)).any():
                continue
            ours = skipped[(some >= 0) & (some < n)]
            hits, tried = _recombined(rows, rows.drawn[unequal], k, ours, group)
            records = _records(rows, some, skipped, k)
            facts.append(
                judged(
                    rows, "all but k", _changed(records, k), some, hits, tried,
                    float(expected[group].sum()), records, *probes,
                    repeats=partial(_repeats, pool, n, k, group), total=total, least=LEAST,
                )
            )  # fmt: skip
    return facts


def _telling(expected: np.ndarray) -> np.ndarray:
    """Mask (sets,) of the sets of columns that chance hardly leaves alone, taken together.

    They are counted by themselves: one column that names the row (a weight, an amount) tells more
    where it agrees than where it is what differs.
    """
    order = np.argsort(expected, kind="stable")
    told = np.zeros(len(expected), bool)
    told[order[np.cumsum(expected[order]) <= TELLING]] = True
    return told


def _records(rows: Rows, row: np.ndarray, skipped: np.ndarray, k: int) -> list[Match]:
    names = [listed([rows.names[j] for j in s]) for s in subsets(rows.train.shape[1], k)]
    return [
        Match(int(s), int(row[s]), f"{names[skipped[s]]} changed", float(k))
        for s in np.flatnonzero((row >= 0) & (row < len(rows.train)))
    ]


def _recombined(
    rows: Rows, queries: np.ndarray, k: int, skipped: np.ndarray, group: np.ndarray
) -> tuple[int, float]:
    """Recombined rows that samples agree with, and not with their base; how many might have been.

    skipped: the columns that differ from the training rows that are given away. Where those hold
    the cell that moved, nobody's row is its base. group: the sets of columns that count.
    """
    left_out = np.array(subsets(rows.train.shape[1], k))[skipped]
    hits, tried = 0, 0.0
    for part in rows.recombined:
        if len(part.rows) == 0 or len(queries) == 0:
            continue
        found, alone, place = agreeing(Keys.of(part.rows), queries, k)
        alone &= group[place]
        base = rows.train[part.base[found[alone]]]
        apart = (base != queries[alone]).sum(1) > k
        hits += len(np.unique(found[alone][apart]))
        tried += len(part.rows) * float(1 - (left_out == part.column).any(1).mean())
    return hits, tried


def _held_probes(rows: Rows, pool: Keys, k: int) -> tuple[int, int]:
    """Held-out rows that agree with a training row in all but k columns, and of how many."""
    assert pool.codes is not None
    n = len(rows.train)
    train = Keys(
        rows.train,
        pool.codes[:, :n],
        pool.total[:n],
        None if pool.record is None else pool.record[:n],
    )
    probes = rows.held[:: max(1, -(-len(rows.held) // PROBES))]
    return int((agreeing(train, probes, k)[0] >= 0).sum()), len(probes)


def _repeats(pool: Keys, n: int, k: int, group: np.ndarray) -> Repeated:
    """Pool rows that agree with one other pool row in all but k columns, of the sets in `group`,
    and in no more."""
    width, some = pool.rows.shape[1], np.flatnonzero(group)
    sets = subsets(width, k)
    alone = repeated(pool, [sets[i] for i in some])[1]
    alone &= ~repeated(pool, subsets(width, k - 1))[0]
    return Repeated(int(alone[:n].sum()), int(alone[n:].sum()), n, len(alone) - n)


def _changed(records: list[Match], k: int) -> str:
    """What was changed, where that is one and the same; else the number of cells."""
    count = Counter(record.change for record in records)
    often = [name for name, times in count.most_common(3) if times > len(records) / 2]
    return often[0] or "" if often else f"{k} cell{'s' if k > 1 else ''} changed"
