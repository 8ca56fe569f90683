"""Samples of a run without near-copies of its training rows, and the hole that this leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.common_space import in_common
from reverie.auditing.facts.near_copies import near_copies
from reverie.auditing.facts.thinning import keeping_chance
from reverie.auditing.model.holes import LEAST, Hole, hole
from reverie.errors import InputError
from reverie.plan import AnyPlan
from reverie.runs.folder import Fitted
from reverie.runs.readings import draw_told

TRIES = 20  # samples drawn for each one kept, on average
ENOUGH = 100  # samples drawn before that average is judged
SIDES = 17  # of the generator that deals the held-out rows into two halves


def draw_without_copies(
    run: Fitted, n: int, *drawing: Any, seed: int = 0, fill: bool = False, **options: Any
) -> tuple[np.ndarray, AnyPlan, int]:
    """Draw `n` samples that are no near-copies of training rows (see `near_copies`).

    fill: keep as many near-copies, as close, as held-out rows have by chance (see
    `auditing.facts.thinning`), which leaves no hole around training rows; needs held-out rows.
    Further arguments are those of `draw`. What is refused is drawn anew; the samples that pass are
    those that `draw` gives for the same seed. Returns samples (n, *shape), the plan, and how many
    were refused. Raises InputError when fewer than one in 20 passes. Without `fill` what passes
    follows the model's law without the neighbourhoods of training rows (see `hole_of`).
    """
    return draw_told_without_copies(run, n, *drawing, seed=seed, fill=fill, **options)[:3]


def draw_told_without_copies(
    run: Fitted, n: int, *drawing: Any, seed: int = 0, fill: bool = False, **options: Any
) -> tuple[np.ndarray, AnyPlan, int, Tensor | None]:
    """As `draw_without_copies`, and what the model was told about each sample, as `draw_told`."""
    was_given = options.get("condition") is not None  # one row for all, or one for each of n
    drawn, plan, told = draw_told(run, n, *drawing, seed=seed, **options)
    kept = np.empty(0, bool)
    # rounds beyond the first take seeds of their own, derived from the first
    later = np.random.default_rng(seed)
    while True:
        if fill:  # what is chance is told by all that was drawn
            kept = _within_chance(run, drawn, seed)
        else:
            kept = np.concatenate([kept, ~copies_of(run, drawn[len(kept) :])])
        passed = int(kept.sum())
        if passed >= n:
            chosen = np.flatnonzero(kept)[:n]
            told = told if told is None or was_given else told[chosen]
            return drawn[chosen], plan, int(chosen[-1]) + 1 - n, told
        if len(drawn) >= min(ENOUGH, TRIES * n) and passed * TRIES < len(drawn):
            raise InputError(
                f"{len(drawn) - passed:,} of {len(drawn):,} samples are near-copies of training "
                "rows: this run mostly copies; fit it on more rows, or with --stop-on-leak"
            )
        fresh, _, also = draw_told(
            run, n - passed, *drawing, seed=int(later.integers(2**62)), **options
        )
        drawn = np.concatenate([drawn, fresh])
        if told is not None and also is not None and not was_given:
            told = torch.cat([told, also])


def copies_of(run: Fitted, values: np.ndarray) -> np.ndarray:
    """Mask (m,) of the samples (m, *shape), in the data's units, that nearly copy a training row.

    In the common space of an audit, so that the audit's own rule finds none among the rest.
    """
    members, _, rows = _in_common(run, values)
    return near_copies(rows, members)


def hole_of(run: Fitted, values: np.ndarray, *, fill: bool = False) -> Hole | None:
    """How well the room around a row, among the samples (m, *shape), tells training rows.

    fill: samples were drawn so; then only the held-out rows that did not set the chance are asked.
    None without enough held-out rows.
    """
    members, held, rows = _in_common(run, values)
    if len(run.holdout) == 0:
        return None
    return hole(members, held[_halves(len(held))[1]] if fill else held, rows)


def _within_chance(run: Fitted, values: np.ndarray, seed: int) -> np.ndarray:
    """Mask (m,) of the samples that pass; each keeps its lot when others are drawn."""
    if len(run.holdout) < 2 * LEAST:
        raise InputError(
            f"--fill-holes needs held-out rows to know what is chance; this run has "
            f"{len(run.holdout)}: fit it with a larger --holdout"
        )
    members, held, rows = _in_common(run, values)
    chance = keeping_chance(members, held[_halves(len(held))[0]], rows)
    return np.random.default_rng([seed, SIDES]).random(len(values)) < chance


def _halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of `count` rows: one sets what is chance, the other measures what was done."""
    order = np.random.default_rng(SIDES).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _in_common(run: Fitted, values: np.ndarray) -> list[np.ndarray]:
    """Training, held-out (training again without any) and sampled rows in an audit's space."""
    other = run.holdout if len(run.holdout) else run.train
    drawn = run.train.with_values(values, "samples")
    return in_common([run.train, other, drawn], run.scaler, [])
