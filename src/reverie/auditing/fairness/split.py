"""The split first: what stands twice, or nearly so, within and between training and held-out rows.

Exact: equal rows (missing cells equal one another). Near: two distinct rows whose distance is
below `c` times the spacing of both, where the spacing of a row is the distance to its 10th
neighbour among the distinct rows of the pool. The null is chance: around a row, points of a smooth
law of dimension D lie like a Poisson process, so that (d_1 / d_10)^D is the least of 9 uniforms:

    P(d_1 / d_10 < c) = 1 - (1 - c^D)^9.

`c` is set such that chance flags one row of the whole pool, and is at most a third. D is read off
d_5 / d_10, which two to five near-copies of a row leave alone: (d_5 / d_10)^D is a Beta(5, 5), and
the smallest D over its quantiles from 1% to 50% counts, for rows lie in clumps of fewer dimensions
where they agree in most columns. On mixed tables the count by chance is therefore a guide, not a
bound. In few dimensions chance itself puts rows close together, and near-duplicates cannot be
told; rows nearer than chance in groups of more than five may not be seen either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from reverie.auditing.common_space import coder_of, encode, in_common, straddling
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.fairness.alignment import Groups, align, read_sets, split_off_groups
from reverie.auditing.metrics.features import Features, features_of
from reverie.data import Dataset, Scaler, row_codes
from reverie.templates import render

NEIGHBOURS, MIDDLE = 10, 5
QUANTILES = (0.01, 0.03, 0.1, 0.5)
FALSE_ROWS = 1.0  # rows of the pool that chance may flag
CAP = 1 / 3
LISTED, LISTED_ROWS = 50, 20
SMALL, SMALL_NEAR = 0.01, 0.05  # shares of held-out rows that hardly move a figure


@dataclass(frozen=True)
class Cluster:
    """Rows that are equal, or near-duplicates in a chain; the lists are cut at 20 rows."""

    size: int
    exact: bool
    train_rows: list[int]
    holdout_rows: list[int]
    example: str = ""  # the cells of its first row, for tables


@dataclass(frozen=True, eq=False)
class SplitReport:
    """What `audit_split` found; masks are over the rows of each side.

    shared, near: held-out rows that stand in training verbatim, or as near-duplicates. repeated:
    training and held-out rows equal to an earlier one of their side. near_within: how many rows of
    each side have a near-duplicate on it. straddling: held-out rows whose group stands in training
    too. threshold, dimension: c and D of the module (None: not searched). clusters: the largest.
    Masks are (n,) of bool, one for each row of a side.

    >>> import numpy as np
    >>> from reverie.auditing import SplitReport, audit_split
    >>> train, holdout = np.random.default_rng(0).normal(size=(2, 100, 4))
    >>> found = audit_split(train, holdout)
    >>> isinstance(found, SplitReport), found.leaks, found.shared.shape
    (True, False, (100,))
    """

    sizes: tuple[int, int]
    distinct: int
    shared: np.ndarray
    near: np.ndarray
    repeated: tuple[np.ndarray, np.ndarray]
    near_within: tuple[int, int]
    straddling: np.ndarray
    groups_on_both: int | None
    threshold: float | None
    dimension: float | None
    clusters: list[Cluster]
    clusters_total: int
    notes: list[str]

    @property
    def leaks(self) -> bool:
        """Whether over 1% of the held-out rows stand in training verbatim, or over 5% nearly."""
        return bool(self.shared.mean() > SMALL or self.near.mean() > SMALL_NEAR)

    @property
    def clean(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each side that a clean split keeps: every row once, and in one place only."""
        leaks = self.shared | self.near | self.straddling
        return np.flatnonzero(~self.repeated[0]), np.flatnonzero(~self.repeated[1] & ~leaks)

    def sentences(self) -> list[str]:
        """The findings in words."""
        lines = [self._across(), *self._within()]
        if self.groups_on_both is not None:
            lines.append(
                f"{self.groups_on_both:,} groups stand on both sides, with "
                f"{self.straddling.sum():,} held-out rows: split by group instead."
                if self.groups_on_both
                else "No group stands on both sides."
            )
        if self.shared.any() and self.distinct < sum(self.sizes) / 2:
            lines.append(
                f"All {sum(self.sizes):,} rows hold only {self.distinct:,} different ones. In a "
                "table of few values equal rows come about by chance; in one of measurements they "
                "are the same record."
            )
        return lines + self.notes

    def _across(self) -> str:
        same, near, total = int(self.shared.sum()), int(self.near.sum()), self.sizes[1]
        if not same and not near:
            return "No held-out row stands in the training set, neither verbatim nor nearly."
        also = f", and {near:,} more nearly so" if near else ""
        line = f"{same:,} of {total:,} held-out rows ({same / total:.1%}) stand verbatim in "
        line += f"the training set{also}."
        if self.leaks:
            line += " Whatever is measured on these rows rewards memory: clean the split first."
        return line

    def _within(self) -> list[str]:
        lines = []
        for side, total, repeated, near in zip(
            ("training", "held-out"), self.sizes, self.repeated, self.near_within, strict=True
        ):
            if repeated.any() or near:
                also = f", and {near:,} have a near-duplicate" if near else ""
                lines.append(
                    f"{repeated.sum():,} of {total:,} {side} rows repeat an earlier one{also}."
                )
        return lines or ["No row is repeated within either side."]

    def to_json(self) -> dict[str, Any]:
        """Plain values: counts, the rule, and the listed clusters with row numbers from 0."""
        return {
            "sentences": self.sentences(),
            "sizes": {"train": self.sizes[0], "holdout": self.sizes[1]},
            "distinct_rows": self.distinct,
            "holdout_in_train": int(self.shared.sum()),
            "holdout_near_train": int(self.near.sum()),
            "share_of_holdout_in_train": float(self.shared.mean()),
            "repeated": {
                "train": int(self.repeated[0].sum()),
                "holdout": int(self.repeated[1].sum()),
            },
            "near_within": {"train": self.near_within[0], "holdout": self.near_within[1]},
            "groups_on_both_sides": self.groups_on_both,
            "near_threshold": self.threshold,
            "dimension": self.dimension,
            "clusters_total": self.clusters_total,
            "clusters": [asdict(cluster) for cluster in self.clusters],
        }

    def to_html(self) -> str:
        """The findings as an HTML fragment, everything in it escaped."""
        return render(Path(__file__).parent / "split.html", split=self)


