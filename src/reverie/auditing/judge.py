"""The audit: from training, held-out and sampled rows to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from reverie.auditing.classes import Classes, within_classes
from reverie.auditing.common_space import CommonSpace, common_space
from reverie.auditing.facts.all_rows import Progress, on_disk, search_all, to_test
from reverie.auditing.facts.closeness import FEW_CELLS, Closeness, closeness
from reverie.auditing.facts.counted import count_facts
from reverie.auditing.facts.named import flagged_samples, records
from reverie.auditing.fairness.alignment import Groups
from reverie.auditing.fairness.comparison import Fairness, fair_comparison
from reverie.auditing.finding import finding_of
from reverie.auditing.judging import Judging
from reverie.auditing.metrics.calibrated import calibrated_rates
from reverie.auditing.metrics.features import Features
from reverie.auditing.metrics.fidelity import LEAST, fidelity, fidelity_sentence
from reverie.auditing.model.membership import membership_rows
from reverie.auditing.model.risk import row_risk
from reverie.auditing.nulls.cell_test import CellTable, cell_table, cell_test
from reverie.auditing.nulls.rank_tests import (
    RankTest,
    holm,
    near_test,
    share_effect,
    share_test,
    tail_test,
)
from reverie.auditing.nulls.tail_null import fewest_visible
from reverie.auditing.planting import planted_power
from reverie.auditing.row import Row
from reverie.auditing.verdict import Verdict
from reverie.curve import Leak, LossCurve, measure
from reverie.data import Dataset, Scaler, set_apart
from reverie.data.stored.dataset import StoredDataset
from reverie.denoisers import Denoiser


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
    classes: Classes | None = None,
    extra: Sequence[Row] = (),
    judging: Judging | None = None,
    **settings: Any,
) -> Verdict:
    """Does a generator copy its training rows?

    train, holdout, samples: arrays, tensors, files or built-in names with rows of one shape, mixed
    tables included; any generator at all. Training rows that stay on disk (see `load`) are read in
    pieces: copies are sought among all of them, the tests are made on some at random. denoiser:
    adds the leak and membership tests (train and holdout are then in its own space), or give the
    two curves already measured. conditions: what a conditional denoiser is told about the training
    and the held-out rows. features: compare these instead of the rows (see `features_of`). groups:
    the column, or the two arrays, that name each row's group; rows of one group (a person) count
    as one, and no group may stand on both sides. space: where the rows live, if they are no
    vectors (see `reverie.data.coder_for`), or a run's coder; distances are then the space's own.
    classes: labels of all rows; each sample is then compared with rows of its own class (see
    `auditing.classes`). extra: further lines of the table (see `weigh`). judging: levels and
    thresholds; settings: single fields of it, as alpha=.01.

    Returns a Verdict, whose `finding` is unfair, copies, exposes, leans, none or inconclusive (see
    `auditing.finding`). Raises InputError on shapes, columns or units that differ, too few rows or
    groups, groups on both sides, values that are not finite, or a held-out set that is the
    training set.

    >>> import numpy as np
    >>> from reverie import audit
    >>> rng = np.random.default_rng(0)
    >>> train, holdout, samples = rng.normal(size=(3, 200, 4))
    >>> samples[:20] = train[:20]  # a tenth is copied
    >>> verdict = audit(train, holdout, samples, metrics=False)
    >>> verdict.finding, verdict.facts.facts[0].samples
    ('copies', 20)
    """
    judging = replace(judging or Judging(), **settings).check()
    whole = on_disk(train)
    train, holdout, samples = (_compared_rows(s) for s in (whole or train, holdout, samples))
    common = common_space(train, holdout, samples, features=features, groups=groups, space=space)
    lines = list(extra)
    if denoiser is not None and denoiser.process.gaussian is not None:
        points = _points(common)
        lines += membership_rows(denoiser, *points, seed=judging.seed, conditions=conditions)
    leak = _leak(denoiser, common, curves, conditions, judging.seed)
    verdict = weigh(common, leak=leak, classes=classes, extra=lines, judging=judging)
    return with_all_rows(verdict, whole, *common.sets[1:3], tested=len(common.members))


def _compared_rows(source: Any) -> Any:
    """The source; of one on disk the rows that tests compare."""
    found = on_disk(source)
    return source if found is None else to_test(found)


def weigh(
    space: CommonSpace,
    *,
    leak: Leak | None = None,
    classes: Classes | None = None,
    extra: Sequence[Row] = (),
    judging: Judging | None = None,
    **settings: Any,
) -> Verdict:
    """The verdict on rows in a common space; options as in `audit`.

    extra: further lines of the table. Those with a p-value, of the exchange of training and
    held-out labels, join the family that is corrected together; their `p_joint` is set here.

    >>> import numpy as np
    >>> from reverie.auditing import common_space, weigh
    >>> train, holdout, samples = np.random.default_rng(0).normal(size=(3, 200, 4))
    >>> weigh(common_space(train, holdout, train), metrics=False).finding
    'copies'
    """
    judging = replace(judging or Judging(), **settings).check()
    space = _with_sets(space)
    close = closeness(space)
    fairness = _fairness(space, close, judging)
    facts = count_facts(_compared(space), products=judging.products)
    facts = facts if fairness.fair else facts.without_yardstick()
    facts = facts if _counted(space) is None else facts.of_few_cells()
    inside = space if classes is None else within_classes(space, classes)
    near = close if inside is space else closeness(inside)
    joint = _tested(inside, near, leak, extra, judging)
    effect = share_effect(near.counts, near.is_member, judging.tol)
    power = planted_power(space, judging.seed) if judging.power else []
    found = records(close, judging.seed)
    members, others = int(close.is_member.sum()), int((~close.is_member).sum())
    sizes = {"train": len(space.members), "holdout": len(space.held), "samples": len(space.drawn)}
    if not close.by_row:
        sizes |= {"train_groups": members, "holdout_groups": others}
    rates, likeness = [], []
    if judging.metrics:
        rates = calibrated_rates(space.members, space.held, space.drawn, judging.seed)
        likeness = _likeness(space, judging.seed)
    flagged = flagged_samples(close, found, space.drawn)
    return Verdict(
        finding=finding_of(facts, fairness, joint, effect, leak, power, judging),
        fairness=fairness,
        facts=facts,
        p_value=next(row.p_value or 0.0 for row in joint if row.statistic == "tail"),
        table=[*joint, *_section("metrics", rates), *_section("fidelity", likeness)],
        records=found,
        power=power,
        fewest=fewest_visible(members, others, judging.alpha),
        sizes=sizes,
        effect=effect,
        judging=judging,
        flagged_samples=sorted({*flagged, *facts.sample_rows.tolist()}),
        leak=leak,
        fidelity=fidelity_sentence(likeness) if likeness else None,
        notes=[*inside.notes, *close.notes, *_group_notes(close)],
        risk=row_risk(space.members),
    )


def with_all_rows(
    verdict: Verdict,
    whole: StoredDataset | None,
    holdout: Dataset,
    samples: Dataset,
    *,
    tested: int,
    progress: Progress | None = None,
) -> Verdict:
    """The verdict with what a search among all training rows found beside it, where they are on
    disk (`whole`); itself where they are in memory. tested, progress: as in `search_all`."""
    if whole is None:
        return verdict
    found = search_all(whole, holdout, samples, tested=tested, progress=progress)
    finding = verdict.finding
    if found.beyond and finding != "unfair":  # else held-out rows are no yardstick
        finding = "copies"
    flagged = {*verdict.flagged_samples, *(match.sample for match in found.records)}
    return replace(
        verdict, finding=finding, notes=[*verdict.notes, *found.sentences()],
        flagged_samples=sorted(flagged),
    )  # fmt: skip


def _with_sets(space: CommonSpace) -> CommonSpace:
    """A space of bare coordinates, with these as the data."""
    if space.sets:
        return space
    arrays = (space.members, space.held, space.drawn)
    names = ("train", "holdout", "samples")
    sets = [Dataset(rows, "vectors", name) for rows, name in zip(arrays, names, strict=True)]
    return replace(space, sets=sets)


def _compared(space: CommonSpace) -> CommonSpace:
    """The space whose data are without the columns that name rows."""
    return replace(space, sets=set_apart(space.sets)[0]) if space.apart else space


def _fairness(space: CommonSpace, close: Closeness, judging: Judging) -> Fairness:
    train, holdout, samples = space.sets
    return fair_comparison(
        train,
        holdout,
        samples,
        space,
        close=close,
        alpha=judging.fair_alpha,
        units=judging.units,
        seed=judging.seed,
    )


def _tested(
    space: CommonSpace,
    close: Closeness,
    leak: Leak | None,
    extra: Sequence[Row],
    judging: Judging,
) -> list[Row]:
    """The lines of the table that have a null, with their joint p-values."""
    seed, table = judging.seed, _counted(space)
    tests = [
        tail_test(close.unit_ratio(-1), close.is_member, seed, judging.alpha, judging.randomised),
        share_test(close.counts, close.is_member),
    ]
    if table is not None:
        tests.append(cell_test(table, close.unit, close.is_member))
    lines = [_line(test, close, len(space.drawn)) for test in tests]
    lines += [_leak_line(leak, len(close.pool))] if leak is not None else []
    near = near_test(close.unit_ratio(0), close.is_member, seed)
    return _corrected([*lines, *extra], _line(near, close, len(space.drawn)))


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
        f"{leak.reach} ({leak.clock})", "information",
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
