"""`fit --network flow`, and `sample` and `audit` of such a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.auditing import audit_split
from reverie.auditing.judging import Judging
from reverie.cli import flags
from reverie.cli.console import Console, again
from reverie.data import save
from reverie.errors import InputError
from reverie.report import ModelReport, write_report
from reverie.runs.flows import NO_CURVE, FlowRun


def told_of_fit(out: Path, run: FlowRun) -> tuple[list[str], dict[str, Any]]:
    """Lines and values that `fit` prints of a flow."""
    held = len(run.holdout) > 0
    lines = [
        f"{out}: a flow on {len(run.train):,} training and {len(run.holdout):,} held-out rows, "
        f"{run.step:,} steps ({run.stopped})"
    ]
    densities = {"train": run.log_density(run.train)}
    if held:
        densities["holdout"] = run.log_density(run.holdout)
    means = {name: float(logs.mean()) for name, logs in densities.items()}
    lines.append(
        "mean log density: "
        + ", ".join(f"{value:.5g} nats on {name} rows" for name, value in means.items())
    )
    if held:
        lines.append(f"leak: {run.leak()}")
    lines += [NO_CURVE, f"next: reverie audit {out}    reverie sample {out}"]
    leak = run.leak().nats if held else None
    return lines, {"log_density": means, "leak": leak}


def sample_flow(command: flags.Sample) -> int:
    """`reverie sample` of a flow: one pass a sample."""
    if command.given or command.reject_copies or command.fill_holes:
        raise InputError("--given, --reject-copies and --fill-holes go with runs of a denoiser")
    run = FlowRun.load(command.run)
    values = run.sample(command.n, seed=command.seed)
    written = save(command.out, values, run.scaler)
    text = f"{written}: {command.n:,} samples of a flow, one pass each"
    flags.print_result(command, text, {"written": str(written), "n": command.n})
    return 0


def audit_flow(command: flags.Audit, console: Console, judging: Judging, fail_on: set[str]) -> int:
    """`reverie audit` of a flow: its samples against both splits, and its leak by likelihood."""
    assert command.run is not None
    if command.retrain or command.cycles or command.write_clean is not None:
        raise InputError("--retrain, --cycles and --write-clean go with runs of a denoiser")
    run = FlowRun.load(command.run)
    console.say("comparing distances ...")
    verdict, drawn = run.judged(command.n, command.seed, judging)
    split = audit_split(run.train, run.holdout, space=run.scaler)
    report = ModelReport(
        name=str(command.run), n=len(run.train), about=f"{run.step:,} steps. {NO_CURVE}",
        split=split, verdict=verdict, checks=run.checks, train=run.train, holdout=run.holdout,
        samples=drawn, scaler=run.scaler,
    )  # fmt: skip
    folder = command.out or command.run
    html, _ = write_report(folder, "audit", f"Audit of {report.name}", [report], [again()])
    save(folder / f"audit-samples{'.csv' if run.scaler.kind == 'table' else '.npy'}", drawn,
         run.scaler)  # fmt: skip
    lines = [verdict.summary(), "", f"split     {split.sentences()[0]}", NO_CURVE, "", str(html)]
    flags.print_result(command, "\n".join(lines), report.to_json())
    return int(verdict.finding in fail_on)
