"""A run, and what can be asked of it: samples, a plan, an audit, a pipeline of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing import Verdict
from reverie.data import Dataset
from reverie.plan import AnyPlan
from reverie.runs.export import export
from reverie.runs.folder import Fitted
from reverie.runs.given import as_given, whole_rows
from reverie.runs.readings import (
    SAMPLE_STEPS,
    audit_run,
    draw,
    draw_told,
    sampling_plan,
    standard_curves,
)
from reverie.runs.trust import Trusted, trust_of
from reverie.templates import Card, Shown


@dataclass(eq=False, repr=False)
class Run(Shown, Fitted):
    """A fitted model with its data and curves; load one with `Run.load(folder)`.

    rows: indices (n,) of the training and of the held-out rows in the data.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie import Run, fit
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = fit(data, steps=20, width=16, depth=1, out=f"{folder}/run")
    ...     run = Run.load(f"{folder}/run")
    >>> run.step, run.holdout_values.shape, run.plan(steps=5).times.shape
    (20, (150, 2), (6,))
    """

    @property
    def train_values(self) -> np.ndarray:
        """Training rows (n, *shape) in the data's own units."""
        return self.train.values

    @property
    def holdout_values(self) -> np.ndarray:
        """Held-out rows (m, *shape) in the data's own units."""
        return self.holdout.values

    def sample(
        self, n: int, steps: int = SAMPLE_STEPS, *, given: Any = None, **options: Any
    ) -> np.ndarray:
        """Draw `n` samples (n, *shape) in the data's own units; options as in `readings.draw`.

        given: what the model is told, in words (see `runs.given`), as the name of a label, or of
        a table cells that all samples have, as {"group": "B"}. Where the model is worse than the
        linear guess at some levels they come from the calibrated one (`self.trusted` says so, and
        what it is worth); `calibrate=False` leaves it alone.
        """
        if given is not None:
            options |= as_given(self, given)
        return draw(self, n, steps, **options)[0]

    @property
    def trusted(self) -> Trusted:
        """What samples are drawn from: the model, or the calibrated one (see `runs.trust`)."""
        return trust_of(self)

    def sample_table(
        self, n: int, steps: int = SAMPLE_STEPS, *, given: Any = None, **options: Any
    ) -> Dataset:
        """As `sample`, with names, and with the column that the model was told, in its place.

        `reverie.data.save_rows` writes it. Where nothing is given the column is drawn as often as
        in the training rows.
        """
        if given is not None:
            options |= as_given(self, given)
        values, _, told = draw_told(self, n, steps, **options)
        return whole_rows(self, values, told)

    def plan(self, steps: int = SAMPLE_STEPS, **options: Any) -> AnyPlan:
        """The plan that samples are drawn on; options as in `readings.sampling_plan`."""
        return sampling_plan(self, steps, **options)

    def audit(self, n: int = 2000, **options: Any) -> Verdict:
        """Audit `n` samples of this run against its splits; options as in `readings.audit_run`."""
        if not self.curves:
            standard_curves(self)
        return audit_run(self, n, **options)[0]

    def to_diffusers(self, folder: str | Path, *, license: str = "unknown") -> Path:
        """Write a pipeline folder of diffusers, with a model card that carries the verdict.

        license: what the card's header says, as `mit`. Raises InputError when diffusers has no
        such model (only `unet` runs do), and when `folder` exists and is not empty.
        """
        return export(self, Path(folder), license)

    def card(self) -> Card:
        """Its data and step, and the areas and leak of its curves where they are measured."""
        answer = (
            f"Run on {self.train.source}: {len(self.train):,} training and "
            f"{len(self.holdout):,} held-out rows, {self.config.network} on "
            f"{self.config.process}, step {self.step:,}"
            f"{f' ({self.stopped})' if self.stopped else ''}."
        )
        rows = [
            (f"area on {key}", f"{curve.area():.4g} nats") for key, curve in self.curves.items()
        ]
        if {"train", "holdout"} <= set(self.curves):
            rows.append(("leak", str(self.curves["train"].leak(self.curves["holdout"]))))
        return Card(
            answer, ("reading", "value") if rows else (), rows, self._draw if rows else None
        )

    def _draw(self, ax: Any) -> None:
        for key in ("train", "holdout"):
            if key in self.curves:
                self.curves[key].plot(ax, label=f"model on {key} rows")
        ax.legend(frameon=False, fontsize=8)
