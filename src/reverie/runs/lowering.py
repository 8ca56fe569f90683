"""One optimiser step: the losses of a minibatch go down, in what precision, over all processes.

With many processes the gradients are averaged by DistributedDataParallel, while they are made, and
the optimiser may be sharded by ZeroRedundancyOptimizer (Rajbhandari et al. 2020, stage 1). In half
precision the products alone are rounded (autocast): weights, losses, the optimiser and every curve
stay in float32. fp16 scales its losses so that small gradients do not vanish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.objectives import Objective
from reverie.runs.config import FitConfig
from reverie.runs.ranks import Ranks
from reverie.runs.runtime import Runtime
from reverie.runs.sharing import shared

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def kind_of_weights(config: FitConfig) -> torch.dtype:
    """The type of weights and rows: float32, or float64 where that is asked for."""
    return torch.float64 if config.precision == "float64" else torch.float32


def half_of(config: FitConfig) -> torch.dtype | None:
    """The half precision that a step multiplies in, if any; `auto` is bf16 on a GPU of CUDA."""
    on_cuda = torch.device(config.device).type == "cuda"
    name = "bf16" if config.precision == "auto" and on_cuda else config.precision
    return HALVES.get(name)


def in_type(rows: Any, kind: torch.dtype) -> Any:
    """Coordinates in float64 where the weights are; symbols, and rows yet to be read, stay."""
    wide = kind == torch.float64 and isinstance(rows, Tensor) and rows.is_floating_point()
    return rows.to(kind) if wide else rows


def layout_of(shape: tuple[int, ...], runtime: Runtime) -> torch.memory_format | None:
    """The memory layout that is asked for, of points of that shape; InputError on no pictures."""
    if not runtime.channels_last:
        return None
    if len(shape) + 1 not in LAYOUTS:
        raise InputError("channels_last is for pictures and volumes: leave it out")
    return LAYOUTS[len(shape) + 1]


def optimiser_for(
    network: nn.Module, config: FitConfig, ranks: Ranks, runtime: Runtime
) -> torch.optim.Optimizer:
    """AdamW on all weights, or on this process's share of them."""
    given: dict[str, Any] = dict(
        lr=config.peak, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    if ranks.count == 1 or not runtime.shard_optimiser:
        return torch.optim.AdamW(network.parameters(), **given)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(network.parameters(), torch.optim.AdamW, **given)


def slots_of(optimiser: torch.optim.Optimizer, ranks: Ranks) -> dict[int, dict[str, Any]]:
    """What the optimiser keeps of each weight; all processes ask, the first one is told.

    >>> import torch
    >>> from reverie.runs.lowering import slots_of
    >>> from reverie.runs.ranks import ALONE
    >>> slots_of(torch.optim.AdamW([torch.zeros(1)]), ALONE)  # before the first step
    {}
    """
    if is_sharded(optimiser):
        optimiser.consolidate_state_dict(to=0)  # type: ignore[attr-defined]
        if not ranks.first:
            return {}
    return optimiser.state_dict()["state"]


def is_sharded(optimiser: torch.optim.Optimizer) -> bool:
    """Whether each process keeps a share of the optimiser's state."""
    return hasattr(optimiser, "consolidate_state_dict")


class _Mean(nn.Module):
    """The mean loss of a minibatch, scaled so that its gradients average to those of the batch.

    seen: the mean loss of this process's rows.
    """

    seen: Tensor

    def __init__(self, network: nn.Module, objective: Objective, ranks: Ranks) -> None:
        super().__init__()
        self.network, self.objective, self.ranks = network, objective, ranks

    def forward(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        with shared(self.network, self.ranks) as calls:
            each = self.objective.losses(rows, x, generator)
        if self.ranks.count == 1:
            return each.mean()
        own = each[self.ranks.part(len(each))].mean()
        self.seen = own.detach()
        if calls.shared and calls.alone:
            raise InputError("this objective asks its network in ways that cannot be shared")
        # where nothing was shared, all of them have worked out every loss
        return each.mean() * self.ranks.count if calls.shared else own


class Lowering:
    """Gradients of minibatches, and a step along them."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: FitConfig,
        ranks: Ranks,
        runtime: Runtime,
    ) -> None:
        self.network, self.config, self.ranks = network, config, ranks
        self.device, self.half = torch.device(config.device).type, half_of(config)
        self.scaler = (
            torch.amp.GradScaler(self.device) if self.half is torch.float16 else None  # type: ignore[attr-defined]
        )
        self.mean, self.objective = _Mean(network, objective, ranks), objective
        self.call: nn.Module | None = None  # once the first batch is here
        self.compiled = torch.compile(network.forward) if runtime.compile else None
        self.tried = False  # what is compiled has run once

    def backward(
        self, rows: Tensor, x: Tensor, generator: torch.Generator, *, last: bool,
        drawn: Callable[[], None],
    ) -> float:  # fmt: skip
        """Add the gradients of one of `accumulate` parts of a batch; its share of the mean loss.

        rows (B,), x (B, *shape). last: of the parts; gradients go round the processes then.
        drawn: called when all random numbers of the part are drawn, before the gradients.
        """
        if self.call is None:
            self.call = self._averaging(rows, x, generator) if self.ranks.count > 1 else self.mean
        with ExitStack() as stack:
            if self.ranks.count > 1 and not last:
                stack.enter_context(self.call.no_sync())  # type: ignore[operator]
            stack.enter_context(self._compiling())
            with self._rounded():
                loss = self.call(rows, x, generator)
            drawn()
            loss = loss / self.config.accumulate
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if self.ranks.count > 1:
            return float(self.mean.seen) / self.config.accumulate
        return float(loss.detach())

    def _averaging(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> nn.Module:
        """The mean loss, whose gradients are averaged over processes as they are made.

        A weight that a batch does not use has no gradient in any process, as in one.
        """
        own = self.config.network == "custom"  # may use others another time
        unused = own or self._has_unused(rows, x, generator)
        (unused,) = self.ranks.any(unused)
        return nn.parallel.DistributedDataParallel(self.mean, find_unused_parameters=unused)

    def _has_unused(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> bool:
        """Whether some weights have no part in the loss of a batch; nothing is learned of it."""
        law = {name: value.clone() for name, value in self.objective.state().items()}
        copy = torch.Generator(generator.device)
        copy.set_state(generator.get_state())
        weights = [p for p in self.network.parameters() if p.requires_grad]
        with self._rounded():
            loss = self.mean(rows, x, copy)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        self.objective.restore(law)
        return any(gradient is None for gradient in found)

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """The network's calls are compiled inside the block; curves are measured without."""
        if self.compiled is None:
            yield
            return
        self.network.forward = self.compiled
        try:
            yield
        except Exception as error:
            if self.tried or isinstance(error, InputError):
                raise
            raise InputError(
                f"torch.compile cannot compile this fit here ({str(error).splitlines()[0]}): "
                "leave out compile"
            ) from error
        finally:
            del self.network.forward
        self.tried = True

    def _rounded(self) -> AbstractContextManager[Any]:
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device, self.half)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Clip the gradients, step along them, and forget them."""
        if self.scaler is not None:
            self.scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip, foreach=True)
        if self.scaler is None:
            optimiser.step()
        else:
            self.scaler.step(optimiser)
            self.scaler.update()
        optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The scale of fp16's losses; nothing in other precisions."""
        if self.scaler is None:
            return {}
        known = self.scaler.state_dict()
        return {
            "scale": torch.tensor(known["scale"], dtype=torch.float64),
            "since": torch.tensor(known["_growth_tracker"]),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        if self.scaler is not None and state:
            known = {"scale": float(state["scale"]), "_growth_tracker": int(state["since"])}
            self.scaler.load_state_dict(self.scaler.state_dict() | known)
