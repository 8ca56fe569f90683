"""Fit a denoiser: one loop, averaged weights, resume, stop on the leak.

`Trainer.events()` is a generator: logging, pictures and early stopping are the caller's loop. Its
whole state, the random generators with it, goes through `state()` and `restore()`, so that a
killed fit resumes to the same weights, bit for bit, on the CPU.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.config import FitConfig
from reverie.curve import LossCurve, measure
from reverie.data import Dataset, Scaler, coder_for, load, shared_rows, some_rows, split
from reverie.data.coders import EUCLIDEAN, SYMBOLS
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.files import write_json, write_text
from reverie.objectives import build_objective
from reverie.previews import write_preview
from reverie.processes import Brownian, Process, RateMatrix, default_process, name_of
from reverie.processes.on_spaces import JUMPS
from reverie.runs import (
    Run,
    build_denoiser,
    conditions_of,
    load_tensors,
    load_weights,
    open_data,
    save_tensors,
    split_rows,
    start,
)
from reverie.spaces import FiniteSet, Manifold

CHECK_LEVELS, CHECK_ROWS = 24, 512
SAVE_SECONDS = 20.0
SMALL_WORK = 2e8  # weights x batch: about 20 ms a step on one core
COLUMNS = ("step", "loss", "train_nats", "holdout_nats", "leak", "leak_low", "leak_high", "lr")


@dataclass
class Event:
    """What a step of the fit has to tell; `row` is a line of metrics.csv after a check."""

    step: int
    loss: float
    row: dict[str, float] | None = None


@dataclass
class Progress:
    """Bookkeeping that is saved with the weights."""

    step: int = 0
    loss: float = 0.0  # running mean; nothing before the first step
    stale: int = 0  # checks since the held-out area last fell
    best: float = math.inf
    best_step: int = 0
    stopped: str = ""
    rows: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains `network` on points (n, *shape) in model space; see FitConfig for the settings.

    conditions: what it is told about the training and the held-out rows, if anything.
    """

    def __init__(
        self,
        network: Denoiser,
        train: Tensor,
        holdout: Tensor | None,
        config: FitConfig,
        conditions: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        self.config, device = config, torch.device(config.device)
        self.network = network.to(device).train()
        self.average = [p.detach().clone() for p in network.parameters()]
        self.best = [p.clone() for p in self.average]
        self.train, self.device = train.to(device), device
        self.holdout = None if holdout is None or len(holdout) == 0 else holdout.to(device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.conditions = tuple(None if c is None else c.to(device) for c in conditions)
        self.objective = build_objective(
            config.objective, network, self.train, config.seed + 2, conditions=self.conditions[0]
        )
        self.progress = Progress()
        self.started = 0
        self.work = sum(p.numel() for p in network.parameters()) * config.batch_size
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=config.lr,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )

    # --- the loop ----------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """Train to the end, yielding after every step."""
        config, progress = self.config, self.progress
        while progress.step < config.steps and not progress.stopped:
            with self._threads():
                loss = self._step()
            smooth = 0.98 if progress.step > 0 else 0.0
            progress.loss = smooth * progress.loss + (1 - smooth) * loss
            if not math.isfinite(progress.loss):
                raise InputError(
                    f"the loss is not finite at step {progress.step}: lower lr (now {config.lr:g})"
                )
            progress.step += 1
            row = None
            if progress.step % config.check_every == 0 or progress.step == config.steps:
                row = self._check()
            yield Event(progress.step, progress.loss, row)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """One thread for a small step: more gain little, and stall where cores are shared.

        A rule of the settings alone, since the number of threads decides the last bits.
        """
        before = torch.get_num_threads()
        small = self.work < SMALL_WORK and self.device.type == "cpu"
        torch.set_num_threads(1 if small else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _step(self) -> float:
        config, total = self.config, 0.0
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        part = config.batch_size // config.accumulate
        for _ in range(config.accumulate):
            loss = self._loss(part) / config.accumulate
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + self.progress.step) / (10 + self.progress.step))
        parameters = [p.detach() for p in self.network.parameters()]
        torch._foreach_lerp_(self.average, parameters, 1 - decay)  # type: ignore[attr-defined]
        return total

    def _loss(self, batch: int) -> Tensor:
        rows = torch.randint(
            len(self.train), (batch,), generator=self.generator, device=self.device
        )
        x = self._augment(self.train[rows])
        half = (
            torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        )
        with half:
            return self.objective.losses(rows, x, self.generator).mean()

    def _augment(self, x: Tensor) -> Tensor:
        kinds = self.config.augment.split(",")
        if kinds == ["none"]:
            return x
        if x.ndim != 4:
            raise InputError("augment is for images (n, channels, height, width)")
        if "flip" in kinds:
            mirror = torch.rand(len(x), generator=self.generator, device=self.device) < 0.5
            x = torch.where(mirror[:, None, None, None], x.flip(3), x)
        if "shift" in kinds:
            moves = torch.randint(-1, 2, (2,), generator=self.generator, device=self.device)
            padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
            down, right = (int(m) + 1 for m in moves)
            x = padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]
        return x

    def _learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to 1% of the peak."""
        config, step = self.config, self.progress.step
        warm = min(1.0, (step + 1) / max(config.warmup, 1))
        done = max(0.0, (step - config.warmup) / max(config.steps - config.warmup, 1))
        return config.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    # --- checks ------------------------------------------------------------------------------

    def _check(self) -> dict[str, float]:
        """Measure both curves of the averaged weights; decide whether to stop on the leak."""
        progress, config = self.progress, self.config
        row = {"step": float(progress.step), "loss": progress.loss, "lr": self._learning_rate()}
        if self.holdout is not None:
            train, held = self._curves()
            leak = train.leak(held)
            area = held.area()
            row |= {"train_nats": train.area(), "holdout_nats": area, "leak": leak.nats}
            row |= {"leak_low": leak.low, "leak_high": leak.high}
            if area < progress.best:
                progress.best, progress.best_step, progress.stale = area, progress.step, 0
                self.best = [p.clone() for p in self.average]
            else:
                progress.stale += 1
            if config.stop_on_leak:
                progress.stopped = self._reason(leak.low)
        if not progress.stopped and progress.step == config.steps:
            progress.stopped = "all steps done"
        if config.stop_on_leak and progress.stopped and self.holdout is not None:
            self.average = [p.clone() for p in self.best]
        progress.rows.append(row)
        return row

    def _reason(self, low: float) -> str:
        progress, config = self.progress, self.config
        if low > config.leak_budget:
            return f"leak above {config.leak_budget:g} nats"
        if progress.stale >= config.patience:
            return f"held-out curve best at step {progress.best_step}"
        return ""

    def _curves(self) -> tuple[LossCurve, LossCurve]:
        """Training and held-out curves with common noise, on at most CHECK_ROWS rows each."""
        assert self.holdout is not None
        with self.averaged() as network:
            return tuple(
                measure(
                    network, some_rows(points, CHECK_ROWS, self.config.seed), CHECK_LEVELS,
                    generator=torch.Generator(self.device).manual_seed(self.config.seed + 1),
                    condition=None if told is None
                    else some_rows(told, CHECK_ROWS, self.config.seed),
                )
                for points, told in zip((self.train, self.holdout), self.conditions, strict=True)
            )  # type: ignore[return-value]  # fmt: skip

    def averaged(self) -> _Swapped:
        """The network with its averaged weights, inside a `with` block."""
        return _Swapped(self.network, self.average)

    # --- state -------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that determine everything to come."""
        tensors = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        names = [name for name, _ in self.network.named_parameters()]
        for group, values in (("average", self.average), ("best", self.best)):
            tensors |= {f"{group}.{n}": v for n, v in zip(names, values, strict=True)}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in slots.items()}
        tensors["generator"] = self.generator.get_state()
        tensors |= {f"law.{k}": v for k, v in self.objective.state().items()}
        return tensors, self.progress.__dict__ | {"rows": list(self.progress.rows)}

    def restore(self, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = value
        try:
            self.network.load_state_dict(groups["model"])
            names = [name for name, _ in self.network.named_parameters()]
            self.average = [groups["average"][n].to(self.device) for n in names]
            self.best = [groups["best"][n].to(self.device) for n in names]
        except (KeyError, RuntimeError) as error:
            raise InputError("the saved state belongs to another network or settings") from error
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in groups.get("adam", {}).items():
            index, _, name = key.partition(".")
            slots.setdefault(int(index), {})[name] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": slots, "param_groups": whole["param_groups"]})
        self.generator.set_state(groups["generator"][""])
        self.objective.restore(groups.get("law", {}))
        self.progress = Progress(**{k: _number(v) for k, v in note.items()})
        self.started = self.progress.step


def _number(value: Any) -> Any:
    return math.inf if value is None else value


class _Swapped:
    """Puts averaged weights into a network for the length of a `with` block."""

    def __init__(self, network: Denoiser, weights: list[Tensor]) -> None:
        self.network, self.weights = network, weights
        self.kept: list[Tensor] = []

    def __enter__(self) -> Denoiser:
        parameters = list(self.network.parameters())
        self.kept = [p.detach().clone() for p in parameters]
        self._put(self.weights)
        return self.network.eval()

    def __exit__(self, *_: object) -> None:
        self._put(self.kept)
        self.network.train()

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self.network.parameters(), weights, strict=True):
                parameter.copy_(weight)


