"""The audit: from training, held-out and sampled rows to a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import stats

from reverie.auditing.alignment import Groups
from reverie.auditing.common_space import common_space
from reverie.auditing.features import Features
from reverie.auditing.neighbours import nearest
from reverie.auditing.power import planted_power
from reverie.auditing.rank_tests import (
    RankTest,
    close_test,
    fewest_visible,
    holm,
    ratios,
    share_test,
    tail_order,
    tail_test,
    wilson,
)
from reverie.auditing.verdict import Record, Row, Verdict
from reverie.curve import Leak, LossCurve, measure
from reverie.denoisers import Denoiser

THIRD = 1 / 3  # the ratio rule of Gu et al. 2023, always set beside the held-out rows' own rate
NEIGHBOUR = 5
NEEDED_SHARE = 0.01  # copies at this share of the samples must be visible, or it is inconclusive
LISTED = 24


def audit(
    train: Any,
    holdout: Any,
    samples: Any,
    denoiser: Denoiser | None = None,
    *,
    curves: tuple[LossCurve, LossCurve] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    features: Features | None = None,
    groups: Groups | None = None,
) -> Verdict:
    """Does a generator copy its training rows?

    train, holdout, samples: arrays, tensors, files or built-in names with rows of one shape; any
    generator at all. denoiser: adds the leak (then train and holdout are in its own space), or
    give the two curves already measured. alpha: level of the joint decision. Returns a Verdict:
    `copies` when the exact tail test rejects and flagged records are nearly reproduced,
    `dependence` when something else rejects, `none` when nothing does and copies at 1% of the
    samples would have been seen, else `inconclusive`. Raises InputError on shapes that differ, too
    few rows, values that are not finite, or a held-out set that is the training set. features,
    groups: see `common_space`.
    """
    space = common_space(train, holdout, samples, features=features, groups=groups)
    members, held, drawn = space.members, space.held, space.drawn
    pool = np.concatenate([members, held])
    is_member = np.arange(len(pool)) < len(members)
    spacing = nearest(pool, pool, NEIGHBOUR, skip_self=True)[0]
    to_samples, nearest_sample = (a[:, 0] for a in nearest(pool, drawn, 1))
    tests = [
        tail_test(to_samples, spacing[:, -1], is_member, seed, alpha),
        share_test(_counts(drawn, pool), is_member),
        close_test(to_samples, spacing[:, 0], is_member, THIRD),
    ]
    leak = _leak(denoiser, space.kept, curves, seed)
    table = _table(tests, leak, len(drawn), len(pool)) + _rates(members, held, drawn)
    power = planted_power(
        pool,
        is_member,
        to_samples,
        spacing,
        len(drawn),
        tests=len(tests) + (leak is not None),
        alpha=alpha,
        seed=seed,
    )
    return Verdict(
        finding=_finding(table, power, alpha),
        p_value=tests[0].p_value,
        table=table,
        records=_records(to_samples, nearest_sample, spacing, is_member, seed),
        power=power,
        fewest=fewest_visible(len(members), len(held), alpha),
        alpha=alpha,
        sizes={"train": len(members), "holdout": len(held), "samples": len(drawn)},
        leak=leak,
        notes=space.notes,
    )


def _counts(drawn: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """How many samples have pool row j as nearest; ties are split equally."""
    distance, index = nearest(drawn, pool, NEIGHBOUR)
    tied = distance <= distance[:, :1] * (1 + 1e-12)
    weight = tied / tied.sum(1, keepdims=True)
    return np.bincount(index.ravel(), weight.ravel(), minlength=len(pool))


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


def _table(tests: list[RankTest], leak: Leak | None, samples: int, pool: int) -> list[Row]:
    p_values = [test.p_value for test in tests]
    rows = [
        (t.name, t.statistic, t.null, t.interval, samples if t.name == "share" else pool, t.detail)
        for t in tests
    ]
    if leak is not None:
        z = leak.nats / leak.stderr if leak.stderr > 0 else 0.0
        p_values.append(float(stats.norm.sf(z)))
        rows.append(
            ("leak (nats)", leak.nats, "normal, mean 0", (leak.low, leak.high), pool,
             f"up to a signal-to-noise ratio of {leak.level:.3g}")
        )  # fmt: skip
    joint = holm(p_values)
    return [
        Row(name, value, null, interval, p, adjusted, n, detail)
        for (name, value, null, interval, n, detail), p, adjusted in zip(
            rows, p_values, joint, strict=True
        )
    ]


def _rates(members: np.ndarray, held: np.ndarray, drawn: np.ndarray) -> list[Row]:
    """The 1/3-ratio rate of the samples, and of held-out rows in their place."""
    rows = []
    for name, queries in (("1/3-ratio rate of samples", drawn), ("... of held-out rows", held)):
        distance = nearest(queries, members, 2)[0]
        hits = int((ratios(distance[:, 0], distance[:, -1]) < THIRD).sum())
        null = "compare with the held-out rows' own" if queries is drawn else "the null rate"
        rows.append(
            Row(
                name,
                hits / len(queries),
                null,
                wilson(hits, len(queries)),
                None,
                None,
                len(queries),
            )
        )
    return rows


def _finding(table: list[Row], power: list[Any], alpha: float) -> str:
    joint = {row.statistic: row.p_joint for row in table if row.p_joint is not None}
    if joint["tail"] <= alpha and joint["close pairs"] <= alpha:
        return "copies"
    if min(joint.values()) <= alpha:
        return "dependence"
    seen = [p.caught for p in power if p.share <= NEEDED_SHARE]
    return "none" if seen and max(seen) >= 0.8 else "inconclusive"


def _records(
    to_samples: np.ndarray, nearest_sample: np.ndarray, spacing: np.ndarray,
    is_member: np.ndarray, seed: int,
) -> list[Record]:  # fmt: skip
    """The training rows that samples come closest to, in units of their own spacing."""
    order = tail_order(to_samples, spacing[:, -1], seed)
    ratio = ratios(to_samples, spacing[:, -1])
    close = ratios(to_samples, spacing[:, 0]) < THIRD
    held = np.sort(ratio[~is_member])
    first = [j for j in order if is_member[j]][:LISTED]
    return [
        Record(
            train_row=int(j),
            sample=int(nearest_sample[j]),
            distance=float(to_samples[j]),
            ratio=float(ratio[j]),
            share_of_holdout=float(
                (1 + np.searchsorted(held, ratio[j], "right")) / (1 + len(held))
            ),
            near_copy=bool(close[j]),
        )
        for j in first
    ]
