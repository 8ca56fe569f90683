"""What each command does: library calls, a progress bar, and a summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.cli import flags
from reverie.cli.bridge_command import is_bridge, plan_bridge
from reverie.cli.console import TYPED, Console, again, open_run, workers_of
from reverie.cli.demo import run_demo
from reverie.cli.describe import read_for
from reverie.cli.flow_command import told_of_fit
from reverie.cli.sample_command import sample as sample
from reverie.curve import LossCurve, measure
from reverie.data import Scaler, load, some_rows
from reverie.diffusers import from_diffusers
from reverie.errors import InputError
from reverie.files import read_json
from reverie.forecast import predict as forecast
from reverie.plan import StepCharges
from reverie.processes import process_typed
from reverie.report import report_plans, write_forecast, write_plans, write_sweep
from reverie.reproduce import reproduce as make_again
from reverie.runs.alike import check_parts
from reverie.runs.crew import crew
from reverie.runs.export import SCALER
from reverie.runs.fitting import fit as fit_run
from reverie.runs.flows import FlowRun, is_flow
from reverie.runs.folder import conditions_of, saved_config, weights_digest
from reverie.runs.given import told_sentence
from reverie.runs.opening import FROM_ROWS
from reverie.runs.ranks import Ranks, answered, joined, launched
from reverie.runs.readings import (
    COSTLY_ROWS,
    path_kl,
    standard_curves,
    step_charges,
)
from reverie.runs.run import Run
from reverie.runs.sweeps import sweep as run_sweep
from reverie.runs.trust import CALIBRATION, Trusted, keep, trusted, trusted_run
from reverie.sampling.drawn_steps import DrawnSteps, steps_by_drawing
from reverie.sampling.ends import NATS, choose_ends
from reverie.sampling.samplers import NAMES
from reverie.theory.bounds import Facts


def fit(command: flags.Fit, console: Console) -> int:
    """Fit alone, or with the processes that a launcher started, or as many as --devices says."""
    devices, wait = command.runtime.check().devices, command.runtime.wait
    resuming = command.resume and (command.out / "config.json").exists()
    config = saved_config(command.out) if resuming else command.config
    if devices == 1 or launched()[1] > 1:
        ranks = joined(config.device, wait)
        with answered(ranks):
            return _fit(command, console, ranks)
    check_parts(config.check(), devices)
    with crew(["-m", *TYPED], devices, config.device, wait) as ranks, answered(ranks):
        return _fit(command, console, ranks)


def _fit(command: flags.Fit, console: Console, ranks: Ranks) -> int:
    out, config = command.out, command.config
    (started,) = ranks.any(ranks.first and (out / "config.json").exists())
    process = None if config.process is None else process_typed(config.process)
    if command.resume and started:
        config = ranks.agreed(lambda: saved_config(out))
        console.say(f"continuing {out} with its own data and settings; other flags are ignored")
    elif command.data is None:
        raise InputError("fit needs DATA: a file, a folder of images or a built-in name")
    source, made = command.data, None
    if source is not None and not (command.resume and started):
        given = source
        source, made = ranks.agreed(lambda: read_for(given, command.reads, console))
    bar = console.training("fit", config)
    try:
        run = fit_run(
            source, config=config, out=out, resume=command.resume, on_event=bar,
            process=process, conditions=command.condition, runtime=command.runtime,
        )  # fmt: skip
    except KeyboardInterrupt:
        if ranks.first:
            print(f"reverie: stopped and saved; continue with: reverie fit --out {out} --resume",
                  file=sys.stderr)  # fmt: skip
        return 130
    if is_flow(out):
        lines, told = told_of_fit(out, FlowRun.load(out))
        understood = None if made is None else made.to_json()
        more = {"run": str(out), "understood": understood}
        flags.print_result(command, "\n".join(lines), told | more)
        return 0
    standard_curves(run, progress=console.ticker("curves"), ranks=ranks)
    if not ranks.first:
        return 0
    held = run.curves.get("holdout")
    leak = run.curves["train"].leak(held) if held is not None else None
    shared = int(read_json(out / "data.json").get("shared_duplicates", 0))
    if shared:
        console.say(f"{shared:,} held-out rows also stand in the training split")
    known = run.train if run.whole is None else run.whole
    lines = [
        f"{out}: {len(known):,} training and {len(run.holdout):,} held-out rows, "
        f"{run.step:,} steps ({run.stopped})"
    ]
    if len(run.train) < len(known):
        lines.append(f"curves, plans and audits read {len(run.train):,} of the training rows, at "
                     "random")  # fmt: skip
    lines += told_sentence(run.train)
    if leak is not None:
        lines.append(f"leak: {leak}")
    if config.process == FROM_ROWS:
        lines += choose_ends(run.scaler.to_model(run.train.few().values)).sentences()
    lines.append(f"next: reverie audit {out}    reverie plan {out}    reverie sample {out}")
    data = {"run": str(out), "step": run.step, "stopped": run.stopped,
            "leak": None if leak is None else leak.nats,
            "understood": None if made is None else made.to_json()}  # fmt: skip
    flags.print_result(command, "\n".join(lines), data)
    return 0


def plan(command: flags.PlanSteps, console: Console) -> int:
    samplers = [name.strip() for name in command.sampler.split(",")]
    for name in samplers:
        if name not in NAMES:
            raise InputError(f"no sampler is called {name!r}; choose {', '.join(NAMES)}")
    counts = _counts(command.steps)
    if is_bridge(command.model):
        return plan_bridge(command, counts, console)
    run = _run_of(command, console)
    facts, charges = None, None
    if run is None:
        known, rows = _measured(command, console)
        facts = Facts(second_moment=float(rows.flatten(1).square().sum(1).mean()))
    else:
        console.say("guarding the curve ...")
        known, rows = trusted_run(run, calibrating=command.calibrate), run.train_points()
        if command.calibrate:
            keep(run, known)
        if run.process.clock_is_snr:
            facts = Facts(float(rows.flatten(1).square().sum(1).mean()))
        if run.process.steps_measured:
            console.say("measuring steps ...")
            charges = step_charges(run, calibrate=command.calibrate)
    report = report_plans(
        str(command.model), known.curve, counts, method=command.plan,
        clock=command.clock, sampler=samplers[0], budget=command.budget, facts=facts,
        charges=charges,
    )  # fmt: skip
    if run is not None and known.calibrated is None:
        split = {k: path_kl(run, p) for k, p in report.chosen.items()}
        report.splits.update({k: s for k, s in split.items() if s is not None})
    report = replace(
        report, trusted=known, drawn=tuple(_drawn(command, known, samplers, charges, rows, run)),
        ends=choose_ends(rows, known.measured) if command.ends else None,
    )  # fmt: skip
    folder = command.out or (Path("plan") if run is None else command.model)
    written = write_plans(folder, report, again())
    if known.calibrated is not None:
        of = weights_digest(known.calibrated.denoiser) or None
        place = folder / CALIBRATION
        written.append(known.calibrated.save_pretrained(place, of=of, replace=True))
    lines = [*report.lines(), "", *(str(path) for path in written)]
    flags.print_result(command, "\n".join(lines), report.to_json())
    return 0


def _drawn(
    command: flags.PlanSteps,
    known: Trusted,
    samplers: list[str],
    charges: StepCharges | None,
    rows: Tensor,
    run: Run | None,
) -> Iterator[DrawnSteps]:
    """For each sampler the fewest steps that will do at --draw samples."""
    if command.draw is None:
        return
    told = None if run is None else conditions_of(run.train)
    if told is not None:
        pick = np.random.default_rng(0).integers(len(told), size=command.draw)
        told = told[torch.as_tensor(pick)]
    # a level that keeps signal is no start for noise alone
    start = rows if known.start is not None and known.start.saved > NATS else None
    for name in samplers:
        yield steps_by_drawing(
            known.denoiser, known.curve if charges is None else charges, command.draw, name,
            clock=command.clock, shape=tuple(rows.shape[1:]), condition=told, start=start,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip


def _scaler(path: Path) -> Scaler:
    try:
        return Scaler(**read_json(path))
    except TypeError as error:
        raise InputError(f"{path} is damaged: export the run again") from error


def _counts(text: str) -> list[int]:
    """Numbers of steps: "10", or "5,10,20"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--steps is {text!r}; give one number, or several as in 5,10,20")
    return sorted({int(part) for part in parts})


