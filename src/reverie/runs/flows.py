"""A flow fitted on rows: a model without a denoiser, asked the same questions.

    run = fit(rows, network="flow")
    run.sample(100), run.log_density(rows), run.leak(), run.audit()

There is no noise to remove, so there is no loss curve and no plan: a sample takes one pass, the
log density is exact, and the leak is the gap of mean log densities between training and held-out
rows. The folder is a run's: config, data, weights and state, which resumes bit for bit on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.auditing import Verdict, common_space, weigh
from reverie.auditing.judging import Judging
from reverie.auditing.model.detection import roc
from reverie.auditing.model.membership import auc_lines
from reverie.curve import Z95, Leak
from reverie.data import Dataset, Scaler, coder_for, load, shared_rows, some_rows, split
from reverie.data.coders import EUCLIDEAN
from reverie.data.conditions import numbers_only
from reverie.data.reading import without_keys
from reverie.errors import InputError
from reverie.files import read_json
from reverie.flows import FLOWS, FlowDensity, flow_named
from reverie.objectives import Objective
from reverie.runs.config import FLOW, FitConfig
from reverie.runs.driving import OnEvent, drive, keep, sweep_up
from reverie.runs.folder import (
    load_tensors,
    load_weights,
    open_data,
    read_checks,
    split_rows,
    start,
)
from reverie.runs.trainer import CHECK_ROWS, Trainer
from reverie.templates import Card, Shown

NO_CURVE = (
    "A flow has no denoiser, so no loss curve and no plan: the leak is the gap of exact mean log "
    "densities between training and held-out rows."
)
DEFAULT, WIDTH, MOST = "nsf", 64, 1024
BLOCK = 4096  # rows at once
CLOCK = "log density"


@dataclass(eq=False, repr=False)
class FlowRun(Shown):
    """A fitted flow with its data; `fit(..., network="flow")` makes one, `FlowRun.load` opens it.

    rows: indices (n,) of the training and of the held-out rows in the data. Points are flattened.

    >>> import numpy as np
    >>> from reverie import fit
    >>> from reverie.runs import FlowRun
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> run = fit(data, network="flow", steps=20, width=16)
    >>> isinstance(run, FlowRun), run.sample(5).shape, run.log_density(data[:3]).shape
    (True, (5, 2), (3,))
    """

    config: FitConfig
    model: FlowDensity
    scaler: Scaler
    train: Dataset
    holdout: Dataset
    path: Path | None = None
    step: int = 0
    stopped: str = ""
    rows: tuple[np.ndarray, np.ndarray] | None = None
    checks: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> FlowRun:
        """The run in a folder; InputError where it is no flow's, damaged, or its data changed."""
        path = Path(path)
        config, scaler, train, holdout = open_data(path)
        if not is_flow_config(config):
            raise InputError(
                f"{path} is a run of {config.network}, not of a flow: Run.load opens it"
            )
        if not (path / "ema.safetensors").exists():
            raise InputError(f"{path} holds no weights yet: finish it with fit --resume")
        model = build_flow(config, scaler)
        load_weights(model, path / "ema.safetensors")
        state = read_json(path / "state.json")
        return cls(
            config, model.eval(), scaler, train, holdout, path, int(state.get("step", 0)),
            str(state.get("stopped", "")), split_rows(path), read_checks(path / "metrics.csv"),
        )  # fmt: skip

    @property
    def train_values(self) -> np.ndarray:
        """Training rows (n, *shape) in the data's own units."""
        return self.train.values

    @property
    def holdout_values(self) -> np.ndarray:
        """Held-out rows (m, *shape) in the data's own units."""
        return self.holdout.values

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> np.ndarray:
        """Draw `n` samples (n, *shape) in the data's own units, in one pass each."""
        generator = torch.Generator().manual_seed(seed)
        parts = [
            self.model.sample(min(BLOCK, n - done), generator=generator)
            for done in range(0, n, BLOCK)
        ]
        return self.scaler.to_user(torch.cat(parts).reshape(n, *self.scaler.point_shape))

    @torch.no_grad()
    def log_density(self, rows: Any) -> np.ndarray:
        """Exact log densities (n,) of rows (n, *shape), nats, in the data's own units."""
        values = rows.values if isinstance(rows, Dataset) else np.asarray(rows)
        points = self.scaler.to_model(values).flatten(1)
        logs = torch.cat([self.model.log_prob(part) for part in points.split(BLOCK)]).double()
        return logs.numpy() - self._volume()

    def leak(self) -> Leak:
        """How many nats better the model knows a training row than a held-out one, on average."""
        if not len(self.holdout):
            raise InputError("this run held out no rows: fit it again with holdout")
        return likelihood_leak(self.log_density(self.train), self.log_density(self.holdout))

    def audit(self, n: int = 2000, *, seed: int = 0, **judging: Any) -> Verdict:
        """Audit `n` samples against both splits, with the leak; judging: as in `reverie.audit`."""
        return self.judged(n, seed, Judging(seed=seed, **judging))[0]

    def judged(self, n: int, seed: int, judging: Judging) -> tuple[Verdict, np.ndarray]:
        """The verdict on `n` samples, and these (n, *shape)."""
        leak, drawn = self.leak(), self.sample(n, seed=seed)
        samples = self.train.with_values(drawn, "the samples")
        known, fresh = self.log_density(self.train), self.log_density(self.holdout)
        lines = auc_lines({"log density": roc(-known, -fresh)})
        space = common_space(self.train, self.holdout, samples, space=self.scaler)
        verdict = weigh(space, leak=leak, extra=lines, judging=judging)
        verdict.notes.append(NO_CURVE)
        if self.config.chooses:
            verdict.notes.append(
                "The held-out rows also chose when the fit stopped, which biases the leak "
                "downwards."
            )
        return verdict, drawn

    def card(self) -> Card:
        """Its data and step, and the mean log densities."""
        answer = (
            f"Flow on {self.train.source}: {len(self.train):,} training and "
            f"{len(self.holdout):,} held-out rows, {self.config.network}, step {self.step:,}."
        )
        sets = {"training": self.train, "held-out": self.holdout}
        rows = [
            (f"mean log density, {name} rows", f"{self.log_density(data).mean():.4g} nats")
            for name, data in sets.items()
            if len(data)
        ]
        rows += [("leak", str(self.leak()))] if len(self.holdout) else []
        return Card(answer, ("reading", "value"), rows, None)

    def _volume(self) -> float:
        """log |det| of the scaling of a row: nats that densities lose in the data's units."""
        std = np.broadcast_to(np.asarray(self.scaler.std), (self.model.dim,))
        return float(np.log(std).sum())


