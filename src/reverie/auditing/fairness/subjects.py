"""A column of subjects whose rows a split by row has put on both sides.

Rows of one patient share the patient's sex, height and genes: a model that has seen one row has
seen what is the same in all. Such a column is told by three things together, for each alone is
found in honest tables (cities lie in one country; a model of car is built for years):

    its name    says that it counts persons, animals or cases: id, subject, patient_nr, Pig
    its values  FEWEST or more stand in several rows, and no more than MOST_ROWS rows have one
    its rows    another column, which varies in the table, is constant within every value. Of G
                values each has a pair of rows, and were the column dealt anew over the rows, all
                G would agree with a chance of about q^G, q the share of all pairs that agree; over
                all columns this has to be below LEVEL. Another column varies within the values,
                else rows that stand twice would be subjects

Whole subjects on one side each (as after a split by the column) are no reason: a part SHARE of the
held-out rows, LEAST or more, must have a row of their subject among the training rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from reverie.data import Dataset
from reverie.data.dates import times_of

FEWEST, MOST_ROWS = 20, 30.0  # values that stand several times; rows of a value, in the mean
LEVEL = 1e-6  # of all columns together
LEAST, SHARE = 5, 0.05  # held-out rows whose subject is among the training rows
MOST_COLUMNS = 2000  # a wider array is no table of subjects
BEING = (
    "subj(ect)?|patient|person|participant|respondent|individual|proband|pupil|student|child"
    "|customer|client|user|member|employee|worker|player|donor|animal|pig|cow|dog|mouse|rat|case"
)
NAMED = re.compile(
    rf"id|nr|pid|({BEING})s?([_ .-]?(id|nr|no|num|number|code|key))?"
    rf"|(id|nr)[_ .-]?(of[_ .-]?)?({BEING})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Subjects:
    """A column of subjects: how many of `looked` held-out rows have rows of theirs in training.

    straddling: subjects with rows on both sides, of `subjects`. constant: names of the columns
    that are the same in all rows of a subject.
    """

    column: str
    straddling: int
    subjects: int
    held: int
    looked: int
    constant: tuple[str, ...]

    @property
    def unfair(self) -> bool:
        """Do so many held-out rows have a subject that is known from training?"""
        return self.held >= max(LEAST, SHARE * self.looked)


def find_subjects(train: Dataset, holdout: Dataset) -> Subjects | None:
    """The column of subjects of two aligned tables, or None; of several the finest.

    >>> import numpy as np
    >>> from reverie.auditing.fairness.subjects import find_subjects
    >>> from reverie.data import load
    >>> rng = np.random.default_rng(0)
    >>> person = np.repeat(np.arange(100), 4)
    >>> height, pulse = rng.normal(170, 9, 100)[person], rng.normal(70, 5, 400)
    >>> table = np.rec.fromarrays([person, height, pulse], names="patient,height,pulse")
    >>> rows = rng.permutation(400)
    >>> found = find_subjects(*(load(table[part], keys=True) for part in (rows[:200], rows[200:])))
    >>> found.column, found.constant, found.unfair
    ('patient', ('height',), True)
    """
    names = train.columns or tuple(field.name for field in train.fields)
    if train.kind != "table" or train.values.ndim != 2 or not names:
        return None
    if len(names) > MOST_COLUMNS or len(names) < 3:
        return None
    values = np.concatenate([train.values, holdout.values]).astype(np.float64)
    found = []
    for place, name in enumerate(names):
        if not NAMED.fullmatch(name.strip()) or times_of(train, place) is not None:
            continue
        unit = values[:, place]
        if not _counts(unit):
            continue
        constant, varying = _within(values, place)
        if constant and varying:
            told = tuple(names[j] for j in constant)
            found.append(_across(name, unit, len(train), told))
    return max(found, key=lambda one: one.subjects, default=None)


def _counts(unit: np.ndarray) -> bool:
    """Are they whole numbers, or texts, of which many stand several times, and none too often?"""
    here = unit[~np.isnan(unit)]
    if len(here) == 0 or (here != np.round(here)).any():
        return False
    _, rows = np.unique(here, return_counts=True)
    return bool((rows > 1).sum() >= FEWEST and rows.mean() <= MOST_ROWS)


def _within(values: np.ndarray, place: int) -> tuple[list[int], list[int]]:
    """Columns that are constant within every value of a column, beyond chance, and others."""
    here = values[~np.isnan(values[:, place])]
    rows = here[np.argsort(here[:, place], kind="stable")]
    same = rows[1:, place] == rows[:-1, place]
    start = np.flatnonzero(np.concatenate([[True], ~same]))
    several = int((np.diff(np.append(start, len(rows))) > 1).sum())
    constant, varying = [], []
    for j in range(rows.shape[1]):
        first, second = rows[:-1, j][same], rows[1:, j][same]
        agree = (first == second) | (np.isnan(first) & np.isnan(second))
        if j == place or not agree.all():
            varying += [j] if j != place else []
            continue
        counts = np.unique(rows[:, j], return_counts=True)[1].astype(float)
        pairs = (counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1))
        if rows.shape[1] * pairs**several <= LEVEL:
            constant.append(j)
    return constant, varying


def _across(name: str, unit: np.ndarray, n: int, constant: tuple[str, ...]) -> Subjects:
    train, held = unit[:n], unit[n:]
    both = np.intersect1d(train[~np.isnan(train)], held[~np.isnan(held)])
    subjects = len(np.unique(unit[~np.isnan(unit)]))
    return Subjects(name, len(both), subjects, int(np.isin(held, both).sum()), len(held), constant)
