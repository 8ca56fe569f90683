"""The demonstration: three models of real digits, one of which copies its training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.model.copying import CopyingDistance, copying_distance
from reverie.plan import Plan, plan_steps, steps_needed
from reverie.processes import GaussianProcess
from reverie.report import ModelReport, write_report
from reverie.report.figures import curves_picture
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.folder import Run
from reverie.runs.readings import (
    SAMPLE_STEPS,
    audit_run,
    path_kl,
    sampling_curve,
    standard_curves,
    step_charges,
    steps_are_measured,
)

HOLDOUT = 797
BUDGETS = (30, 10, 3)
COPYING_ROWS = 256
LONG = dict(holdout=HOLDOUT, check_every=500, width=192)
MODELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("100 images, trained long", "A small training set and far more steps than it can bear.",
     dict(n=100, steps=3000, **LONG)),
    ("1,000 images, trained long", "Ten times the data, trained well past its best.",
     dict(n=1000, steps=4500, **LONG)),
    ("1,000 images, stopped on the leak",
     "The same data and settings, stopped when the held-out curve no longer improved; the best "
     "average is kept.",
     dict(n=1000, steps=4500, stop_on_leak=True, patience=3, **(LONG | dict(check_every=250)))),
)  # fmt: skip


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    samples: int = 2000,
    steps: int = 10,
    hooks: Callable[[str, FitConfig], Any] | None = None,
) -> list[ModelReport]:
    """Fit, audit and plan the three models; write report.html and report.json into `out`.

    hooks(name, config) may return a callback for the events of that fit.
    """
    reports = []
    for name, about, settings in MODELS:
        config = FitConfig(seed=seed, **settings)
        run = fit("digits", config=config, on_event=hooks(name, config) if hooks else None)
        reports.append(describe(run, name, about, samples=samples, steps=steps))
    write_report(
        out,
        "report",
        "Three models of handwritten digits",
        reports,
        [f"reverie demo --seed {seed}"],
    )
    curves_picture({report.name: report.curves for report in reports}, out / "curves.png")
    return reports


def describe(
    run: Run, name: str, about: str = "", *, samples: int = 2000, steps: int = 10, **audit: Any
) -> ModelReport:
    """Measure, plan and audit a run: everything a page shows of it."""
    if not run.curves:
        standard_curves(run)
    plan, needed = _planned(run, steps)
    verdict, drawn = None, np.empty(0)
    if len(run.holdout):
        verdict, drawn = audit_run(run, samples, **(dict[str, Any](seed=run.config.seed) | audit))
    ended = f"{run.step:,} steps; {run.stopped}." if run.stopped else f"{run.step:,} steps."
    if verdict is not None:
        how = audit.get("plan", "loss-adaptive"), audit.get("sampling_steps", SAMPLE_STEPS)
        ended += (
            f" Audited on {len(drawn):,} samples: {audit.get('sampler', 'ancestral')} sampler, "
            f"{how[1]} steps of the {how[0]} plan."
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
        needed=dict(zip(map(str, BUDGETS), needed, strict=True)),
        train=run.train,
        holdout=run.holdout,
        samples=drawn if len(drawn) else None,
        scaler=run.scaler,
    )


def _planned(run: Run, steps: int) -> tuple[Plan, list[int | None]]:
    """The loss-adaptive plan in nats, and the steps for each of BUDGETS."""
    if steps_are_measured(run.process):
        charges = step_charges(run)
        return charges.plan(steps), [charges.steps_needed(nats) for nats in BUDGETS]
    curve = sampling_curve(run)
    return plan_steps(curve, steps), steps_needed(curve, BUDGETS)


def _copying(run: Run) -> CopyingDistance | None:
    """How far the model is from the memoriser; measured for Gaussian noise."""
    if not isinstance(run.process, GaussianProcess):
        return None
    held = run.holdout_points() if len(run.holdout) else None
    return copying_distance(
        run.denoiser, run.train_points(), held, rows=COPYING_ROWS, seed=run.config.seed
    )
