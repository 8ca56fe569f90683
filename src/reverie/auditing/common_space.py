"""One space for training, held-out and sampled rows, fitted on the pool of real rows only.

The null of every test exchanges training and held-out rows, so the space may depend on their pool
but not on which is which, nor on the samples. Lengths in it mean the same for every column:

    images          all pixels are divided by one pooled standard deviation
    numbers         a column is divided by its pooled standard deviation; where the 1% of rows
                    farthest from the mean carry over a third of the variance (8% if Gaussian, 16%
                    if Laplace, 22% if exponential), distances would see those rows only: such a
                    column is replaced by its pooled normal scores, mapped by interpolation
    categories      one-hot over sqrt(2): two that differ are 1 apart, about what two numbers of a
                    standard normal column are (.95 in the median). A category that no real row has
                    is a level of its own; beyond the 256 most frequent (fewer where the next are
                    as frequent as the last), rare ones share a level
    missing cells   a number: the pooled median, and a further coordinate that is 1 where it is
                    missing; a category: a level of its own
    a space         symbols, and points of a manifold: its own embedding (see `data.coders`), in
                    which Euclidean distances rank as the space's do, all over one deviation
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri

from reverie.auditing.fairness.alignment import (
    LEAST_ROWS,
    Groups,
    align,
    read_sets,
    split_off_groups,
)
from reverie.auditing.metrics.features import Features, features_of
from reverie.data import (
    Column,
    Dataset,
    Identifier,
    ManifoldCoder,
    Scaler,
    SymbolCoder,
    coder_for,
    identifier_sentence,
    in_user_layout,
    row_codes,
    set_apart,
)
from reverie.errors import InputError

HEAVY = 1 / 3  # share of the variance
FAR = 0.01  # of the rows
LEVELS = 256
FEW_VALUES, REPEATS = 50, 5  # a column of numbers is discrete with so few values, each so often


@dataclass(frozen=True, eq=False)
class CommonSpace:
    """Rows in one space; see `common_space`.

    members, held, drawn: float64 (n, d) of training, held-out and sampled rows (drawn is (0, d)
    without samples). group_ids: the group (n,) of each training and held-out row, or None. cells:
    one code (n,) per row of each of the three, equal codes for equal rows, where every column is
    discrete; else None. notes: sentences for the reader. sets: the data themselves, columns and
    categories aligned, without the group column.
    """

    members: np.ndarray
    held: np.ndarray
    drawn: np.ndarray
    group_ids: tuple[np.ndarray, np.ndarray] | None = None
    cells: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)
    sets: list[Dataset] = field(default_factory=list)
    coder: Scaler | None = None  # of rows that are symbols or points of a manifold
    apart: list[Identifier] = field(default_factory=list)  # columns of sets that are not compared

    @property
    def smooth(self) -> np.ndarray:
        """Coordinates (d,) of over two values in the pool: noise on the others makes no record."""
        pool = np.concatenate([self.members, self.held])
        return ~((pool == pool.min(0)) | (pool == pool.max(0))).all(0)

    @property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and held-out rows as the user gave them, for a denoiser."""
        return in_user_layout(self.sets[0]), in_user_layout(self.sets[1])


def common_space(
    train: Any,
    holdout: Any,
    samples: Any | None = None,
    *,
    features: Features | None = None,
    groups: Groups | None = None,
    space: str | Scaler | None = None,
) -> CommonSpace:
    """Align three sets and scale them in common (see the module).

    train, holdout, samples: what `reverie.data.load` takes, mixed tables included. features: see
    `features_of`. groups: the name of a column, or two arrays of labels; rows of one group (a
    person, say) belong together. space: where the rows live, a name of `coder_for` or the coder
    of a run. Raises InputError on columns that do not match, on groups that
    stand on both sides, or when the held-out rows are the training rows.

    Rows that stand on both sides are kept, and named in a note: dropping them from one side would
    break the exchange of labels on which every p-value rests. A group on both sides is refused,
    because the group is then no unit that could have been exchanged.
    """
    sets, group_ids = split_off_groups(read_sets(train, holdout, samples), groups)
    sets = align(sets)
    if group_ids is not None:
        _refuse_straddling(*group_ids)
        _refuse_few(*group_ids)
    # columns that name rows are not compared, though a denoiser and a user's features see them
    named_space = features is not None or space is not None
    compared, apart = (sets, []) if named_space else set_apart(sets)
    notes = [identifier_sentence(apart)] if apart else []
    codes = row_codes(*(data.values for data in compared))
    _check_shared(codes, notes)
    cells, coder = None, None
    if features is not None:
        arrays = encode(features_of(sets, features), notes)
    else:
        coder = coder_of(space, sets)
        arrays = in_common(compared, coder, notes)
        notes += [coder.distances] if isinstance(coder, ManifoldCoder | SymbolCoder) else []
        if not isinstance(coder, ManifoldCoder) and len(sets) == 3 and _is_discrete(compared):
            cells = (codes[0], codes[1], codes[2])
    drawn = arrays[2] if len(arrays) == 3 else np.empty((0, arrays[0].shape[1]))
    return CommonSpace(arrays[0], arrays[1], drawn, group_ids, cells, notes, sets, coder, apart)


