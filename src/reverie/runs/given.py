"""What a run's model is told, as a person writes it: the name of a label, or numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data import Dataset, TableCoder
from reverie.data.conditions import NO_LABEL, with_taken
from reverie.data.dataset import TableForm
from reverie.errors import InputError
from reverie.runs.folder import Fitted, conditions_of

NOTHING = ("", "none", "nan")  # not told, or not observed
SHOWN = 20


def as_given(run: Fitted, given: Any) -> dict[str, Any]:
    """What is given, as an option of `draw`: the condition, or the cells of a table.

    given: a word, or words; of a table cells, as {"group": "B"} or `group=B`. Raises InputError
    on what the run does not know.
    """
    words = [given] if isinstance(given, str) else given
    if not isinstance(run.scaler, TableCoder):
        text = " ".join(map(str, words)) if isinstance(words, Sequence) else str(given)
        return {"condition": condition_given(run, text)}
    if isinstance(given, Mapping):
        return {"given": given}
    pairs = [str(word).partition("=") for word in words]
    if not all(sign for _, sign, _ in pairs):
        raise InputError(f"given {' '.join(words)}: write COLUMN=VALUE, as diagnosis=B")
    return {"given": {name.strip(): cell.strip() for name, _, cell in pairs}}


def condition_given(run: Fitted, text: str) -> Tensor:
    """One condition, (1,) of a label or (1, *shape) of values, for `draw`.

    text: the name of a label, or numbers joined by commas (`nan` or nothing where one is not
    known); `NAME=` may stand before it, with the condition's own name. InputError names what the
    run knows.
    """
    told = conditions_of(run.train)
    if told is None:
        raise InputError("this run was fitted without a condition: fit it with --condition")
    name, equals, value = text.partition("=")
    if equals and name.strip() == run.train.condition:
        text = value
    if told.ndim == 1 and not told.is_floating_point():
        return torch.tensor([_label(run, text.strip(), int(told.max()))])
    shape = tuple(told.shape[1:])
    numbers = [_number(part, text) for part in text.split(",")]
    if len(numbers) != math.prod(shape):
        raise InputError(
            f"given {text!r} is {len(numbers)} number(s); this run is told {math.prod(shape)}"
            f"{_of(run)}, joined by commas"
        )
    return torch.tensor(numbers).reshape(1, *shape)


def whole_rows(run: Fitted, values: np.ndarray, told: Tensor | None) -> Dataset:
    """Samples (n, *shape) in the data's units, with the column that the model was told in it.

    told: what each sample was told, or one row for all. Where conditions were no column of a
    table, the samples are as they are.
    """
    train = run.train
    form = TableForm(**run.scaler.table) if train.form is None and run.scaler.table else train.form
    rows = replace(train.with_values(values, "the samples"), labels=train.labels, form=form)
    return rows if told is None else with_taken(rows, told.cpu().numpy())


def filled_sentence(run: Fitted, told: Tensor | None, was_given: bool) -> str:
    """How the column of conditions was filled, or nothing where there is none."""
    taken = run.train.taken
    if taken is None or told is None:
        return ""
    name = taken.column.name
    if was_given:
        return f"column {name!r} holds what was given"
    if not run.train.labels:
        return f"column {name!r} was drawn from the training rows"
    codes = told.cpu().numpy()
    named = [*run.train.labels, "missing"]
    counts = np.bincount(np.where(codes < 0, len(named) - 1, codes), minlength=len(named))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    shares = ", ".join(f"{named[k]} {counts[k] / len(codes):.0%}" for k in order[:SHOWN])
    more = ", ..." if len(order) > SHOWN else ""
    return f"column {name!r} was drawn as often as in the training rows ({shares}{more})"


def told_sentence(train: Dataset) -> list[str]:
    """What the model is told, in a line for the reader; none where it is told nothing."""
    if train.conditions is None:
        return []
    name = train.condition or "a condition"
    if train.labels:
        return [f"told {name}: {_listed(train.labels)}"]
    count = math.prod(train.conditions.shape[1:])
    return [f"told {name}" + (f": {count} numbers" if count > 1 else "")]


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _label(run: Fitted, text: str, most: int) -> int:
    names = run.train.labels or tuple(str(k) for k in range(most + 1))
    if text in names:
        return names.index(text)
    if text.lower() in NOTHING:
        return NO_LABEL
    same = [k for k, name in enumerate(names) if _is_same(name, text)]
    if len(same) == 1:
        return same[0]
    raise InputError(
        f"given {text!r} is no label of this run{_of(run)}; it knows {_listed(names)}"
    )


def _is_same(name: str, text: str) -> bool:
    """The same word in another case, or the same number."""
    if name.lower() == text.lower():
        return True
    try:
        return float(name) == float(text)
    except ValueError:
        return False


def _number(part: str, text: str) -> float:
    if part.strip().lower() in NOTHING:
        return math.nan
    try:
        return float(part)
    except ValueError as error:
        raise InputError(
            f"given {text!r}: {part.strip()!r} is no number, and this run is told numbers"
        ) from error


def _of(run: Fitted) -> str:
    return f" ({run.train.condition})" if run.train.condition else ""
