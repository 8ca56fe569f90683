"""`reverie.watch`: three lines in anybody's training loop, and a page that grows."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, as_denoiser
from reverie.diffusers import from_diffusers
from reverie.errors import InputError
from reverie.files import write_text
from reverie.processes import Process, process_on
from reverie.report.figures import curves_figure, readings_figure
from reverie.report.frame import render_page
from reverie.runs.untouched import bare
from reverie.runs.watch import Settings, Watch
from reverie.spaces import Euclidean

SETTINGS = {setting.name for setting in fields(Settings)}


def watch(
    module: nn.Module,
    train: Tensor | np.ndarray,
    holdout: Tensor | np.ndarray,
    *,
    process: Process | str | None = None,
    predicts: str = "clean",
    scheduler: Any = None,
    every: int | None = None,
    out: str | Path | None = None,
    conditions: tuple[Any, Any] | None = None,
    **options: Any,
) -> Watch:
    """Follow the training of a module: its curve, leak, guard and bias, and whether to stop.

    module: the one that is trained (or an average of its weights), also inside the wrappers of
    several devices or of `torch.compile`; a Denoiser as it is. train, holdout: rows (n, *shape) as
    the module sees them, the held-out ones never trained on. process, predicts: as in
    `as_denoiser`; process may be a text such as "edm:sigma_min=0.02,sigma_max=40". scheduler: of
    diffusers, which says both. every: steps between checks; None: as often as a sixtieth of the
    loop's time pays for. out: folder of watch.html and watch.json, which go on where they are.
    conditions: of the rows of each split. options: fields of `runs.watch.Settings`
    (leak_budget, patience, rows, ...) and further arguments of `as_denoiser`.
    Raises InputError on a module whose process is not told, unknown options or bad rows.

    >>> import torch
    >>> from reverie import watch
    >>> class Body(torch.nn.Linear):
    ...     def forward(self, state, t):
    ...         return super().forward(state)
    >>> module, rows = Body(2, 2), torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> watcher = watch(module, rows[:32], rows[32:], process="edm:sigma_min=0.02,sigma_max=40")
    >>> for step in range(3):
    ...     stop = watcher.step(step)  # beside the optimiser's step
    >>> watcher.close(3).step, stop
    (3, False)
    """
    settings = {key: value for key, value in options.items() if key in SETTINGS}
    reading = {key: value for key, value in options.items() if key not in SETTINGS}
    rows = torch.as_tensor(train)
    denoiser = _denoiser(bare(module), rows, process, predicts, scheduler, reading)
    folder = None if out is None else Path(out)
    return Watch(
        denoiser, rows, torch.as_tensor(holdout), Settings(every=every, **settings), conditions,
        folder, None if folder is None else write_watch,
    )  # fmt: skip


def _denoiser(
    module: nn.Module,
    rows: Tensor,
    process: Process | str | None,
    predicts: str,
    scheduler: Any,
    reading: dict[str, Any],
) -> Denoiser:
    if isinstance(module, Denoiser):
        return module
    try:
        if scheduler is not None:
            return from_diffusers(module, scheduler, **reading)
        if process is None:
            raise InputError(
                "a module says nothing of its noise: give process= and predicts=, or scheduler="
            )
        if isinstance(process, str):
            process = process_on(Euclidean(tuple(rows.shape[1:])), process)
        return as_denoiser(module, process, predicts, **reading)
    except TypeError as error:
        if reading and any(key in str(error) for key in reading):
            raise InputError(f"watch takes no such option: {error}") from error
        raise


def write_watch(watched: Watch) -> Path:
    """Write watch.html into the watch's folder, atomically."""
    assert watched.out is not None
    html = render_page(
        "watch.html",
        watched=watched,
        curves=curves_figure(watched.curves),
        figure=readings_figure(watched.readings),
    )
    return write_text(watched.out / "watch.html", html)
