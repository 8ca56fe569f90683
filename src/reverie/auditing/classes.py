"""Tests within classes: a sample of a class is close to rows of that class, or to none.

Every class gets a coordinate of its own, in which its rows stand farther from all others than any
two rows stand from each other. Nearest rows are then of one class. Labels of training and held-out
rows are still exchangeable, since a class goes with its row: every null is exact as it was. What
is plainly there is counted over all rows: a copy is one in whatever class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.errors import InputError

BEYOND = 2.0  # distance between classes, in diagonals of the box around all rows


@dataclass(frozen=True, eq=False)
class Classes:
    """Labels (n,) of training, held-out and sampled rows, and what they are called."""

    labels: tuple[np.ndarray, np.ndarray, np.ndarray]
    name: str = ""

    def sentence(self, count: int) -> str:
        """What the reader is told."""
        of = f" of {self.name}" if self.name else ""
        return (
            f"The tests compare samples with rows of their own class alone ({count} classes{of})."
        )


def within_classes(space: CommonSpace, classes: Classes) -> CommonSpace:
    """The space with its classes held apart; InputError unless every row has a label."""
    sets = (space.members, space.held, space.drawn)
    sizes = [len(rows) for rows in sets]
    if [len(labels) for labels in classes.labels] != sizes:
        raise InputError(f"classes are needed for {sizes} training, held-out and sampled rows")
    known, codes = np.unique(np.concatenate(classes.labels), return_inverse=True)
    if len(known) < 2:
        return space
    ends = [rows for rows in sets if len(rows)]
    low, high = np.min([r.min(0) for r in ends], 0), np.max([r.max(0) for r in ends], 0)
    # the rows of two classes differ in two coordinates, each by this
    apart = BEYOND * max(float(np.linalg.norm(high - low)), 1.0) / 2**0.5
    blocks = np.split(np.eye(len(known))[codes] * apart, np.cumsum(sizes)[:-1])
    wide = [np.concatenate(pair, 1) for pair in zip(sets, blocks, strict=True)]
    cells = space.cells
    if cells is not None:
        pairs = np.stack([np.concatenate(cells), codes], 1)
        _, joint = np.unique(pairs, axis=0, return_inverse=True)
        first, second, third = np.split(joint, np.cumsum(sizes)[:-1])
        cells = (first, second, third)
    text = space.text
    if text is not None:
        text = np.concatenate([text, np.zeros(len(known), bool)])
    return replace(
        space, members=wide[0], held=wide[1], drawn=wide[2], cells=cells, text=text,
        notes=[*space.notes, classes.sentence(len(known))],
    )  # fmt: skip