def audit_split(
    train: Any,
    holdout: Any,
    *,
    features: Features | None = None,
    groups: Groups | None = None,
    space: str | Scaler | None = None,
) -> SplitReport:
    """Duplicates and near-duplicates within and between training and held-out rows.

    train, holdout: what `reverie.data.load` takes, mixed tables included. features: compare
    near-duplicates in these (see `features_of`); equal rows are always equal as given. groups: a
    column's name or two arrays of labels, to count the groups that stand on both sides. space:
    where the rows live, as in `audit`. Raises
    InputError on columns that do not match, or too few rows.

    >>> import numpy as np
    >>> from reverie.auditing import audit_split
    >>> train, holdout = np.random.default_rng(0).normal(size=(2, 100, 4))
    >>> holdout[:7] = train[:7]
    >>> int(audit_split(train, holdout).shared.sum())
    7
    """
    sets, group_ids = split_off_groups(read_sets(train, holdout, None), groups)
    sets = align(sets)
    notes: list[str] = []
    if features is not None:
        arrays = encode(features_of(sets, features), notes)
    else:
        arrays = in_common(sets, coder_of(space, sets), notes)
    codes = np.concatenate(row_codes(*(data.values for data in sets)))
    first = np.unique(codes, return_index=True)[1]  # codes count up from 0: first[code] is a row
    edges, threshold, dimension = _near_pairs(np.concatenate(arrays)[first])
    if threshold is None:
        notes.append("Near-duplicates were not searched: there are too few different rows.")
    component = _components(edges, len(first))[codes]
    n = len(sets[0])
    sides = codes[:n], codes[n:]
    shared = np.isin(sides[1], sides[0])
    leaked = np.isin(component[n:], component[:n])
    on_both = None if group_ids is None else straddling(*group_ids)
    grouped = np.zeros(len(sides[1]), bool)
    if group_ids is not None and on_both is not None:
        grouped = np.isin(group_ids[1], on_both)
    clusters, total = _clusters(component, codes, n, sets)
    return SplitReport(
        sizes=(n, len(sides[1])),
        distinct=len(first),
        shared=shared,
        near=leaked & ~shared,
        repeated=(_repeats(sides[0]), _repeats(sides[1])),
        near_within=(_linked(component[:n], sides[0]), _linked(component[n:], sides[1])),
        straddling=grouped,
        groups_on_both=None if on_both is None else len(on_both),
        threshold=threshold,
        dimension=dimension,
        clusters=clusters,
        clusters_total=total,
        notes=notes,
    )


