"""The audit of a bridge: do the rows that it makes copy those of its far end?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reverie.auditing.judge import audit
from reverie.auditing.verdict import Verdict
from reverie.bridges.readings import bridge_curves
from reverie.bridges.run import BridgeRun
from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan import Plan


def audit_bridge(
    run: BridgeRun,
    n: int = 2000,
    *,
    reverse: bool = False,
    curves: dict[str, LossCurve] | None = None,
    plan: Plan | None = None,
    steps: int = 50,
    seed: int = 0,
    **judging: Any,
) -> tuple[Verdict, np.ndarray]:
    """Audit n rows that one direction makes, and return them with the verdict.

    Starts are rows of the near end, training and held-out alike in the proportion that they have:
    so nothing but the fit tells the two splits of the far end apart, pairs included. curves: those
    of `bridge_curves`. plan, steps: of the paths. judging: as in `audit`. Raises InputError where
    the bridge held out no rows.
    """
    require_held_out(run)
    ends = run.known_rows()
    near, far = ends[::-1] if reverse else ends
    curves = bridge_curves(run, reverse=reverse, seed=seed) if curves is None else curves
    starts = near.data.take(_places(len(near.data), n, seed))
    made = run.sample(starts, reverse=reverse, steps=steps, plan=plan, seed=seed)
    samples = far.train.with_values(made, far.data.source)
    both = curves["train"], curves["holdout"]
    verdict = audit(far.train, far.holdout, samples, curves=both, **judging)
    return verdict, made


def require_held_out(run: BridgeRun) -> None:
    """InputError where an end has fewer than two rows that the bridge has not seen."""
    if min(len(end.holdout_rows) for end in run.known_rows()) < 2:
        raise InputError("this bridge held out no rows: fit it again without --holdout 0")


def _places(rows: int, n: int, seed: int) -> np.ndarray:
    """n places among the rows, each as often as any other, in a random order."""
    draw = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(rows, generator=draw) for _ in range(-(-n // rows))]
    return torch.cat(rounds)[:n].numpy()