def coder_of(space: str | Scaler | None, sets: list[Dataset]) -> Scaler | None:
    """The coder that is given, or named."""
    if isinstance(space, str):
        pool = sets[0].with_values(
            np.concatenate([data.values for data in sets]), "train, holdout and samples"
        )
        space = coder_for(space, pool)
    return space


def in_common(sets: list[Dataset], coder: Scaler | None, notes: list[str]) -> list[np.ndarray]:
    """All sets in the common space, which is fitted on the first two."""
    if not isinstance(coder, ManifoldCoder | SymbolCoder):
        return encode(sets, notes)
    arrays = [coder.embed(data.values) for data in sets]
    scale = np.concatenate(arrays[:2]).std(0).mean()
    if scale == 0:
        raise InputError("all training and held-out rows are the same point")
    return [rows / scale for rows in arrays]


def straddling(members: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The groups that stand on both sides."""
    return np.intersect1d(members, held)


def _refuse_straddling(members: np.ndarray, held: np.ndarray) -> None:
    both = straddling(members, held)
    if len(both):
        total = len(np.union1d(members, held))
        raise InputError(
            f"{len(both)} of {total} groups stand in both train and holdout: a group the model "
            "has seen is no held-out data; split by group (audit without samples lists the split)"
        )


def _refuse_few(members: np.ndarray, held: np.ndarray) -> None:
    for name, ids in (("train", members), ("holdout", held)):
        count = len(np.unique(ids))
        if count < LEAST_ROWS:
            raise InputError(f"{name} has {count} group(s); an audit needs at least {LEAST_ROWS}")


def _check_shared(codes: list[np.ndarray], notes: list[str]) -> None:
    """Note rows on both sides; InputError when the held-out set is the training set."""
    shared = np.isin(codes[1], codes[0])
    distinct = len(np.unique(codes[0])) / len(codes[0])
    if shared.mean() > 0.5 and distinct > 0.5:
        raise InputError(
            f"{shared.sum()} of {len(shared)} held-out rows stand verbatim in the training set: "
            "the audit needs rows that the model has not seen"
        )
    if shared.any():
        notes.append(
            f"{shared.sum()} of {len(shared)} held-out rows also stand in the training set: they "
            "carry no evidence and lower the power."
        )


def encode(sets: list[Dataset], notes: list[str]) -> list[np.ndarray]:
    """All sets in the common space, fitted on the first two."""
    flat = [data.values.reshape(len(data), -1).astype(np.float64) for data in sets]
    pool = np.concatenate(flat[:2])
    if sets[0].kind == "images":
        scale = pool.std()
        if scale == 0:
            raise InputError("all training and held-out rows are the same point")
        return [rows / scale for rows in flat]
    width = pool.shape[1]
    fields = sets[0].fields or tuple(Column(str(j)) for j in range(width))
    told: dict[str, list[str]] = {"constant": [], "heavy": [], "missing": [], "rare": []}
    blocks: list[list[np.ndarray]] = []
    for j, column in enumerate(fields):
        encode = _categories if column.kind == "categorical" else _numbers
        blocks.append(encode(column.name, pool[:, j], [rows[:, j] for rows in flat], told))
    if len(told["constant"]) == width:
        raise InputError("all training and held-out rows are the same point")
    notes += _sentences(told)
    return [np.concatenate(parts, 1) for parts in zip(*blocks, strict=True)]


def _numbers(
    name: str, pool: np.ndarray, sets: list[np.ndarray], told: dict[str, list[str]]
) -> list[np.ndarray]:
    """One column of numbers: scaled or ranked; two coordinates if cells are missing."""
    here = pool[~np.isnan(pool)]
    if len(here) == 0:
        here = np.zeros(1)
    scale = here.std()
    if scale <= 1e-12 * np.abs(here).max():
        told["constant"].append(name)
        scaled = sets
    elif _is_heavy(here):
        told["heavy"].append(name)
        scaled = _normal_scores(here, sets)
    else:
        scaled = [values / scale for values in sets]
    absent = [np.isnan(values) for values in sets]
    if not any(mask.any() for mask in absent):
        return [values[:, None] for values in scaled]
    told["missing"].append(name)
    median = np.nanmedian(np.concatenate(scaled[:2])) if (~np.isnan(pool)).any() else 0.0
    return [
        np.column_stack([np.where(mask, median, values), mask])
        for values, mask in zip(scaled, absent, strict=True)
    ]


def _is_heavy(values: np.ndarray) -> bool:
    """Whether the few rows farthest from the mean carry much of the variance."""
    square = (values - values.mean()) ** 2
    few = max(1, round(FAR * len(square)))
    return bool(np.partition(square, -few)[-few:].sum() > HEAVY * square.sum())


def _normal_scores(pool: np.ndarray, sets: list[np.ndarray]) -> list[np.ndarray]:
    """Normal quantiles of pooled mid-ranks, linear in between; beyond the ends, along the secant
    from the median."""
    values, counts = np.unique(pool, return_counts=True)
    scores = ndtri((np.cumsum(counts) - counts / 2) / len(pool))
    middle = int(np.searchsorted(np.cumsum(counts), len(pool) / 2))
    whole = (scores[-1] - scores[0]) / (values[-1] - values[0])

    def slope(end: int) -> float:
        gap = values[end] - values[middle]
        return float((scores[end] - scores[middle]) / gap) if gap else float(whole)

    below, above = slope(0), slope(-1)
    return [
        np.interp(x, values, scores)
        + below * np.minimum(x - values[0], 0)
        + above * np.maximum(x - values[-1], 0)
        for x in sets
    ]


def _categories(
    name: str, pool: np.ndarray, sets: list[np.ndarray], told: dict[str, list[str]]
) -> list[np.ndarray]:
    """One column of categories as one-hot coordinates over sqrt(2)."""
    known, counts = np.unique(pool[~np.isnan(pool)], return_counts=True)
    frequent = known
    if len(known) > LEVELS:
        # categories as frequent as the first that is left out go with it: they stand in the order
        # of training and then held-out rows, which would tell the two apart
        frequent = known[counts > np.partition(counts, -LEVELS - 1)[-LEVELS - 1]]
        told["rare"].append(name)
    rare, unseen, absent = len(frequent), len(frequent) + 1, len(frequent) + 2
    levels = []
    for values in sets:
        level = np.where(np.isnan(values), absent, unseen)
        level[np.isin(values, known)] = rare
        inside = np.isin(values, frequent)
        level[inside] = np.searchsorted(frequent, values[inside])
        levels.append(level)
    used = np.unique(np.concatenate(levels))
    if len(np.unique(np.concatenate(levels[:2]))) == 1:
        told["constant"].append(name)
    return [(level[:, None] == used) / np.sqrt(2) for level in levels]


def _is_discrete(sets: list[Dataset]) -> bool:
    """Whether every column holds few values, each of them often, so that rows fall into cells."""
    if sets[0].kind == "images" or sets[0].values.ndim != 2:
        return False
    pool = np.concatenate([sets[0].values, sets[1].values])
    most = min(FEW_VALUES, len(pool) // REPEATS)
    fields = sets[0].fields or tuple(Column(str(j)) for j in range(pool.shape[1]))
    return all(
        field.kind == "categorical" or len(np.unique(pool[:, j])) <= most
        for j, field in enumerate(fields)
    )


def _sentences(told: dict[str, list[str]]) -> list[str]:
    lines = []
    if told["constant"]:
        lines.append(f"{len(told['constant'])} constant column(s) carry no information.")
    if told["heavy"]:
        lines.append(f"Compared by rank, for their heavy tails: {_list(told['heavy'])}.")
    if told["missing"]:
        lines.append(
            f"With missing cells: {_list(told['missing'])}; such a cell counts as the median, "
            "and as 1 apart from one that is there."
        )
    if told["rare"]:
        lines.append(
            f"Beyond the {LEVELS} most frequent, categories count as one: {_list(told['rare'])}."
        )
    return lines


def _list(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "columns " + ", ".join(names[:most]) + more if len(names) > 1 else f"column {names[0]}"