def _run_of(command: flags.PlanSteps, console: Console) -> Run | None:
    """The run at the command's path, or None where a diffusers model stands there."""
    path, data = command.model, command.data
    pipeline = any((path / name).exists() for name in ("model_index.json", "scheduler"))
    network = (path / "config.json").exists() and not (path / "data.json").exists()
    if pipeline or (network and data is not None):
        return None
    if data is not None:
        raise InputError("--data goes with a diffusers directory; a run keeps its own data")
    return open_run(path, console, command.of_run.process)


def _measured(command: flags.PlanSteps, console: Console) -> tuple[Trusted, Tensor]:
    """A diffusers model guarded on the rows of --data, and these."""
    if command.data is None:
        raise InputError(f"{command.model} is a diffusers model: give rows to measure it on, "
                         "--data FILE")  # fmt: skip
    denoiser = from_diffusers(command.model)
    values = load(command.data).values
    if (command.model / SCALER).exists():  # a pipeline of ours knows its data's units
        points = _scaler(command.model / SCALER).to_model(values, command.data)
    else:  # whole pixels are mapped as diffusers has them
        pixels = values / 127.5 - 1 if values.dtype == np.uint8 else values
        points = torch.from_numpy(pixels.astype(np.float32))
    rows = some_rows(points, COSTLY_ROWS, 0)
    curve = measure(
        denoiser, rows, generator=torch.Generator().manual_seed(0), batch_size=64,
        label=f"model on {command.data}", progress=console.ticker("curve"),
    )  # fmt: skip
    return trusted(denoiser, curve, rows, calibrating=command.calibrate), rows


