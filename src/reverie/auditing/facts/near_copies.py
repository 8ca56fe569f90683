"""Samples that nearly reproduce a training row."""

from __future__ import annotations

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import THIRD
from reverie.data import row_codes


def near_copies(drawn: np.ndarray, members: np.ndarray, third: float = THIRD) -> np.ndarray:
    """Mask (m,) of the samples within `third` of the way from a training row to its nearest other.

    drawn (m, d), members (n, d): rows in one space. This is the rule of `near_test`, read from
    the samples' side. Equal training rows count as one, so that a row that stands twice, which
    models copy first, is protected too. (A sample that close to a row has it as its nearest.)
    """
    distinct = members[np.unique(row_codes(members)[0], return_index=True)[1]]
    if len(distinct) < 2:
        return (drawn == distinct[0]).all(1)
    spacing = nearest(distinct, distinct, 1, skip_self=True)[0][:, 0]
    distance, index = nearest(drawn, distinct, 1)
    return distance[:, 0] < third * spacing[index[:, 0]]
