"""The audit: from training, held-out and sampled rows to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from reverie.auditing.cell_test import CellTable, cell_table, cell_test, repeats
from reverie.auditing.closeness import Closeness, CommonSpace, closeness
from reverie.auditing.named import flagged_samples, records
from reverie.auditing.neighbours import nearest
from reverie.auditing.power import Power, planted_noise, planted_power
from reverie.auditing.rank_tests import (
    THIRD,
    RankTest,
    holm,
    near_test,
    ratios,
    share_effect,
    share_test,
    tail_test,
    wilson,
)
from reverie.auditing.tail_null import fewest_visible
from reverie.auditing.verdict import Row, Verdict
from reverie.curve import Leak, LossCurve, measure
from reverie.data import Dataset, in_user_layout, load, shared_rows
from reverie.denoisers import Denoiser
from reverie.errors import InputError

NEEDED_SHARE = 0.01  # copies at this share of the samples must be visible, or it is inconclusive
LEAST_ROWS = 10
LEAST_GROUPS = 10
FEW_CELLS = 0.5  # cells per pool row: below it a discrete table is counted cell by cell


def audit(
    train: Any,
    holdout: Any,
    samples: Any,
    denoiser: Denoiser | None = None,
    *,
    curves: tuple[LossCurve, LossCurve] | None = None,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
    groups: tuple[Any, Any] | None = None,
    alpha: float = 0.05,
    tol: float = 0.05,
    randomised: bool = False,
    seed: int = 0,
) -> Verdict:
    """Does a generator copy its training rows?

    train, holdout, samples: arrays, tensors, files or built-in names with rows of one shape; any
    generator at all. denoiser: adds the leak (then train and holdout are in its own space), or
    give the two curves already measured. features: turns rows (n, ...) into the vectors (n, d)
    that are compared. groups: ids of the training and of the held-out rows (n,); rows of one group
    (a person) count as one, and no group may stand on both sides. alpha: level of the joint
    decision. tol: share of the samples by which an honest model may lean towards its training
    rows. randomised: make the size of the tail test `alpha` itself, by a seeded draw.

    Returns a Verdict: `copies` when the exact tail test rejects and near-copies outnumber what an
    honest fit's odds explain, or when a table of few cells is repeated cell by cell; `dependence`
    when something else rejects; `none` when nothing does and copies at 1% of the samples would
    have been seen; else `inconclusive`. Raises InputError on shapes that differ, too few rows or
    groups, groups on both sides, values that are not finite, or a held-out set that is the
    training set.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; it must lie between 0 and 1")
    if not 0 <= tol < 1:
        raise InputError(f"tol is {tol}; it must lie between 0 and 1")
    scaled, kept, notes = _prepare(
        _featured(_rows(train, "train"), features),
        _featured(_rows(holdout, "holdout"), features),
        _featured(_rows(samples, "samples"), features),
    )
    members, held, drawn = scaled
    ids = None if groups is None else _group_ids(groups, len(members), len(held))
    space = CommonSpace(members, held, drawn, ids, _cells(members, held, drawn), notes)
    leak = _leak(denoiser, kept, curves, seed)
    return weigh(space, leak=leak, alpha=alpha, tol=tol, randomised=randomised, seed=seed)


def weigh(
    space: CommonSpace,
    *,
    leak: Leak | None = None,
    extra: Sequence[Row] = (),
    alpha: float = 0.05,
    tol: float = 0.05,
    randomised: bool = False,
    seed: int = 0,
) -> Verdict:
    """The verdict on rows in a common space; options as in `audit`.

    extra: further lines of the table. Those with a p-value, of the exchange of training and
    held-out labels, join the family that is corrected together; their `p_joint` is set here.
    """
    close = closeness(space)
    table = _counted(space)
    tests = [
        tail_test(close.unit_ratio(-1), close.is_member, seed, alpha, randomised),
        share_test(close.counts, close.is_member),
    ]
    if table is not None:
        tests.append(cell_test(table, close.unit, close.is_member))
    lines = [_line(test, close, len(space.drawn)) for test in tests]
    lines += [_leak_line(leak, len(close.pool))] if leak is not None else []
    lines += list(extra)
    near = near_test(close.unit_ratio(0), close.is_member, seed)
    joint = _corrected(lines, _line(near, close, len(space.drawn)))
    power = planted_power(
        close,
        len(space.drawn),
        table,
        tests=sum(line.p_value is not None for line in lines),
        alpha=alpha,
        seed=seed,
    )
    effect = share_effect(close.counts, close.is_member, tol)
    found = records(close, seed)
    members, others = int(close.is_member.sum()), int((~close.is_member).sum())
    sizes = {"train": len(space.members), "holdout": len(space.held), "samples": len(space.drawn)}
    if not close.by_row:
        sizes |= {"train_groups": members, "holdout_groups": others}
    return Verdict(
        finding=_finding(joint, table, power, alpha),
        p_value=min(line.p_joint for line in joint if line.p_joint is not None),
        table=joint + _rates(space),
        records=found,
        power=power,
        fewest=fewest_visible(members, others, alpha),
        alpha=alpha,
        sizes=sizes,
        effect=effect,
        planted_noise=planted_noise(close, table),
        flagged_samples=flagged_samples(close, found, space.drawn),
        leak=leak,
        notes=[*space.notes, *_group_notes(close)],
    )


