"""Following anybody's training: the loss curve of a module in a loop that is not ours.

    watch = reverie.watch(module, train, holdout, process=EDM(0.02, 40), predicts="noise")
    for step in range(steps):
        ...                                   # the loop, as it was
        if watch.step(step):                  # measures now and then; true when it should stop
            break
    watch.close(step)                         # the last reading, outside the loop

The loop is left as it was: noise comes from generators of the watch's own, and the states of the
global ones, the modes of the submodules and the buffers are put back, so that the weights end bit
for bit as they would have. A check is made only when it has been paid for: all checks together
take at most SHARE of the time since the first step.

    leak     nats that the module knows training rows better than held-out ones, noise in common
    guard    is the held-out curve anywhere worse than a guess that needs no model
    bias     of samples drawn from noise that is the same at every check: the share that is nearest
             to a training row, minus the share that a label swap expects

Stopping at the best held-out curve is no promise of privacy: samples may lean towards the training
rows while that curve still falls (Garnier-Brun et al. 2026). The bias and the leak are printed so
that one sees it; a budget stops on the leak itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.stored import coordinates
from reverie.auditing.nulls.rank_tests import share_effect
from reverie.calibration.references import reference_of
from reverie.curve import Leak, LossCurve, level_times, measure
from reverie.data.rows import shared_rows, some_rows
from reverie.denoisers import Denoiser, condition_rows
from reverie.denoisers.rates import NotFiniteError
from reverie.errors import InputError
from reverie.files import read_json, write_json
from reverie.plan.guard import guard
from reverie.runs.following import paired_samples
from reverie.runs.untouched import agreed, first_process, untouched

SHARE = 1 / 60  # of the loop's time, that checks may take
PAGE_SECONDS = 2.0  # a first check, beyond its curves: drawing a page for the first time
LEVELS, ROWS, SAMPLES, STEPS = 24, 500, 128, 18
PATIENCE = 5
COMPARED = 2000  # rows of each side that samples are compared with
HELD_OUT_CHOSE = (
    "The held-out rows chose this step, which biases the leak downwards, and samples may lean to "
    "training rows before the held-out curve turns: look at the bias, or set a leak budget."
)


@dataclass(frozen=True)
class Settings:
    """How often and how finely a watch measures, and when it says stop.

    every: steps between checks; None: as often as `share` of the loop's time pays for. levels,
    rows, samples, sampler_steps: of the curves, of each split, and of the bias (0 samples: none).
    patience: checks without a better held-out curve, the last one surely worse. leak_budget: nats
    that the lower end of the leak may not pass. seed: of rows and noise.
    """

    every: int | None = None
    levels: int = LEVELS
    rows: int = ROWS
    samples: int = SAMPLES
    sampler_steps: int = STEPS
    patience: int = PATIENCE
    leak_budget: float = math.inf
    share: float = SHARE
    seed: int = 0

    def check(self) -> Settings:
        """Return self, or raise InputError that names the first bad setting."""
        if self.every is not None and self.every < 1:
            raise InputError(f"every is {self.every}; it must be at least 1, or None")
        for name in ("levels", "rows", "sampler_steps"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 2")
        if self.samples < 0 or self.patience < 1:
            raise InputError("samples must not be negative, and patience at least 1")
        if not 0 < self.share < 1 or not self.leak_budget >= 0:
            raise InputError("share must lie between 0 and 1, and leak_budget not be negative")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {
            "leak_budget": None if math.isinf(self.leak_budget) else self.leak_budget
        }


@dataclass(frozen=True)
class Reading:
    """One check: nats of both curves, the leak and the bias with their intervals, the guard."""

    step: int
    train_nats: float
    holdout_nats: float
    leak: float
    leak_low: float
    leak_high: float
    bias: float | None  # share of samples; None where none were drawn
    bias_low: float | None
    bias_high: float | None
    guard: list[str]
    seconds: float  # that the check took


@dataclass(eq=False)
class Watch:
    """What `reverie.watch` returns; see the module. `stopped` says why it should stop, or "".

    denoiser: the module that is trained, as a Denoiser. train, holdout: (n, *shape) as it sees
    them. conditions: of the rows of each. out: folder of watch.json, and of the page that `draw`
    makes. clock: seconds. Raises InputError on fewer than two rows of a split or bad settings.
    """

    denoiser: Denoiser
    train: Tensor
    holdout: Tensor
    settings: Settings = field(default_factory=Settings)
    conditions: tuple[Any, Any] | None = None
    out: Path | None = None
    draw: Callable[[Watch], Any] | None = None
    clock: Callable[[], float] = time.perf_counter
    readings: list[Reading] = field(default_factory=list)
    curves: dict[str, LossCurve] = field(default_factory=dict)
    stopped: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings.check()
        space = self.denoiser.process.space
        for name in ("train", "holdout"):
            points = space.check(space.as_points(torch.as_tensor(getattr(self, name)).cpu()))
            if len(points) < 2:
                raise InputError(f"{name} has {len(points)} rows; a watch needs at least two")
            setattr(self, name, points)
        self._told = self._conditions()
        self._rows = {k: some_rows(p, self.settings.rows, self.settings.seed)
                      for k, p in (("train", self.train), ("holdout", self.holdout))}  # fmt: skip
        shared = int(shared_rows(self._rows["holdout"].numpy(), self.train.numpy()).sum())
        if shared:
            self.notes.append(
                f"{shared:,} of {len(self._rows['holdout']):,} held-out rows stand in the "
                "training set too: the leak is too small by that"
            )
        self.best, self.best_step, self.stale = None, 0, 0
        self.started: float | None = None
        self.spent, self.expected = 0.0, math.inf
        self._continue()

    # --- in the loop ---------------------------------------------------------------------------

    def step(self, step: int) -> bool:
        """To be called once a step; measures when a check is due. Whether the loop should stop.

        With several processes the first one measures, and all are told to stop at the same step.
        """
        try:
            if first_process() and self._due(step):
                self.check(step)
        except NotFiniteError as error:  # a reason to stop, not to fail
            self.stopped = f"step {step:,}: {error}"
        return agreed(bool(self.stopped), self.denoiser)

    def close(self, step: int) -> Reading | None:
        """A last check, outside the loop; what it read, or None in a process that does not."""
        if not first_process():
            return None
        if self.readings and self.readings[-1].step == step:
            return self.readings[-1]
        return self.check(step)

    def _due(self, step: int) -> bool:
        now = self.clock()
        if self.started is None:
            self.started = now
            if self.settings.every is None:
                self._estimate()
            return False
        if self.settings.every is not None:
            return step % self.settings.every == 0
        return self.spent + self.expected <= self.settings.share * (now - self.started)

    def _estimate(self) -> None:
        """What a check will take, from its curves at two levels only."""
        began = self.clock()
        with untouched(self.denoiser):
            self._curve("train", self._ends())
            evaluations = 2 * len(self._rows["train"]) * 2  # rows, an antithetic pair, two levels
        took = self.clock() - began
        each = took / evaluations
        whole = 2 * self.settings.levels * sum(len(rows) for rows in self._rows.values())
        whole += 2 * self.settings.sampler_steps * self.settings.samples
        self.spent += took
        self.expected = each * whole + (PAGE_SECONDS if self.draw is not None else 0.0)

    # --- a check -------------------------------------------------------------------------------

    def check(self, step: int) -> Reading:
        """Measure now: curves, leak, guard and bias; write the page; decide whether to stop.

        InputError where the module's guess is not finite.
        """
        began = self.clock()
        self.started = began if self.started is None else self.started
        with untouched(self.denoiser):
            curves = {name: self._curve(name, self.settings.levels) for name in self._rows}
            reading = self._read(step, curves)
        self.curves |= curves
        self.readings = [r for r in self.readings if r.step < step]
        self.readings.append(reading)
        self.stopped = self._reason(step, curves["holdout"], reading)
        self._write()
        self.expected = self.clock() - began
        self.spent += self.expected
        self.readings[-1] = replace(reading, seconds=self.expected)
        return self.readings[-1]

    def _curve(self, name: str, levels: int | np.ndarray) -> LossCurve:
        seed = self.settings.seed + 2
        told = None if self._told is None else self._told[name]
        generator = torch.Generator().manual_seed(seed)
        return measure(
            self.denoiser, self._rows[name], levels, generator=generator, keep_samples=True,
            condition=told, label=f"model on {'training' if name == 'train' else 'held-out'} rows",
        )  # fmt: skip

    def _ends(self) -> np.ndarray:
        """Clock values of the least costly curve: two, well inside."""
        process = self.denoiser.process
        times = level_times(process, 4)[1:3]
        return process.clock(torch.as_tensor(times)).reshape(2, -1).mean(1).numpy()

    def _read(self, step: int, curves: dict[str, LossCurve]) -> Reading:
        train, held = curves["train"], curves["holdout"]
        leak: Leak = train.leak(held)
        bias = self._bias() if self.settings.samples else None
        ends = (None, None, None) if bias is None else (bias.excess, bias.low, bias.high)
        return Reading(
            step, train.area(), held.area(), leak.nats, leak.low, leak.high, *ends,
            self._guarded(held), 0.0,
        )  # fmt: skip

    def _guarded(self, held: LossCurve) -> list[str]:
        """Where the module is worse on held-out rows than a guess from the training rows' moments.

        The guess is measured once: the same rows, levels and noise.
        """
        if "linear on holdout" not in self.curves:
            guess = reference_of(self.denoiser.process, self.train)
            self.curves["linear on holdout"] = measure(
                guess, self._rows["holdout"], self.settings.levels,
                generator=torch.Generator().manual_seed(self.settings.seed + 2),
                label=f"{guess.kind} guess on held-out rows",
            )  # fmt: skip
        return guard(held, self.curves["linear on holdout"]).sentences()

    def _bias(self) -> Any:
        """Do samples lean to training rows: an `Effect` over as many rows of either split."""
        drawn = self._samples()
        most = min(len(self.train), len(self.holdout), COMPARED)
        sides = [some_rows(rows, most, self.settings.seed) for rows in (self.train, self.holdout)]
        pool, queries = (coordinates(self.denoiser, rows) for rows in (torch.cat(sides), drawn))
        counts = np.bincount(nearest(queries, pool, 1)[1][:, 0], minlength=len(pool))
        return share_effect(counts, np.arange(len(pool)) < most, 0.05)

    def _samples(self) -> Tensor:
        """Samples (settings.samples, *shape) from noise that is the same at every check."""
        told = None if self._told is None else self._told["train"]
        return paired_samples(
            self.denoiser, tuple(self.train.shape[1:]), self.settings.samples,
            steps=self.settings.sampler_steps, seed=self.settings.seed + 3, condition=told,
        )  # fmt: skip

    def _reason(self, step: int, held: LossCurve, reading: Reading) -> str:
        """Why the loop should stop, or ""."""
        budget = self.settings.leak_budget
        if reading.leak_low > budget:
            return (
                f"step {step:,}: the leak is {reading.leak:.3g} nats [{reading.leak_low:.3g}, "
                f"{reading.leak_high:.3g}], surely above the budget of {budget:g}"
            )
        if self.best is None or held.area() < self.best.area():
            self.best, self.best_step, self.stale = held, step, 0
            return ""
        self.stale += 1
        rise = self.best.gap(held)
        if self.stale >= self.settings.patience and rise.low > 0:
            return (
                f"step {step:,}: the held-out curve was best at step {self.best_step:,}, "
                f"{rise.nats:.3g} nats [{rise.low:.3g}, {rise.high:.3g}] better than now. "
                + HELD_OUT_CHOSE
            )
        return ""

    # --- the folder ----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain values: settings, readings, the last curves, and the best held-out one."""
        curves = dict(self.curves) | ({} if self.best is None else {"best holdout": self.best})
        return {
            "settings": self.settings.to_json(),
            "rows": {"train": len(self.train), "holdout": len(self.holdout)},
            "stopped": self.stopped,
            "best_step": self.best_step,
            "notes": self.notes,
            "readings": [asdict(reading) for reading in self.readings],
            "curves": {name: curve.to_json() for name, curve in curves.items()},
        }

    def _write(self) -> None:
        if self.out is not None:
            write_json(self.out / "watch.json", self.to_json())
        if self.draw is not None:
            self.draw(self)

    def _continue(self) -> None:
        """Take over the readings of a loop that was stopped and goes on."""
        if self.out is None or not (self.out / "watch.json").exists() or not first_process():
            return
        kept = read_json(self.out / "watch.json")
        try:
            self.readings = [Reading(**reading) for reading in kept["readings"]]
            found = kept["curves"].get("best holdout")
            same = kept["rows"] == {"train": len(self.train), "holdout": len(self.holdout)}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.out / 'watch.json'} is damaged: choose another out"
            ) from error
        if not same or kept["settings"].get("levels") != self.settings.levels:
            raise InputError(
                f"{self.out} holds a watch of other rows or levels: choose another out"
            )
        if found is not None:
            self.best = LossCurve.from_json(found, self.denoiser.process)
            self.best_step = int(kept["best_step"])

    def _conditions(self) -> dict[str, Any] | None:
        """Conditions of the rows that are measured: `some_rows` picks by the count alone."""
        if self.conditions is None:
            return None
        pairs = zip(("train", "holdout"), self.conditions, (self.train, self.holdout), strict=True)
        return {
            name: some_rows(condition_rows(given, len(points), points), self.settings.rows,
                            self.settings.seed)
            for name, given, points in pairs
        }  # fmt: skip
