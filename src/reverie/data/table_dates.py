"""Columns of dates as numbers: seconds since 1970, which are written in the form they came in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.date_forms import pattern_of


def with_dates_as_numbers(data: Dataset) -> Dataset:
    """The table with its columns of dates as seconds since 1970, written as they came."""
    fields, values = list(data.fields), data.values
    for j, field in enumerate(fields):
        found = pattern_of(field.categories) if field.kind == "categorical" else None
        if found is None:
            continue
        pattern, seconds = found
        values = values.copy() if values is data.values else values
        column = values[:, j]
        here = ~np.isnan(column)
        column[here] = seconds[column[here].astype(np.int64)]
        fields[j] = Column(field.name, dtype=field.dtype, missing=field.missing, pattern=pattern)
    return data if values is data.values else replace(data, values=values, fields=tuple(fields))