def compare(command: flags.Compare, console: Console) -> int:
    runs = [
        open_run(path, console, command.of_run.process) for path in (command.first, command.second)
    ]
    for run in runs:
        run.gaussian_network("compare")
    if runs[0].holdout.sha256() != runs[1].holdout.sha256():
        raise InputError(f"{command.first} and {command.second} held out different rows: fit both "
                         "on the same data with the same seed and --holdout")  # fmt: skip
    clocks = [r.process.clock(torch.tensor(r.process.t_range[::-1])).tolist() for r in runs]
    low, high = max(c[0] for c in clocks), min(c[1] for c in clocks)
    levels = np.geomspace(low, high, 48)
    curves = []
    for run in runs:  # each in its own units, at the same noise in the user's
        factor = float(
            np.mean(np.square(run.scaler.scales)) / np.mean(np.square(runs[0].scaler.scales))
        )
        generator = torch.Generator().manual_seed(command.seed)
        curve = measure(run.denoiser, run.holdout_points(), levels * factor,
                        generator=generator, keep_samples=True)  # fmt: skip
        assert curve.per_sample is not None
        curves.append(LossCurve(levels, curve.rate * factor, per_sample=curve.per_sample * factor))
    gap = curves[0].gap(curves[1])
    lines = [f"{'':<12} {'held-out nats':>14} {'leak':>10} {'rows':>8} {'steps':>8}"]
    data: dict[str, Any] = {"runs": []}
    for path, run, curve in zip((command.first, command.second), runs, curves, strict=True):
        leak = run.curves["train"].leak(run.curves["holdout"]).nats
        lines.append(f"{path!s:<12} {curve.area():>14.4g} {leak:>10.3g} "
                     f"{len(run.train):>8,} {run.step:>8,}")  # fmt: skip
        data["runs"].append(
            {"run": str(path), "holdout_nats": curve.area(), "leak": leak, "step": run.step}
        )
    better = command.first if gap.nats > 0 else command.second
    lines += [
        "",
        f"second less first: {gap.nats:.4g} nats [{gap.low:.4g}, {gap.high:.4g}] per held-out row "
        f"(paired, same noise), between signal-to-noise {low:.3g} and {high:.3g}",
        f"{better} knows fresh data better" if gap.low * gap.high > 0 else "no clear difference",
    ]
    data["difference"] = {"nats": gap.nats, "low": gap.low, "high": gap.high}
    flags.print_result(command, "\n".join(lines), data)
    return 0


