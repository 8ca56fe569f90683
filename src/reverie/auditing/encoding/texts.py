"""Categories as coordinates: one-hot while the levels are few, else compared as text.

No set of points in k dimensions has over k + 1 points at equal distances, so beyond LEVELS levels
a category is no longer merely equal or not: its distance is that of q-gram profiles (Ukkonen
1992), 0 for equal texts, about 1 for texts that share nothing, and small for one with a typing
fault. A profile counts the text's triples of letters, or its words and pairs of words where texts
are long, each weighted by its rarity among the pool's levels; every such gram is a vector of
random signs, the bits of its hash, so that scalar products hold to about 1 / sqrt(BITS) and the
same text has the same coordinates everywhere. The whole text is a gram of its own: texts that
differ are never at distance 0. Nothing depends on the side, nor on the order of the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

LEVELS = 256  # of the pool, up to which a category is one-hot
BITS = 128  # coordinates of a profile
LONG = 64  # letters in the mean, from which on words are counted
WHOLE = 0.01  # part of the squared length that the text as a whole has
LEAST_WEIGHT = 0.05  # of a gram that every text has


def one_hot(pool: np.ndarray, sets: list[np.ndarray]) -> list[np.ndarray]:
    """Codes (n,) of each set as one-hot coordinates over sqrt(2); NaN is a level of its own.

    Levels that the pool (N,) does not have share one coordinate.
    """
    known = np.unique(pool[~np.isnan(pool)])
    unseen, absent = len(known), len(known) + 1
    levels = []
    for values in sets:
        level = np.where(np.isnan(values), absent, unseen)
        inside = np.isin(values, known)
        level[inside] = np.searchsorted(known, values[inside])
        levels.append(level)
    used = np.unique(np.concatenate(levels))
    return [(level[:, None] == used) / np.sqrt(2) for level in levels]


def as_text(texts: Sequence[str], pool: np.ndarray, sets: list[np.ndarray]) -> list[np.ndarray]:
    """Codes (n,) of each set, indices into `texts`, as profiles (n, BITS + 1).

    The last coordinate is 1 / sqrt(2) where the cell is missing: 1 apart from all that is there.
    """
    used = np.unique(np.concatenate([values[~np.isnan(values)] for values in sets])).astype(int)
    known = np.isin(used, pool[~np.isnan(pool)].astype(int))
    vectors = profiles([str(texts[code]) for code in used], known)
    result = []
    for values in sets:
        absent = np.isnan(values)
        rows = np.zeros((len(values), BITS + 1))
        rows[~absent, :BITS] = vectors[np.searchsorted(used, values[~absent].astype(int))]
        rows[absent, BITS] = np.sqrt(0.5)
        result.append(rows)
    return result


def profiles(texts: Sequence[str], known: np.ndarray) -> np.ndarray:
    """Vectors (L, BITS) of squared length 1/2; known: mask (L,) of the texts that set weights."""
    pooled = [text for text, is_known in zip(texts, known, strict=True) if is_known]
    pooled = pooled or list(texts)
    split = _words if sum(map(len, pooled)) > LONG * len(pooled) else _triples
    place: dict[str, int] = {}
    row, column, count = [], [], []
    for number, text in enumerate(texts):
        for gram, times in Counter(split(text.casefold())).items():
            row.append(number)
            column.append(place.setdefault(gram, len(place)))
            count.append(times)
    shape = (len(texts), max(len(place), 1))
    table = csr_array((np.array(count, float), (row, column)), shape)
    often = (table[np.flatnonzero(known)] > 0).sum(0) if known.any() else np.zeros(shape[1])
    weight = np.log((1 + known.sum()) / (1 + np.asarray(often).ravel())).clip(LEAST_WEIGHT)
    table = table * weight[None, :]
    length = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    body = (table @ _signs(list(place) or [""])) / np.maximum(length, 1e-300)[:, None]
    whole = _signs(["\0" + text for text in texts])
    vectors = np.sqrt(1 - WHOLE) * body + np.sqrt(WHOLE) * whole
    return vectors * np.sqrt(0.5) / np.linalg.norm(vectors, axis=1, keepdims=True)


def _triples(text: str) -> list[str]:
    padded = f"\1\1{text}\2\2"
    return [padded[k : k + 3] for k in range(len(padded) - 2)]


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+|[^\w\s]", text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _signs(grams: Sequence[str]) -> np.ndarray:
    """Random signs (G, BITS), the bits of each gram's hash."""
    digest = b"".join(
        blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=BITS // 8).digest()
        for gram in grams
    )
    bits = np.unpackbits(np.frombuffer(digest, np.uint8).reshape(len(grams), BITS // 8), axis=1)
    return 2.0 * bits - 1
