"""Copying on a table of few cells, where distances say nothing: every row has many equals.

By chance, a cell holds a few more or fewer training rows than its share of the pool. A generator
that saw the training rows only through the law behind them cannot know these accidents; one that
draws its samples from the rows repeats all of them. With N_c pool rows, s_c of them members, and a
share g_c of the samples that fall on cells of the pool, the repeated part is the slope of

    g_c - N_c / N    on    s_c / n_S - N_c / N    with weights 1 / N_c,

0 for an honest generator and 1 for rows drawn again from the training table. Its p-value is the
permutation law of sum_c (g_c / N_c) s_c; its interval is of the weighted regression over cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.nulls.rank_tests import RankTest
from reverie.auditing.nulls.saddlepoint import permutation_p

REPEATED = 0.5  # more than this part of the accidents, surely, is called copies


@dataclass(frozen=True, eq=False)
class CellTable:
    """Samples, pool rows and members per cell of the pool, each (C,); cell (N,) of each row."""

    samples: np.ndarray
    pool: np.ndarray
    members: np.ndarray
    cell: np.ndarray

    def repeated(self) -> tuple[float, float]:
        """The slope and its standard error (robust to unequal variances, White 1980)."""
        return repeated_part(self.samples, self.pool, self.members)


def cell_table(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> CellTable:
    """Count cells; cells: integer codes of members, held-out rows and samples."""
    members, held, drawn = cells
    codes, cell, pool = np.unique(
        np.concatenate([members, held]), return_inverse=True, return_counts=True
    )
    place = np.minimum(np.searchsorted(codes, drawn), len(codes) - 1)
    samples = np.bincount(place[codes[place] == drawn], minlength=len(codes))
    return CellTable(samples, pool, np.bincount(cell[: len(members)], minlength=len(codes)), cell)


def repeated_part(
    samples: np.ndarray, pool: np.ndarray, members: np.ndarray
) -> tuple[float, float]:
    """Slope and standard error of the regression above, from counts (C,) per cell."""
    if samples.sum() == 0:
        return 0.0, np.inf
    share = pool / pool.sum()
    accident = members / members.sum() - share
    excess = samples / samples.sum() - share
    norm = (accident**2 / pool).sum()
    if norm == 0:
        return 0.0, np.inf
    slope = (accident * excess / pool).sum() / norm
    residual = excess - slope * accident
    return float(slope), float(np.sqrt(((accident * residual / pool) ** 2).sum()) / norm)


def repeats(slope: float, error: float) -> bool:
    """Is more than REPEATED of the accidents repeated, by the lower end of the 95% interval?"""
    return slope - 1.96 * error > REPEATED


def cell_test(table: CellTable, unit: np.ndarray, is_member: np.ndarray) -> RankTest:
    """Do samples repeat the training table's accidents? One-sided.

    unit: (N,) unit of each pool row; is_member: (U,) of bool.

    >>> import numpy as np
    >>> from reverie.auditing.nulls.cell_test import cell_table, cell_test
    >>> members, held, drawn = np.random.default_rng(0).integers(0, 20, (3, 200))
    >>> unit = np.arange(400)  # every row is a unit of its own
    >>> found = cell_test(cell_table((members, held, members)), unit, unit < 200)  # drawn: members
    >>> found.p_value < 0.01
    True
    """
    slope, error = table.repeated()
    on_pool = int(table.samples.sum())
    row_scores = (table.samples / table.pool)[table.cell]
    scores = np.bincount(unit, row_scores, minlength=len(is_member))
    interval = None
    if np.isfinite(error):
        interval = (slope - 1.96 * error, slope + 1.96 * error)
    return RankTest(
        "cell counts",
        slope,
        "permutation; expects 0, and 1 of training rows drawn again",
        permutation_p(scores, is_member) if on_pool else 1.0,
        interval,
        detail=f"{len(table.pool)} cells hold the pool, {table.pool.mean():.3g} rows each; "
        f"{on_pool} samples fall on them",
    )
