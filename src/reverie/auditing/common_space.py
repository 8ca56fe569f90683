"""One space for training, held-out and sampled rows, fitted on the pool of real rows only.

The null of every test exchanges training and held-out rows, so the space may depend on their pool
but not on which is which. Lengths in it mean the same for every column:

    images          all pixels are divided by one pooled standard deviation
    numbers         a column is divided by its pooled standard deviation; where the 1% of rows
                    farthest from the mean carry over a third of the variance (8% if Gaussian, 16%
                    if Laplace, 22% if exponential), distances would see those rows only: such a
                    column is replaced by its pooled normal scores, mapped by interpolation
    times           dates and times, in whatever format, are numbers: seconds
    categories      one-hot over sqrt(2): two that differ are 1 apart, about what two numbers of a
                    standard normal column are (.95 in the median). A category that no real row has
                    is a level of its own. With over 256 levels they are text: at most about 1
                    apart, and the nearer the more letters or words they share (`encoding.texts`)
    missing cells   a number: the pooled median, and a further coordinate that is 1 where it is
                    missing; a category: a level of its own. No-data values as -9999 are missing
    constant        a column that is constant over all real rows is left out, by name
    a space         symbols, and points of a manifold: its own embedding (see `data.coders`), in
                    which Euclidean distances rank as the space's do, all over one deviation
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reverie.auditing.encoding.numbers import Told, scaled, with_gaps
from reverie.auditing.encoding.texts import LEVELS, as_text, one_hot
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
    PointsCoder,
    Scaler,
    SymbolCoder,
    coder_for,
    identifier_sentence,
    in_user_layout,
    row_codes,
    set_apart,
)
from reverie.data.no_data import without_no_data
from reverie.data.times import (
    date_numbers,
    dates_as_numbers,
    may_be_dates,
    seconds_of,
)
from reverie.errors import InputError

OF_SPACES = (ManifoldCoder, SymbolCoder, PointsCoder)  # which embed rows by their own distances
BEYOND_CHANCE = 0.3  # share of the held-out rows
FEW_VALUES, REPEATS = 50, 5  # a column of numbers is discrete with so few values, each so often


@dataclass(frozen=True, eq=False)
class CommonSpace:
    """Rows in one space; see `common_space`.

    members, held, drawn: float64 (n, d) of training, held-out and sampled rows (drawn is (0, d)
    without samples). group_ids: the group (n,) of each training and held-out row, or None. cells:
    one code (n,) per row of each of the three, equal codes for equal rows, where every column is
    discrete; else None. notes: sentences for the reader. sets: the data themselves, columns and
    categories aligned, without the group column.

    >>> import numpy as np
    >>> from reverie.auditing import CommonSpace, common_space
    >>> train, holdout, samples = np.random.default_rng(0).normal(size=(3, 50, 4))
    >>> space = common_space(train, holdout, samples)
    >>> isinstance(space, CommonSpace), space.members.shape, space.drawn.shape
    (True, (50, 4), (50, 4))
    """

    members: np.ndarray
    held: np.ndarray
    drawn: np.ndarray
    group_ids: tuple[np.ndarray, np.ndarray] | None = None
    cells: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)
    sets: list[Dataset] = field(default_factory=list)
    coder: Scaler | None = None  # of rows that are symbols or points of a manifold
    text: np.ndarray | None = None  # (d,) coordinates that are parts of text, if any
    of_features: bool = False  # coordinates are features of the user's, not of the sets
    apart: list[Identifier] = field(default_factory=list)  # columns of sets that are not compared

    @property
    def smooth(self) -> np.ndarray:
        """Coordinates (d,) of over two values in the pool: noise on the others makes no record.

        Those of text are none: a text is copied or not.
        """
        sides = (self.members, self.held)
        low, high = np.min([a.min(0) for a in sides], 0), np.max([a.max(0) for a in sides], 0)
        two = np.all([_ends(rows, low, high) for rows in sides], 0)
        return ~two if self.text is None else ~two & ~self.text

    @property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and held-out rows as the user gave them, for a denoiser."""
        return in_user_layout(self.sets[0]), in_user_layout(self.sets[1])


