"""Everything that a page shows of one direction of a bridge: measured, planned and audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.auditing.bridged import audit_bridge, require_held_out
from reverie.bridges.readings import bridge_curves
from reverie.bridges.run import BridgeRun
from reverie.plan import plan_steps, steps_needed
from reverie.report.page import ModelReport
from reverie.report.plans import PlanReport, report_plans

BUDGETS = (30, 10, 3)
PLANNED = 10  # steps of the plan that a page shows


def describe_bridge(
    run: BridgeRun,
    name: str,
    *,
    reverse: bool = False,
    samples: int = 2000,
    steps: int = 20,
    method: str = "loss-adaptive",
    seed: int = 0,
    **judging: Any,
) -> ModelReport:
    """Measure, plan and audit one direction of a bridge.

    steps, method: of the paths whose ends are audited; solvers that draw far ends exactly take
    none. judging: as in `auditing.audit`.
    """
    require_held_out(run)
    curves = bridge_curves(run, reverse=reverse, seed=seed)
    curve = curves["holdout"]
    exact, fixed = run.bridge.exact_steps, run.solver == "dsb"
    plan = None if exact or fixed else plan_steps(curve, steps, method)
    verdict, made = audit_bridge(
        run, samples, reverse=reverse, curves=curves, plan=plan, seed=seed, **judging
    )
    near, far = run.known_rows()[::-1] if reverse else run.known_rows()
    how = "drawn from their law" if exact else f"by paths of {steps} steps"
    how = f"by paths of {len(run.path(near.train.values[:2])) - 1} steps" if fixed else how
    about = (
        f"{len(made):,} rows {how}, from rows of {near.data.source}; by {run.solver}, sigma "
        f"{run.sigma:.4g}. The memoriser is here the exact bridge between the training rows; the "
        "plan is that of paths that know the mean of the far end alone."
    )
    return ModelReport(
        name=f"{name}, {'second to first' if reverse else 'first to second'}",
        n=len(far.train_rows),
        about=about,
        verdict=verdict,
        curves=curves,
        plan=plan_steps(curve, PLANNED, clock="nats"),
        needed=dict(zip(map(str, BUDGETS), steps_needed(curve, BUDGETS), strict=True)),
        train=far.train,
        holdout=far.holdout,
        samples=made,
        scaler=run.first if reverse else run.second,
    )


def plans_of_bridge(
    run: BridgeRun, path: Path, counts: list[int], *, reverse: bool, method: str, budget: Any
) -> PlanReport:
    """Every schedule on the curve of held-out rows of one direction (training rows without)."""
    curves = bridge_curves(run, reverse=reverse)
    curve = curves.get("holdout", curves["train"])
    way = "second to first" if reverse else "first to second"
    return report_plans(f"{path}, {way}", curve, counts, method=method, budget=budget)
