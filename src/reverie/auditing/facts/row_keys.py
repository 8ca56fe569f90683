"""Which rows agree in all but k columns: by hashing every set of columns, never pair by pair.

A row's key is the sum over its columns of a 64-bit mix of (column, value), modulo 2^64; leaving
columns out subtracts theirs. Rows of equal keys are compared value by value before they count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

BLOCK = 2**14  # rows whose values are mixed at a time
SIEVE = 16  # places of the sieve per known key, by which most queries are dismissed
CODES = 2**26  # codes of queries held at a time (512 MiB)


def comparable(sets: list[np.ndarray]) -> list[np.ndarray]:
    """The sets as (n, d), in the coarsest floating type among them (bytes stay bytes)."""
    kinds = {a.dtype for a in sets}
    floats = [kind for kind in kinds if kind.kind == "f"]
    common = min(floats, key=lambda kind: kind.itemsize) if floats else np.dtype(np.float64)
    common = kinds.pop() if len(kinds) == 1 else common
    return [a.reshape(len(a), -1).astype(common, copy=False) for a in sets]


def column_codes(rows: np.ndarray) -> np.ndarray:
    """(d, n) of uint64: a mix of column and value; -0 equals 0, missing cells equal one another.

    The mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014).
    """
    codes = np.empty((rows.shape[1], len(rows)), np.uint64)
    salt = (np.arange(rows.shape[1], dtype=np.uint64) + np.uint64(1))[:, None]
    salt *= np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK].T
        bits = codes[:, start : start + BLOCK]
        if rows.dtype.kind == "f":
            values = block + rows.dtype.type(0)
            values[np.isnan(values)] = np.nan
            bits[:] = values.view(f"u{rows.dtype.itemsize}")
        else:
            bits[:] = block.astype(np.int64).view(np.uint64)
        bits += salt
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits ^= bits >> np.uint64(shift)
            bits *= np.uint64(factor)
        bits ^= bits >> np.uint64(31)
    return codes


@dataclass(frozen=True, eq=False)
class Keys:
    """Rows (n, d), column codes (d, n), or none where whole rows are asked for; keys (n,).

    record (n,): equal for rows that are one record, each its own where it is not given.
    """

    rows: np.ndarray
    codes: np.ndarray | None
    total: np.ndarray
    record: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray, *, parts: bool = True, record: np.ndarray | None = None) -> Keys:
        """parts: keep the codes, so that columns can be left out."""
        if not parts:
            return cls(rows, None, row_keys(rows), record)
        codes = column_codes(rows)
        return cls(rows, codes, codes.sum(0, dtype=np.uint64), record)

    def without(self, columns: tuple[int, ...]) -> np.ndarray:
        """Keys (n,) over all other columns."""
        key = self.total
        for column in columns:
            assert self.codes is not None
            key = key - self.codes[column]
        return key


def row_keys(rows: np.ndarray) -> np.ndarray:
    """Keys (n,) of rows (n, d), in bounded memory; equal rows, in practice only they, agree."""
    return np.concatenate(
        [column_codes(rows[part]).sum(0, dtype=np.uint64) for part in _parts(*rows.shape)]
        or [np.empty(0, np.uint64)]
    )


def _parts(count: int, width: int) -> Iterator[slice]:
    size = max(BLOCK, CODES // max(width, 1))
    for start in range(0, count, size):
        yield slice(start, start + size)


def agreeing(pool: Keys, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each query (Q, d): a pool row that agrees in all but at most k columns.

    Returns found (Q,) of pool indices, -1 where there is none; alone (Q,) of bool, whether no
    other pool row agrees so far; skipped (Q,) the columns left out, as places in
    `subsets(d, k)`. Memory is bounded in Q; time grows with (Q + N) times the subsets.
    """
    count, width = queries.shape
    found, alone = np.full(count, -1), np.ones(count, bool)
    skipped = np.zeros(count, np.int64)
    for part in _parts(count, width):
        keys = Keys.of(queries[part], parts=k > 0)
        near, single, place = found[part], alone[part], skipped[part]  # views
        for number, columns in enumerate(subsets(width, k)):
            query, row, once = _lookup(pool, pool.without(columns), keys, columns)
            fresh = near[query] < 0
            other = ~fresh & (near[query] != row)
            single[query[other | ~once]] = False
            near[query[fresh]], place[query[fresh]] = row[fresh], number
    return found, alone & (found >= 0), skipped


def repeated(rows: Keys, sets: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) that agree with an earlier row in all columns but those of one of the sets.

    Returns met (n,), whether any earlier row agrees, and alone (n,), whether the two are the only
    rows that agree so.
    """
    met, alone = np.zeros((2, len(rows.total)), bool)
    for columns in sets:
        key = rows.without(columns)
        order = np.argsort(key, kind="stable")
        later = key[order][1:] == key[order][:-1]
        start = np.flatnonzero(np.concatenate([[True], ~later]))
        met[order[1:][later]] = True
        two = np.diff(np.append(start, len(order))) == 2
        alone[order[start[two] + 1]] = True
    return met, alone


def subsets(width: int, k: int) -> list[tuple[int, ...]]:
    """Every choice of k columns."""
    return list(combinations(range(width), k))


def _lookup(
    pool: Keys, known: np.ndarray, queries: Keys, columns: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries (M,) whose key is known, a pool row (M,) each, and whether its key is the only."""
    asked = queries.without(columns)
    bits = int(np.clip(np.ceil(np.log2(SIEVE * len(known))), 8, 24))
    shift = np.uint64(64 - bits)
    sieve = np.zeros(2**bits, bool)
    sieve[known >> shift] = True
    query = np.flatnonzero(sieve[asked >> shift])
    if len(query) == 0:
        return query, query, np.empty(0, bool)
    order = np.argsort(known, kind="stable")
    sorted_keys = known[order]
    left = np.searchsorted(sorted_keys, asked[query], "left")
    hit = sorted_keys[np.minimum(left, len(known) - 1)] == asked[query]
    query, left = query[hit], left[hit]
    row = order[left]
    same = _equal(pool.rows[row], queries.rows[query], columns)
    query, left, row = query[same], left[same], row[same]
    if pool.record is None:
        after = np.minimum(left + 1, len(known) - 1)
        once = (after == left) | (sorted_keys[after] != sorted_keys[left])
        return query, row, once
    record = pool.record[order]
    changes = np.concatenate([[0], np.cumsum(record[1:] != record[:-1])])
    last = np.searchsorted(sorted_keys, sorted_keys[left], "right") - 1
    return query, record[left], changes[last] == changes[left]


def _equal(first: np.ndarray, second: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    same = first == second
    if first.dtype.kind == "f":
        same |= np.isnan(first) & np.isnan(second)
    same[:, list(columns)] = True
    return same.all(1)
