"""What a model is told about each row: a column taken out of a table, or a file beside the rows.

Categories become labels, counted from 0, and so do whole numbers of few different values; their
names are kept. Every other column is a value. A cell that is missing is no label, or NaN.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.data.dataset import Column, Dataset, TakenColumn
from reverie.data.reading import load
from reverie.errors import InputError

NO_LABEL = -1
CLASSES = "cls"  # what the classes of pictures by folder, and the labels of shards, are called
FALSE_TRUE = ("false", "true")
MOST_CLASSES, EACH = 20, 5  # whole numbers are labels up to so many, each of so many rows


def with_condition(data: Dataset, wanted: str | Path) -> Dataset:
    """The rows with what is told about each: a column by its name, taken out, or a file.

    A reader's own labels are asked for by what they are called, `cls` where they are the folders
    of pictures or the labels of shards. Raises
    InputError where there is none of these, or the file has another number of rows.
    """
    if data.conditions is not None and str(wanted) == data.condition:
        return data
    if data.folder_of is not None and str(wanted) == CLASSES:
        return data.told(data.folder_of, data.folders, CLASSES)
    place = column_place(data, str(wanted))
    if place is not None:
        values, labels = _told(data.values[:, place], _field(data, place))
        rest = without_column(data, str(wanted))
        return rest.told(values, labels, str(wanted))
    path = Path(wanted)
    if not path.is_file():
        known = ", ".join(_names(data)[:12])
        has = f"{data.source} has no column {str(wanted)!r} (it has {known})" if known else (
            f"{data.source} has no columns"
        )  # fmt: skip
        raise InputError(f"{has}, and there is no file {wanted}: condition is a column or a file")
    values, labels = _of_file(load(path, mixed=True))
    return data.told(values, labels, path.stem)


def column_place(data: Dataset, name: str) -> int | None:
    """Where the column of a table stands, or None."""
    names = _names(data)
    return names.index(name) if name in names else None


def without_column(data: Dataset, name: str) -> Dataset:
    """A table without the column; InputError where there is none, or no other."""
    place = column_place(data, name)
    if place is None:
        raise InputError(f"{data.source} has no column {name!r} any more")
    rest = [j for j in range(data.values.shape[1]) if j != place]
    if not rest:
        raise InputError(f"{data.source} has no column beside {name!r}: there is nothing to fit")
    taken = TakenColumn(_field(data, place), tuple(_names(data)[:place]))
    return replace(data.with_columns(rest), taken=data.taken or taken)


def with_taken(data: Dataset, told: np.ndarray) -> Dataset:
    """A table whose column of conditions stands in it again, with what each row was told.

    told: labels (n,) or values (n, 1), or one row of them for all. Where conditions were no column
    of the table, it is returned as it is.
    """
    if data.taken is None or data.values.ndim != 2:
        return data
    field, names = data.taken.column, _names(data)
    place = sum(name in data.taken.after for name in names)
    cells = np.broadcast_to(_cells(np.asarray(told), data.labels, field), (len(data),))
    fields = data.fields or tuple(Column(name) for name in names)
    return replace(
        data,
        values=np.insert(data.values.astype(np.float64), place, cells, axis=1),
        columns=(*names[:place], field.name, *names[place:]),
        fields=(*fields[:place], field, *fields[place:]),
        taken=None,
    )


def _cells(told: np.ndarray, labels: tuple[str, ...], field: Column) -> np.ndarray:
    """Cells (n,) of the column whose conditions are told: the inverse of `_told`."""
    if told.dtype.kind == "f":  # float32 holds a number as few digits say it
        return np.array([float(str(value)) for value in told.reshape(-1)])
    if field.kind == "categorical":
        known = np.arange(len(field.categories), dtype=np.float64)
    elif field.dtype == "bool":
        known = np.array([float((field.words or FALSE_TRUE).index(name)) for name in labels])
    else:
        known = np.array([float(name) for name in labels])
    return np.append(known, np.nan)[told]  # NO_LABEL is the last


def numbers_only(data: Dataset) -> Dataset:
    """Return a table of numbers, or raise InputError that names its first column of categories."""
    for field in data.fields:
        if field.kind == "categorical":
            raise InputError(
                f"{data.source}: column {field.name!r} holds categories "
                f"({field.categories[0]!r}); drop it, or write numbers: only "
                "the condition may be categories here"
            )
    return data


def _names(data: Dataset) -> list[str]:
    if data.values.ndim != 2:
        return []
    return list(data.columns or [field.name for field in data.fields])


def _field(data: Dataset, place: int) -> Column:
    return data.fields[place] if data.fields else Column(_names(data)[place])


def _of_file(data: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels or values, and the names of labels, of a file of one row per row of data."""
    if data.kind == "text":
        lines = [data.text(row)[0].strip() for row in data.values]
        names, codes = np.unique(lines, return_inverse=True)
        return codes, tuple(names.tolist())
    if data.values.ndim == 2 and data.values.shape[1] == 1:
        field = data.fields[0] if data.fields else _plain(data)
        return _told(data.values[:, 0], field)
    numbers_only(data)
    return data.values.astype(np.float32), ()


def _plain(data: Dataset) -> Column:
    whole = data.values.dtype.kind in "iub"
    return Column("condition", decimals=0 if whole else None)


def _told(values: np.ndarray, field: Column) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) with their names, or values (n, 1), of one column (n,)."""
    values = values.astype(np.float64)
    here = ~np.isnan(values)
    if not here.any():
        raise InputError(f"the condition {field.name!r} is missing in every row")
    if field.kind == "categorical":
        return np.where(here, values, NO_LABEL).astype(np.int64), field.categories
    known = np.unique(values[here])
    whole = bool((known == np.round(known)).all())
    if not whole or len(known) > min(MOST_CLASSES, here.sum() / EACH):
        return values[:, None].astype(np.float32), ()
    codes = np.searchsorted(known, np.where(here, values, known[0]))
    names = tuple(
        field.text(value) if field.dtype == "bool" else f"{value:.0f}" for value in known
    )
    return np.where(here, codes, NO_LABEL), names
