"""`reverie bridge`: fit one between two sets of rows, or move rows over it."""

from __future__ import annotations

from pathlib import Path

from reverie.bridges.run import BridgeRun
from reverie.bridges.run import bridge as fit_bridge
from reverie.cli import flags
from reverie.cli.console import Console, again
from reverie.data import load, save
from reverie.errors import InputError
from reverie.files import free_place
from reverie.report import write_bridge

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
        paired=command.paired, steps=command.steps, rounds=command.rounds, seed=command.seed,
        progress=console.ticker("bridge"),
    )  # fmt: skip
    run.save(out)
    page = write_bridge(out, run, first, second, again())
    cost = run.transport_cost(first)
    unit = "" if run.units is None else " (columns in deviations)"
    noise = f"{run.reference} reference, sigma {run.sigma:.4g}{unit}"
    text = (
        f"{out}: a bridge by {run.solver}, {noise}\n"
        f"transport cost, mean |x1 - x0|^2 / 2: {cost:.5g}{unit}; paths: {page}\n"
        f"next: reverie bridge {out} --from FILE --out FILE"
    )
    told = {"run": str(out), "solver": run.solver, "sigma": run.sigma, "transport_cost": cost}
    flags.print_result(command, text, told)
    return 0


def _move(command: flags.Bridge) -> int:
    if command.second is not None:
        raise InputError("--from moves rows over one fitted bridge; give its folder alone")
    if command.out is None:
        raise InputError("--from needs --out, the file to write")
    run = BridgeRun.load(command.first)
    steps = command.steps or PATH_STEPS
    values = run.sample(command.source, reverse=command.reverse, steps=steps, seed=command.seed)
    written = save(command.out, values, run.first if command.reverse else run.second)
    flags.print_result(
        command,
        f"{written}: {len(values):,} rows moved",
        {"written": str(written), "n": len(values)},
    )
    return 0
