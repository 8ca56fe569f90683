"""Many samples in blocks, whose noise does not depend on who draws them.

Block b of the samples has the noise of a generator seeded by (seed, b), and a block is drawn
whole: one process, four, or a cluster of machines of one kind then draw the same samples, bit for
bit. The first block has the noise of `torch.Generator().manual_seed(seed)` itself. Products of
another height may differ in their last bits, and so may those of another number of threads: the
length of a block belongs to the samples as their seed does, and workers have the threads of this
process unless others are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.plan import PlannedSteps
from reverie.sampling.run import sample
from reverie.sampling.scales import plan_times
from reverie.sampling.starting import first_states, start_law
from reverie.workers.pieces import HERE, Piece, Tell, Ticker, Workers
from reverie.workers.spreading import spread

BLOCK = 4096


class Block(NamedTuple):
    """So many samples, the seed or state of their noise, and what the model is told of each."""

    count: int
    noise: int | Tensor
    condition: Any


@dataclass(frozen=True, eq=False)
class Drawing:
    """How every block is drawn, at process times (K + 1,). known: coordinates that are given.

    start: the law of the first states (see `starting.start_law`), or None.
    """

    denoiser: Denoiser
    times: Tensor
    sampler: str
    shape: tuple[int, ...] | None
    device: str = "cpu"
    known: Mapping[int, int] = field(default_factory=dict)
    start: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    def block(self, block: Block) -> Tensor:
        """The samples (count, *shape) of a block, on the CPU."""
        denoiser, generator = self.denoiser, _generator(self.device, block.noise)
        told, init = block.condition, None
        if self.device != "cpu":  # the caller's own model stays where it is
            denoiser = deepcopy(denoiser).to(self.device)
            told = told.to(self.device) if isinstance(told, Tensor) else told
        if self.known:
            init = first_states(
                denoiser.process, self.start, block.count, self.times, shape=self.shape,
                t=float(self.times[0]), generator=generator, device=self.device,
            )  # fmt: skip
            init[:, list(self.known)] = torch.tensor(list(self.known.values())).to(init)
        options: dict[str, Any] = {
            "shape": self.shape, "generator": generator, "condition": told, "init": init,
            "device": self.device, "start": self.start, **self.options,
        }  # fmt: skip
        return sample(denoiser, block.count, self.times, self.sampler, **options).cpu()


def sample_many(
    denoiser: Denoiser,
    n: int,
    plan: PlannedSteps | Tensor,
    sampler: str = "ancestral",
    *,
    seed: int = 0,
    block: int = BLOCK,
    workers: Workers = HERE,
    device: str = "cpu",
    shape: tuple[int, ...] | None = None,
    condition: Any = None,
    progress: Ticker | None = None,
    **options: Any,
) -> Tensor:
    """Draw `n` points (n, *shape) in blocks, on as many workers as there are.

    The same seed and block draw the same points, whoever draws them. plan, sampler and options are
    those of `sample`, but for init and generator; plan: also times (K + 1,). condition: (n, ...),
    or (1, ...) for all. device: cpu, or cuda: workers of a machine take its devices in turn.
    Raises InputError on bad options or workers, or where the device is not available.

    >>> import torch
    >>> from reverie import sample
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> from reverie.sampling import sample_many
    >>> denoiser = Memoriser(VP(shape=(1,)), torch.tensor([[-1.0], [1.0]]))
    >>> times = torch.linspace(1, 0.01, 9)
    >>> points = sample_many(denoiser, 6, times, block=4)
    >>> first = sample(denoiser, 4, times, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(points[:4], first)
    True
    """
    own = {"init", "generator", "device"} & set(options)
    if own:
        raise InputError(f"sample_many takes no {own.pop()!r}: its noise follows from the seed")
    times = plan_times(plan)
    start = start_law(denoiser, plan, float(times[0]), options.pop("start", None))
    drawing = Drawing(denoiser, times, sampler, shape, device, start=start, options=options)
    return torch.cat(
        draw_blocks(
            drawing, n, seed=seed, block=block, workers=workers, condition=condition,
            progress=progress,
        )
    )  # fmt: skip


def draw_blocks(
    drawing: Drawing,
    n: int,
    *,
    seed: int,
    block: int,
    workers: Workers,
    condition: Any,
    first: torch.Generator | None = None,
    progress: Ticker | None = None,
) -> list[Tensor]:
    """The blocks (up to `block`, *shape) of `n` samples in order.

    first: a generator on the CPU that the first block goes on with, where something was drawn from
    it before. Raises InputError on a block of none.
    """
    if block < 1 or n < 1:
        raise InputError(f"{n} samples in blocks of {block}: both must be at least 1")
    pieces = []
    for place, start in enumerate(range(0, n, block)):
        count, told = min(block, n - start), condition
        if told is not None and hasattr(told, "__len__") and len(told) > 1:
            told = told[start : start + count]
        noise: int | Tensor = block_seed(seed, place)
        if place == 0 and first is not None and drawing.device == "cpu":
            noise = first.get_state()
        name = f"samples {start + 1} to {start + count}"
        pieces.append(Piece(name, Block(count, noise, told), count))
    threads = None if workers.here else workers.threads or torch.get_num_threads()
    drawn = dict(
        spread(
            _drawn, pieces, workers=workers, shared=drawing, threads=threads,
            gpu=drawing.device.startswith("cuda"), progress=progress,
        )
    )  # fmt: skip
    return [drawn[piece.name] for piece in pieces]


def block_seed(seed: int, place: int) -> int:
    """The seed of a block's noise: its own for the first, then one mixed from both."""
    if place == 0:
        return seed
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0] >> 1)


def _drawn(block: Block, drawing: Drawing, tell: Tell) -> Tensor:
    return drawing.block(block)


def _generator(device: str, noise: int | Tensor) -> torch.Generator:
    try:
        generator = torch.Generator(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"device {device!r} is not available here: use cpu") from error
    if isinstance(noise, Tensor):
        return generator.set_state(noise)
    return generator.manual_seed(noise)
