"""What would have been seen: copies of training rows of each kind, planted and counted.

    verbatim     distinct training rows as they are
    noise        distinct rows with a little noise on every number
    one record   one row many times, with that noise
    one cell     distinct rows with one cell changed (tables and symbols)
    brightness, mirror   distinct pictures, changed so

A planting is caught where the plain facts alone call it copies (`facts.counted`). Others' rows are
planted in turn, so that a rate over plantings is one over records. Of a large pool some rows are
taken, and the samples that are there stand beside the planted ones only for the kind that counts
their density; the expected numbers are those of all samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from reverie.auditing.common_space import CommonSpace, in_common
from reverie.auditing.facts.counted import KnownPool, count_facts
from reverie.auditing.facts.neighbours import nearest
from reverie.data import Dataset, ManifoldCoder, PointsCoder, set_apart
from reverie.errors import InputError

SHARES = (0.005, 0.01, 0.05)
PLANTINGS, FEWER = 4, 2  # fewer where one costs as much as an audit
MOST_ROWS, MOST_COPIES, MOST_SAMPLES = 4000, 100, 2000
NUMBERS = 2**20  # of a side that plantings look at, and at least 64 rows
NOISE = 0.05  # deviations of each column
SPACING = 1 / 6  # and at most this part of the typical distance to the nearest row
PIXEL_NOISE, BRIGHTER = 25 / 255, 25 / 255  # of the range of pixels
CELLS = 3  # columns of a table from which on a changed cell leaves a record
NEEDED = 0.8  # of the plantings


@dataclass(frozen=True)
class Power:
    """Share of plantings of one kind, `copies` (`share` of the samples), that were caught.

    noise: deviations per column (of the range, for pixels); 0 for none.
    """

    kind: str
    noise: float
    share: float
    copies: int
    caught: float
    stderr: float

    @property
    def words(self) -> str:
        """The kind of copy in words, with its noise."""
        told = {
            "verbatim": "verbatim copies",
            "noise": f"copies with noise of {self.noise:.2g} deviations a column",
            "one record": f"one record again and again, with noise of {self.noise:.2g} deviations",
            "one cell": "copies with one cell changed",
            "brightness": "brightened copies",
            "mirror": "mirrored copies",
            "pixel noise": "copies with noise of 25 of 255",
        }
        return f"{told[self.kind]} at {self.share:.2g} of the samples"


Change = Callable[[Dataset, np.ndarray, np.random.Generator], np.ndarray]


def planted_power(space: CommonSpace, seed: int = 0) -> list[Power]:
    """How often planted copies of each kind and share would have been called copies."""
    compared = set_apart(space.sets)[0] if space.apart else space.sets
    if len(space.drawn) == 0 or not compared or space.of_features:
        return []
    rng = np.random.default_rng((seed, 7))
    small = _some(replace(space, sets=compared), rng)
    pool = KnownPool.of(small)
    result = []
    for kind in _kinds(small):
        for share in SHARES:
            copies = min(max(round(share * len(space.drawn)), 1), MOST_COPIES)
            if result and result[-1].kind == kind and copies == result[-1].copies:
                continue
            result.append(_planted(small, pool, kind, copies, len(space.drawn), rng))
            if result[-1].caught == 1:
                break
    return result


def _kinds(space: CommonSpace) -> list[str]:
    train = space.sets[0]
    if train.kind == "images":
        return ["verbatim", "pixel noise", "brightness", "mirror"]
    kinds = ["verbatim"]
    if isinstance(space.coder, ManifoldCoder | PointsCoder):
        return kinds
    if space.coder is None and space.smooth.any():
        kinds += ["noise", "one record"]
    if math.prod(train.shape) >= CELLS:
        kinds.append("one cell")
    return kinds


def _planted(
    space: CommonSpace,
    pool: KnownPool,
    kind: str,
    copies: int,
    total: int,
    rng: np.random.Generator,
) -> Power:
    costly = space.sets[0].kind == "images" or kind == "one record"
    times = FEWER if costly else PLANTINGS
    hits, noise = 0, 0.0
    base = (
        space.sets[2].values[:MOST_SAMPLES] if kind == "one record" else space.sets[2].values[:0]
    )
    for _ in range(times):
        rows, noise = _copied(space, kind, copies, rng)
        both = np.concatenate([base, rows.astype(base.dtype)])
        sets = [*space.sets[:2], space.sets[2].with_values(both, "planted copies")]
        text: list[np.ndarray] = []
        try:
            arrays = in_common(sets, space.coder, [], text)
        except InputError:
            break  # a changed cell that the space does not hold
        planted = replace(
            space, members=arrays[0], held=arrays[1], drawn=arrays[2], sets=sets, cells=None,
            text=text[0] if text else None,
        )  # fmt: skip
        known = pool if arrays[0].shape == space.members.shape else None  # cells may be missing
        found = count_facts(planted, total=total, pool=known, density=kind == "one record")
        hits += found.copies
    rate = (hits + 0.5) / (times + 1)  # never an error of 0 (Agresti, Coull)
    error = math.sqrt(rate * (1 - rate) / (times + 1))
    return Power(kind, noise, copies / total, copies, hits / times, error)


def _copied(
    space: CommonSpace, kind: str, copies: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Raw rows (copies, *shape), and their noise in deviations (of the range, for pixels)."""
    train = space.sets[0]
    if kind == "one record":
        chosen = np.full(copies, rng.integers(len(train)))
    else:
        chosen = rng.choice(len(train), copies, replace=copies > len(train))
    values = train.values[chosen]
    if kind in ("noise", "one record"):
        size = _noise(space)
        return _with_noise(train, values, size, rng), size
    if kind == "one cell":
        return _one_cell(train, values, rng), 0.0
    if kind in ("pixel noise", "brightness", "mirror"):
        return _changed_picture(train, values, kind, rng), PIXEL_NOISE * (kind == "pixel noise")
    return values, 0.0


