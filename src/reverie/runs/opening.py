"""What a fit starts from: everything that can be wrong is checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data import (
    Dataset,
    Scaler,
    coder_for,
    coder_on,
    load,
    split,
)
from reverie.data.coders import DOMAIN, EUCLIDEAN, SHARES, SYMBOLS, TABLE, TABLES, space_word
from reverie.data.conditions import column_place, numbers_only, with_condition
from reverie.data.domain_coder import table_coder
from reverie.data.reading import without_keys
from reverie.data.rows import shared_count
from reverie.denoisers import Denoiser
from reverie.denoisers.networks.choice import default_name, default_width
from reverie.errors import InputError
from reverie.processes import Process, default_process, name_of
from reverie.processes.registry import ENTRIES, OWN, own_name
from reverie.runs.config import FitConfig
from reverie.runs.folder import (
    Own,
    build_denoiser,
    open_data,
    process_of,
    start,
)
from reverie.runs.on_disk import held_in_memory, prepared
from reverie.runs.trainer import CHECK_ROWS
from reverie.sampling.ends import choose_ends
from reverie.spaces import Bounded, FiniteSet, Mixed, Simplex

FROM_ROWS = "edm"  # the process whose levels are read off the rows where none are given


@dataclass(frozen=True)
class Opened:
    """All that a fit starts from: a run that is checked, written or not."""

    config: FitConfig
    own: Own
    scaler: Scaler
    train: Dataset
    holdout: Dataset
    dataset: Dataset
    rows: Any = None  # of the data file in each split, and how many duplicates they share


def opened_run(opening: Callable[[], Opened], path: Path | None, own: Own) -> Opened:
    """What begins, or the run in `path`, which is read again."""
    if path is None:
        return opening()
    config, scaler, train, holdout = open_data(path)
    return Opened(config, own, scaler, train, holdout, train)


def configured(
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
    settings = {k: v.item() if isinstance(v, np.generic) else v for k, v in settings.items()}
    return replace(config or FitConfig(), **settings)


def begin(
    data: Any,
    config: FitConfig,
    path: Path,
    own: Own,
    given: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Create a run that `fit(out=path, resume=True)` trains, in any process that sees the folder.

    Raises InputError as `fit` does, before anything is written.
    """
    opened = checked(data, config, path, own, given, None)
    start(path, opened.config, opened.dataset, opened.scaler, opened.rows)


def checked(
    data: Any,
    config: FitConfig,
    path: Path | None,
    own: Own,
    given: tuple[np.ndarray, np.ndarray] | None,
    conditions: Any,
) -> Opened:
    """Check everything that can be wrong before anything is written."""
    if data is None:
        raise InputError("fit needs data: a built-in name, a file, a folder of images or an array")
    config.check()
    if path is not None and (path / "config.json").exists():
        raise InputError(f"{path} already holds a run: add --resume, or choose another --out")
    space = _space(config, data) if own.process is None else space_word(own.process.space)
    dataset, space = _loaded(config, data, conditions, space)
    dataset = prepared(dataset, path, config)
    if given is None:
        rows = split(dataset, config.n, config.holdout, config.seed)
    else:
        rows = (*given, shared_count(dataset, given[1], given[0]))
    train, holdout = dataset.take(rows[0]), held_in_memory(dataset.take(rows[1]))
    # a scale is the training rows' own; symbols and units are those of all rows
    fitted_on = train if space == EUCLIDEAN and len(train) > 1 else dataset
    if own.process is None:
        if space in TABLES or config.bounds:
            scaler = table_coder(space, dataset, train, config.bounds)
        else:
            scaler = coder_for(space, fitted_on)
        scaler = scaler.without(dataset.still_columns()) if space == EUCLIDEAN else scaler
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
    few = train.take(
        np.arange(min(len(train), CHECK_ROWS))
    ).loaded()  # enough to see that they fit
    config, own = _fixed(config, own, build_denoiser(config, scaler, own, few), scaler, train)
    if config.augment != "none" and (dataset.kind != "images" or space != EUCLIDEAN):
        raise InputError(f"augment={config.augment} is for images; {dataset.source} is none")
    if config.init is not None and not (Path(config.init) / "ema.safetensors").exists():
        raise InputError(f"init: {config.init} is not a finished run")
    return Opened(config, own, scaler, train, holdout, dataset, rows)


def with_ends(config: FitConfig, scaler: Scaler, train: Dataset) -> FitConfig:
    """The config with the noise levels that the training rows ask for (`choose_ends`)."""
    ends = choose_ends(scaler.to_model(train.few().values))
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
        return DOMAIN if issubclass(entry.space, Bounded) else TABLE
    return SYMBOLS if of_symbols or is_text else EUCLIDEAN


def _loaded(config: FitConfig, data: Any, conditions: Any, space: str) -> tuple[Dataset, str]:
    """The rows, with what the model is told about each, and where they live.

    A table with categories, dates or missing cells is one of columns, unless its space, a process
    on another or a condition is named.
    """
    named = config.space is not None or config.process not in (None, "product")
    named = named or conditions is not None
    aside = isinstance(conditions, str | Path)
    mixed = aside or not named or space in (SYMBOLS, *TABLES)
    dataset = load(data, mixed=mixed)
    if dataset.is_stored:
        return _on_disk(dataset, conditions, space), EUCLIDEAN
    if aside:
        dataset = with_condition(dataset, conditions)
    elif conditions is not None:
        dataset = dataset.told(conditions)
    if mixed and space != SYMBOLS:
        dataset = without_keys(dataset)
        if not named and dataset.kind == "table" and _of_columns(dataset):
            space = TABLE
        dataset = dataset if space in TABLES else numbers_only(dataset)
    if space in TABLES:
        return dataset.check_rows(2), space
    return dataset.check(rows=2, constants=space in (SYMBOLS, EUCLIDEAN)), space


def _on_disk(dataset: Dataset, conditions: Any, space: str) -> Dataset:
    """Stored rows with what is told about each; they are vectors or pictures."""
    if space != EUCLIDEAN:
        raise InputError(
            f"{dataset.source} is read from disk in pieces: its rows are vectors or pictures, no "
            f"{space}; with stored=False they are read into memory"
        )
    if isinstance(conditions, str | Path):
        if column_place(dataset, str(conditions)) is not None:
            raise InputError(
                f"{dataset.source} is read from disk in pieces: write the column {conditions} to "
                "a file of its own, as labels.npy, for a condition"
            )
        return with_condition(dataset, conditions)
    return dataset if conditions is None else dataset.told(conditions)


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
    fitted = process.fitted_to(scaler.to_model(train.loaded().values))
    entry = ENTRIES.get((config.process or "").partition(":")[0])
    if own.process is not None:
        named = config.process if fitted is process else own_name(fitted)
        return replace(config, process=named), replace(own, process=fitted)
    if fitted is not process or (entry is not None and entry.is_on_file):
        return replace(config, process=name_of(fitted)), own
    return config, own
