"""Fit a denoiser on data: check everything, run the `Trainer`, keep a folder that resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from reverie.data import (
    Scaler,
)
from reverie.data.stored.points import points_of
from reverie.denoisers import Seen
from reverie.errors import InputError
from reverie.processes import Process, process_typed
from reverie.runs.alike import check_alike, check_parts
from reverie.runs.config import FitConfig
from reverie.runs.crew import crew
from reverie.runs.driving import OnEvent, drive, keep, sweep_up
from reverie.runs.flows import fit_flow, is_flow_config
from reverie.runs.folder import (
    Own,
    build_denoiser,
    conditions_of,
    load_tensors,
    load_weights,
    saved_config,
    split_rows,
    start,
)
from reverie.runs.lowering import layout_of
from reverie.runs.on_disk import in_hand
from reverie.runs.opening import Opened, checked, configured, opened_run
from reverie.runs.previews import write_preview
from reverie.runs.ranks import ALONE, Ranks, answered, joined, launched
from reverie.runs.run import Run
from reverie.runs.runtime import Runtime
from reverie.runs.tracking import trackers_of, tracking
from reverie.runs.trainer import Event, Trainer


def fit(
    data: Any = None,
    *,
    process: str | Process | None = None,
    network: str | nn.Module | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    config: FitConfig | None = None,
    on_event: OnEvent | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    conditions: Any = None,
    runtime: Runtime | None = None,
    **settings: Any,
) -> Run:
    """Fit a network on `data` and return the Run.

    data: whatever `reverie.data.load` takes. process: a name, a spec as `edm:sigma_max=20`, a
    Process, or `package.module:Class[a=1]` of one's own; where the data live goes with it, or is
    said by `space`. A process without a name must be passed again where the run is resumed or
    loaded. network: a name in
    config.NETWORKS, or a module `body(x, level)`. out: the run directory;
    None keeps everything in memory. resume: continue the run in `out` with its own settings.
    settings: fields of FitConfig and Runtime. on_event: called after every step. rows: indices of
    the training and of the held-out rows, instead of a random split. conditions: what the model is
    told about each row of data: labels (n,) or values (n, ...) with NaN for what is missing, the
    name of a column (which is taken out of the rows), or a file. A tenth of them is lost in
    training, so that None is the unconditional model. With network="flow" there is no denoiser,
    and what comes back is a `FlowRun`, which answers the same questions but those of a curve.
    runtime, or its fields as settings (devices=2, track="tensorboard"): how the fit runs, which is
    not saved. Under a launcher all processes make this call alike, and only the first one writes.
    Ctrl-C saves and re-raises.
    Raises InputError on bad data, settings, or an `out` that already holds a run.

    >>> import numpy as np
    >>> from reverie import fit
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> run = fit(data, steps=20, width=16, depth=1)  # thousands of steps, in earnest
    >>> run.step, run.train_values.shape, run.sample(5).shape
    (20, (150, 2), (5, 2))
    """
    runtime, settings = _runtime(runtime, settings)
    path = None if out is None else Path(out)
    own = Own(
        process_typed(process) if isinstance(process, str) else process,
        network if isinstance(network, nn.Module) else None,
    )
    resuming = resume and path is not None and (path / "config.json").exists()
    if resuming and path is not None:
        config = saved_config(path)
    else:
        config = configured(config, process, network, settings)
    if is_flow_config(config):
        _check_flow(own, conditions, runtime)
        made: Any = fit_flow(data, config, path, resume=resume, rows=rows, on_event=on_event)
        return made
    ranks = joined(config.device, runtime.wait)
    opening = partial(checked, data, config, path, own, rows, conditions)
    if runtime.devices > 1 and ranks is ALONE:
        return _on_devices(opening, config, path, resuming, own, process, runtime, on_event)
    with answered(ranks):
        (resuming,) = ranks.any(resuming and ranks.first)
        opened = ranks.agreed(lambda: opened_run(opening, path if resuming else None, own))
        check_alike(ranks, opened.config, (opened.train, opened.holdout), runtime)
        asked = ranks.agreed(lambda: _asked(opened, runtime, ranks))
        if ranks.first and path is not None and not resuming:
            start(path, opened.config, opened.dataset, opened.scaler, opened.rows)
        trainer = _trainer(opened, path, ranks, runtime)
        with tracking(asked, path, opened.config, on_event) as told:
            previews = _previews(path, opened.scaler, opened.config.seed)
            drive(trainer, path, told, previews)
    return _finish(trainer, opened, path if ranks.first else None)


def _check_flow(own: Own, conditions: Any, runtime: Runtime) -> None:
    """InputError on what a flow has no use for."""
    if own.body is not None or conditions is not None:
        raise InputError("a flow is told nothing: leave conditions out")
    if runtime.devices > 1 or launched()[1] > 1:
        raise InputError("a flow trains in one process: leave devices and the launcher out")
    if runtime != replace(Runtime(), wait=runtime.wait):
        raise InputError("a flow trains as it is: leave compile, channels_last and track out")


def _previews(path: Path | None, scaler: Scaler, seed: int) -> OnEvent:
    """Writes what the averaged model draws, after a check."""

    def write(event: Event, trainer: Trainer) -> None:
        assert path is not None
        with trainer.averaged() as network:
            place = path / "previews" / f"step-{event.step:07d}"
            write_preview(place, network, scaler, seed, Seen(trainer.train))

    return write


def _runtime(runtime: Runtime | None, settings: dict[str, Any]) -> tuple[Runtime, dict[str, Any]]:
    """How the fit runs, and the settings that are left."""
    names = Runtime.__dataclass_fields__
    given = {k: v for k, v in settings.items() if k in names}
    left = {k: v for k, v in settings.items() if k not in names}
    return replace(runtime or Runtime(), **given).check(), left


def _asked(opened: Opened, runtime: Runtime, ranks: Ranks) -> list[Any]:
    """The trackers of the first process; InputError where what is asked for cannot be had."""
    layout_of(opened.scaler.point_shape, runtime)
    return trackers_of(runtime.track if ranks.first else None)


def _on_devices(
    opening: Callable[[], Opened],
    config: FitConfig,
    path: Path | None,
    resuming: bool,
    own: Own,
    process: str | Process | None,
    runtime: Runtime,
    on_event: OnEvent | None,
) -> Run:
    """The fit as process 0 of those that are started here; the others read the run's folder."""
    if own.body is not None or not isinstance(process, str | None):
        raise InputError(
            "devices starts processes that read the run's folder, which holds no module and no "
            "process of your own: start your script with torchrun --nproc-per-node "
            f"{runtime.devices} instead, or name the process, package.module:Class"
        )
    check_parts(config, runtime.devices)
    with TemporaryDirectory(prefix="reverie-") as spare:
        folder = Path(spare) / "run" if path is None else path
        if not resuming:
            opened = opening()
            _asked(opened, runtime, ALONE)
            start(folder, opened.config, opened.dataset, opened.scaler, opened.rows)
        alone = replace(runtime, devices=1)
        words = {
            "out": str(folder),
            "process": process,
            "runtime": asdict(replace(alone, track=None)),
        }
        command = ["-m", "reverie.runs.worker", json.dumps(words)]
        with crew(command, runtime.devices, config.device, runtime.wait):
            run = fit(process=process, out=folder, resume=True, on_event=on_event, runtime=alone)
    return run if path is not None else replace(run, path=None)


