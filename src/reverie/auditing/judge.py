"""The audit: from training, held-out and sampled rows to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from reverie.auditing.common_space import CommonSpace, common_space
from reverie.auditing.facts.closeness import FEW_CELLS, Closeness, closeness
from reverie.auditing.facts.named import flagged_samples, records
from reverie.auditing.fairness.alignment import Groups
from reverie.auditing.metrics.calibrated import calibrated_rates
from reverie.auditing.metrics.features import Features
from reverie.auditing.metrics.fidelity import LEAST, fidelity, fidelity_sentence
from reverie.auditing.model.membership import membership_rows
from reverie.auditing.nulls.cell_test import CellTable, cell_table, cell_test, repeats
from reverie.auditing.nulls.power import Power, planted_noise, planted_power
from reverie.auditing.nulls.rank_tests import (
    RankTest,
    holm,
    near_test,
    share_effect,
    share_test,
    tail_test,
)
from reverie.auditing.nulls.tail_null import fewest_visible
from reverie.auditing.verdict import Row, Verdict
from reverie.curve import Leak, LossCurve, measure
from reverie.data import Scaler
from reverie.denoisers import Denoiser
from reverie.errors import InputError

NEEDED_SHARE = 0.01  # copies at this share of the samples must be visible, or it is inconclusive


def audit(
    train: Any,
    holdout: Any,
    samples: Any,
    denoiser: Denoiser | None = None,
    *,
    curves: tuple[LossCurve, LossCurve] | None = None,
    conditions: tuple[Any, Any] | None = None,
    features: Features | None = None,
    groups: Groups | None = None,
    space: str | Scaler | None = None,
    extra: Sequence[Row] = (),
    alpha: float = 0.05,
    tol: float = 0.05,
    randomised: bool = False,
    metrics: bool = True,
    seed: int = 0,
) -> Verdict:
    """Does a generator copy its training rows?

    train, holdout, samples: arrays, tensors, files or built-in names with rows of one shape, mixed
    tables included; any generator at all. denoiser: adds the leak and membership tests (train and
    holdout are then in its own space), or give the two curves already measured. conditions: what a
    conditional denoiser is told about the training and the held-out rows. features: compare
    these instead of the rows (see `features_of`). groups: the column, or the two arrays, that name
    each row's group; rows of one group (a person) count as one, and no group may stand on both
    sides. space: where the rows live, if they are no vectors (see `reverie.data.coder_for`), or a
    run's coder; distances are then the space's own. extra: further lines of the table (see
    `weigh`). alpha: level of the joint decision. tol: share of the samples by which an honest
    model may lean towards its training rows.
    randomised: make the size of the tail test `alpha` itself, by a seeded draw. metrics: add the
    published metrics and the fidelity tests, which stand beside the verdict and never decide it.

    Returns a Verdict: `copies` when the exact tail test rejects and near-copies outnumber what an
    honest fit's odds explain, or when a table of few cells is repeated cell by cell; `dependence`
    when something else rejects; `none` when nothing does and copies at 1% of the samples would
    have been seen; else `inconclusive`. Raises InputError on shapes or columns that differ, too
    few rows or groups, groups on both sides, values that are not finite, or a held-out set that is
    the training set.
    """
    common = common_space(train, holdout, samples, features=features, groups=groups, space=space)
    lines = list(extra)
    if denoiser is not None and denoiser.process.gaussian is not None:
        lines += membership_rows(denoiser, *_points(common), seed=seed, conditions=conditions)
    leak = _leak(denoiser, common, curves, conditions, seed)
    return weigh(
        common, leak=leak, extra=lines, alpha=alpha, tol=tol, randomised=randomised,
        metrics=metrics, seed=seed,
    )  # fmt: skip


def weigh(
    space: CommonSpace,
    *,
    leak: Leak | None = None,
    extra: Sequence[Row] = (),
    alpha: float = 0.05,
    tol: float = 0.05,
    randomised: bool = False,
    metrics: bool = True,
    seed: int = 0,
) -> Verdict:
    """The verdict on rows in a common space; options as in `audit`.

    extra: further lines of the table. Those with a p-value, of the exchange of training and
    held-out labels, join the family that is corrected together; their `p_joint` is set here.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; it must lie between 0 and 1")
    if not 0 <= tol < 1:
        raise InputError(f"tol is {tol}; it must lie between 0 and 1")
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
    rates, likeness = [], []
    if metrics:
        rates = calibrated_rates(space.members, space.held, space.drawn, seed)
        likeness = _likeness(space, seed)
    return Verdict(
        finding=_finding(joint, table, power, alpha, len(space.drawn)),
        p_value=tests[0].p_value,
        table=[*joint, *_section("metrics", rates), *_section("fidelity", likeness)],
        records=found,
        power=power,
        fewest=fewest_visible(members, others, alpha),
        alpha=alpha,
        sizes=sizes,
        effect=effect,
        planted_noise=planted_noise(close, table),
        flagged_samples=flagged_samples(close, found, space.drawn),
        leak=leak,
        fidelity=fidelity_sentence(likeness) if likeness else None,
        notes=[*space.notes, *close.notes, *_group_notes(close)],
    )


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


def _likeness(space: CommonSpace, seed: int) -> list[Row]:
    """Do the samples resemble held-out rows? Beside the verdict, never part of it."""
    if min(len(space.held), len(space.drawn)) < LEAST:
        return []
    return fidelity(space.held, space.drawn, seed)


def _section(name: str, rows: list[Row]) -> list[Row]:
    return [replace(row, section=name) for row in rows]


def _counted(space: CommonSpace) -> CellTable | None:
    """The table of cells, when they are few beside the pool; else distances tell more."""
    if space.cells is None:
        return None
    table = cell_table(space.cells)
    return table if len(table.pool) <= FEW_CELLS * len(table.cell) else None


def _points(space: CommonSpace) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out rows as the denoiser knows them."""
    first, second = (torch.as_tensor(rows, dtype=torch.float32) for rows in space.kept)
    return first, second


def _leak(
    denoiser: Denoiser | None,
    space: CommonSpace,
    curves: tuple[LossCurve, LossCurve] | None,
    conditions: tuple[Any, Any] | None,
    seed: int,
) -> Leak | None:
    if curves is not None:
        return curves[0].leak(curves[1])
    if denoiser is None:
        return None
    first, second = (
        measure(denoiser, rows, condition=told, generator=torch.Generator().manual_seed(seed))
        for rows, told in zip(_points(space), conditions or (None, None), strict=True)
    )
    return first.leak(second)


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
        f"up to u = {leak.level:.3g} ({leak.clock})", "information",
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


def _finding(
    lines: list[Row], table: CellTable | None, power: list[Power], alpha: float, samples: int
) -> str:
    joint = {line.statistic: line.p_joint for line in lines if line.p_joint is not None}
    if joint["near-copies"] <= alpha:
        return "copies"
    if table is not None and joint["cell counts"] <= alpha and repeats(*table.repeated()):
        return "copies"
    if min(joint.values()) <= alpha:
        return "dependence"
    seen = [p.caught for p in power if p.copies <= round(NEEDED_SHARE * samples)]
    return "none" if seen and max(seen) >= 0.8 else "inconclusive"
