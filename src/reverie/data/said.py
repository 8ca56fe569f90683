"""Data as the user says they are: columns left out, roles of columns, missing cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reverie.data.cells import codes_of
from reverie.data.dataset import Column, Dataset
from reverie.data.options import Reading
from reverie.data.stamps import read_times, swapped, write_times
from reverie.errors import InputError


def as_said(data: Dataset, said: Reading) -> Dataset:
    """The data as the user says they are: columns left out, numbers that are missing cells."""
    if data.is_stored:  # opened as was said
        return data
    data = replace(data, reading=said)
    named = {role: said.names(role) for role in ("ignore", "id", "time", "category")}
    if data.kind not in ("table", "vectors") or data.values.ndim != 2:
        if any(named.values()):
            raise InputError(f"{data.source} is no table: it has no columns to name")
        return data
    known = [f.name for f in data.fields] or list(data.columns or map(str, range(data.shape[0])))
    for role, names in named.items():
        for name in sorted(names - set(known)):
            raise InputError(
                f"{data.source} has no column {name!r} (--{role}); it has {', '.join(known[:20])}"
            )
    data = _with_codes(data, said, known)
    for role in ("id", "category", "time"):
        for name in named[role]:
            data = _with_role(data, known.index(name), role, said.time_form(name))
    if named["ignore"]:
        order = [j for j, name in enumerate(known) if name not in named["ignore"]]
        if not order:
            raise InputError(f"{data.source}: no column is left, for all are ignored")
        data = data.with_columns(order)
    return data


def _with_codes(data: Dataset, said: Reading, known: list[str]) -> Dataset:
    """Numbers that the user says stand for missing cells as NaN, in arrays and typed tables."""
    codes = codes_of(said)
    if not codes:
        return data
    values, fields = data.values.astype(np.float64, copy=True), list(data.fields)
    for j in range(len(known)):
        if fields and fields[j].kind == "categorical":
            continue
        gone = np.isin(values[:, j], list(codes))
        if data.values.dtype == np.float32:
            short = [c for c in codes if abs(c) < np.finfo(np.float32).max * (1 + 1e-7)]
            with np.errstate(over="ignore"):
                gone |= np.isin(data.values[:, j], np.array(short, np.float32))
        values[gone, j] = np.nan
        if fields and gone.any() and not fields[j].has_missing:
            fields[j] = replace(fields[j], missing=next(iter(codes.values())))
    return replace(data, values=values, fields=tuple(fields))


def _with_role(data: Dataset, place: int, role: str, form: str) -> Dataset:
    """A table whose column at a place names rows, holds categories, or times in a form."""
    names = data.columns or [str(j) for j in range(data.shape[0])]
    fields = list(data.fields or map(Column, names))
    field, values = fields[place], data.values[:, place].astype(np.float64)
    if role == "id":
        fields[place] = replace(field, role="identifier")
    elif role == "category" and field.kind == "numeric":
        distinct, codes = np.unique(values, return_inverse=True)
        levels = distinct[~np.isnan(distinct)]
        texts = tuple(field.text(v) for v in levels)
        fields[place] = replace(field, kind="categorical", categories=texts, dtype="string",
                                role="category")  # fmt: skip
        values = np.where(codes < len(levels), codes, np.nan)
    elif role == "category":
        fields[place] = replace(field, role="category")
    elif form and not field.is_time:
        field, values = _as_times(field, values, form, data.source)
        fields[place] = field
    else:
        fields[place] = replace(field, role="time")
    known = data.values.astype(np.float64, copy=True)
    known[:, place] = values
    return replace(data, values=known, fields=tuple(fields), kind="table")


def _as_times(
    field: Column, values: np.ndarray, form: str, source: str
) -> tuple[Column, np.ndarray]:
    distinct, codes = np.unique(values, return_inverse=True)
    texts = [field.text(v) for v in distinct[~np.isnan(distinct)]]
    times = read_times(texts, form)
    if times is None:
        odd = next((t for t in texts if read_times([t], form) is None), "")
        raise InputError(f"{source}: column {field.name!r} is {odd!r}, no time of the form {form}")
    seconds = np.append(times.seconds, np.nan)[np.minimum(codes, len(texts))]
    told = Column(field.name, dtype=times.dtype, form=form, missing=field.missing, role="time")
    return told, seconds


def in_one_order(sets: list[Dataset]) -> list[Dataset]:
    """Aligned tables whose dates are read alike: where one leaves the order of day and month open
    and another does not, the latter tells it."""
    if not all(data.fields for data in sets):
        return sets
    for j in range(min(len(data.fields) for data in sets)):
        fields = [data.fields[j] for data in sets]
        sure = {f.form.replace("%-", "%") for f in fields if f.is_time and not f.note}
        for k, field in enumerate(fields):
            other = swapped(field.form)
            open_order = field.is_time and field.note and field.form.replace("%-", "%") not in sure
            if open_order and other.replace("%-", "%") in sure:
                sets = [*sets[:k], _reread(sets[k], j, other), *sets[k + 1 :]]
    return sets


def _reread(data: Dataset, place: int, form: str) -> Dataset:
    """A table whose times at a place are read by another form of the same texts."""
    field, values = data.fields[place], data.values.copy()
    here = ~np.isnan(values[:, place])
    times = read_times(write_times(values[here, place].tolist(), field.form), form)
    if times is None:
        return data
    values[here, place] = times.seconds
    fields = list(data.fields)
    fields[place] = replace(field, form=form, note="")
    return replace(data, values=values, fields=tuple(fields))
