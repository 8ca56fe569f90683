"""The demonstration: three models of real digits, one of which copies its training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reverie.auditing.judging import Judging
from reverie.report import ModelReport, describe, write_report
from reverie.report.figures import curves_picture
from reverie.runs import Run
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.readings import standard_curves

HOLDOUT = 797
BUDGET = 2.0  # nats
LONG = dict(holdout=HOLDOUT, check_every=500, width=192)
MODELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("100 images, trained long", "A small training set and far more steps than it can bear.",
     dict(n=100, steps=3000, **LONG)),
    ("1,000 images, trained long", "Ten times the data, trained well past its best.",
     dict(n=1000, steps=4500, **LONG)),
    ("1,000 images, within a leak budget",
     f"The same data and settings, stopped when the leak surely passes {BUDGET:g} nats; the best "
     "average within is kept.",
     dict(n=1000, steps=4500, stop_on_leak=True, leak_budget=BUDGET, **(LONG | dict(
         check_every=100)))),
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
        about += _paid(run, reports[-1]) if config.stop_on_leak and reports else ""
        judging = Judging(leak_budget=config.leak_budget)
        reports.append(describe(run, name, about, samples=samples, steps=steps, judging=judging))
    write_report(
        out,
        "report",
        "Three models of handwritten digits",
        reports,
        [f"reverie demo --seed {seed}"],
    )
    curves_picture({report.name: report.curves for report in reports}, out / "curves.png")
    return reports


def _paid(run: Run, long: ModelReport) -> str:
    """What the budget costs: the held-out nats between this model and the one trained long."""
    paid = long.curves["holdout"].gap(standard_curves(run)["holdout"])
    return (
        f" Against the model trained long it {'pays' if paid.nats > 0 else 'gains'} "
        f"{abs(paid.nats):.2g} nats a held-out image (95%: {paid.low:.2g} to {paid.high:.2g})."
    )