def likelihood_leak(known: np.ndarray, fresh: np.ndarray) -> Leak:
    """The leak from log densities of training rows (n,) and of held-out rows (m,), nats."""
    nats = float(known.mean() - fresh.mean())
    error = math.sqrt(sum(float(v.var(ddof=1)) / len(v) if len(v) > 1 else math.inf
                          for v in (known, fresh)))  # fmt: skip
    return Leak(nats, error, nats - Z95 * error, nats + Z95 * error, None, CLOCK)


def is_flow_config(config: FitConfig) -> bool:
    """Whether these are the settings of a flow."""
    return (config.network or "").partition(":")[0] == FLOW


def is_flow(path: Path) -> bool:
    """Whether the folder is that of a fitted flow."""
    if not (path / "config.json").exists():
        return False
    return is_flow_config(FitConfig.from_json(read_json(path / "config.json")))


def build_flow(config: FitConfig, scaler: Scaler) -> FlowDensity:
    """A fresh flow on the scaler's points, flattened; weights by the config's seed."""
    kind = (config.network or "").partition(":")[2] or DEFAULT
    if kind not in FLOWS:
        raise InputError(f"network flow:{kind}: choose one of {', '.join(FLOWS)}, as flow:maf")
    dim = math.prod(scaler.point_shape)
    if dim > MOST:
        raise InputError(f"a flow takes rows of at most {MOST:,} numbers, not {dim:,}")
    flow = flow_named(kind, dim, transforms=config.depth, width=config.width or WIDTH)
    return FlowDensity(flow, dim)