def _trainer(opened: Opened, path: Path | None, ranks: Ranks, runtime: Runtime) -> Trainer:
    """The trainer where the run left off, or at its start."""
    config, scaler = opened.config, opened.scaler
    torch.manual_seed(config.seed)  # the weights' start; everything else has its own generator
    denoiser = build_denoiser(config, scaler, opened.own, opened.train)
    if not ranks.first:
        torch.manual_seed(config.seed + ranks.index)  # dropout of other rows is another
    saved = None if path is None else path / "state.safetensors"
    (resumed,) = ranks.any(ranks.first and saved is not None and saved.exists())
    if config.init is not None and not resumed:
        load_weights(denoiser, Path(config.init) / "ema.safetensors")
    told = conditions_of(opened.train), conditions_of(opened.holdout)
    points, held = points_of(scaler, opened.train), points_of(scaler, opened.holdout)
    trainer = Trainer(denoiser, points, held, config, told, ranks, runtime)
    if path is not None and saved is not None and resumed:
        if ranks.first:
            sweep_up(path)
        trainer.restore(*ranks.agreed(lambda: load_tensors(saved)))
    else:
        keep(trainer, path)
    return trainer


def _finish(trainer: Trainer, opened: Opened, path: Path | None) -> Run:
    config, network, progress = opened.config, trainer.network, trainer.progress
    trainer.averaged().__enter__()  # for good: the run is the averaged model
    if config.precision == "float64":  # it is used in float32, as the run that is loaded again
        fresh = build_denoiser(config, opened.scaler, opened.own, opened.train)
        fresh.load_state_dict(network.state_dict())
        network = fresh
    rows = None if path is None else split_rows(path)
    train, holdout, rows, whole = in_hand(opened.train, opened.holdout, rows)
    return Run(
        config,
        network.cpu().eval(),
        opened.scaler,
        train,
        holdout,
        {},
        path,
        progress.step,
        progress.stopped,
        rows,
        checks=list(progress.rows),
        whole=whole,
    )
