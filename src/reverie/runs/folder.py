"""A run directory: config, data, weights, curves; atomic, resumable, nothing unpickled.

`state.safetensors` is the one source of truth of a fit: weights, average, optimiser, random state
and bookkeeping in a single file that is replaced in one rename, with a checksum of its tensors.
The other files are written from it: `ema.safetensors` and `model.safetensors` for use,
`state.json`, `metrics.csv` and `curves.json` for reading.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reverie.curve import LossCurve
from reverie.data import (
    Dataset,
    Reading,
    Scaler,
    SymbolCoder,
    TableCoder,
    coder_from_json,
    load,
)
from reverie.data.conditions import column_place, without_column
from reverie.data.dataset import TakenColumn
from reverie.data.stored.dataset import StoredDataset, of_hashes
from reverie.denoisers import Denoiser, Network, Seen, condition_of, network_for
from reverie.denoisers.networks.conditions import Encoder, Labels
from reverie.errors import InputError
from reverie.files import read_json, write_bytes, write_json
from reverie.plan import StepCharges
from reverie.processes import Process, name_of, process_on, process_typed
from reverie.processes.registry import ENTRIES, OWN, OWN_PREFIX
from reverie.runs.config import FLOW, FitConfig
from reverie.runs.on_disk import held_in_memory, in_hand, keep_stored, open_kept, split_of

CONDITIONS = "conditions.npy"


@dataclass(eq=False)
class Fitted:
    """A fitted model with its data and curves. `denoiser` holds the averaged weights.

    What a run is; `runs.run.Run` adds what can be asked of it.
    """

    config: FitConfig
    denoiser: Denoiser
    scaler: Scaler
    train: Dataset
    holdout: Dataset
    curves: dict[str, LossCurve] = field(default_factory=dict)
    path: Path | None = None
    step: int = 0
    stopped: str = ""  # why the fit ended
    rows: tuple[np.ndarray, np.ndarray] | None = None  # of the data file, in each split
    charges: dict[bool, StepCharges] = field(default_factory=dict, repr=False)  # once measured
    trust: Any = field(default=None, repr=False)  # what samples are drawn from (see `runs.trust`)
    checks: list[dict[str, float]] = field(default_factory=list, repr=False)  # of the fit
    whole: Dataset | None = field(default=None, repr=False)  # training rows that stay on disk

    @property
    def process(self) -> Process:
        return self.denoiser.process

    def gaussian_network(self, purpose: str) -> Network:
        """The denoiser of a run on vectors or images; InputError on other spaces."""
        if not isinstance(self.denoiser, Network):
            raise InputError(f"{purpose} needs a run of Gaussian noise on vectors or images")
        return self.denoiser

    def train_points(self) -> Tensor:
        """Training rows in model space."""
        return self.scaler.to_model(self.train.values)

    @property
    def seen(self) -> Seen:
        """The training rows in model space, as a sampler may start from them."""
        return Seen(self.train_points())

    def holdout_points(self) -> Tensor:
        """Held-out rows in model space."""
        return self.scaler.to_model(self.holdout.values)

    @classmethod
    def load(
        cls,
        path: str | Path,
        body: nn.Module | None = None,
        process: Process | str | None = None,
    ) -> Self:
        """Load a run directory; `body` and `process` for runs fitted with those of one's own.

        process: the object, or `package.module:Class[a=1]`; nothing is imported because the folder
        names it. Raises InputError when the directory is no run, has no weights yet, is damaged,
        was fitted with a body or a process that is not passed, or its data have changed since.
        """
        path = Path(path)
        config, scaler, train, holdout = open_data(path)
        if (config.network or "").partition(":")[0] == FLOW:
            raise InputError(
                f"{path} is a run of a flow, which has no denoiser, so no curve and no plan: "
                "reverie.runs.FlowRun.load opens it, and sample and audit take it"
            )
        if not (path / "ema.safetensors").exists():
            raise InputError(f"{path} holds no weights yet: finish it with fit --resume")
        own = Own(process_typed(process) if isinstance(process, str) else process, body)
        denoiser = build_denoiser(config, scaler, own, train)
        train, holdout, rows, whole = in_hand(train, holdout, split_rows(path))
        load_weights(denoiser, path / "ema.safetensors")
        state = read_json(path / "state.json")
        curves = {}
        if (path / "curves.json").exists():
            for name, values in read_json(path / "curves.json").items():
                curves[name] = LossCurve.from_json(values, denoiser.process)
        return cls(
            config, denoiser.eval(), scaler, train, holdout, curves, path,
            int(state.get("step", 0)), str(state.get("stopped", "")), rows,
            checks=read_checks(path / "metrics.csv"), whole=whole,
        )  # fmt: skip

    def save_curves(self) -> None:
        """Write `curves` to the run directory, if there is one."""
        if self.path is not None:
            write_json(self.path / "curves.json", {k: c.to_json() for k, c in self.curves.items()})


def read_checks(file: Path) -> list[dict[str, float]]:
    """The checks of a fit, as metrics.csv holds them: known values only, none where it is not.

    InputError where a cell is no number.
    """
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as text:
        lines = list(csv.DictReader(text))
    try:
        return [{k: float(v) for k, v in line.items() if k and v} for line in lines]
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged: a cell is no number") from error


@dataclass(frozen=True)
class Own:
    """Objects of a user's own that a run's folder cannot hold."""

    process: Process | None = None
    body: nn.Module | None = None


def build_denoiser(
    config: FitConfig, scaler: Scaler, own: Own | None = None, train: Dataset | None = None
) -> Denoiser:
    """A fresh network on the config's process and the scaler's space.

    own: what the config cannot name. train: the training rows, for networks that read them.
    """
    own = own or Own()
    if config.network == "custom" and own.body is None:
        raise InputError(
            "this run was fitted with a module of your own: pass body=YourModule(...)"
        )
    rows = None if train is None else scaler.to_model(train.loaded().values)
    return network_for(
        process_of(config, scaler, own.process), scaler.point_shape, config.network,
        config.width, config.depth, body=own.body, train=rows,
        condition=None if train is None else encoder_of(train),
    )  # fmt: skip


def encoder_of(train: Dataset) -> Encoder | None:
    """How a network takes the conditions of the training rows; as many labels as have names."""
    told = conditions_of(train)
    if told is None:
        return None
    return Labels(len(train.labels)) if train.labels else condition_of(told)


def process_of(config: FitConfig, scaler: Scaler, own: Process | None = None) -> Process:
    """The process of a run: the one that is named in its config, or the one passed for it.

    Raises InputError where a process of one's own is needed, or another is passed.
    """
    assert config.process is not None  # a run's config is complete
    named = config.process.removeprefix(OWN_PREFIX)
    is_own = config.process != named or OWN.fullmatch(named) is not None
    is_own = is_own and named.partition(":")[0] not in ENTRIES
    if own is None and not is_own:
        return process_on(scaler.space, config.process)
    if own is None:
        raise InputError(
            f"this run was fitted with a process of your own, {named}: name it, --process {named} "
            "on the command line or process= in Python; nothing is imported because a file says so"
        )
    kind = type(own)
    fits = name_of(own) == config.process if not is_own else _is_class(kind, named)
    if not fits:
        raise InputError(
            f"this run was fitted with the process {named}, not with {kind.__qualname__}"
        )
    return own


def _is_class(kind: type, named: str) -> bool:
    """Whether `module:Class[...]` is this class; the module may be known by another name."""
    return named.partition(":")[2].partition("[")[0].rpartition(".")[2] == kind.__name__


def conditions_of(data: Dataset) -> Tensor | None:
    """What a model is told about each row, if anything."""
    return None if data.conditions is None else torch.from_numpy(data.conditions)


def start(path: Path, config: FitConfig, data: Dataset, scaler: Scaler, rows: Any) -> None:
    """Create the directory with config.json and data.json."""
    train, holdout, shared = rows
    stored = None
    if isinstance(data, StoredDataset):
        stored = keep_stored(path, data, (train, holdout))
    write_json(path / "data.json", {
        "source": data.source,
        "shape": list(data.values.shape),
        "sha256": data.sha256() if stored is None else of_hashes(stored["pieces"]),
        "stored": stored,
        "train": train.tolist() if stored is None else None,
        "holdout": holdout.tolist() if stored is None else None,
        "shared_duplicates": shared,
        "scaler": scaler.to_json(),
        "reading": None if data.reading is None else data.reading.to_json(),
        "condition": {
            "name": data.condition,
            "labels": list(data.labels),
            "taken": None if data.taken is None else asdict(data.taken),
        },
    })  # fmt: skip
    if data.in_memory:
        write_bytes(path / "data.npy", lambda file: np.save(file, data.values))
    if data.conditions is not None:
        told = data.conditions
        write_bytes(path / CONDITIONS, lambda file: np.save(file, told))
    write_json(path / "config.json", config.to_json())  # last: its presence makes a run


def open_data(path: Path) -> tuple[FitConfig, Scaler, Dataset, Dataset]:
    """Config, scaler and both splits of a run; the data are read again and verified."""
    config, scaler, data = whole_data(path)
    train, holdout = (data.take(rows) for rows in split_rows(path))
    return config, scaler, train, held_in_memory(holdout)


def saved_config(path: Path) -> FitConfig:
    """The settings that a run was started with; InputError where the folder is no run."""
    if not (path / "config.json").exists():
        raise InputError(f"{path} is not a run: it has no config.json (make one with reverie fit)")
    return FitConfig.from_json(read_json(path / "config.json"))


def whole_data(path: Path) -> tuple[FitConfig, Scaler, Dataset]:
    """Config, scaler and all rows of the data that a run was split from, verified."""
    config = saved_config(path)
    info = read_json(path / "data.json")
    try:
        scaler = coder_from_json(info["scaler"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path / 'data.json'} is damaged: its scaler is incomplete") from error
    if info.get("stored") is not None:
        return config, scaler, _stored_data(path, info)
    stored = path / "data.npy"
    mixed = isinstance(scaler, SymbolCoder | TableCoder)
    said = None if info.get("reading") is None else Reading.from_json(info["reading"])
    known = info.get("condition", {})
    name, labels = str(known.get("name", "")), tuple(known.get("labels", ()))
    if stored.exists():
        values = load(stored).values.reshape(info["shape"])
        data = Dataset(values, scaler.kind, info["source"], scaler.layout, **scaler.of_table())
    else:
        data = load(info["source"], mixed=mixed or bool(name), reading=said, keys=True)
        if column_place(data, name) is not None and list(data.values.shape) != info["shape"]:
            data = without_column(data, name)
    if data.sha256() != info["sha256"]:
        raise InputError(f"{info['source']} has changed since {path} was fitted on it")
    if known.get("taken") is not None:
        data = replace(data, taken=TakenColumn.from_json(known["taken"]))
    if (path / CONDITIONS).exists():
        data = data.told(np.load(path / CONDITIONS, allow_pickle=False), labels, name)
    return config, scaler, data


def _stored_data(path: Path, info: dict[str, Any]) -> Dataset:
    """The rows of a run that stay on disk, verified."""
    data = open_kept(path, info["source"], Reading.from_json(info["reading"]), info["stored"])
    known = info.get("condition", {})
    if (path / CONDITIONS).exists():
        told = np.load(path / CONDITIONS, allow_pickle=False)
        return data.told(told, tuple(known.get("labels", ())), str(known.get("name", "")))
    return data


def split_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Row indices in the data file of the training and of the held-out split."""
    return split_of(path)


# --- weights -------------------------------------------------------------------------------------


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """A checksum of a module's state, or nothing where it has none."""
    state = module.state_dict()
    return _digest(state) if state else ""


def save_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    """Write tensors and a JSON note into one safetensors file with a checksum, atomically."""
    flat = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    meta = {"note": json.dumps(note), "sha256": _digest(flat)}
    write_bytes(path, lambda file: file.write(save(flat, meta)))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; InputError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it or fit anew") from error
    if meta.get("sha256") != _digest(tensors):
        raise InputError(f"{path} is damaged: its checksum does not match; restore it or fit anew")
    return tensors, json.loads(meta["note"])


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights into `module`; InputError when they do not fit."""
    tensors, _ = load_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"the weights in {path} belong to another network") from error
