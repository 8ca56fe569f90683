"""The training loop: averaged weights, checks against held-out rows, stop on the leak.

`Trainer.events()` is a generator: logging, pictures and early stopping are the caller's loop. Its
whole state, the random generators with it, goes through `state()` and `restore()`, so that a
killed fit resumes to the same weights, bit for bit, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reverie.curve import Leak, LossCurve, measure
from reverie.data import some_rows
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.objectives import Objective, build_objective
from reverie.objectives.averaging import Average, Averaged, learning_rate
from reverie.runs.config import FitConfig
from reverie.runs.following import SAMPLES, bias_between, extracted, paired_samples, split_halves
from reverie.runs.lowering import (
    Lowering,
    in_type,
    kind_of_weights,
    layout_of,
    optimiser_for,
    slots_of,
)
from reverie.runs.ranks import ALONE, Ranks
from reverie.runs.runtime import Runtime
from reverie.runs.sharing import shared

CHECK_LEVELS, CHECK_ROWS = 24, 512
SMALL_WORK = 2e8  # multiplications of a batch, one way: about 20 ms a step on one core


@dataclass
class Event:
    """What a step of the fit has to tell; `row` is a line of metrics.csv after a check.

    loss: the running mean of what training lowers, by sample.

    >>> from reverie import fit
    >>> from reverie.runs import Event
    >>> seen: list[Event] = []
    >>> tell = lambda event, trainer: seen.append(event)
    >>> run = fit("wine", steps=3, width=16, depth=1, on_event=tell)
    >>> [event.step for event in seen]
    [1, 2, 3]
    """

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

    conditions: what it is told about the training and the held-out rows, if anything. ranks: the
    processes that train it together, each with this same call. runtime: see `Runtime`.
    A fit as a loop of the caller's: `events` yields after every step.

    >>> import torch
    >>> from reverie.denoisers import network_for
    >>> from reverie.processes import VP
    >>> from reverie.runs import FitConfig, Trainer
    >>> rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> network = network_for(VP(), (2,), width=16, depth=1)
    >>> trainer = Trainer(network, rows[:48], rows[48:], FitConfig(steps=3))
    >>> [event.step for event in trainer.events()]
    [1, 2, 3]
    """

    def __init__(
        self,
        network: Denoiser,
        train: Tensor,
        holdout: Tensor | None,
        config: FitConfig,
        conditions: tuple[Tensor | None, Tensor | None] = (None, None),
        ranks: Ranks = ALONE,
        runtime: Runtime = Runtime(),  # noqa: B008 - frozen
    ) -> None:
        self.config, device, kind = config, torch.device(config.device), kind_of_weights(config)
        self.layout = layout_of(tuple(train.shape[1:]), runtime)
        self.ranks, self.runtime = ranks, runtime
        self.network = network.to(device).train()
        if kind == torch.float64:
            network.to(kind)
        if self.layout is not None:
            network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.average = Average(self.network, config.ema)
        self.best = self.average.copy()
        self.train, self.device = in_type(train, kind).to(device), device
        held = None if holdout is None or len(holdout) == 0 else in_type(holdout, kind)
        self.holdout = None if held is None else held.to(device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.conditions = tuple(
            None if told is None else in_type(told, kind).to(device) for told in conditions
        )
        self.objective = self._lowered()
        self.halves: tuple[Trainer, ...] = self._halves() if config.follows else ()
        self.progress = Progress()
        self.started = 0
        self.work = _operations(network) * config.batch_size
        self.lowering = Lowering(network, self.objective, config, ranks, runtime)
        self.optimiser = optimiser_for(network, config, ranks, runtime)

    def _lowered(self) -> Objective:
        """What training lowers."""
        config = self.config
        return build_objective(
            config.objective, self.network, self.train, config.seed + 2,
            conditions=self.conditions[0], bump=config.bump,
        )  # fmt: skip

    def _halves(self) -> tuple[Trainer, ...]:
        """The same network on either half of the rows, from the same weights and noise."""
        if len(self.train) < 4:
            raise InputError(f"follow_bias needs at least 4 training rows, not {len(self.train)}")
        alone = replace(self.config, follow_bias=False, bias_budget=math.inf)
        told = self.conditions[0]
        return tuple(
            Trainer(
                deepcopy(self.network), self.train[rows], None, alone,
                (None if told is None else told[rows], None), self.ranks, self.runtime,
            )
            for rows in split_halves(len(self.train), self.config.seed)
        )  # fmt: skip

    # --- the loop ----------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """Train to the end, yielding after every step."""
        config, progress = self.config, self.progress
        while progress.step < config.steps and not progress.stopped:
            with self._threads():
                loss = self._step()
                for half in self.halves:
                    half._step()
                    half.progress.step += 1
            smooth = 0.98 if progress.step > 0 else 0.0
            progress.loss = smooth * progress.loss + (1 - smooth) * loss
            if not math.isfinite(progress.loss):
                raise InputError(
                    f"the loss is not finite at step {progress.step}: lower lr "
                    f"(now {config.peak:g})"
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
        size = config.batch_size // config.accumulate
        for left in reversed(range(config.accumulate)):
            rows, x = self._batch(size)
            total += self.lowering.backward(
                rows, x, self.generator, last=left == 0, drawn=partial(self._foresee, size)
            )
        self.lowering.step(self.optimiser)
        self.average.update(self.progress.step)
        return self.ranks.mean(total)

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Rows and points of all processes together: each works out its own."""
        rows = torch.randint(
            len(self.train), (size,), generator=self.generator, device=self.device
        )
        x = self._augment(in_type(self.train[rows], kind_of_weights(self.config)))
        return rows, x if self.layout is None else x.contiguous(memory_format=self.layout)

    def _foresee(self, size: int) -> None:
        """Let rows on disk be read while the step goes on: those that will be drawn next."""
        expect = getattr(self.train, "expect", None)
        if expect is not None:
            later = torch.Generator(self.device)
            later.set_state(self.generator.get_state())
            expect(torch.randint(len(self.train), (size,), generator=later, device=self.device))

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
        config = self.config
        return learning_rate(self.progress.step, config.steps, config.peak, config.warmup)

    # --- checks ------------------------------------------------------------------------------

    def _check(self) -> dict[str, float]:
        """Measure the curves of the averaged weights, and the bias; decide whether to stop."""
        progress, config = self.progress, self.config
        row = {"step": float(progress.step), "loss": progress.loss, "lr": self._learning_rate()}
        if self.holdout is not None:
            known, fresh, leak = self._compared()
            row |= {"train_nats": known, "holdout_nats": fresh, "leak": leak.nats}
            row |= {"leak_low": leak.low, "leak_high": leak.high}
        if self.halves:
            row |= self._followed()
        row = self.ranks.told(row)
        over = self._passed(row)
        first = progress.best_step == 0  # it is all there is, whatever the budgets
        better = self.holdout is None or row["holdout_nats"] < progress.best
        if first or (better and not over):
            self._keep(row.get("holdout_nats", math.inf))
        else:
            progress.stale += 1
        progress.stopped = over or self._stale()
        if not progress.stopped and progress.step == config.steps:
            progress.stopped = "all steps done"
        chosen = config.stop_on_leak and self.holdout is not None
        if progress.stopped and (over or chosen):
            self.average.weights = [p.clone() for p in self.best]
        progress.rows.append(row)
        return row

    def _keep(self, area: float) -> None:
        """The average as it is becomes the best one."""
        progress = self.progress
        progress.best, progress.best_step, progress.stale = area, progress.step, 0
        self.best = self.average.copy()

    def _passed(self, row: dict[str, float]) -> str:
        """Which budget is surely passed, if any."""
        config = self.config
        if row.get("leak_low", 0.0) > config.leak_budget:
            return f"leak above {config.leak_budget:g} nats"
        if row.get("bias_low", 0.0) > config.bias_budget:
            return f"bias above {config.bias_budget:g} of the samples"
        return ""

    def _stale(self) -> str:
        """Whether the held-out curve has not improved for long, where that is asked."""
        progress, config = self.progress, self.config
        if config.stop_on_leak and self.holdout is not None and progress.stale >= config.patience:
            return f"held-out curve best at step {progress.best_step}"
        return ""

    def _followed(self) -> dict[str, float]:
        """Bias of the halves, and what comes out of the model itself; see `following`."""
        seed, shape = self.config.seed + 3, tuple(self.train.shape[1:])
        drawn = []
        for half in self.halves:
            with half.averaged() as network, shared(network, self.ranks):
                drawn.append(
                    paired_samples(
                        network, shape, SAMPLES, seed=seed, condition=self.conditions[0]
                    )
                )
        halves = self.halves[0].train, self.halves[1].train
        found = bias_between(self.network, (drawn[0], drawn[1]), halves).row()
        if self.holdout is not None and self.conditions[0] is None:
            with self.averaged() as network, shared(network, self.ranks):
                found |= extracted(network, self.train, self.holdout, seed=seed)
        return found

    def _compared(self) -> tuple[float, float, Leak]:
        """Nats of training and of held-out rows, and the leak."""
        train, held = self._curves()
        return train.area(), held.area(), train.leak(held)

    def _curves(self) -> tuple[LossCurve, LossCurve]:
        """Training and held-out curves with common noise, on at most CHECK_ROWS rows each."""
        assert self.holdout is not None
        with self.averaged() as network, shared(network, self.ranks):
            return tuple(
                measure(
                    network, some_rows(points, CHECK_ROWS, self.config.seed), CHECK_LEVELS,
                    generator=torch.Generator(self.device).manual_seed(self.config.seed + 1),
                    condition=None if told is None
                    else some_rows(told, CHECK_ROWS, self.config.seed),
                )
                for points, told in zip((self.train, self.holdout), self.conditions, strict=True)
            )  # type: ignore[return-value]  # fmt: skip

    def averaged(self) -> Averaged[Denoiser]:
        """The network with its averaged weights, inside a `with` block."""
        return self.average.kept()

    # --- state -------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that determine everything to come.

        All processes ask where the optimiser is sharded; the first one has it all.
        """
        tensors = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        names = [name for name, _ in self.network.named_parameters()]
        for group, values in (("average", self.average.weights), ("best", self.best)):
            tensors |= {f"{group}.{n}": v for n, v in zip(names, values, strict=True)}
        for index, slots in slots_of(self.optimiser, self.ranks).items():
            tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in slots.items()}
        tensors["generator"] = self.generator.get_state()
        tensors |= {f"law.{k}": v for k, v in self.objective.state().items()}
        tensors |= {f"scaler.{k}": v for k, v in self.lowering.state().items()}
        for place, half in enumerate(self.halves):
            tensors |= {f"half{place}.{k}": v for k, v in half.state()[0].items()}
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
            self.average.weights = [groups["average"][n].to(self.device) for n in names]
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
        self.lowering.restore(groups.get("scaler", {}))
        self.progress = Progress(**{k: _number(v) for k, v in note.items()})
        self.started = self.progress.step
        for place, half in enumerate(self.halves):
            half.restore(groups.get(f"half{place}", {}), {"step": self.progress.step})


def _operations(network: nn.Module) -> int:
    """Multiplications a point takes, about: one for each weight, unless the network says more."""
    said = sum(getattr(module, "operations", 0) for module in network.modules())
    return said or sum(p.numel() for p in network.parameters())


def _number(value: Any) -> Any:
    return math.inf if value is None else value
