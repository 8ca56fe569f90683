"""Samples of a run without near-copies of its training rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from reverie.auditing.common_space import in_common
from reverie.auditing.facts.near_copies import near_copies
from reverie.errors import InputError
from reverie.plan import AnyPlan
from reverie.runs.folder import Fitted
from reverie.runs.readings import draw

TRIES = 20  # samples drawn for each one kept, on average
ENOUGH = 100  # samples drawn before that average is judged


def draw_without_copies(
    run: Fitted, n: int, *drawing: Any, seed: int = 0, **options: Any
) -> tuple[np.ndarray, AnyPlan, int]:
    """Draw `n` samples that are no near-copies of training rows (see `near_copies`).

    Further arguments are those of `draw`. Near-copies are refused and drawn anew; the samples that
    pass are those that `draw` gives for the same seed. Returns samples (n, *shape), the plan, and
    how many were refused. Raises InputError when fewer than one in 20 passes. What passes follows
    the model's law without the neighbourhoods of training rows, not the model's law.
    """
    kept: list[np.ndarray] = []
    drawn = passed = 0
    # rounds beyond the first take seeds of their own, derived from the first
    later = np.random.default_rng(seed)
    while True:
        values, plan = draw(run, n - passed, *drawing, seed=seed, **options)
        fresh = values[~copies_of(run, values)]
        kept.append(fresh)
        drawn, passed = drawn + len(values), passed + len(fresh)
        if passed == n:
            return np.concatenate(kept), plan, drawn - n
        if drawn >= min(ENOUGH, TRIES * n) and passed * TRIES < drawn:
            raise InputError(
                f"{drawn - passed:,} of {drawn:,} samples are near-copies of training rows: this "
                "run mostly copies; fit it on more rows, or with --stop-on-leak"
            )
        seed = int(later.integers(2**62))


def copies_of(run: Fitted, values: np.ndarray) -> np.ndarray:
    """Mask (m,) of the samples (m, *shape), in the data's units, that nearly copy a training row.

    In the common space of an audit, so that the audit's own rule finds none among the rest.
    """
    other = run.holdout if len(run.holdout) else run.train
    drawn = run.train.with_values(values, "samples")
    members, _, rows = in_common([run.train, other, drawn], run.scaler, [])
    return near_copies(rows, members)
