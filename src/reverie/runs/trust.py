"""What a plan stands on: the model's curve where it may be trusted, the calibrated one where not.

Before a plan is made the curve is held against guesses that need no model (`plan.guard`). Where
the model is worse than them, which other people's models often are at their noisy end, the plan is
made on the curve of the calibrated model, each row judged with weights of the others, and is for
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reverie.calibration import Calibrated, Calibration, calibrate
from reverie.curve import LossCurve
from reverie.data import some_rows
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.plan.guard import LEAST_ROWS, Guard, guard
from reverie.runs.folder import Fitted, conditions_of
from reverie.runs.readings import sampling_curve
from reverie.sampling.initialisation import InitialisationKL, initialisation_kl, moments_of


@dataclass(frozen=True, eq=False)
class Trusted:
    """curve: to plan on. denoiser: what the plan is for, calibrated where that was needed.

    measured: the model's own curve. guard, start: None where there are too few rows, or no closed
    form. note: why a model that is worse than a guess was left as it is, or nothing.
    """

    curve: LossCurve
    denoiser: Denoiser
    measured: LossCurve
    guard: Guard | None = None
    start: InitialisationKL | None = None
    note: str = ""

    @property
    def calibrated(self) -> Calibrated | None:
        """The calibrated model, if it is one."""
        return self.denoiser if isinstance(self.denoiser, Calibrated) else None

    @property
    def calibration(self) -> Calibration | None:
        """What calibration did, if it was needed."""
        return None if self.calibrated is None else self.calibrated.calibration

    def sentences(self) -> list[str]:
        """The guard's, what calibration brought in nats per sample, and the start's cost."""
        said = [] if self.guard is None else [f"guard: {s}" for s in self.guard.sentences()]
        known = self.calibration
        if known is not None:
            said.append(
                f"the plan is for the calibrated model, which saves {known.drop:.3g} +- "
                f"{known.drop_stderr:.2g} nats per sample; {known}"
            )
        said += [self.note] if self.note else []
        return said + ([str(self.start)] if self.start is not None else [])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the sentences."""
        return {
            "sentences": self.sentences(),
            "guard": None if self.guard is None else self.guard.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "initialisation": None if self.start is None else self.start.to_json(),
        }


def trusted(
    denoiser: Denoiser,
    curve: LossCurve,
    rows: Tensor,
    *,
    calibrating: bool = True,
    linear_rows: Tensor | None = None,
    condition: Tensor | None = None,
    heldout: bool = True,
    seed: int = 0,
) -> Trusted:
    """Guard a curve, and calibrate its model where a guess without one is better.

    rows: (n, *shape), those the curve was measured on. linear_rows: for the linear guess, default
    half of them. condition: (n, ...), of the rows. heldout: whether the model has not seen the
    rows; on rows it was trained on nothing is calibrated.
    """
    start = _start(denoiser, curve, rows)
    if len(rows) < LEAST_ROWS or curve.t is None:
        return Trusted(curve, denoiser, curve, None, start)
    noise = torch.Generator().manual_seed(seed)
    found = guard(curve, rows=rows, generator=noise)
    if found.ok or not calibrating:
        return Trusted(curve, denoiser, curve, found, start)
    if not heldout:
        note = "it was not calibrated: that takes rows it was not trained on"
        return Trusted(curve, denoiser, curve, found, start, note)
    better = calibrate(
        denoiser, rows, levels=len(curve.u), linear_rows=linear_rows, condition=condition,
        generator=noise,
    )  # fmt: skip
    assert better.calibration is not None
    return Trusted(better.calibration.held_out, better, curve, found, start)


def trusted_run(run: Fitted, *, calibrating: bool = True) -> Trusted:
    """`trusted` on a run's own curve and rows; the linear guess is that of its training rows."""
    curve = sampling_curve(run)
    heldout = "holdout" in run.curves
    data = run.holdout if heldout else run.train
    points = run.holdout_points() if heldout else run.train_points()
    count, told = curve.count or len(points), conditions_of(data)
    return trusted(
        run.denoiser,
        curve,
        some_rows(points, count, run.config.seed),
        calibrating=calibrating and not run.process.steps_measured,
        linear_rows=run.train_points() if heldout else None,
        condition=None if told is None else some_rows(told, count, run.config.seed),
        heldout=heldout,
        seed=run.config.seed + 4,
    )


def _start(denoiser: Denoiser, curve: LossCurve, rows: Tensor) -> InitialisationKL | None:
    """None where the process has no closed form, or the rows no moments."""
    process = denoiser.process
    if curve.t is None or len(rows) < 2 or not torch.as_tensor(rows).is_floating_point():
        return None
    try:
        return initialisation_kl(process, moments_of(process, rows), float(curve.t[0]))
    except InputError:
        return None
