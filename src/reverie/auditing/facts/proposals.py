"""Which points are likely the nearest, by products in one precision: what `neighbours` certifies.

Scores |x|^2 - 2 xq come tile by tile out of one matrix product each, and while a tile is still in
the cache the least of every group of its columns is noted. The smallest scores of a row lie in the
groups of least minima, so only these are read again. The products are NumPy's,
which on large tiles were quicker than torch's where both were tried; the minima are torch's.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from reverie.errors import InputError

GROUP = 16  # columns of a tile whose least score is noted
PASSES = 12  # smallest of a row that are sought one by one, quicker than by a partial sort
SHORT, LONG = (512, 2048, 10), (2048, 2048, 5)  # queries, points of a tile, tiles of a block
SHORT_COLUMNS = 128
ROWS = 2**14  # that are only passed through
GPU_MOST = 2048  # neighbours that faiss finds on a GPU

Told = Callable[[float], None]  # the share of the points that is done


class Points(Protocol):
    """Rows (n, d): an array, one that is mapped, or rows on disk that are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Proposal:
    """Indices (B, width) of the likely nearest points, and what their distances cannot be below.

    least: (B, width) of squared distance, ascending; no point left out lies below the last.
    slack: (B,), so that a squared distance lies within `least` and `least` + 2 `slack`.
    """

    found: np.ndarray
    least: np.ndarray
    slack: np.ndarray


@dataclass(frozen=True, eq=False)
class Asked:
    """The queries (Q, d), the places (B,) of those that are asked, and how many points for each.

    centre: (d,), taken off both sides. skip_self: queries are the points.
    """

    queries: np.ndarray
    rows: np.ndarray
    width: int
    centre: np.ndarray
    skip_self: bool