# --- the public call -----------------------------------------------------------------------------


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

    data: whatever `reverie.data.load` takes. process: a name, a spec as `edm:sigma_max=20`, or a
    process; where the data live goes with it, or is said by `space`. network: a name in
    config.NETWORKS, or a module `body(x, level)`. out: the run directory;
    None keeps everything in memory. resume: continue the run in `out` with its own settings.
    settings: fields of FitConfig. on_event: called after every step. rows: indices of the training
    and of the held-out rows, instead of a random split. conditions: what the model is told about
    each row of data, labels (n,) or values (n, ...) with NaN for what is missing; a tenth of them
    is lost in training, so that None is the unconditional model. Ctrl-C saves and re-raises.
    Raises InputError on bad data, settings, or an `out` that already holds a run.
    """
    path = None if out is None else Path(out)
    body = network if isinstance(network, nn.Module) else None
    resuming = resume and path is not None and (path / "config.json").exists()
    if resuming and path is not None:
        config, scaler, train, holdout = open_data(path)
    else:
        config = _configure(config, process, network, settings)
        config, scaler, train, holdout = _begin(data, config, path, body, rows, conditions)
    torch.manual_seed(config.seed)  # the weights' start; everything else has its own generator
    denoiser = build_denoiser(config, scaler, body, train)
    resumed = path is not None and (path / "state.safetensors").exists()
    if config.init is not None and not resumed:
        load_weights(denoiser, Path(config.init) / "ema.safetensors")
    points = scaler.to_model(train.values)
    told = conditions_of(train), conditions_of(holdout)
    trainer = Trainer(denoiser, points, scaler.to_model(holdout.values), config, told)
    if path is not None and resumed:
        _sweep(path)
        trainer.restore(*load_tensors(path / "state.safetensors"))
    elif path is not None:
        _save(trainer, path)
    _drain(trainer, scaler, path, on_event)
    return _finish(trainer, config, scaler, train, holdout, path)


def _sweep(path: Path) -> None:
    """Remove the temporary files that a killed write left behind."""
    for left in [*path.glob(".*"), *(path / "previews").glob(".*")]:
        left.unlink(missing_ok=True)


def _configure(
    config: FitConfig | None, process: str | Process | None, network: Any, settings: dict[str, Any]
) -> FitConfig:
    unknown = set(settings) - set(FitConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"fit has no setting {', '.join(sorted(unknown))}; see FitConfig")
    if isinstance(process, Process):
        settings["process"] = name_of(process)
        if isinstance(process.space, FiniteSet | Manifold):
            curved = isinstance(process.space, Manifold)
            settings.setdefault("space", repr(process.space) if curved else SYMBOLS)
    elif process is not None:
        settings["process"] = process
    if network is not None:
        settings["network"] = network if isinstance(network, str) else "custom"
    return replace(config or FitConfig(), **settings)


def _begin(
    data: Any,
    config: FitConfig,
    path: Path | None,
    body: nn.Module | None,
    given: tuple[np.ndarray, np.ndarray] | None,
    conditions: Any,
) -> tuple[FitConfig, Scaler, Dataset, Dataset]:
    """Check everything that can be wrong before anything is written, then create the run."""
    if data is None:
        raise InputError("fit needs data: a built-in name, a file, a folder of images or an array")
    config.check()
    if path is not None and (path / "config.json").exists():
        raise InputError(f"{path} already holds a run: add --resume, or choose another --out")
    space = _space(config, data)
    dataset = load(data, mixed=space == SYMBOLS).check(rows=2, constants=space == SYMBOLS)
    if conditions is not None:
        dataset = dataset.told(conditions)
    if given is None:
        rows = split(dataset, config.n, config.holdout, config.seed)
    else:
        shared = shared_rows(dataset.values[given[1]], dataset.values[given[0]])
        rows = (*given, int(shared.sum()))
    train, holdout = dataset.take(rows[0]), dataset.take(rows[1])
    # a scale is the training rows' own; symbols and units are those of all rows
    fitted_on = train if space == EUCLIDEAN and len(train) > 1 else dataset
    scaler = coder_for(space, fitted_on)
    config = replace(config, space=space, process=config.process or default_process(scaler.space))
    _check_labels(train.conditions, holdout.conditions)
    few = train.take(np.arange(min(len(train), CHECK_ROWS)))  # enough to see that they fit
    config = _fixed(config, build_denoiser(config, scaler, body, few), scaler, train)
    if config.augment != "none" and (dataset.kind != "images" or space != EUCLIDEAN):
        raise InputError(f"augment={config.augment} is for images; {dataset.source} is none")
    if config.init is not None and not (Path(config.init) / "ema.safetensors").exists():
        raise InputError(f"init: {config.init} is not a finished run")
    if path is not None:
        start(path, config, dataset, scaler, rows)
    return config, scaler, train, holdout


def _space(config: FitConfig, data: Any) -> str:
    """The space that is named, or that the process or the kind of data implies."""
    if config.space is not None:
        return config.space
    name = (config.process or "").partition(":")[0]
    is_text = str(getattr(data, "source", data)).lower().endswith(".txt")
    return SYMBOLS if name in JUMPS or is_text else EUCLIDEAN


def _check_labels(train: np.ndarray | None, holdout: np.ndarray | None) -> None:
    """Held-out labels are among those of the training rows."""
    if train is None or holdout is None or train.ndim > 1 or not len(holdout):
        return
    if holdout.max() > train.max():
        raise InputError(
            f"the held-out rows have label {holdout.max()}, the training rows none above "
            f"{train.max()}: hold out fewer rows, or number the labels from the most frequent"
        )


def _fixed(config: FitConfig, denoiser: Denoiser, scaler: Scaler, train: Dataset) -> FitConfig:
    """The config with all that the process reads off a file, which may change, or off the rows."""
    process = denoiser.process
    if isinstance(process, RateMatrix):
        return replace(config, process=name_of(process))
    if isinstance(process, Brownian) and not process.space.compact:
        rows = scaler.to_model(train.values)
        around = Brownian.around(process.space, rows, process.tau_min, process.tau_max)
        return replace(config, process=name_of(around))
    return config


def _drain(
    trainer: Trainer,
    scaler: Scaler,
    path: Path | None,
    on_event: Callable[[Event, Trainer], None] | None,
) -> None:
    saved = monotonic()
    try:
        for event in _between_steps(trainer.events()):
            if event.step == trainer.started + 1 and path is not None:
                (path / "curves.json").unlink(missing_ok=True)  # they were of older weights
            if on_event is not None:
                on_event(event, trainer)
            if path is not None and event.row is not None:
                with trainer.averaged() as network:
                    name = f"step-{event.step:07d}"
                    write_preview(path / "previews" / name, network, scaler, trainer.config.seed)
            if path is not None and monotonic() - saved > SAVE_SECONDS:
                _save(trainer, path)
                saved = monotonic()
    except KeyboardInterrupt:
        if path is not None:
            _save(trainer, path)
        raise
    if path is not None:
        _save(trainer, path)


def _between_steps(events: Iterator[Event]) -> Iterator[Event]:
    """Let Ctrl-C wait for the end of a step: half a step could not be resumed bit for bit.

    A second Ctrl-C stops at once. Only the main thread may do this; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from events
        return
    asked: list[int] = []
    usual = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        for event in events:
            yield event
            if asked:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, usual)


def _save(trainer: Trainer, path: Path) -> None:
    """Write the state in one rename, then the files that are read off it."""
    tensors, note = trainer.state()
    plain = note | {"best": note["best"] if math.isfinite(note["best"]) else None}
    save_tensors(path / "state.safetensors", tensors, plain)
    weights = trainer.network.state_dict()
    save_tensors(path / "model.safetensors", weights, {"step": note["step"]})
    with trainer.averaged() as network:
        save_tensors(path / "ema.safetensors", network.state_dict(), {"step": note["step"]})
    rows = [",".join(COLUMNS)]
    rows += [
        ",".join(f"{row[c]:.8g}" if c in row else "" for c in COLUMNS) for row in note["rows"]
    ]
    write_text(path / "metrics.csv", "\n".join(rows) + "\n")
    write_json(path / "state.json", {k: v for k, v in plain.items() if k != "rows"})


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
    )
