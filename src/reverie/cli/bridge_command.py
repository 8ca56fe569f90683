"""`reverie bridge`: fit one between two sets of rows, or move rows over it; its plan and audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reverie.auditing import audit_split
from reverie.auditing.judging import Judging
from reverie.bridges.run import JSON, BridgeRun
from reverie.bridges.run import bridge as fit_bridge
from reverie.cli import flags
from reverie.cli.console import Console, again
from reverie.data import load, save
from reverie.errors import InputError
from reverie.files import free_place
from reverie.report import write_bridge, write_plans, write_report
from reverie.report.of_bridge import describe_bridge, plans_of_bridge

PATH_STEPS = 50


def bridge(command: flags.Bridge, console: Console) -> int:
    for name in ("steps", "rounds"):
        count = getattr(command, name)
        if count is not None and count < (name == "steps"):
            raise InputError(f"--{name} is {count}; it is too small")
    return _fit(command, console) if command.source is None else _move(command)


def _fit(command: flags.Bridge, console: Console) -> int:
    if command.second is None:
        raise InputError("bridge needs two sets of rows, A and B; or a bridge and --from FILE")
    if command.reverse:
        raise InputError("--reverse goes with --from: a fitted bridge runs both ways")
    out = free_place(command.out or Path("bridge"))
    first, second = load(command.first), load(command.second)
    run = fit_bridge(
        first, second, solver=command.solver, sigma=command.sigma, reference=command.reference,
        paired=command.paired, steps=command.steps, rounds=command.rounds,
        holdout=command.holdout, seed=command.seed, progress=console.ticker("bridge"),
    )  # fmt: skip
    run.save(out)
    page = write_bridge(out, run, first, second, again())
    cost = run.transport_cost(first)
    unit = "" if run.units is None else " (columns in deviations)"
    noise = f"{run.reference} reference, sigma {run.sigma:.4g}{unit}"
    text = (
        f"{out}: a bridge by {run.solver}, {noise}; {_counted(run)}\n"
        f"transport cost, mean |x1 - x0|^2 / 2: {cost:.5g}{unit}; paths: {page}\n"
        f"next: reverie audit {out}    reverie plan {out}    "
        f"reverie bridge {out} --from FILE --out FILE"
    )
    kept = {
        name: {"train": len(end.train_rows), "holdout": len(end.holdout_rows)}
        for name, end in zip(("first", "second"), run.known_rows(), strict=True)
    }
    told = {"run": str(out), "solver": run.solver, "sigma": run.sigma, "transport_cost": cost,
            "rows": kept}  # fmt: skip
    flags.print_result(command, text, told)
    return 0


def _counted(run: BridgeRun) -> str:
    ends = run.known_rows()
    fitted = " and ".join(f"{len(end.train_rows):,}" for end in ends)
    held = " and ".join(f"{len(end.holdout_rows):,}" for end in ends)
    return f"{fitted} rows fitted, {held} held out"


def _move(command: flags.Bridge) -> int:
    if command.second is not None:
        raise InputError("--from moves rows over one fitted bridge; give its folder alone")
    if command.out is None:
        raise InputError("--from needs --out, the file to write")
    run = BridgeRun.load(command.first, rows=command.plan is not None)
    steps, plan = command.steps or PATH_STEPS, None
    if command.plan is not None:
        if run.bridge.exact_steps:
            raise InputError(
                f"{run.solver} draws far ends from their law in one step: it takes no plan"
            )
        plan = run.plan_steps(steps, command.plan, reverse=command.reverse)
    values = run.sample(
        command.source, reverse=command.reverse, steps=steps, plan=plan, seed=command.seed
    )
    written = save(command.out, values, run.first if command.reverse else run.second)
    flags.print_result(
        command,
        f"{written}: {len(values):,} rows moved",
        {"written": str(written), "n": len(values)},
    )
    return 0


def is_bridge(path: Path) -> bool:
    """Whether the folder is that of a fitted bridge."""
    return (path / JSON).exists()


def plan_bridge(command: flags.PlanSteps, counts: list[int], console: Console) -> int:
    """`reverie plan` of a bridge: both directions, the second one's files in OUT/reverse."""
    if command.data is not None or command.draw is not None or command.ends:
        raise InputError("--data, --draw and --ends go with runs and models of one end")
    run = BridgeRun.load(command.model, rows=True)
    folder = command.out or command.model
    lines, told = [], {}
    for reverse in (False, True):
        console.say(f"planning {'second to first' if reverse else 'first to second'} ...")
        report = plans_of_bridge(
            run, command.model, counts, reverse=reverse,
            method=command.plan or "loss-adaptive", budget=command.budget,
        )  # fmt: skip
        written = write_plans(folder / "reverse" if reverse else folder, report, again())
        lines += [report.name, "", *report.lines(), "", *map(str, written), ""]
        told["reverse" if reverse else "forward"] = report.to_json()
    if run.bridge.exact_steps:
        lines.append(
            f"{run.solver} draws far ends from their law, so that one step of its own is exact; "
            "the plans are those of paths that know the mean of the far end alone"
        )
    flags.print_result(command, "\n".join(lines), told)
    return 0


def audit_bridge_folder(
    command: flags.Audit, console: Console, judging: Judging, fail_on: set[str]
) -> int:
    """`reverie audit` of a bridge: what each direction makes, against its far end's two splits."""
    assert command.run is not None
    if command.retrain or command.cycles or command.write_clean is not None:
        raise InputError("--retrain, --cycles and --write-clean go with runs of one end")
    run = BridgeRun.load(command.run, rows=True)
    reports = []
    for reverse in (False, True):
        console.say(f"auditing {'second to first' if reverse else 'first to second'} ...")
        report = describe_bridge(
            run, str(command.run), reverse=reverse, samples=command.n, steps=command.steps,
            method=command.plan or "loss-adaptive", seed=command.seed, judging=judging,
        )  # fmt: skip
        far = run.known_rows()[0 if reverse else 1]
        split = audit_split(far.train, far.holdout)
        reports.append(replace(report, split=split))
    folder = command.out or command.run
    html, _ = write_report(folder, "audit", f"Audit of {command.run}", reports, [again()])
    lines = []
    for report in reports:
        assert report.verdict is not None
        lines += [f"{report.name}:", report.verdict.summary(), ""]
    told = {"models": [report.to_json() for report in reports]}
    flags.print_result(command, "\n".join([*lines, str(html)]), told)
    return int(any(r.verdict is not None and r.verdict.finding in fail_on for r in reports))