def _rows(value: Any, name: str) -> Dataset:
    data = load(value)
    if len(data) < LEAST_ROWS:
        raise InputError(f"{name} has {len(data)} row(s); an audit needs at least {LEAST_ROWS}")
    flat = data.values.reshape(len(data), -1)
    if not np.isfinite(flat).all():
        row, column = np.argwhere(~np.isfinite(flat))[0]
        raise InputError(f"{name}: row {row}, column {column} is not a finite number")
    return data


def _prepare(
    train: Dataset, holdout: Dataset, samples: Dataset
) -> tuple[list[np.ndarray], tuple[Any, Any], list[str]]:
    """Flatten, and scale all three in common; columns are matched by name.

    Rows that stand in both splits are kept: dropping them from one side would break the exchange
    of labels on which every p-value rests. They carry no evidence, which the notes say.
    """
    holdout = _aligned(holdout, train, "holdout")
    samples = _aligned(samples, train, "samples")
    shared, notes = shared_rows(holdout.values, train.values), []
    distinct = len(np.unique(train.values.reshape(len(train), -1), axis=0)) / len(train)
    if shared.mean() > 0.5 and distinct > 0.5:
        raise InputError(
            f"{shared.sum()} of {len(holdout)} held-out rows stand verbatim in the training set: "
            "the audit needs rows that the model has not seen"
        )
    if shared.any():
        notes.append(
            f"{shared.sum()} of {len(holdout)} held-out rows also stand in the training set: they "
            "carry no evidence and lower the power."
        )
    flat = [
        a.reshape(len(a), -1).astype(np.float64)
        for a in (train.values, holdout.values, samples.values)
    ]
    pool = np.concatenate(flat[:2])
    if train.kind == "images":
        scale = np.full(pool.shape[1], pool.std())
    else:
        scale = pool.std(0)
        constant = scale <= 1e-12 * np.abs(pool).max(0)
        if constant.any():
            scale = np.where(constant, 1.0, scale)
            notes.append(f"{constant.sum()} constant column(s) carry no information.")
    if not scale.any():
        raise InputError("all training and held-out rows are the same point")
    kept = (in_user_layout(train), in_user_layout(holdout))
    return [a / scale for a in flat], kept, notes


def _aligned(other: Dataset, train: Dataset, name: str) -> Dataset:
    """`other` with its columns in the order of `train`, or InputError."""
    if other.shape != train.shape:
        raise InputError(f"{name} has rows of shape {other.shape}, train of {train.shape}")
    if other.columns is None or train.columns is None or other.columns == train.columns:
        return other
    if sorted(other.columns) != sorted(train.columns):
        odd = sorted(set(other.columns) ^ set(train.columns))
        raise InputError(f"{name} and train have other columns: {', '.join(odd)}")
    order = [other.columns.index(column) for column in train.columns]
    moved = other.with_values(other.values[:, order], other.source)
    return replace(moved, columns=train.columns)


def _featured(data: Dataset, features: Callable[[np.ndarray], np.ndarray] | None) -> Dataset:
    if features is None:
        return data
    vectors = np.asarray(features(data.values), dtype=np.float64)
    if len(vectors) != len(data):
        raise InputError(f"features gave {len(vectors)} vectors for {len(data)} rows")
    return Dataset(vectors.reshape(len(vectors), -1), "vectors", data.source)


def _group_ids(groups: tuple[Any, Any], members: int, held: int) -> tuple[np.ndarray, np.ndarray]:
    """Checked ids of both sides."""
    ids = tuple(np.asarray(side).reshape(-1) for side in groups)
    for side, rows, name in zip(ids, (members, held), ("train", "holdout"), strict=True):
        if len(side) != rows:
            raise InputError(f"groups has {len(side)} ids for the {rows} rows of {name}")
        if len(np.unique(side)) < LEAST_GROUPS:
            raise InputError(
                f"{name} has {len(np.unique(side))} group(s); an audit needs at least "
                f"{LEAST_GROUPS}"
            )
    both = np.intersect1d(ids[0], ids[1])
    if len(both):
        raise InputError(
            f"group {both[0]} stands in train and holdout ({len(both)} such group(s)): a group "
            "must be on one side"
        )
    return ids[0], ids[1]


