"""Why a comparison is not fair, and what to type next: the tests' findings in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.fairness.exchangeability import (
    ColumnShift,
    Neighbours,
    Order,
    Swapped,
)
from reverie.auditing.fairness.subjects import Subjects
from reverie.auditing.fairness.twins import BURSTS, CHANCE, SHARES, Bursts
from reverie.data import Dataset
from reverie.data.dates import times_of
from reverie.data.identifiers import is_key_name

KINDS = ("units", "twins", "swapped", "time", "order", "not-alike")
SHARE = SHARES[CHANCE]
AGREE, BY_CHANCE = 0.9, 0.5  # pairs of twins, and of any rows, that agree in a column of groups


@dataclass(frozen=True, eq=False)
class Found:
    """What the tests found, before correction."""

    raw: dict[str, float]
    columns: list[ColumnShift]
    area: float
    neighbours: Neighbours
    order: Order
    swapped: Swapped | None
    by_row: bool


@dataclass(frozen=True)
class Reason:
    """One reason why nothing can be concluded from the comparison.

    kind: one of KINDS. p_value: corrected over all tests (None where rows were counted: `count` of
    them). sentence: what was found. remedy: a command that mends it. advice: the remedy in words.
    """

    kind: str
    sentence: str
    remedy: str
    advice: str
    p_value: float | None = None
    count: int | None = None


def reasons_of(
    found: Found,
    p_values: dict[str, float],
    bursts: Bursts,
    sets: list[Dataset],
    alpha: float,
    subjects: Subjects | None = None,
) -> list[Reason]:
    """The reasons, of which there are none in a fair comparison; the clearest stand first."""
    files = _files(sets)
    rejected = {name for name, p in p_values.items() if p <= alpha}
    reasons = []
    if subjects is not None and subjects.unfair:
        reasons.append(_subjects(subjects, files))
    if bursts.unfair:
        reasons.append(_twins(bursts, sets, files))
    if "samples" in rejected and found.swapped is not None:
        reasons.append(_swapped(found.swapped, p_values["samples"], files))
    rejected.discard("samples")
    if rejected and max(bursts.one_sided) >= SHARE and len(bursts.members) >= BURSTS:
        least = min(p_values[name] for name in rejected)
        reason = _one_sided(bursts, found, least, files)
        return [*reasons, reason]  # bursts void the other tests, which take rows as independent
    if "columns" in rejected:
        factor = p_values["columns"] / max(found.raw["columns"], 1e-300)
        told = [c for c in found.columns if c.p_value * factor <= alpha]
        times = [c for c in told if c.is_time]
        rest = [c for c in told if not c.is_time]
        reasons += [_time(times, p_values["columns"], files)] if times else []
        reasons += [_columns(rest, p_values["columns"], files)] if rest else []
    if "order" in rejected and found.order.drifts:
        reasons.append(_order(found.order.later, p_values["order"], files))
    if rejected and not any(r.kind in ("twins", "time", "order", "not-alike") for r in reasons):
        reasons.append(_rest(found, rejected, p_values, files))
    return reasons


@dataclass(frozen=True)
class _Files:
    """How the three sets are called on a command line."""

    train: str
    holdout: str
    samples: str | None

    def audit(self, *options: str, swapped: bool = False) -> str:
        train, holdout = (self.holdout, self.train) if swapped else (self.train, self.holdout)
        parts = ["reverie audit", f"--train {train}", f"--holdout {holdout}"]
        parts += [f"--samples {self.samples}"] if self.samples else []
        return " ".join([*parts, *options])


def _files(sets: list[Dataset]) -> _Files:
    named = ["TRAIN", "HOLDOUT", "SAMPLES"]
    for k, data in enumerate(sets):
        if data.source and data.source != "the array" and " " not in data.source:
            named[k] = data.source
    if named[0] == named[1]:
        named[:2] = ["TRAIN", "HOLDOUT"]
    return _Files(named[0], named[1], named[2] if len(sets) > 2 else None)


SPLIT = (
    "Join both sets, let `reverie fit` split them at random and audit that run; or hold out rows "
    "that were drawn as the training rows were."
)
FIT = "reverie fit JOINED --out RUN"


def _subjects(found: Subjects, files: _Files) -> Reason:
    more = f" and {len(found.constant) - 3} more" if len(found.constant) > 3 else ""
    told = ", ".join(found.constant[:3]) + more
    sentence = (
        f"{found.held:,} of {found.looked:,} held-out rows are of a {found.column!r} that is "
        f"among the training rows too ({found.straddling:,} of {found.subjects:,} stand on both "
        f"sides), and all rows of one agree in {told}: a model that has seen one has seen it "
        "in all."
    )
    advice = (
        f"Split by {found.column!r}, so that all its rows stand on one side, and audit with "
        f"--group {_quoted(found.column)}."
    )
    remedy = files.audit(f"--group {_quoted(found.column)}")
    return Reason("units", sentence, remedy, advice, count=found.held)


def _twins(bursts: Bursts, sets: list[Dataset], files: _Files) -> Reason:
    count, looked = bursts.held
    column = _group_column(bursts, sets)
    sentence = (
        f"{count:,} of {looked:,} held-out rows have near-twins among the training rows, in "
        f"bursts of about {bursts.size:.0f} rows that the split cut apart: a model that has seen "
        "one has seen them all."
    )
    if column is not None:
        advice = (
            f"Twins agree in column {column!r}: split by it, so that all its rows stand on one "
            f"side, and audit with --group {column!r}; or keep one row of each burst with "
            "--write-clean."
        )
        return Reason(
            "twins", sentence, files.audit(f"--group {_quoted(column)}"), advice, count=count
        )
    advice = (
        "Split by person, so that all rows of one stand on one side, and name the column with "
        "--group; or keep one row of each burst with --write-clean, and fit anew."
    )
    return Reason("twins", sentence, files.audit("--write-clean clean"), advice, count=count)


def _group_column(bursts: Bursts, sets: list[Dataset]) -> str | None:
    """The column in which twins agree and other rows do not, if the table has one."""
    if sets[0].kind != "table" or sets[0].values.ndim != 2:
        return None
    pairs = [m[[0, -1]] for m in bursts.members]
    first, second = np.array(pairs).T
    values = np.concatenate([data.values for data in sets[:2]])
    shuffled = np.random.default_rng(0).permutation(second)
    found = []
    for j in range(values.shape[1]):
        column = values[:, j]
        agree, chance = ((column[first] == column[other]).mean() for other in (second, shuffled))
        name = sets[0].columns[j] if sets[0].columns else None
        told = agree >= AGREE and chance <= BY_CHANCE
        if name and told and times_of(sets[0], j) is None:
            found.append((not is_key_name(name), chance, name))  # keys first, then the rarest
    return min(found)[2] if found else None


def _quoted(name: str) -> str:
    return name if name.replace("_", "").isalnum() else "'" + name.replace("'", "") + "'"


def _swapped(found: Swapped, p_value: float, files: _Files) -> Reason:
    sentence = (
        f"The samples lie nearer to the held-out rows than to the training rows: "
        f"{found.share:.1%} of them have a held-out row as their nearest, where "
        f"{found.expected:.1%} would by chance, and {found.nearest} (p = {_p(p_value)})."
    )
    advice = (
        "The two sets may be swapped (then exchange them, as in the command), the training rows "
        "may be augmented (give the rows as they were before), or a filter took samples near "
        "training rows away (give the samples before the filter)."
    )
    return Reason("swapped", sentence, files.audit(swapped=True), advice, p_value)


def _time(columns: list[ColumnShift], p_value: float, files: _Files) -> Reason:
    first = max(columns, key=lambda c: abs(c.above - 0.5))
    side = "later" if first.above > 0.5 else "earlier"
    sentence = (
        f"Held-out rows are {side} in time: in {first.name} {_share(first)} "
        f"(p = {_p(p_value)}), so the two sets differ by what has changed in between."
    )
    return Reason("time", sentence, FIT, SPLIT, p_value)


def _columns(columns: list[ColumnShift], p_value: float, files: _Files) -> Reason:
    ordered = sorted(columns, key=lambda c: -abs(c.above - 0.5) * c.is_number)
    first = ordered[0]
    others = [c.name for c in ordered[1:5]]
    more = f" Also {', '.join(others)}." if others else ""
    if first.apart:
        side = "above" if first.above > 0.5 else "below"
        sentence = (
            f"The split was made along {first.name}: nearly all held-out values lie {side} the "
            f"training values (p = {_p(p_value)}), as when held-out rows are later in time.{more}"
        )
        return Reason("time", sentence, FIT, SPLIT, p_value)
    how = _share(first) if first.is_number else "categories have other shares on the two sides"
    sentence = (
        f"Training and held-out rows are not alike: in {first.name} {how} "
        f"(p = {_p(p_value)}).{more}"
    )
    return Reason("not-alike", sentence, FIT, SPLIT, p_value)


def _share(column: ColumnShift) -> str:
    if 0.45 < column.above < 0.55:
        return "the values are spread otherwise on the two sides"
    return (
        f"a held-out value lies above a training value {column.above:.0%} of the time, where "
        "alike sets give 50%"
    )


def _order(later: float, p_value: float, files: _Files) -> Reason:
    side = "after" if later > 0.5 else "before"
    sentence = (
        f"The order of the rows predicts the side: along the training file the rows drift, and "
        f"held-out rows look as if they stood {side} most of them ({max(later, 1 - later):.0%} of "
        f"pairs, where a random split gives 50%; p = {_p(p_value)})."
    )
    return Reason("order", sentence, FIT, SPLIT, p_value)


def _one_sided(bursts: Bursts, found: Found, p_value: float, files: _Files) -> Reason:
    """Bursts on one side of the split each: augmented rows, or persons without their column."""
    train, held = bursts.one_sided
    size = f"in bursts of about {bursts.size:.0f} near-twins"
    if min(train, held) > max(train, held) / 4:
        sentence = (
            f"Rows come {size} ({train:.0%} of the training, {held:.0%} of the held-out rows), "
            "each on one side: single rows are not exchangeable, bursts may be "
            f"(p = {_p(p_value)})."
        )
        advice = "Name the column of the persons, or whatever the bursts are, with --group."
        option = "--group COLUMN" if found.by_row else "--write-clean clean"
        return Reason("not-alike", sentence, files.audit(option), advice, p_value)
    side, other = ("Training", "held-out") if train > held else ("Held-out", "training")
    sentence = (
        f"{side} rows come {size} ({max(train, held):.0%} of them), and {other} rows do not "
        f"({min(train, held):.0%}): those of one side were augmented or repeated "
        f"(p = {_p(p_value)})."
    )
    advice = (
        "Give the rows as they were before they were augmented, or keep one row of each burst "
        "with --write-clean."
    )
    return Reason("not-alike", sentence, files.audit("--write-clean clean"), advice, p_value)


def _rest(found: Found, rejected: set[str], p_values: dict[str, float], files: _Files) -> Reason:
    """Sides that can be told apart, though no column, order or burst says why."""
    least = min(p_values[name] for name in rejected)
    near = found.neighbours
    if rejected == {"neighbours"} and not near.together:
        sentence = (
            "Nearest neighbours stand on opposite sides more often than by chance "
            f"(p = {_p(least)}): held-out rows are made from training rows, or the split put "
            "twins on opposite sides."
        )
        return Reason(
            "twins", sentence, files.audit("--write-clean clean"),
            "Keep one row of each pair with --write-clean, and fit anew.", least,
        )  # fmt: skip
    same = sum(near.held[:1] + near.train[:1])
    how = (
        f"boosted trees rightly order {found.area:.0%} of the pairs of a held-out and a training "
        "row that they never saw, where alike sets give 50%"
        if "classifier" in rejected
        else f"{same:,} of {near.pairs:,} pairs of nearest neighbours share a side, where "
        f"{near.held[1] + near.train[1]:,.0f} would by chance"
    )
    sentence = f"Training and held-out rows are not alike: {how} (p = {_p(least)})."
    return Reason("not-alike", sentence, FIT, SPLIT, least)


def _p(value: float) -> str:
    return f"{value:.2g}"
