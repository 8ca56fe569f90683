"""What a plan stands on: the model's curve where it may be trusted, the calibrated one where not.

Before a plan is made the curve is held against guesses that need no model (`plan.guard`). Where
the model is worse than them, which other people's models often are at their noisy end, the plan is
made on the curve of the calibrated model, each row judged with weights of the others, and is for
it.

Samples of a run are drawn from the same (`trust_of`). The verdict is reached once and kept in the
run's folder: `guard.json`, and `calibration/` where there is one, both with the checksum of the
weights they are of, so that other weights are never mixed by them. A model that is nowhere worse
than the guesses is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.calibration import Calibrated, Calibration, calibrate
from reverie.curve import LossCurve
from reverie.data import some_rows
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.files import read_json, write_json
from reverie.plan.guard import LEAST_ROWS, Guard, guard
from reverie.runs.curves import sampling_curve
from reverie.runs.folder import Fitted, conditions_of, weights_digest
from reverie.sampling.initialisation import InitialisationKL, initialisation_kl

CALIBRATION, GUARD = "calibration", "guard.json"  # in a run's folder
FORMAT = 1


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

    def drawn_from(self) -> str:
        """What samples are drawn from, where it is not the model as it is or should not be."""
        known = self.calibration
        if known is None:
            return self.note
        return (
            f"drawn from the calibrated model, as the run's own is worse than a guess in places; "
            f"{known}"
        )

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
        note = f"{found.findings[0]}; not calibrated: that takes rows it was not trained on"
        return Trusted(curve, denoiser, curve, found, start, note)
    better = calibrate(
        denoiser, rows, levels=len(curve.u), linear_rows=linear_rows, condition=condition,
        generator=noise,
    )  # fmt: skip
    assert better.calibration is not None
    return Trusted(better.calibration.held_out, better, curve, found, start)


def trust_of(run: Fitted) -> Trusted:
    """What samples of a run are drawn from, and the curve that their plan stands on.

    Reached once for a run's weights and kept with it, in memory and in its folder.
    """
    own = weights_digest(run.denoiser)
    if run.trust is None or run.trust[0] is not run.denoiser or run.trust[1] != own:
        found = _kept(run, own)
        if found is None:
            found = trusted_run(run)
            keep(run, found)
        run.trust = run.denoiser, own, found
    return run.trust[2]


def keep(run: Fitted, found: Trusted) -> Path | None:
    """Write the verdict on a run to its folder; the folder of the calibration, if there is one.

    A run without a folder, or a model without weights, keeps nothing. So does a folder that cannot
    be written.
    """
    own = weights_digest(run.denoiser)
    if run.path is None or not own:
        return None
    place = None
    try:
        if found.calibrated is not None:
            place = run.path / CALIBRATION
            found.calibrated.save_pretrained(place, of=own, replace=True)
        said = found.sentences() if found.guard is None else found.guard.sentences()
        write_json(run.path / GUARD, {
            "format": FORMAT, "of": own, "calibrated": found.calibrated is not None,
            "sentences": said, "note": found.note,
        })  # fmt: skip
    except InputError:
        return None
    return place


def _kept(run: Fitted, own: str) -> Trusted | None:
    """What `keep` wrote for these weights; None where it did not, or where it is damaged."""
    if run.path is None or not own or not (run.path / GUARD).exists():
        return None
    try:
        said = read_json(run.path / GUARD)
        if said["of"] != own:
            return None
        curve = sampling_curve(run)
        if not said["calibrated"]:
            return Trusted(curve, run.denoiser, curve, note=str(said["note"]))
        better = Calibrated.from_pretrained(run.path / CALIBRATION, run.denoiser, of=own)
    except (InputError, KeyError, TypeError):
        return None
    if better.calibration is None:
        return None
    return Trusted(better.calibration.held_out, better, curve)


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
        calibrating=calibrating,
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
        return initialisation_kl(process, rows, float(curve.t[0]))
    except InputError:
        return None