def _group_notes(close: Closeness) -> list[str]:
    """Labels of groups are exchangeable only if their sizes are."""
    if close.by_row:
        return []
    size = np.bincount(close.unit)
    p = stats.mannwhitneyu(size[close.is_member], size[~close.is_member]).pvalue
    lines = ["Rows of one group count as one: the closest row speaks for its group."]
    if p < 0.01:
        lines.append(
            "Training and held-out groups differ in size more than a random split of groups would "
            f"(p = {p:.1g}): the p-values cannot be trusted."
        )
    return lines


def _cells(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Codes of equal rows, when the pool has few distinct ones; else None."""
    pool = np.concatenate([members, held])
    if len(np.unique(pool[:, 0])) > FEW_CELLS * len(pool):  # cheap, and enough for most
        return None
    codes = np.unique(np.concatenate([pool, drawn]), axis=0, return_inverse=True)[1].reshape(-1)
    if len(np.unique(codes[: len(pool)])) > FEW_CELLS * len(pool):
        return None
    return codes[: len(members)], codes[len(members) : len(pool)], codes[len(pool) :]


def _counted(space: CommonSpace) -> CellTable | None:
    """The table of cells, when they are few beside the pool; else distances tell more."""
    if space.cells is None:
        return None
    table = cell_table(space.cells)
    return table if len(table.pool) <= FEW_CELLS * len(table.cell) else None


def _leak(
    denoiser: Denoiser | None, kept: Any, curves: tuple[LossCurve, LossCurve] | None, seed: int
) -> Leak | None:
    if curves is not None:
        return curves[0].leak(curves[1])
    if denoiser is None:
        return None
    pair = []
    for values in kept:
        rows = torch.as_tensor(np.asarray(values), dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        pair.append(measure(denoiser, rows, generator=generator))
    return pair[0].leak(pair[1])


def _line(test: RankTest, close: Closeness, samples: int) -> Row:
    n = samples if test.name in ("share", "cell counts") else len(close.is_member)
    return Row(
        test.name, test.statistic, test.null, test.interval, test.p_value, None, n, test.detail
    )


def _leak_line(leak: Leak, pool: int) -> Row:
    z = leak.nats / leak.stderr if leak.stderr > 0 else 0.0
    return Row(
        "leak (nats)", leak.nats, "normal, mean 0", (leak.low, leak.high),
        float(stats.norm.sf(z)), None, pool,
        f"up to a signal-to-noise ratio of {leak.level:.3g}", "information",
    )  # fmt: skip


def _corrected(lines: list[Row], near: Row) -> list[Row]:
    """The lines with their Holm-corrected p-values, and the near-copy test after the tail test.

    The near-copy test is asked only once the tail test has rejected, so it costs the others
    nothing: its corrected p-value is the larger of the two (a fixed sequence).
    """
    family = [line for line in lines if line.p_value is not None]
    adjusted = iter(holm([line.p_value for line in family if line.p_value is not None]))
    joint = [
        line if line.p_value is None else replace(line, p_joint=next(adjusted)) for line in lines
    ]
    tail = next(line for line in joint if line.statistic == "tail")
    assert tail.p_joint is not None
    assert near.p_value is not None
    return [*joint, replace(near, p_joint=max(tail.p_joint, near.p_value))]


def _rates(space: CommonSpace) -> list[Row]:
    """The 1/3-ratio rate of the samples, and of held-out rows in their place."""
    rows = []
    for name, queries in (("samples", space.drawn), ("held-out rows", space.held)):
        distance = nearest(queries, space.members, 2)[0]
        hits = int((ratios(distance[:, 0], distance[:, -1]) < THIRD).sum())
        is_drawn = name == "samples"
        rows.append(
            Row(
                f"{'' if is_drawn else '... of '}{'1/3-ratio rate of ' if is_drawn else ''}{name}",
                hits / len(queries),
                "compare with the held-out rows' own" if is_drawn else "the null rate",
                wilson(hits, len(queries)),
                None,
                None,
                len(queries),
                section="rates",
            )
        )
    return rows


def _finding(lines: list[Row], table: CellTable | None, power: list[Power], alpha: float) -> str:
    joint = {line.statistic: line.p_joint for line in lines if line.p_joint is not None}
    if joint["near-copies"] <= alpha:
        return "copies"
    if table is not None and joint["cell counts"] <= alpha and repeats(*table.repeated()):
        return "copies"
    if min(joint.values()) <= alpha:
        return "dependence"
    seen = [p.caught for p in power if p.share <= NEEDED_SHARE]
    return "none" if seen and max(seen) >= 0.8 else "inconclusive"
