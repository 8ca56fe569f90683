"""`reverie sample`: draw from a run, calibrated where that is better, and say how."""

from __future__ import annotations

from typing import Any

from reverie.auditing.model.holes import Hole
from reverie.cli import flags
from reverie.cli.console import Console, open_run, workers_of
from reverie.cli.flow_command import sample_flow
from reverie.data import save, save_rows
from reverie.errors import InputError
from reverie.runs.flows import is_flow
from reverie.runs.given import as_given, filled_sentence, whole_rows
from reverie.runs.readings import draw_told, start_of
from reverie.runs.rejection import draw_told_without_copies, hole_of
from reverie.runs.trust import Trusted
from reverie.sampling.samplers import default_sampler, sampler_named


def sample(command: flags.Sample, console: Console) -> int:
    if command.n < 1:
        raise InputError(f"--n is {command.n}; it must be at least 1")
    if command.batch_size < 1:
        raise InputError(f"--batch-size is {command.batch_size}; it must be at least 1")
    if is_flow(command.run):
        return sample_flow(command)
    run = open_run(command.run, console, command.of_run.process)
    sampler = command.sampler or default_sampler(run.process)
    drawing = (command.n, command.steps, command.plan, sampler)
    known = None
    if command.calibrate:
        console.say("guarding the curve ...")
        known = run.trusted
    options: dict[str, Any] = dict(
        clock=command.clock, seed=command.seed, progress=console.ticker("samples"),
        calibrate=command.calibrate, batch_size=command.batch_size, device=command.device,
        workers=workers_of(command, console),
    )  # fmt: skip
    if command.given:
        options |= as_given(run, command.given)
    refused, hole, fill = None, None, command.fill_holes
    if fill and not command.reject_copies:
        raise InputError("--fill-holes says how --reject-copies refuses: give both")
    if command.reject_copies:
        values, plan, refused, told = draw_told_without_copies(run, *drawing, fill=fill, **options)
        hole = hole_of(run, values, fill=fill)
    else:
        values, plan, told = draw_told(run, *drawing, **options)
    if run.train.taken is None:
        written = save(command.out, values, run.scaler)
    else:
        written = save_rows(command.out, whole_rows(run, values, told))
    start = start_of(run, plan)
    data = {"written": str(written), "n": command.n, "refused": refused,
            "hole": None if hole is None else hole.to_json(), "plan": plan.to_json(),
            "calibration": None if known is None else _calibration(known),
            "initialisation": None if start is None else start.to_json()}  # fmt: skip
    at_own_times = sampler_named(run.process, sampler).own_times
    how = sampler if at_own_times else f"{command.steps} steps, {plan.name} plan"
    text = f"{written}: {command.n:,} samples, {how}"
    text += "" if refused is None else "; " + _refusal(refused, hole, fill)
    text += f"; {known.drawn_from()}" if known is not None and known.drawn_from() else ""
    text += "" if start is None else f"; {start}"
    filled = filled_sentence(run, told, bool(command.given))
    text += f"; {filled}" if filled else ""
    flags.print_result(command, text, data)
    return 0


def _calibration(known: Trusted) -> dict[str, Any] | None:
    """What the mixture is worth, in nats a sample; nothing where the model is left alone."""
    found = known.calibration
    if found is None:
        return None
    return {"drop": found.drop, "drop_stderr": found.drop_stderr, "sentence": str(found)}


def _refusal(refused: int, hole: Hole | None, fill: bool) -> str:
    """What was refused, and the hole that it leaves."""
    text = f"{refused:,} near-copies of training rows were refused"
    text += " as more than chance gives" if fill else ""
    if hole is None:
        return f"{text}; without held-out rows nobody knows the hole that this leaves"
    remedy = "; --fill-holes leaves none" if hole.seen and hole.auc > 0.5 and not fill else ""
    return f"{text}; {hole.sentence()}{remedy}"