def release(points: Any) -> None:
    """Let go of the pages of a mapped array that were read; they stay in the system's cache."""
    mapped = getattr(points, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and not points.flags.writeable:
        mapped.madvise(mmap.MADV_DONTNEED)


def centre_of(points: Points) -> np.ndarray:
    """Mean (d,) of the points, block by block."""
    total = np.zeros(points.shape[1])
    for start in range(0, len(points), ROWS):
        total += points[start : start + ROWS].sum(0, dtype=np.float64)
        release(points)
    return total / len(points)


def by_products(points: Points, asked: Asked, dtype: type, told: Told) -> Proposal:
    """The nearest of the asked queries by |x|^2 - 2 xq, with products in `dtype`."""
    left, norm = _augmented_queries(asked, dtype)
    best = np.full((len(left), asked.width), np.inf, dtype)
    found = np.zeros((len(left), asked.width), np.int64)
    # few columns leave the tile to be read; long products repay more rows and columns at once
    height, wide, tiles = SHORT if points.shape[1] <= SHORT_COLUMNS else LONG
    blocks = -(-len(points) // (wide * tiles))
    size = -(-len(points) // blocks)  # points of a block, in tiles of one width
    tiles = -(-size // wide)
    wide = -(-size // (tiles * GROUP)) * GROUP
    # one buffer: fresh pages for every block cost more than the products
    room = np.empty(tiles * min(height, len(left)) * wide, dtype)
    radius = 0.0
    for start in range(0, len(points), size):
        part = points[start : min(start + size, len(points))]
        right, farthest = _augmented(part, asked.centre, tiles * wide, dtype)
        release(points)
        radius = max(radius, farthest)
        for top in range(0, len(left), height):
            block = slice(top, top + height)
            shape = (tiles, len(left[block]), wide)
            scores = room[: tiles * shape[1] * wide].reshape(shape)
            own = asked.rows[block] - start if asked.skip_self else None
            minima = _fill(scores, left[block], right, own)
            _merge(best[block], found[block], scores, minima, start)
        told(min(start + size, len(points)) / len(points))
    slack = slack_of(norm, radius, points.shape[1], dtype)
    return Proposal(found, best.astype(np.float64) + (norm**2 - slack)[:, None], slack)


def slack_of(norm: np.ndarray, radius: float, dim: int, dtype: type) -> np.ndarray:
    """What rounding can do to a score, (B,): products in `dtype`, then the float64 differences."""
    unit = (dim + 8) * float(np.finfo(dtype).eps + np.finfo(np.float64).eps)
    return unit * (norm + radius) ** 2


def _augmented_queries(asked: Asked, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """-2 times the centred queries and a one that takes |x|^2 along, (B, d + 1); norms (B,)."""
    left = np.empty((len(asked.rows), asked.queries.shape[1] + 1), dtype)
    left[:, -1] = 1
    norm = np.empty(len(left))
    for start in range(0, len(left), ROWS):
        block = slice(start, start + ROWS)
        base = (asked.queries[asked.rows[block]] - asked.centre).astype(dtype)
        norm[block] = np.sqrt(np.einsum("nd,nd->n", base, base, dtype=np.float64))
        np.multiply(base, -2, out=left[block, :-1])
    return left, norm


def _augmented(
    points: np.ndarray, centre: np.ndarray, filled: int, dtype: type
) -> tuple[np.ndarray, float]:
    """Centred points with their squared norms, (filled, d + 1); the largest norm."""
    right = np.empty((filled, points.shape[1] + 1), dtype)
    base = right[: len(points), :-1]
    np.subtract(points, centre, out=base, casting="unsafe")
    norms = np.einsum("nd,nd->n", base, base)
    right[: len(points), -1] = norms
    right[len(points) :, :-1], right[len(points) :, -1] = 0, np.inf  # never the nearest
    return right, float(np.sqrt(np.float64(norms.max())))


def _fill(
    scores: np.ndarray, left: np.ndarray, right: np.ndarray, own: np.ndarray | None
) -> np.ndarray:
    """Fill `scores` (tiles, B, wide), and return the least of each group, (B, groups).

    A group is every (wide / GROUP)-th column of a tile. own: (B,) the column of each query itself.
    """
    tiles, count, wide = scores.shape
    each = wide // GROUP
    minima = np.empty((count, tiles * each), scores.dtype)
    for tile in range(tiles):
        score = scores[tile]
        np.matmul(left, right[tile * wide : (tile + 1) * wide].T, out=score)
        if own is not None:
            place = own - tile * wide
            inside = np.flatnonzero((place >= 0) & (place < wide))
            score[inside, place[inside]] = np.inf
        groups = torch.from_numpy(score).unflatten(1, (GROUP, each))
        minima[:, tile * each : (tile + 1) * each] = groups.amin(1).numpy()
    return minima


def _merge(
    best: np.ndarray, found: np.ndarray, scores: np.ndarray, minima: np.ndarray, start: int
) -> None:
    """Put the smallest of `scores`, of points from `start` on, into `best`, `found` (B, width).

    The smallest lie in the groups of least minima, and a row whose minima are no better than what
    it has is left alone.
    """
    tiles, count, wide = scores.shape
    each, width = wide // GROUP, best.shape[1]
    rows = np.flatnonzero(minima.min(1) < best[:, -1])
    if len(rows) == 0:
        return
    if minima.shape[1] <= width:  # every group may hold one of the smallest
        near = np.concatenate(list(scores[:, rows]), 1)
        column = np.broadcast_to(np.arange(tiles * wide), near.shape)
    else:
        mine = minima if len(rows) == count else minima[rows]
        chosen = _smallest(mine, width)
        tile, group = chosen // each, chosen % each
        inside = group[:, :, None] + each * np.arange(GROUP)
        column = (tile[:, :, None] * wide + inside).reshape(len(rows), -1)
        place = (tile * count + rows[:, None])[:, :, None] * wide + inside
        near = scores.reshape(-1)[place.reshape(len(rows), -1)]
    keep = _smallest(near, min(width, near.shape[1]), ordered=True)
    value, index = (np.take_along_axis(a, keep, 1) for a in (near, start + column))
    if start == 0 and value.shape[1] == width:  # nothing was found before
        best[rows], found[rows] = value, index
        return
    value = np.concatenate([best[rows], value], 1)
    index = np.concatenate([found[rows], index], 1)
    keep = _smallest(value, width, ordered=True)
    best[rows] = np.take_along_axis(value, keep, 1)
    found[rows] = np.take_along_axis(index, keep, 1)


def _smallest(values: np.ndarray, count: int, ordered: bool = False) -> np.ndarray:
    """Places (B, count) of the smallest of each row."""
    if count > PASSES:
        found = torch.from_numpy(values).topk(count, dim=1, largest=False, sorted=ordered)
        return found.indices.numpy()
    left, rows = values.copy(), np.arange(len(values))
    places = np.empty((len(values), count), np.int64)
    for j in range(count):
        places[:, j] = left.argmin(1)
        left[rows, places[:, j]] = np.inf
    return places


def flat_index(points: Points, centre: np.ndarray) -> Callable[..., Proposal]:
    """As `by_products`, by the exact flat index of faiss, which holds the points in float32."""
    try:
        import faiss
    except ImportError:
        raise InputError(
            "backend 'faiss' needs faiss-cpu: pip install 'reverie[scale]', or use backend 'own'"
        ) from None
    flat, radius = faiss.IndexFlatL2(points.shape[1]), 0.0
    for start in range(0, len(points), ROWS):
        block = (points[start : start + ROWS] - centre).astype(np.float32)
        flat.add(block)  # pyright: ignore[reportCallIssue]
        radius = max(radius, float(np.linalg.norm(block.astype(np.float64), axis=1).max()))
        release(points)
    on_gpus = _on_gpus(faiss, flat)

    def propose(points: Points, asked: Asked, dtype: type, told: Told) -> Proposal:
        near = (asked.queries[asked.rows] - asked.centre).astype(np.float32)
        more = asked.width + int(asked.skip_self)
        index = flat if more > GPU_MOST else on_gpus
        score, found = index.search(near, more)  # pyright: ignore
        if asked.skip_self:  # itself to the end, or the farthest where duplicates crowded it out
            own = found == asked.rows[:, None]
            last = np.argsort(own, axis=1, kind="stable")[:, : asked.width]
            score, found = (np.take_along_axis(a, last, 1) for a in (score, found))
        norm = np.linalg.norm(near.astype(np.float64), axis=1)
        slack = slack_of(norm, radius, points.shape[1], dtype)
        told(1.0)
        return Proposal(found, score.astype(np.float64) - slack[:, None], slack)

    return propose


def _on_gpus(faiss: Any, flat: Any) -> Any:
    """The exact index on all GPUs that this faiss sees, a copy on each; as it is without any.

    Products must be in float32 for the slack to hold, which the driver can be told to give up.
    """
    if getattr(faiss, "get_num_gpus", int)() == 0 or os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        return flat
    return faiss.index_cpu_to_all_gpus(flat)
