"""The demonstration: three models of real digits, one of which copies its training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reverie.report import ModelReport, describe, write_report
from reverie.report.figures import curves_picture
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit

HOLDOUT = 797
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
