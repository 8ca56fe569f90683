"""`reverie rank`: a folder of other people's checkpoints."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from reverie.auditing.metrics.features import function_typed
from reverie.cli import flags
from reverie.cli.console import Console, again
from reverie.data import load
from reverie.denoisers import Denoiser, as_denoiser
from reverie.diffusers import from_diffusers
from reverie.errors import InputError
from reverie.processes import process_on, process_typed
from reverie.report.rankings import write_ranking
from reverie.runs.ranking import rank as rank_checkpoints
from reverie.spaces import Euclidean


def rank(command: flags.Rank, console: Console) -> int:
    if not command.model or not command.data:
        raise InputError("rank needs --model package.module:build and --data FILE")
    if command.rows < 2:
        raise InputError(f"--rows is {command.rows}; it must be at least 2")
    build = function_typed(command.model, "--model", "")
    rows = _as_seen(command.data)
    holdout = None if command.holdout is None else _as_seen(command.holdout)
    shape = tuple(rows.shape[1:])

    def as_model(module: nn.Module) -> Denoiser:
        if command.scheduler is not None:
            return from_diffusers(module, command.scheduler)
        if command.process is None:
            raise InputError("a module says nothing of its noise: give --process, or --scheduler")
        process = process_typed(command.process) or process_on(Euclidean(shape), command.process)
        return as_denoiser(module, process, command.predicts, command.time)

    ranking = rank_checkpoints(
        command.checkpoints, build, as_model, rows, holdout, most=command.rows,
        leak_budget=command.leak_budget, seed=command.seed, progress=console.ticker("checkpoints"),
    )  # fmt: skip
    page, _ = write_ranking(command.out, ranking, again())
    width = max(len(one.name) for one in ranking.checkpoints)
    lines = [f"{'':<{width}} {'nats':>9} {'behind':>9}   leak"]
    for one in ranking.checkpoints:
        behind = "best" if one.behind is None else f"{one.behind.nats:.3g}"
        mark = "   leaks" if one.leaks else ""
        lines.append(
            f"{one.name:<{width}} {one.nats:>9.4g} {behind:>9}   {one.leak or 'unknown'}{mark}"
        )
    lines += [f"left out: {name}: {why}" for name, why in ranking.skipped.items()]
    text = "\n".join([*lines, "", *ranking.sentences(), "", str(page)])
    flags.print_result(command, text, ranking.to_json())
    return 0


def _as_seen(source: str) -> Tensor:
    """Rows (n, *shape) as the module sees them: whole pixels are mapped to [-1, 1]."""
    values = load(source).values
    if values.dtype == np.uint8:
        values = values / 127.5 - 1
    kind = np.int64 if values.dtype.kind in "iu" else np.float32
    return torch.from_numpy(values.astype(kind))