def local_dimension(distance: np.ndarray) -> float:
    """Dimension D from the distances (n, 10) to ten neighbours (see the module); inf if tied."""
    distance = distance[distance[:, -1] > 0]
    if len(distance) == 0:
        return np.inf
    found = np.quantile(distance[:, MIDDLE - 1] / distance[:, -1], QUANTILES)
    if found[0] <= 0 or found[-1] >= 1:
        return np.inf
    expected = beta.ppf(QUANTILES, MIDDLE, NEIGHBOURS - MIDDLE)
    return float((np.log(expected) / np.log(found)).min())


def near_threshold(rows: int, dimension: float) -> float:
    """The ratio c below which chance puts one of `rows` rows, at most a third."""
    uniform = 1 - (1 - min(FALSE_ROWS / rows, 1.0)) ** (1 / (NEIGHBOURS - 1))
    return float(min(CAP, uniform ** (1 / dimension)))


def _near_pairs(points: np.ndarray) -> tuple[np.ndarray, float | None, float | None]:
    """Pairs (E, 2) of distinct rows that are near-duplicates, with c and D."""
    nothing = np.empty((0, 2), dtype=np.int64), None, None
    if len(points) <= NEIGHBOURS:
        return nothing
    distance, index = nearest(points, points, NEIGHBOURS, skip_self=True)
    dimension = local_dimension(distance)
    if not np.isfinite(dimension):
        return nothing
    spacing, threshold = distance[:, -1], near_threshold(len(points), dimension)
    reach = threshold * np.minimum(spacing[:, None], spacing[index])
    rows, places = np.nonzero(distance < reach)
    return np.column_stack([rows, index[rows, places]]), threshold, dimension


def _components(edges: np.ndarray, count: int) -> np.ndarray:
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1]


def _repeats(codes: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows equal to an earlier one."""
    mask = np.ones(len(codes), bool)
    mask[np.unique(codes, return_index=True)[1]] = False
    return mask


def _linked(component: np.ndarray, codes: np.ndarray) -> int:
    """How many rows share their component with a different row of their side."""
    pairs = np.unique(np.column_stack([component, codes]), axis=0)
    counts = np.bincount(pairs[:, 0])
    return int((counts[component] > 1).sum())


def _clusters(
    component: np.ndarray, codes: np.ndarray, n: int, sets: list[Dataset]
) -> tuple[list[Cluster], int]:
    """The largest components of more than one row, and how many such there are."""
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    several = np.flatnonzero(sizes > 1)
    largest = several[np.argsort(-sizes[several], kind="stable")[:LISTED]]
    example = _examples(sets)
    found = []
    for k in largest:
        rows = order[starts[k] : starts[k] + sizes[k]]
        found.append(
            Cluster(
                size=len(rows),
                exact=len(np.unique(codes[rows])) == 1,
                train_rows=rows[rows < n][:LISTED_ROWS].tolist(),
                holdout_rows=(rows[rows >= n] - n)[:LISTED_ROWS].tolist(),
                example=example(int(rows[0])),
            )
        )
    return found, len(several)


def _examples(sets: list[Dataset], longest: int = 100) -> Callable[[int], str]:
    """The cells of a pool row in one line; nothing for images."""

    def example(row: int) -> str:
        side, place = (sets[0], row) if row < len(sets[0]) else (sets[1], row - len(sets[0]))
        if side.kind != "table":
            return ""
        text = ", ".join(side.text(side.values[place]))
        return text if len(text) <= longest else text[: longest - 1] + "\u2026"

    return example