def sweep(command: flags.Sweep, console: Console) -> int:
    again_with, workers = again(), workers_of(command, console)
    source, made = read_for(command.data, command.reads, console)
    try:
        table = run_sweep(
            source, command.out, _settings(command.over), config=command.config,
            samples=command.samples, workers=workers, hooks=console.training,
            progress=None if workers.here else console.ticker("steps of all fits"),
        )  # fmt: skip
    except KeyboardInterrupt:
        print(f"reverie: stopped and saved; continue with: {again_with}", file=sys.stderr)
        return 130
    page = write_sweep(command.out, table, again_with)
    lines = [f"{'fit':<28} {'memorised':>10} {'highest':>9} {'held-out rows':>14}"]
    lines += [
        f"{row['fit']:<28} {row['share']:>10.1%} {row['best_share']:>9.1%} "
        f"{row['null_share']:>14.1%}"
        for row in table.rows
    ]
    for line in table.lines():
        if line.axis == "n":
            lines.append(
                f"{line.label + ': ' if line.label else ''}largest N memorised to 90%: "
                f"{line.emm()} at the end, {line.emm(best=True)} at the worst snapshot"
            )
    flags.print_result(command, "\n".join([*lines, "", str(page)]),
                       table.to_json() | {"understood": made.to_json()})  # fmt: skip
    return 0


def _settings(texts: tuple[str, ...]) -> dict[str, list[float]]:
    """Settings and their values from texts like n=50,100."""
    result: dict[str, list[float]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in result:
            raise InputError(f"--over {name} is given twice: join its values by commas")
        try:
            result[name] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise InputError(
                f"--over {text}: give a setting and numbers, as n=50,100,200"
            ) from error
    return result


def demo(command: flags.Demo, console: Console) -> int:
    reports = run_demo(command.out, seed=command.seed, hooks=console.training)
    lines = [
        f"{'model':<36} {'finding':<13} {'p joint':>8} {'leak, nats':>11} {'steps, 10 nats':>15}"
    ]
    for report in reports:
        verdict = report.verdict
        assert verdict is not None
        assert verdict.leak is not None
        lines.append(
            f"{report.name:<36} {verdict.finding:<13} {verdict.p_joint:>8.2g} "
            f"{verdict.leak.nats:>11.3g} {report.needed['10'] or 'over 500':>15}"
        )
    page = command.out / "report.html"
    data = {"report": str(page), "models": [r.to_json() for r in reports]}
    flags.print_result(command, "\n".join([*lines, "", f"{page}"]), data)
    return 0


def predict(command: flags.Predict, console: Console) -> int:
    run = None if command.run is None else open_run(command.run, console)
    source, made = read_for(command.data, command.reads, console)
    console.say("reading the spectrum ...")
    result = forecast(
        source, command.n, budget=command.budget, ridge=command.ridge, run=run,
        seed=command.seed,
    )  # fmt: skip
    page, _ = write_forecast(command.out, result, again())
    flags.print_result(command, "\n".join([*result.sentences(), "", str(page)]),
                       result.to_json() | {"understood": made.to_json()})  # fmt: skip
    return 0


def export(command: flags.Export, console: Console) -> int:
    out = open_run(command.run, console, command.of_run.process).to_diffusers(
        command.out, license=command.license
    )
    text = (
        f"{out}: a pipeline of diffusers with its model card\n"
        f'next: reverie.from_diffusers("{out}")    '
        f'diffusers.DDPMPipeline.from_pretrained("{out}")'
    )
    flags.print_result(command, text, {"written": str(out)})
    return 0


def reproduce(command: flags.Reproduce, console: Console) -> int:
    out = command.out or Path("reproduce") / command.name
    console.say(f"reproducing {command.name} (some take minutes) ...")
    table = make_again(
        command.name, out, seed=command.seed, full=command.full,
        workers=workers_of(command, console), progress=console.ticker("fits"),
    )  # fmt: skip
    flags.print_result(command, (out / "table.txt").read_text() + f"\n{out}", table)
    return 0