def _ends(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Columns that hold their least and greatest values only; most are told by a few rows."""
    two = ((rows[:64] == low) | (rows[:64] == high)).all(0)
    left = np.flatnonzero(two)
    two[left] = ((rows[:, left] == low[left]) | (rows[:, left] == high[left])).all(0)
    return two


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

    >>> import numpy as np
    >>> from reverie.auditing import common_space
    >>> rng = np.random.default_rng(0)
    >>> space = common_space(rng.normal(size=(50, 4)), rng.normal(size=(40, 4)))
    >>> space.members.shape, space.held.shape, space.drawn.shape
    ((50, 4), (40, 4), (0, 4))
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
    cells, coder, text = None, None, []
    if features is not None:
        arrays = encode(features_of(sets, features), notes)
    else:
        coder = coder_of(space, sets)
        arrays = in_common(compared, coder, notes, text)
        notes += [coder.distances] if isinstance(coder, OF_SPACES) else []
        if not isinstance(coder, ManifoldCoder) and len(sets) == 3 and _is_discrete(compared):
            cells = (codes[0], codes[1], codes[2])
    drawn = arrays[2] if len(arrays) == 3 else np.empty((0, arrays[0].shape[1]))
    return CommonSpace(
        arrays[0], arrays[1], drawn, group_ids, cells, notes, sets, coder,
        text[0] if text else None, features is not None, apart,
    )  # fmt: skip


def coder_of(space: str | Scaler | None, sets: list[Dataset]) -> Scaler | None:
    """The coder that is given, or named."""
    if isinstance(space, str):
        pool = sets[0].with_values(
            np.concatenate([data.values for data in sets]), "train, holdout and samples"
        )
        space = coder_for(space, pool)
    return space


def in_common(
    sets: list[Dataset],
    coder: Scaler | None,
    notes: list[str],
    text: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """All sets in the common space, which is fitted on the first two; text as in `encode`."""
    if not isinstance(coder, OF_SPACES):
        return encode(sets, notes, text)
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
    """Note rows on both sides; InputError when the held-out set is the training set.

    Where rows repeat by chance, as counts do, a training row has an equal among the other training
    rows as often as a held-out row has one: only what goes beyond that is a set used twice.
    """
    shared = np.isin(codes[1], codes[0])
    _, place, size = np.unique(codes[0], return_inverse=True, return_counts=True)
    repeated = (size[place] > 1).mean()
    if shared.mean() > 0.5 and shared.mean() - repeated > BEYOND_CHANCE:
        raise InputError(
            f"{shared.sum()} of {len(shared)} held-out rows stand verbatim in the training set: "
            "the audit needs rows that the model has not seen"
        )
    if shared.any():
        notes.append(
            f"{shared.sum()} of {len(shared)} held-out rows also stand in the training set: they "
            "carry no evidence and lower the power."
        )


def encode(
    sets: list[Dataset], notes: list[str], text: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """All sets in the common space, fitted on the first two.

    text: takes the mask (d,) of the coordinates that are parts of text.
    """
    flat = [data.values.reshape(len(data), -1).astype(np.float64) for data in sets]
    if sets[0].kind == "images":
        scale = _deviation(flat[:2])
        if scale == 0:
            raise InputError("all training and held-out rows are the same point")
        for rows in flat:
            rows /= scale
        return flat
    told = Told()
    blocks, is_text = _blocks(_fields_of(sets[0]), flat, told)
    if all((rows == block[0][0]).all() for block in blocks for rows in block[:2]):
        raise InputError("all training and held-out rows are the same point")
    notes += _sentences(told)
    if text is not None:
        text.append(np.repeat(is_text, [block[0].shape[1] for block in blocks]))
    return [np.concatenate(parts, 1) for parts in zip(*blocks, strict=True)]


def _deviation(sets: list[np.ndarray]) -> float:
    """Standard deviation of all numbers of the sets together, without a copy of them."""
    count = sum(rows.size for rows in sets)
    mean = sum(float(rows.sum()) for rows in sets) / count
    squares = (((row - mean) ** 2).sum() for rows in sets for row in np.array_split(rows, 16))
    return float(np.sqrt(sum(squares) / count))


def _blocks(
    fields: tuple[Column, ...], flat: list[np.ndarray], told: Told
) -> tuple[list[list[np.ndarray]], list[bool]]:
    """Coordinates of the columns in their order, neighbours that are plain numbers as one block;
    and which blocks are text. No-data values in `flat` become NaN."""
    is_number = np.array([field.kind == "numeric" for field in fields])
    is_time = np.array([field.is_time for field in fields])
    told.times += [field.name for field in fields if field.is_time]
    for j in np.flatnonzero(~is_number | (may_be_dates(flat[:2]) & ~is_time)):
        is_number[j] |= _as_time(fields[j], int(j), flat, told)
    for j, codes in without_no_data(flat, np.flatnonzero(is_number & ~is_time)).items():
        told.no_data.append(f"{fields[j].name} ({', '.join(f'{code:.8g}' for code in codes)})")
    plain = is_number & ~np.any([np.isnan(rows).any(0) for rows in flat], 0)
    blocks, is_text, start = [], [], 0
    while start < len(fields):
        end = start + 1
        while plain[start] and end < len(fields) and plain[end]:
            end += 1
        names = [field.name for field in fields[start:end]]
        sets = [rows[:, start:end] for rows in flat]
        pool = np.concatenate(sets[:2])
        if plain[start]:
            blocks.append(scaled(names, pool, sets, told))
        elif is_number[start]:
            columns = [rows[:, 0] for rows in sets]
            blocks.append(with_gaps(names[0], pool[:, 0], columns, told))
        else:
            blocks.append(_categories(fields[start], pool[:, 0], [r[:, 0] for r in sets], told))
            is_text += [fields[start].name in told.texts]
        is_text += [False] * (len(blocks) - len(is_text))
        start = end
    return blocks, is_text


def _as_time(field: Column, j: int, flat: list[np.ndarray], told: Told) -> bool:
    """Is column j one of times? If so they become seconds, in place."""
    columns = [rows[:, j] for rows in flat]
    pool = np.concatenate(columns[:2])
    if field.kind == "numeric":
        if not dates_as_numbers(pool):
            return False
        seconds = [date_numbers(values) for values in columns]
    else:
        known = np.unique(pool[~np.isnan(pool)]).astype(int)
        levels = seconds_of(field.categories, [field.categories[k] for k in known])
        if levels is None:
            return False
        levels = np.append(levels, np.nan)
        seconds = [levels[np.where(np.isnan(v), -1, v).astype(int)] for v in columns]
    told.times.append(field.name)
    for rows, values in zip(flat, seconds, strict=True):
        rows[:, j] = values
    return True


def _categories(
    field: Column, pool: np.ndarray, sets: list[np.ndarray], told: Told
) -> list[np.ndarray]:
    """One column of categories: one-hot, or text where there are many."""
    levels = len(np.unique(pool))  # a missing cell is one
    if levels == 1:
        told.constant.append(field.name)
        return [np.zeros((len(values), 1)) for values in sets]
    if levels <= LEVELS:
        return one_hot(pool, sets)
    told.texts.append(field.name)
    return as_text(field.categories, pool, sets)


def _fields_of(data: Dataset) -> tuple[Column, ...]:
    names = data.columns or [str(j) for j in range(math.prod(data.shape))]
    return data.fields or tuple(Column(name) for name in names)


def _is_discrete(sets: list[Dataset]) -> bool:
    """Whether every column holds few values, each of them often, so that rows fall into cells."""
    if sets[0].kind == "images" or sets[0].values.ndim != 2:
        return False
    pool = np.concatenate([sets[0].values, sets[1].values])
    most = min(FEW_VALUES, len(pool) // REPEATS)
    return all(
        field.kind == "categorical" or len(np.unique(pool[:, j])) <= most
        for j, field in enumerate(_fields_of(sets[0]))
    )


def _sentences(told: Told) -> list[str]:
    lines = []
    if told.constant:
        lines.append(f"Constant over all real rows, and left out: {_list(told.constant)}.")
    if told.no_data:
        lines.append(f"Values that stand for no data count as missing: {_list(told.no_data)}.")
    if told.times:
        lines.append(f"Compared as times: {_list(told.times)}.")
    if told.heavy:
        lines.append(f"Compared by rank, for their heavy tails: {_list(told.heavy)}.")
    if told.missing:
        lines.append(
            f"With missing cells: {_list(told.missing)}; such a cell counts as the median, "
            "and as 1 apart from one that is there."
        )
    if told.texts:
        lines.append(
            f"With over {LEVELS} different values, compared as text, by the letters or words that "
            f"they share: {_list(told.texts)}."
        )
    return lines


def _list(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "columns " + ", ".join(names[:most]) + more if len(names) > 1 else f"column {names[0]}"
