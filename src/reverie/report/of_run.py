"""Everything that a page shows of a run: measured, planned and audited."""

from __future__ import annotations

from typing import Any

import numpy as np

from reverie.auditing.model.copying import CopyingDistance, copying_distance
from reverie.auditing.model.dimension import DimensionCurve, dimension_curve
from reverie.plan import AnyPlan, default_method, plan_steps, steps_needed
from reverie.report.page import ModelReport
from reverie.runs.readings import (
    SAMPLE_STEPS,
    audit_run,
    path_kl,
    sampling_curve,
    standard_curves,
    step_charges,
)
from reverie.runs.run import Run
from reverie.sampling import default_sampler

BUDGETS = (30, 10, 3)
COPYING_ROWS = 256
DIMENSION_ROWS, DIMENSION_PROBES = 64, 4
COSTLY_DIMENSION_ROWS = 8  # of a U-Net


def describe(
    run: Run, name: str, about: str = "", *, samples: int = 2000, steps: int = 10, **audit: Any
) -> ModelReport:
    """Measure, plan and audit a run: everything a page shows of it.

    >>> import numpy as np
    >>> from reverie import fit
    >>> from reverie.report import describe
    >>> data = np.random.default_rng(0).normal(size=(60, 2))
    >>> found = describe(fit(data, steps=3, width=8, depth=1), "normal", samples=30, steps=3)
    >>> found.n, found.plan.steps, found.verdict.sizes["samples"]
    (30, 3, 30)
    """
    if not run.curves:
        standard_curves(run)
    plan, needed = _planned(run, steps)
    verdict, drawn = None, np.empty(0)
    if len(run.holdout):
        verdict, drawn = audit_run(run, samples, **(dict[str, Any](seed=run.config.seed) | audit))
    ended = f"{run.step:,} steps; {run.stopped}." if run.stopped else f"{run.step:,} steps."
    if verdict is not None:
        sampler = audit.get("sampler") or default_sampler(run.process)
        plan_name = audit.get("plan") or default_method(sampling_curve(run), sampler)
        count = audit.get("sampling_steps", SAMPLE_STEPS)
        ended += (
            f" Audited on {len(drawn):,} samples: {sampler} sampler, "
            f"{count} steps of the {plan_name} plan."
        )
    return ModelReport(
        name=name,
        n=len(run.train),
        about=f"{about} {ended}".strip(),
        verdict=verdict,
        curves=run.curves,
        plan=plan,
        path_kl=path_kl(run, plan),
        copying=_copying(run),
        dimension=_dimension(run),
        checks=run.checks,
        needed=dict(zip(map(str, BUDGETS), needed, strict=True)),
        train=run.train,
        holdout=run.holdout,
        samples=drawn if len(drawn) else None,
        scaler=run.scaler,
    )


def _planned(run: Run, steps: int) -> tuple[AnyPlan, list[int | None]]:
    """The loss-adaptive plan in nats, and the steps for each of BUDGETS."""
    if run.process.steps_measured:
        charges = step_charges(run, calibrate=False)
        return charges.plan(steps), [charges.steps_needed(nats) for nats in BUDGETS]
    curve = sampling_curve(run)
    return plan_steps(curve, steps, clock="nats"), steps_needed(curve, BUDGETS)


def _copying(run: Run) -> CopyingDistance | None:
    """How far the model is from the memoriser; measured for Gaussian noise."""
    if run.process.gaussian is None:
        return None
    held = run.holdout_points() if len(run.holdout) else None
    return copying_distance(
        run.denoiser, run.train_points(), held, rows=COPYING_ROWS, seed=run.config.seed
    )


def _dimension(run: Run) -> DimensionCurve | None:
    """What the model's score points at; for Gaussian noise."""
    if run.process.gaussian is None:
        return None
    held = run.holdout_points() if len(run.holdout) else None
    rows = COSTLY_DIMENSION_ROWS if run.config.network == "unet" else DIMENSION_ROWS
    return dimension_curve(
        run.denoiser, run.train_points(), held, rows=rows, probes=DIMENSION_PROBES,
        seed=run.config.seed,
    )  # fmt: skip
