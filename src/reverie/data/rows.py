"""Choosing rows, and telling which of them are equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.data.stored.dataset import StoredDataset
from reverie.errors import InputError


def split(
    data: Dataset, n: int | None, holdout: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Random train and held-out row indices, and how many held-out rows stand in training too.

    Default `holdout`: with `n`, all other rows up to 10,000; else a fifth of the rows, at least
    200 and at most half. Rows are kept as they are: a split that depends on the values would break
    the exchangeability on which the audit rests.
    Raises InputError on an n or holdout that the rows do not allow.

    >>> from reverie.data import load, split
    >>> train, holdout, shared = split(load("wine"), n=100, holdout=None, seed=0)
    >>> len(train), len(holdout), shared
    (100, 78, 0)
    """
    total = len(data)
    if n is not None and not 1 <= n <= total - 1:
        raise InputError(f"--n {n}: {data.source} has {total} rows, so N is 1 to {total - 1}")
    if holdout is None:
        holdout = min(total - n, 10_000) if n else min(max(total // 5, 200), total // 2, 10_000)
    if not 0 <= holdout < total or (n or 1) + holdout > total:
        raise InputError(
            f"cannot hold out {holdout} of {total} rows beside {n or 'the'} training rows"
        )
    order = np.random.default_rng(seed).permutation(total)
    held = order[:holdout]
    train = order[holdout:] if n is None else order[holdout : holdout + n]
    return np.sort(train), np.sort(held), shared_count(data, held, train)


def shared_count(data: Dataset, held: np.ndarray, train: np.ndarray) -> int:
    """How many of the rows at places `held` stand verbatim among those at places `train`."""
    if isinstance(data, StoredDataset):
        return data.shared_count(held, train)
    return int(shared_rows(data.values[held], data.values[train]).sum())


def some_rows(points: Tensor, most: int, seed: int) -> Tensor:
    """At most `most` rows, at random: splits keep the order of the file, which may matter.

    points: (n, *shape); no more than `most` come back.

    >>> import torch
    >>> from reverie.data import some_rows
    >>> some_rows(torch.zeros(100, 2), most=10, seed=0).shape
    torch.Size([10, 2])
    """
    if len(points) <= most:
        return points[:]  # of rows on disk all of them
    pick = np.random.default_rng(seed).choice(len(points), most, replace=False)
    return points[torch.as_tensor(np.sort(pick), device=points.device)]


def row_codes(*sets: np.ndarray) -> list[np.ndarray]:
    """One int64 code (n,) per row of each set (n, *shape): equal for equal rows only.

    Compared in the coarsest floating type among the sets; missing cells equal one another.

    >>> import numpy as np
    >>> from reverie.data import row_codes
    >>> a, b = row_codes(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[3.0, 4.0]]))
    >>> bool(a[1] == b[0]), bool(a[0] == b[0])
    (True, False)
    """
    kinds = {a.dtype for a in sets}
    if len(kinds) > 1 and all(kind.kind in "iu" for kind in kinds):
        sets = tuple(_exact(a) for a in sets)
        kinds = {np.dtype(np.uint64)}
    floats = [kind for kind in kinds if kind.kind == "f"]
    common = min(floats, key=lambda kind: kind.itemsize) if floats else np.dtype(np.float64)
    common = kinds.pop() if len(kinds) == 1 else common
    stack = np.concatenate([a.reshape(len(a), -1).astype(common) for a in sets])
    if common.kind == "f":
        stack += 0.0  # -0 is 0
        stack[np.isnan(stack)] = np.nan
    lines = np.ascontiguousarray(stack).view(np.dtype((np.void, stack.shape[1] * common.itemsize)))
    seen: dict[bytes, int] = {}
    codes = np.fromiter(
        (seen.setdefault(line.tobytes(), len(seen)) for line in lines[:, 0]), np.int64, len(lines)
    )
    return np.split(codes, np.cumsum([len(a) for a in sets])[:-1])


def _exact(values: np.ndarray) -> np.ndarray:
    """Whole numbers of any width as bits (n, 2d) of uint64, and whether they are negative."""
    flat = values.reshape(len(values), -1)
    bits = flat.astype(np.uint64) if flat.dtype.kind == "u" else flat.astype(np.int64).view("u8")
    return np.concatenate([bits, (flat < 0).astype(np.uint64)], 1)


def shared_rows(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (len(rows),) of the rows that stand verbatim among `others`.

    rows, others: (n, *shape) each.

    >>> import numpy as np
    >>> from reverie.data import shared_rows
    >>> shared_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[3.0, 4.0]]))
    array([False,  True])
    """
    if len(rows) == 0 or len(others) == 0:
        return np.zeros(len(rows), bool)
    codes, known = row_codes(rows, others)
    return np.isin(codes, known)
