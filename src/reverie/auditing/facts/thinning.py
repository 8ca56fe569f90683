"""Near-copies of training rows, thinned to what chance gives: a filter that leaves no hole.

To refuse every near-copy leaves a hole around each training row (`auditing.model.holes`). To
refuse the samples near held-out rows alike hides only which side of the pool a row was on: a row
of neither set still has samples near it, so that the holes then give the pool away. No filter that
keeps all samples away from training rows can hide them from somebody who asks about any row. So
near-copies are kept, as many and as close as an unseen row has by chance.

Let u be a sample's distance to a row over the distance from that row to the nearest (other)
training row; it is near below a half, where no sample is near two training rows. Let a(b) be the
near samples of an average training row in the shell b of u, and h(b) those of an average held-out
row, which the generator has not seen. A sample in shell b of training row i is kept with chance

    min(1, h(b) / a(b)) min(1, q(i) / c(i))

with c(i) what the first factor leaves of the near samples of row i in the mean, and q(i) that
number for the held-out row of the same rank. Then

    * in the mean no shell of the training rows is fuller than that of held-out rows, and no rank
      of them has more samples than the held-out row of that rank: no closeness is left
    * where the generator knows no row, training and held-out rows are exchangeable, both factors
      tend to 1 as rows grow, nothing is refused, and what is written is the generator's own law:
      no hole, an AUC of 1/2, whatever other row of the same source it is compared with
    * where the generator copies, both factors are ratios to what it makes near unseen rows, so
      that what is left has that law, on average over training rows: again 1/2

Exact copies lie in a shell of their own: where held-out rows are not met exactly, none is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import THIRD
from reverie.data import row_codes

REACH = 1 / 2  # of the way to the nearest other row: up to here a sample has one owner
SHELLS = np.append(THIRD * 2.0 ** -np.arange(6.0, -1.0, -1.0), REACH)  # outer radii, after u = 0
NEIGHBOURS = 16  # held-out rows that one sample may be near to


@dataclass(frozen=True, eq=False)
class Near:
    """Pairs (P,) of a sample and a row that it is near to, and the shell of each, of `rows` rows.

    Shell 0 holds equal rows, shell k those within SHELLS[k - 1].
    """

    sample: np.ndarray
    row: np.ndarray
    shell: np.ndarray
    rows: int

    @property
    def per_row(self) -> np.ndarray:
        """(shells,) pairs of an average row."""
        return np.bincount(self.shell, minlength=len(SHELLS) + 1) / self.rows

    def counts(self, weight: np.ndarray | None = None) -> np.ndarray:
        """(rows,) pairs of each row, each pair weighing `weight`."""
        return np.bincount(self.row, weight, minlength=self.rows)


def keeping_chance(members: np.ndarray, held: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Chance (s,) with which each sample is kept; see the module. 1 for all that are not near.

    members (n, d), held (m, d), drawn (s, d): rows in one space, n and m at least 2.
    """
    ours, theirs = near_members(members, drawn), near_held(members, held, drawn)
    keep = np.ones(len(drawn))
    if len(ours.sample) == 0:
        return keep
    there, chance = ours.per_row, theirs.per_row
    shell = np.minimum(1.0, np.divide(chance, there, out=np.ones_like(there), where=there > 0))
    count = ours.counts(shell[ours.shell])
    quota = same_rank(count, theirs.counts().astype(float))
    row = np.minimum(1.0, np.divide(quota, count, out=np.ones_like(count), where=count > 0))
    keep[ours.sample] = shell[ours.shell] * row[ours.row]
    return keep


def near_members(members: np.ndarray, drawn: np.ndarray) -> Near:
    """The training row that each sample is near to: at most one, as their balls do not meet."""
    distinct = members[np.unique(row_codes(members)[0], return_index=True)[1]]
    if len(distinct) < 2:
        same = np.flatnonzero((drawn == distinct[0]).all(1))
        return Near(same, np.zeros(len(same), int), np.zeros(len(same), int), 1)
    spacing = nearest(distinct, distinct, 1, skip_self=True)[0][:, 0]
    distance, index = (a[:, 0] for a in nearest(drawn, distinct, 1))
    ratio = distance / spacing[index]
    sample = np.flatnonzero(ratio < REACH)
    return Near(sample, index[sample], shell_of(ratio[sample]), len(distinct))


def near_held(members: np.ndarray, held: np.ndarray, drawn: np.ndarray) -> Near:
    """All pairs of a sample and a held-out row, each row at its distance to a training row.

    A held-out row that equals a training row is none that was not seen, and is left out.
    """
    spacing = nearest(held, members, 1)[0][:, 0]
    held, spacing = held[spacing > 0], spacing[spacing > 0]
    if len(held) == 0:
        return Near(*(np.empty(0, int) for _ in range(3)), rows=1)
    distance, index = nearest(drawn, held, NEIGHBOURS)
    ratio = distance / spacing[index]
    sample, place = np.nonzero(ratio < REACH)
    return Near(sample, index[sample, place], shell_of(ratio[sample, place]), len(held))


def shell_of(ratio: np.ndarray) -> np.ndarray:
    """The shell (P,) of ratios below REACH: 0 where rows are equal."""
    return np.where(ratio == 0, 0, 1 + np.searchsorted(SHELLS[:-1], ratio, "right"))


def same_rank(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `values` (n,) the value of the same rank among `others` (m,), interpolated.

    Equal values get the mean of their ranks' values, so that nothing turns on how ties fall.
    """
    place = (np.arange(len(values)) + 0.5) / len(values)
    own = (np.arange(len(others)) + 0.5) / len(others)
    ranked = np.interp(place, own, np.sort(others))
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    return (np.bincount(group, ranked[np.argsort(np.argsort(values, kind="stable"))]) / size)[
        group
    ]
