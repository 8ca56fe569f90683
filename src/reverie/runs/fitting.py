"""Fit a denoiser on data: check everything, run the `Trainer`, keep a folder that resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reverie.data import (
    Dataset,
    Scaler,
    TableCoder,
    coder_for,
    coder_on,
    load,
    shared_rows,
    split,
)
from reverie.data.coders import EUCLIDEAN, SHARES, SYMBOLS, TABLE, space_word
from reverie.data.conditions import numbers_only, with_condition
from reverie.data.reading import without_keys
from reverie.denoisers import Denoiser
from reverie.denoisers.networks.choice import default_name, default_width
from reverie.errors import InputError
from reverie.processes import Process, default_process, name_of, process_typed
from reverie.processes.registry import ENTRIES, OWN, own_name
from reverie.runs.config import FitConfig
from reverie.runs.flows import fit_flow, is_flow, is_flow_config
from reverie.runs.folder import (
    Own,
    build_denoiser,
    conditions_of,
    load_tensors,
    load_weights,
    open_data,
    process_of,
    split_rows,
    start,
)
from reverie.runs.keeping import drain, save_state, sweep_left
from reverie.runs.previews import write_preview
from reverie.runs.run import Run
from reverie.runs.trainer import CHECK_ROWS, Event, Trainer
from reverie.sampling.ends import choose_ends
from reverie.spaces import FiniteSet, Mixed, Simplex

FROM_ROWS = "edm"  # the process whose levels are read off the rows where none are given


def fit(
    data: Any = None,
    *,
    process: str | Process | None = None,
    network: str | nn.Module | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    config: FitConfig | None = None,
    on_event: Callable[[Event, Trainer], None] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    conditions: Any = None,
    **settings: Any,
) -> Run:
    """Fit a network on `data` and return the Run.

    data: whatever `reverie.data.load` takes. process: a name, a spec as `edm:sigma_max=20`, a
    Process, or `package.module:Class[a=1]` of one's own; where the data live goes with it, or is
    said by `space`. A process without a name must be passed again where the run is resumed or
    loaded. network: a name in
    config.NETWORKS, or a module `body(x, level)`. out: the run directory;
    None keeps everything in memory. resume: continue the run in `out` with its own settings.
    settings: fields of FitConfig. on_event: called after every step. rows: indices of the training
    and of the held-out rows, instead of a random split. conditions: what the model is told about
    each row of data: labels (n,) or values (n, ...) with NaN for what is missing, the name of a
    column (which is taken out of the rows), or a file. A tenth of them is lost in training, so
    that None is the unconditional model. With network="flow" there is no denoiser and what comes
    back is a `FlowRun`, which answers the same questions but those of a curve. Ctrl-C saves and
    re-raises.
    Raises InputError on bad data, settings, or an `out` that already holds a run.

    >>> import numpy as np
    >>> from reverie import fit
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> run = fit(data, steps=20, width=16, depth=1)  # thousands of steps, in earnest
    >>> run.step, run.train_values.shape, run.sample(5).shape
    (20, (150, 2), (5, 2))
    """
    path = None if out is None else Path(out)
    own = Own(
        process_typed(process) if isinstance(process, str) else process,
        network if isinstance(network, nn.Module) else None,
    )
    resuming = resume and path is not None and (path / "config.json").exists()
    config = config if resuming else _configure(config, process, network, settings)
    if _is_flow(config, path, resuming):
        if own.body is not None or conditions is not None:
            raise InputError("a flow is told nothing: leave conditions out")
        made: Any = fit_flow(data, config or FitConfig(), path, resume=resume, rows=rows,
                             on_event=on_event)  # fmt: skip
        return made
    if resuming and path is not None:
        config, scaler, train, holdout = open_data(path)
    else:
        assert config is not None
        config, own, scaler, train, holdout = _begin(data, config, path, own, rows, conditions)
    torch.manual_seed(config.seed)  # the weights' start; everything else has its own generator
    denoiser = build_denoiser(config, scaler, own, train)
    resumed = path is not None and (path / "state.safetensors").exists()
    if config.init is not None and not resumed:
        load_weights(denoiser, Path(config.init) / "ema.safetensors")
    points = scaler.to_model(train.values)
    told = conditions_of(train), conditions_of(holdout)
    trainer = Trainer(denoiser, points, scaler.to_model(holdout.values), config, told)
    if path is not None and resumed:
        sweep_left(path)
        trainer.restore(*load_tensors(path / "state.safetensors"))
    elif path is not None:
        save_state(trainer, path)
    drain(trainer, path, on_event, _previews(path, scaler, config.seed))
    return _finish(trainer, config, scaler, train, holdout, path)


def _is_flow(config: FitConfig | None, path: Path | None, resuming: bool) -> bool:
    if resuming and path is not None:
        return is_flow(path)
    return config is not None and is_flow_config(config)


def _configure(
    config: FitConfig | None, process: str | Process | None, network: Any, settings: dict[str, Any]
) -> FitConfig:
    unknown = set(settings) - set(FitConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"fit has no setting {', '.join(sorted(unknown))}; see FitConfig")
    typed = None if config is None or config.process is None else OWN.fullmatch(config.process)
    if isinstance(process, str):
        settings["process"] = process
    elif process is not None and typed is None:  # else the text that made it stays
        settings["process"] = own_name(process)
    if network is not None:
        settings["network"] = network if isinstance(network, str) else "custom"
    return replace(config or FitConfig(), **settings)


def _begin(
    data: Any,
    config: FitConfig,
    path: Path | None,
    own: Own,
    given: tuple[np.ndarray, np.ndarray] | None,
    conditions: Any,
) -> tuple[FitConfig, Own, Scaler, Dataset, Dataset]:
    """Check everything that can be wrong before anything is written, then create the run."""
    if data is None:
        raise InputError("fit needs data: a built-in name, a file, a folder of images or an array")
    config.check()
    if path is not None and (path / "config.json").exists():
        raise InputError(f"{path} already holds a run: add --resume, or choose another --out")
    space = _space(config, data) if own.process is None else space_word(own.process.space)
    dataset, space = _loaded(config, data, conditions, space)
    if given is None:
        rows = split(dataset, config.n, config.holdout, config.seed)
    else:
        shared = shared_rows(dataset.values[given[1]], dataset.values[given[0]])
        rows = (*given, int(shared.sum()))
    train, holdout = dataset.take(rows[0]), dataset.take(rows[1])
    # a scale is the training rows' own; symbols and units are those of all rows
    fitted_on = train if space == EUCLIDEAN and len(train) > 1 else dataset
    if own.process is None:
        scaler = TableCoder.fit(dataset, train) if space == TABLE else coder_for(space, fitted_on)
        named = config.process or default_process(scaler.space)
        config = replace(config, space=space, process=named)
        if named == FROM_ROWS:
            config = with_ends(config, scaler, train)
    else:
        scaler = coder_on(own.process.space, dataset, fitted_on)
        config = replace(config, space=space)
    config = _sized(config, scaler, own)
    if not dataset.labels:
        _check_labels(train.conditions, holdout.conditions)
    few = train.take(np.arange(min(len(train), CHECK_ROWS)))  # enough to see that they fit
    config, own = _fixed(config, own, build_denoiser(config, scaler, own, few), scaler, train)
    if config.augment != "none" and (dataset.kind != "images" or space != EUCLIDEAN):
        raise InputError(f"augment={config.augment} is for images; {dataset.source} is none")
    if config.init is not None and not (Path(config.init) / "ema.safetensors").exists():
        raise InputError(f"init: {config.init} is not a finished run")
    if path is not None:
        start(path, config, dataset, scaler, rows)
    return config, own, scaler, train, holdout


def with_ends(config: FitConfig, scaler: Scaler, train: Dataset) -> FitConfig:
    """The config with the noise levels that the training rows ask for (`choose_ends`)."""
    ends = choose_ends(scaler.to_model(train.values))
    process = f"{FROM_ROWS}:sigma_min={ends.sigma_min:.4g},sigma_max={ends.sigma_max:.4g}"
    return replace(config, process=process, p_mean=ends.p_mean, p_std=ends.p_std)


def _sized(config: FitConfig, scaler: Scaler, own: Own) -> FitConfig:
    """The config with its network and width, where these go with the data."""
    process = process_of(config, scaler, own.process)
    name = config.network or default_name(process, scaler.point_shape)
    return replace(config, network=name, width=config.width or default_width(name))


def _space(config: FitConfig, data: Any) -> str:
    """The space that is named, or that the process or the kind of data implies."""
    if config.space is not None:
        return config.space
    entry = ENTRIES.get((config.process or "").partition(":")[0])
    is_text = str(getattr(data, "source", data)).lower().endswith(".txt")
    of_symbols = entry is not None and issubclass(entry.space, FiniteSet)
    if entry is not None and issubclass(entry.space, Simplex):
        return SHARES
    if entry is not None and issubclass(entry.space, Mixed):
        return TABLE
    return SYMBOLS if of_symbols or is_text else EUCLIDEAN


def _loaded(config: FitConfig, data: Any, conditions: Any, space: str) -> tuple[Dataset, str]:
    """The rows, with what the model is told about each, and where they live.

    A table with categories, dates or missing cells is one of columns, unless its space, a process
    on another or a condition is named.
    """
    named = config.space is not None or config.process not in (None, "product")
    named = named or conditions is not None
    aside = isinstance(conditions, str | Path)
    mixed = aside or not named or space in (SYMBOLS, TABLE)
    dataset = load(data, mixed=mixed)
    if aside:
        dataset = with_condition(dataset, conditions)
    elif conditions is not None:
        dataset = dataset.told(conditions)
    if mixed and space != SYMBOLS:
        dataset = without_keys(dataset)
        if not named and dataset.kind == "table" and _of_columns(dataset):
            space = TABLE
        dataset = dataset if space == TABLE else numbers_only(dataset)
    if space == TABLE:
        return dataset.check_rows(2), space
    return dataset.check(rows=2, constants=space == SYMBOLS), space


def _of_columns(table: Dataset) -> bool:
    """Whether columns are no numbers alone: categories, dates, truths, or cells are missing."""
    plain = all(f.kind == "numeric" and not f.is_time and f.dtype != "bool" for f in table.fields)
    return not plain or bool(np.isnan(table.values).any())


def _check_labels(train: np.ndarray | None, holdout: np.ndarray | None) -> None:
    """Held-out labels are among those of the training rows."""
    if train is None or holdout is None or train.ndim > 1 or not len(holdout):
        return
    if holdout.max() > train.max():
        raise InputError(
            f"the held-out rows have label {holdout.max()}, the training rows none above "
            f"{train.max()}: hold out fewer rows, or number the labels from the most frequent"
        )


def _fixed(
    config: FitConfig, own: Own, denoiser: Denoiser, scaler: Scaler, train: Dataset
) -> tuple[FitConfig, Own]:
    """Config and process with all that is read off a file, which may change, or off the rows."""
    process = denoiser.process
    fitted = process.fitted_to(scaler.to_model(train.values))
    entry = ENTRIES.get((config.process or "").partition(":")[0])
    if own.process is not None:
        named = config.process if fitted is process else own_name(fitted)
        return replace(config, process=named), replace(own, process=fitted)
    if fitted is not process or (entry is not None and entry.is_on_file):
        return replace(config, process=name_of(fitted)), own
    return config, own


def _previews(path: Path | None, scaler: Scaler, seed: int) -> Callable[[Event, Trainer], None]:
    """Writes what the averaged model draws, after a check."""

    def write(event: Event, trainer: Trainer) -> None:
        assert path is not None
        with trainer.averaged() as network:
            write_preview(path / "previews" / f"step-{event.step:07d}", network, scaler, seed)

    return write


def _finish(
    trainer: Trainer,
    config: FitConfig,
    scaler: Scaler,
    train: Dataset,
    holdout: Dataset,
    path: Path | None,
) -> Run:
    network, progress = trainer.network, trainer.progress
    trainer.averaged().__enter__()  # for good: the run is the averaged model
    rows = None if path is None else split_rows(path)
    return Run(
        config,
        network.cpu().eval(),
        scaler,
        train,
        holdout,
        {},
        path,
        progress.step,
        progress.stopped,
        rows,
        checks=list(progress.rows),
    )
