"""`reverie target`: draws and the normalising constant of a density that the user named."""

from __future__ import annotations

import numpy as np

from reverie.auditing.metrics.features import function_typed
from reverie.cli import flags
from reverie.cli.console import Console, again
from reverie.errors import InputError
from reverie.files import free_place
from reverie.report.targets import write_target
from reverie.targets import sample


def target(command: flags.TargetOf, console: Console) -> int:
    out = free_place(command.out)
    log_density = function_typed(command.log_density, "the target", "")
    gradient = command.gradient and function_typed(command.gradient, "--gradient", "")
    run = sample(
        log_density, command.dim, method=command.method, n=command.n, steps=command.steps,
        start=_start(command.start), kernel=command.kernel, gradient=gradient or None,
        loss=command.loss, layers=command.layers, training=command.training, seed=command.seed,
        progress=console.ticker(command.method),
    )  # fmt: skip
    page = write_target(out, run, command.log_density, again())
    text = "\n".join([*run.sentences(), "", f"{page}; samples: {out / 'samples.npy'}"])
    flags.print_result(command, text, run.to_json())
    return 0


def _start(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not np.isfinite(numbers).all():
        raise InputError(f"--start is {text!r}; give a deviation, or mean,deviation, as 0,5")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
