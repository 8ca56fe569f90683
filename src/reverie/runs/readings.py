"""Readings of a finished run: its plan, samples from it, and its audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing import Verdict, audit
from reverie.auditing.classes import Classes
from reverie.auditing.facts.all_rows import on_disk
from reverie.auditing.judge import with_all_rows
from reverie.auditing.judging import Judging
from reverie.auditing.model.cyclic import CyclicProbe, cyclic_probe
from reverie.auditing.model.membership import auc_lines, membership_rows
from reverie.auditing.model.stored import basin_roc, samples_line, samples_roc, token_rows
from reverie.auditing.row import Row
from reverie.curve import level_times
from reverie.data import TableCoder, some_rows
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.plan import AnyPlan, Plan, StepCharges, measure_steps, plan_steps
from reverie.runs.curves import COSTLY, COSTLY_ROWS, Ticker
from reverie.runs.curves import sampling_curve as sampling_curve
from reverie.runs.curves import standard_curves as standard_curves
from reverie.runs.folder import Fitted, conditions_of
from reverie.runs.trust import trust_of
from reverie.sampling import default_sampler, sample
from reverie.sampling.blocks import BLOCK, Drawing, draw_blocks
from reverie.sampling.initialisation import InitialisationKL, initialisation_kl
from reverie.sampling.scales import plan_times
from reverie.sampling.starting import start_law
from reverie.spaces import FiniteSet
from reverie.workers.pieces import HERE, Workers

SAMPLE_STEPS = 20
PAIRED_STEPS = 18  # of Heun's solver (Karras et al. 2022)
MEMBERSHIP_ROWS = 1000
TRAJECTORIES, COSTLY_TRAJECTORIES = 300, 64  # of the cyclic probe
BASINS, COSTLY_BASINS = 150, 30  # rows of each split whose basins are measured
STEP_NODES, STEP_ROWS = 33, 128


def sampling_plan(
    run: Fitted,
    steps: int = SAMPLE_STEPS,
    method: str | None = None,
    clock: str | None = None,
    sampler: str = "ancestral",
    *,
    calibrate: bool = True,
) -> AnyPlan:
    """The plan that samples of `run` are drawn on: by default `default_method`'s for the sampler,
    in the clock of `default_plan`.

    calibrate: for the calibrated model, where the run's own is worse than the linear guess (see
    `runs.trust`). Where a step's charge is not clock times rate, all steps between some levels are
    measured.
    """
    if run.process.steps_measured:
        return step_charges(run, calibrate=calibrate).plan(steps, method or "loss-adaptive")
    curve = trust_of(run).curve if calibrate else sampling_curve(run)
    return plan_steps(curve, steps, method, clock, sampler=sampler)


def step_charges(run: Fitted, *, calibrate: bool = True) -> StepCharges:
    """The charges of all steps between STEP_NODES levels, on held-out rows (else training rows).

    calibrate: as in `sampling_plan`. Kept with the run's object: they take one pass of the model
    per level.
    """
    denoiser = trust_of(run).denoiser if calibrate else run.denoiser
    own = denoiser is run.denoiser
    if own not in run.charges:
        points = run.holdout_points() if len(run.holdout) > 1 else run.train_points()
        rows = some_rows(points, STEP_ROWS, run.config.seed)
        generator = torch.Generator().manual_seed(run.config.seed + 3)
        run.charges[own] = measure_steps(denoiser, rows, STEP_NODES, generator=generator)
    return run.charges[own]


@dataclass(frozen=True)
class PathKL:
    """Path KL in nats of a plan, to the one law whose ideal curve is known: the training rows'.

    `total` = `excess` (the schedule, on the model's curve of training rows) + `denoiser` (how far
    the model's curve lies above the memoriser's, which is ideal there). A model that generalises
    is far from that law, and should be. `initialisation` is, for Gaussian noise, at most half
    u_0 E|x|^2; masking starts from its own noise, 0.
    """

    total: float
    excess: float
    denoiser: float
    initialisation: float


def path_kl(run: Fitted, plan: AnyPlan) -> PathKL | None:
    """Split the path KL of `plan` against the empirical law of the training rows.

    None where a step does not cost clock times rate: the curves cannot tell then.
    """
    if not (run.process.steps_exact and isinstance(plan, Plan)):
        return None
    if "memoriser on train" not in run.curves:
        return None
    ideal = run.curves["memoriser on train"]
    here = plan.on(run.curves["train"])
    total = here.path_kl(ideal)
    points = run.train_points()
    second = float(points.double().flatten(1).square().sum(1).mean())
    start = run.process.start_kl(float(np.max(plan.u[0])), second)
    return PathKL(total, here.excess, total - here.excess, start)


def draw(
    run: Fitted,
    n: int,
    steps: int = SAMPLE_STEPS,
    plan: str | None = None,
    sampler: str | None = None,
    *,
    clock: str | None = None,
    condition: Tensor | None = None,
    given: Mapping[str, Any] | None = None,
    calibrate: bool = True,
    seed: int = 0,
    batch_size: int = BLOCK,
    device: str = "cpu",
    workers: Workers = HERE,
    progress: Ticker | None = None,
) -> tuple[np.ndarray, AnyPlan]:
    """Draw `n` samples (n, *shape) in the data's own units, and the plan they were drawn on.

    plan, sampler, clock: None is `default_method`'s, `default_sampler`'s, `default_plan`'s.
    condition: what the model is told, one row for all or one for each; by default a run with
    conditions draws them from its training rows', so that the samples follow the law of the data.
    given: of a table, cells that all samples have, as {"group": "B"} (see `TableCoder.given`):
    these symbols are shown from the start, which is exact for an exact denoiser, since symbols may
    be revealed in any order. calibrate: draw from the calibrated model where the run's own is
    worse than the linear guess, which is fitted once and kept with the run (see `runs.trust`).
    batch_size: samples of a block, which share a stream of noise: with the seed it says which
    samples are drawn, by however many workers (see `sampling.blocks`). device: cpu or cuda.
    """
    values, chosen, _ = draw_told(
        run, n, steps, plan, sampler, clock=clock, condition=condition, given=given,
        calibrate=calibrate, seed=seed, batch_size=batch_size, device=device, workers=workers,
        progress=progress,
    )  # fmt: skip
    return values, chosen


def draw_told(
    run: Fitted,
    n: int,
    steps: int = SAMPLE_STEPS,
    plan: str | None = None,
    sampler: str | None = None,
    *,
    clock: str | None = None,
    condition: Tensor | None = None,
    given: Mapping[str, Any] | None = None,
    calibrate: bool = True,
    seed: int = 0,
    batch_size: int = BLOCK,
    device: str = "cpu",
    workers: Workers = HERE,
    progress: Ticker | None = None,
) -> tuple[np.ndarray, AnyPlan, Tensor | None]:
    """As `draw`, and what the model was told about each sample: (n, ...), or (1, ...) for all."""
    cells = _given(run, given)
    sampler = sampler or default_sampler(run.process)
    chosen = sampling_plan(run, steps, plan, clock, sampler, calibrate=calibrate)
    denoiser = trust_of(run).denoiser if calibrate else run.denoiser
    generator = torch.Generator().manual_seed(seed)
    known = conditions_of(run.train)
    if condition is None and known is not None:
        condition = known[torch.randint(len(known), (n,), generator=generator)]
    times, shape = plan_times(chosen), run.scaler.point_shape
    start = start_law(denoiser, chosen, float(times[0]), seen=run.seen)
    drawing = Drawing(denoiser, times, sampler, shape, device, cells, start)
    parts = draw_blocks(
        drawing, n, seed=seed, first=None if known is None else generator, block=batch_size,
        condition=condition, workers=workers, progress=progress,
    )  # fmt: skip
    return np.concatenate([run.scaler.to_user(part) for part in parts]), chosen, condition


def start_of(run: Fitted, plan: AnyPlan) -> InitialisationKL | None:
    """What samples of a run on this plan save by their start; None where it is the noise alone."""
    t = float(plan.times[0])
    law = start_law(run.denoiser, plan, t, seen=run.seen)
    return None if law is None else initialisation_kl(run.process, law, t)


def _given(run: Fitted, given: Mapping[str, Any] | None) -> Mapping[int, int]:
    if not given:
        return {}
    if not isinstance(run.scaler, TableCoder):
        raise InputError("given is of columns: it needs a run that was fitted on a mixed table")
    return run.scaler.given(given)


def draw_paired(
    denoiser: Denoiser, shape: tuple[int, ...], n: int, *, steps: int = PAIRED_STEPS, seed: int = 0
) -> Tensor:
    """Draw `n` points (n, *shape), in model space, that depend on the noise of `seed` alone.

    Heun's deterministic solver on equal steps of log-SNR: no curve is needed, and two models of
    one process and shape are given the same noise at the same levels.
    """
    times = torch.as_tensor(level_times(denoiser.process, steps + 1))
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    start = denoiser.process.sample_prior(n, shape=shape, t=float(times[0]), generator=generator)
    return sample(denoiser, n, times, "heun", init=start.to(device))


def audit_run(
    run: Fitted,
    n: int = 2000,
    *,
    sampling_steps: int = SAMPLE_STEPS,
    judging: Judging | None = None,
    extra: Sequence[Row] = (),
    seed: int = 0,
    cycles: int = 0,
    cycling: Ticker | None = None,
    searching: Ticker | None = None,
    **drawing: Any,
) -> tuple[Verdict, np.ndarray]:
    """Audit a run: `n` samples of it, its splits, its leak and its membership tests.

    It is the model itself that is audited: samples are drawn without calibration, which mixes it
    with a guess and takes weights from held-out rows, unless drawing says `calibrate=True`. A run
    that is told labels is audited within its classes: samples are compared with rows of their own.
    judging: as in `audit`; its seed is `seed`. extra: further lines of the table.
    cycles: of the cyclic probe, 0 for none; cycling is told those done. Where training rows stay
    on disk, copies are sought among all of them, and `searching` is told the work done and in all.
    Returns the verdict and the samples (n, *shape) in the data's own units.
    """
    drawing = {"calibrate": False} | drawing
    drawn, _, told_samples = draw_told(run, n, sampling_steps, seed=seed, **drawing)
    samples = run.train.with_values(drawn, "the samples")
    points = run.train_points(), run.holdout_points()
    lines = []
    if run.process.gaussian is not None:
        told = conditions_of(run.train), conditions_of(run.holdout)
        lines = membership_rows(
            run.denoiser, *points, seed=seed, rows=_membership_rows(run),
            conditions=None if told[0] is None else told,
        )  # fmt: skip
    elif isinstance(run.process.space, FiniteSet):
        lines = token_rows(run.denoiser, *points, seed=seed)
    if run.process.gaussian is not None and conditions_of(run.train) is None:
        own = run.scaler.to_model(drawn)
        lines += [samples_line(samples_roc(run.denoiser, own, points[1], seed=seed))]
    probe = _cycled(run, drawn, cycles, seed, cycling) if cycles else None
    if probe is not None:
        lines += [probe.line()]
        if conditions_of(run.train) is None:
            basins = basin_roc(run.denoiser, *points, rows=_basin_rows(run), seed=seed)
            lines += auc_lines({"basin volume": basins})
    verdict = audit(
        run.train, run.holdout, samples, curves=(run.curves["train"], run.curves["holdout"]),
        space=run.scaler, classes=_classes(run, told_samples, len(drawn)),
        extra=[*lines, *extra], judging=judging or Judging(), units=False, seed=seed,
    )  # fmt: skip
    if run.rows is not None:
        train_rows = run.rows[0]
        verdict.records[:] = [
            replace(r, source_row=int(train_rows[r.train_row])) for r in verdict.records
        ]
    if run.config.chooses:
        verdict.notes.append(
            "The held-out rows also chose when the fit stopped, which biases the leak downwards."
        )
    if drawing["calibrate"] and trust_of(run).calibrated is not None:
        verdict.notes.append(
            "The samples are of the calibrated model; held-out rows also chose its weights, which "
            "makes copies of training rows harder to see."
        )
    verdict = with_all_rows(
        verdict, on_disk(run.whole), run.holdout, samples, tested=len(run.train),
        progress=searching,
    )  # fmt: skip
    return replace(verdict, cyclic=probe), drawn


def _cycled(
    run: Fitted, drawn: np.ndarray, cycles: int, seed: int, progress: Ticker | None
) -> CyclicProbe:
    """The cyclic probe of a run, from some of its samples; from new ones where it has conditions,
    which must stay those of their samples."""
    known, told = conditions_of(run.train), None
    count = COSTLY_TRAJECTORIES if _costly(run) else TRAJECTORIES
    if known is not None:
        generator = torch.Generator().manual_seed(seed)
        told = known[torch.randint(len(known), (count,), generator=generator)]
        drawn = draw(run, count, condition=told, calibrate=False, seed=seed + 1)[0]
    return cyclic_probe(
        run.denoiser, run.scaler.to_model(drawn[:count]), run.train, run.holdout, cycles=cycles,
        space=run.scaler, condition=told, seed=seed, progress=progress,
    )  # fmt: skip


def _classes(run: Fitted, told: Tensor | None, n: int) -> Classes | None:
    """The labels of training, held-out and sampled rows, where the run is told labels."""
    train, held = run.train.conditions, run.holdout.conditions
    if told is None or train is None or held is None or train.dtype.kind != "i":
        return None
    return Classes((train, held, told.expand(n).cpu().numpy()), run.train.condition)


def _membership_rows(run: Fitted) -> int:
    return COSTLY_ROWS if run.config.network in COSTLY else MEMBERSHIP_ROWS


def _costly(run: Fitted) -> bool:
    return run.config.network in COSTLY or run.process.costly_kernel


def _basin_rows(run: Fitted) -> int:
    return COSTLY_BASINS if _costly(run) else BASINS