def _noise(space: CommonSpace) -> float:
    """Deviations a column; less where records are so close that it would hide whose copy it is."""
    some = space.members[:500]
    gap = nearest(some, space.members, 2)[0][:, 1]
    typical = float(np.median(gap[gap > 0])) if (gap > 0).any() else 0.0
    local = SPACING * typical / math.sqrt(max(int(space.smooth.sum()), 1))
    return min(NOISE, local) if typical > 0 else NOISE


def _with_noise(
    train: Dataset, values: np.ndarray, size: float, rng: np.random.Generator
) -> np.ndarray:
    flat = values.reshape(len(values), -1).astype(np.float64)
    own = train.values.reshape(len(train), -1).astype(np.float64)
    finite = np.isfinite(own)
    known = finite.sum(0)
    order = np.sort(np.where(finite, own, np.inf), 0)  # no-data values stay at the ends
    low, high = (
        np.take_along_axis(order, (np.maximum(known - 1, 0) * part).astype(int)[None], 0)[0]
        for part in (0.16, 0.84)
    )
    numeric = known >= 2
    if train.fields:
        numeric &= np.array([field.kind != "categorical" for field in train.fields])
    width = np.where(numeric, 0.5 * (np.where(numeric, high, 0) - np.where(numeric, low, 0)), 0)
    added = size * width * rng.standard_normal(flat.shape)
    whole = (~finite | (own == np.round(own))).all(0)
    return (flat + np.where(whole, np.round(added), added)).reshape(values.shape)


def _one_cell(train: Dataset, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = values.reshape(len(values), -1).copy()
    own = train.values.reshape(len(train), -1)
    for row in flat:
        column = int(rng.integers(flat.shape[1]))
        known = np.unique(own[:, column])
        other = known[known != row[column]]
        if len(other):
            row[column] = rng.choice(other)
    return flat.reshape(values.shape)


def _changed_picture(
    train: Dataset, values: np.ndarray, kind: str, rng: np.random.Generator
) -> np.ndarray:
    low, high = float(train.values.min()), float(train.values.max())
    changed = values.astype(np.float64)
    if kind == "mirror":
        changed = changed[..., ::-1]
    elif kind == "brightness":
        changed = changed + BRIGHTER * (high - low)
    else:
        changed = changed + PIXEL_NOISE * (high - low) * rng.standard_normal(changed.shape)
    changed = np.clip(changed, low, high)
    whole = values.dtype.kind in "iu"
    return (np.round(changed) if whole else changed).astype(values.dtype)


def _some(space: CommonSpace, rng: np.random.Generator) -> CommonSpace:
    """At most MOST_ROWS of each side and MOST_SAMPLES samples, fewer of wide ones, at random."""
    room = max(NUMBERS // max(space.members.shape[1], 1), 64)
    places = []
    for rows, most in ((space.members, MOST_ROWS), (space.held, MOST_ROWS),
                       (space.drawn, MOST_SAMPLES)):  # fmt: skip
        count, most = len(rows), min(most, room)
        order = rng.permutation(count)[:most] if count > most else np.arange(count)
        places.append(np.sort(order))
    groups = space.group_ids
    return replace(
        space, members=space.members[places[0]], held=space.held[places[1]],
        drawn=space.drawn[places[2]], cells=None,
        sets=[data.take(place) for data, place in zip(space.sets, places, strict=True)],
        group_ids=None if groups is None else (groups[0][places[0]], groups[1][places[1]]),
    )  # fmt: skip
