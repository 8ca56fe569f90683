"""Bring training, held-out and sampled rows to the same columns, categories and groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from reverie.data import Column, Dataset, load
from reverie.data.said import in_one_order
from reverie.data.words import lengthened
from reverie.errors import InputError

LEAST_ROWS = 10

Groups = str | tuple[Any, Any]


def read_sets(train: Any, holdout: Any, samples: Any | None) -> list[Dataset]:
    """Load the sets, mixed tables included; InputError on too few rows or infinite numbers."""
    named = [("train", train), ("holdout", holdout)]
    named += [] if samples is None else [("samples", samples)]
    sets = []
    for name, value in named:
        data = load(value, mixed=True)
        if len(data) < LEAST_ROWS:
            raise InputError(
                f"{name} has {len(data)} row(s); an audit needs at least {LEAST_ROWS}"
            )
        flat = data.values.reshape(len(data), -1)
        gaps = data.kind in ("table", "vectors")  # NaN is a missing cell, as an empty one
        bad = np.isinf(flat) if gaps else ~np.isfinite(flat)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(f"{name}: row {row}, {data.name(column)} is not a finite number")
        sets.append(data)
    return sets


def split_off_groups(
    sets: list[Dataset], groups: Groups | None
) -> tuple[list[Dataset], tuple[np.ndarray, np.ndarray] | None]:
    """The sets without their group column, and the group (n,) of each train and held-out row.

    groups: the column's name (samples need not have it), or one array of labels for train and one
    for holdout. Raises InputError on an unknown column, a missing label or another length.
    """
    if groups is None:
        return sets, None
    if isinstance(groups, str):
        columns = [_find(sets[k], groups, name) for k, name in enumerate(("train", "holdout"))]
        pair = _shared_categories([sets[k].with_columns([c]) for k, c in enumerate(columns)])
        labels = [data.values[:, 0] for data in pair]
        sets = [_without(data, groups) for data in sets]
    else:
        labels = [np.asarray(labels) for labels in groups]
    for name, data, label in zip(("train", "holdout"), sets, labels, strict=False):
        if label.shape != (len(data),):
            raise InputError(f"the groups of {name} are {label.shape}, its rows {len(data)}")
        if label.dtype.kind == "f" and np.isnan(label).any():
            raise InputError(f"{name}: row {int(np.isnan(label).argmax())} has no group")
    codes = _by_appearance(np.concatenate(labels))
    return sets, (codes[: len(labels[0])], codes[len(labels[0]) :])


def _by_appearance(labels: np.ndarray) -> np.ndarray:
    """Codes (n,) of the labels in the order in which they first stand in the rows.

    So a group of one row has the number of its row. Numbered by size or by spelling, the figures
    of groups and of rows would lie in two orders wherever every group has one row.
    """
    _, first, code = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[code]


def align(sets: list[Dataset]) -> list[Dataset]:
    """The sets with columns in the order of the first, and one list of categories per column.

    A column with text in any real set is categorical in all. Raises InputError where shapes or
    columns differ, or where the samples hold text in a column of numbers.
    """
    if all(data.kind == "text" for data in sets):
        longest = max(data.shape[0] for data in sets)
        sets = [lengthened(data, longest) for data in sets]
    first, moved = sets[0], [sets[0]]
    for name, other in zip(("holdout", "samples"), sets[1:], strict=False):
        moved.append(_in_order(other, first, name))
    moved = in_one_order(moved)
    return _shared_categories(moved) if any(data.fields for data in moved) else moved


def names_of(data: Dataset) -> tuple[str, ...]:
    """Names of a table's columns, or their places where it has none."""
    return data.columns or tuple(f.name for f in _fields(data))


def _fields(data: Dataset) -> tuple[Column, ...]:
    if data.fields:
        return data.fields
    names = data.columns or [str(j) for j in range(data.values[0].size)]
    return tuple(Column(name) for name in names)


def _find(data: Dataset, group: str, name: str) -> int:
    if data.kind != "table":
        raise InputError(f"{name} is no table: give the groups as arrays, not as a column")
    known = names_of(data)
    if group not in known:
        raise InputError(f"{name} has no column {group!r} to group by; it has {', '.join(known)}")
    return known.index(group)


def _without(data: Dataset, group: str) -> Dataset:
    known = names_of(data)
    if data.kind != "table" or group not in known:
        return data
    rest = [j for j, column in enumerate(known) if column != group]
    if not rest:
        raise InputError(f"{data.source} has no column but the group {group!r}")
    return data.with_columns(rest)


def _in_order(other: Dataset, first: Dataset, name: str) -> Dataset:
    if other.columns is None or first.columns is None:
        if other.shape != first.shape:
            raise InputError(f"{name} has rows of shape {other.shape}, train of {first.shape}")
        return other
    for data, called in ((first, "train"), (other, name)):
        assert data.columns is not None
        twice = [c for c in data.columns if data.columns.count(c) > 1]
        if twice:
            raise InputError(f"{called} has two columns called {twice[0]!r}")
    lacks, extra = (
        sorted(set(a) - set(b))
        for a, b in ((first.columns, other.columns), (other.columns, first.columns))
    )
    if lacks and extra:
        odd = ", ".join(sorted(lacks + extra))
        raise InputError(f"{name} and train have other columns: {odd}")
    if lacks or extra:
        which = f"no column {lacks[0]!r}" if lacks else f"a column {extra[0]!r} that train lacks"
        raise InputError(f"{name} has {which}")
    return other.with_columns([other.columns.index(column) for column in first.columns])


def _shared_categories(sets: list[Dataset]) -> list[Dataset]:
    """Tables whose columns have one kind and one list of categories, train's first."""
    columns = [[data.values[:, j] for j in range(data.shape[0])] for data in sets]
    fields = [list(_fields(data)) for data in sets]
    for j in range(len(fields[0])):
        kinds = [own[j].kind for own in fields]
        if "categorical" not in kinds:
            continue
        if "categorical" not in kinds[:2] and not (fields[0][j].words or fields[0][j].is_time):
            text = fields[2][j].categories[0]
            raise InputError(
                f"samples: column {fields[0][j].name!r} holds {text!r}, train holds numbers"
            )
        merged: dict[str, int] = {}
        for own, values in zip(fields, columns, strict=True):
            values[j], own[j] = _recoded(own[j], values[j], merged)
        for own in fields:
            own[j] = replace(own[j], categories=tuple(merged))
    return [
        replace(data, values=np.stack(values, 1), fields=tuple(own))
        for data, values, own in zip(sets, columns, fields, strict=True)
    ]


def _recoded(
    field: Column, values: np.ndarray, merged: dict[str, int]
) -> tuple[np.ndarray, Column]:
    """Values as indices into `merged`, which grows by the categories that are new."""
    here = ~np.isnan(values)
    if field.kind == "numeric":  # numbers that stand for categories
        numbers, inverse = np.unique(values[here], return_inverse=True)
        whole = numbers.dtype.kind in "iu"
        plain = field.dtype in ("double", "int64") and field.decimal == "."
        texts = [str(v) if whole else _as_number(v) if plain else field.text(v) for v in numbers]
        field = replace(field, kind="categorical", dtype="string", decimals=None)
    else:
        texts, inverse = list(field.categories), values[here].astype(np.int64)
    place = np.array([merged.setdefault(text, len(merged)) for text in texts], dtype=np.float64)
    recoded = np.full(len(values), np.nan)
    recoded[here] = place[inverse]
    return recoded, field


def _as_number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else repr(float(value))