class _Likelihood(Objective):
    """Minus the log density of training rows."""

    def __init__(self, model: FlowDensity) -> None:
        self.model = model

    def losses(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        return -self.model.log_prob(x)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass


class FlowTrainer(Trainer):
    """The trainer of runs on a flow: what falls is minus the log density."""

    def _lowered(self) -> Objective:
        model: nn.Module = self.network
        assert isinstance(model, FlowDensity)
        return _Likelihood(model)

    def _learning_rate(self) -> float:
        """Warm-up, then held: the average of weights does what a decay would, and sooner."""
        config = self.config
        return config.peak * min(1.0, (self.progress.step + 1) / max(config.warmup, 1))

    def _compared(self) -> tuple[float, float, Leak]:
        assert self.holdout is not None
        with self.averaged() as network, torch.no_grad():
            model: nn.Module = network
            assert isinstance(model, FlowDensity)
            known, fresh = (
                model.log_prob(some_rows(points, CHECK_ROWS, self.config.seed)).double().numpy()
                for points in (self.train, self.holdout)
            )
        return -float(known.mean()), -float(fresh.mean()), likelihood_leak(known, fresh)


def fit_flow(
    data: Any,
    config: FitConfig,
    path: Path | None = None,
    *,
    resume: bool = False,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    on_event: OnEvent | None = None,
) -> FlowRun:
    """Fit a flow on rows of numbers, as `fit` fits a denoiser; rows: of both splits, or None."""
    if resume and path is not None and (path / "config.json").exists():
        config, scaler, train, holdout = open_data(path)
    else:
        config, scaler, train, holdout = _begin(data, config, path, rows)
    torch.manual_seed(config.seed)
    model: Any = build_flow(config, scaler)
    points = [scaler.to_model(part.values).flatten(1) for part in (train, holdout)]
    trainer = FlowTrainer(model, points[0], points[1], config)
    if path is not None and (path / "state.safetensors").exists():
        sweep_up(path)
        trainer.restore(*load_tensors(path / "state.safetensors"))
    elif path is not None:
        keep(trainer, path)
    drive(trainer, path, on_event)
    trainer.averaged().__enter__()  # for good: the run is the averaged model
    progress = trainer.progress
    return FlowRun(
        config, model.cpu().eval(), scaler, train, holdout, path, progress.step, progress.stopped,
        None if path is None else split_rows(path), list(progress.rows),
    )  # fmt: skip


def _begin(
    data: Any,
    config: FitConfig,
    path: Path | None,
    given: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[FitConfig, Scaler, Dataset, Dataset]:
    """Check everything that can be wrong before anything is written, then create the folder."""
    if data is None:
        raise InputError("fit needs data: a built-in name, a file, a folder of images or an array")
    _check(config.check())
    if path is not None and (path / "config.json").exists():
        raise InputError(f"{path} already holds a run: add --resume, or choose another --out")
    loaded = load(data, mixed=True)
    if loaded.is_stored:
        raise InputError(
            f"a flow holds its rows in memory: read {loaded.source} with stored=False"
        )
    dataset = numbers_only(without_keys(loaded)).check(rows=2)
    if given is None:
        rows = split(dataset, config.n, config.holdout, config.seed)
    else:
        shared = shared_rows(dataset.values[given[1]], dataset.values[given[0]])
        rows = (*given, int(shared.sum()))
    train, holdout = dataset.take(rows[0]), dataset.take(rows[1])
    scaler = coder_for(EUCLIDEAN, train)
    config = replace(config, space=EUCLIDEAN, width=config.width or WIDTH)
    build_flow(config, scaler)
    if path is not None:
        start(path, config, dataset, scaler, rows)
    return config, scaler, train, holdout


def _check(config: FitConfig) -> None:
    """InputError on settings that have no meaning for a flow."""
    alien = {
        "process": config.process is not None,
        "space": config.space not in (None, EUCLIDEAN),
        "objective": config.objective != "standard",
        "augment": config.augment != "none",
        "follow_bias": config.follows,
        "init": config.init is not None,
    }
    for name, set_ in alien.items():
        if set_:
            raise InputError(f"{name} goes with a denoiser: a flow of rows of numbers has none")
