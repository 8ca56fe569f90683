"""Training time as a regulariser: when a network generalises and when it copies, against n.

Two Gaussian clusters in eight dimensions and a residual MLP of 102,024 weights (the toy of
Bonnaire et al. 2025; the wiring is a reconstruction from that count), Adam on the full batch. The
time to generalise should not depend on n and the time to memorise should grow like n.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, as_denoiser
from reverie.processes import VP
from reverie.reproduce.parts import Parts
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import copied_share, null_copied_share
from reverie.workers.pieces import Piece, Tell, Ticker, Workers

DIM, WIDTH = 8, 128
ONSET = 0.17  # share of copies that dates memorisation
SAMPLES = 1000
# steps to reach the onset, one seed
ONSET_STEPS = {32: 2400, 128: 5600, 256: 10_600, 512: 20_000}


class ToyNetwork(nn.Module):
    """Noise guess from (x_t, t): three residual blocks, 102,024 weights at width 128, d = 8."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(DIM, WIDTH), nn.Linear(WIDTH, DIM)
        self.first = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.second = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.time = nn.ModuleList(nn.Linear(1, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.enter(x)
        for first, second, time in zip(self.first, self.second, self.time, strict=True):
            h = h + second(torch.relu(first(torch.relu(h + time(t[:, None])))))
        return self.leave(torch.relu(h))


@dataclass
class History:
    """What one training run showed: losses of the noise guess per coordinate, share of copies."""

    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)

    def memorised_at(self) -> float:
        """First step at which the copies reach the onset, interpolated; inf if never."""
        for k in range(1, len(self.copies)):
            low, high = self.copies[k - 1 : k + 1]
            if low < ONSET <= high:
                before, after = self.sampled[k - 1 : k + 1]
                return before + (ONSET - low) / (high - low) * (after - before)
        return float("inf")

    def generalised_at(self) -> float:
        """First step at which the test loss has made 90% of its way to its least value."""
        test = np.asarray(self.test)
        goal = test.min() + 0.1 * (test[0] - test.min())
        return float(self.steps[int(np.argmax(test <= goal))])


def run(
    out: Path,
    seed: int = 0,
    full: bool = False,
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Write the figure and the table; `full` adds n = 512 and two more seeds."""
    sizes = (32, 64, 128, 256, 512) if full else (32, 64, 128, 256)
    limit, repeats = (40_000, 3) if full else (24_000, 1)
    figure, (left, middle, right) = panels(3)
    rows, mem, gen = [], [], []
    parts = Parts(out, dict(seed=seed, full=full), workers, progress)
    made = parts.made(_trained, [
        Piece(f"n={size},seed={seed + 1000 * r}", (size, limit, seed + 1000 * r), size)
        for size in sizes
        for r in range(repeats)
    ])  # fmt: skip
    for place, size in enumerate(sizes):
        runs = [History(**found) for found in made[place * repeats : (place + 1) * repeats]]
        first = runs[0]
        (line,) = left.semilogx(first.steps[1:], first.test[1:], label=f"n = {size}")
        left.semilogx(first.steps[1:], first.train[1:], "--", color=line.get_color())
        middle.semilogx(np.divide(first.sampled, size), first.copies, ".-", label=f"n = {size}")
        mem.append(_mean([h.memorised_at() for h in runs]))
        gen.append(_mean([h.generalised_at() for h in runs]))
        name = f"steps to {ONSET:.0%} copies, n = {size}"
        known = ONSET_STEPS.get(size)
        rows.append(Row(name, mem[-1][0], known, "D" if known else "", mem[-1][1]))
        rows.append(Row(f"steps to generalise, n = {size}", gen[-1][0], stderr=gen[-1][1]))
    rows += _slopes(np.array(sizes), mem, gen)
    null = null_copied_share(DIM)
    rows.append(Row("copies that chance gives in 8 dimensions", null, 1.5e-4, "D"))
    right.loglog(sizes, [m for m, _ in mem], "o-", label="memorisation")
    right.loglog(sizes, [g for g, _ in gen], "s-", label="generalisation")
    right.set_xticks(sizes, sizes)
    right.set_xticks([], minor=True)
    _finish(left, middle, right)
    save_figure(figure, out / "implicit_regularisation.png")
    settings = dict(d=DIM, width=WIDTH, optimizer="Adam 6e-4, full batch", repeats=repeats)
    title = "Implicit dynamical regularisation (Bonnaire et al. 2025)"
    table = write_table(out, title, rows, seed, settings)
    parts.done()
    return table


def _trained(given: tuple[int, int, int], shared: None, tell: Tell) -> dict[str, Any]:
    return asdict(train_toy(*given))


def train_toy(size: int, limit: int, seed: int) -> History:
    """Train on `size` points until a quarter of the samples are copies or `limit` steps."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ToyNetwork()
    process = VP()
    denoiser = as_denoiser(network, process, predicts="noise")
    data, fresh = _draw(size, generator), _draw(4096, generator)
    exam = [_noised(process, x, generator) for x in (data.repeat(4096 // size, 1), fresh)]
    optimizer = torch.optim.Adam(network.parameters(), lr=6e-4)
    history, look, count = History(), 20, 0
    for step in range(limit + 1):
        if step in (0, look):
            look = max(look, int(1.2 * step))
            _record(history, step, network, denoiser, exam, data, generator)
            count = history.copies[-1] if history.copies else 0
        if count > 0.25:
            break
        loss = _loss(network, *_noised(process, data, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return history


def _draw(n: int, generator: torch.Generator) -> Tensor:
    signs = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    return signs + torch.randn(n, DIM, generator=generator)


def _noised(process: VP, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """State, time and noise at uniform times."""
    t = torch.rand(len(x), generator=generator, dtype=torch.float64).clamp(min=1e-3)
    noise = torch.randn(x.shape, generator=generator)
    return process.corrupt(x, t, end=noise), t.to(x), noise


def _loss(network: nn.Module, state: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return (network(state, t) - noise).square().mean()


@torch.no_grad()
def _record(
    history: History,
    step: int,
    network: nn.Module,
    denoiser: Denoiser,
    exam: list[tuple[Tensor, Tensor, Tensor]],
    data: Tensor,
    generator: torch.Generator,
) -> None:
    history.steps.append(step)
    train, test = (float(_loss(network, *batch)) for batch in exam)
    history.train.append(train)
    history.test.append(test)
    if step < 200:  # nothing is copied so early
        return
    times = torch.linspace(1, 1e-3, 100, dtype=torch.float64)
    drawn = sample(denoiser, SAMPLES, times, "ddim", shape=(DIM,), generator=generator)
    history.sampled.append(step)
    history.copies.append(copied_share(drawn, data))


def _mean(values: list[float]) -> tuple[float, float | None]:
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def _slopes(
    sizes: np.ndarray, mem: list[tuple[float, Any]], gen: list[tuple[float, Any]]
) -> list[Row]:
    """Exponents of n over the sizes from 64 on, where the law is published."""
    rows = []
    for name, values, known in (("tau_mem", mem, 1.0), ("tau_gen", gen, 0.0)):
        times = np.array([v for v, _ in values])
        use = np.isfinite(times) & (sizes >= 64)
        slope = float(np.polyfit(np.log(sizes[use]), np.log(times[use]), 1)[0])
        rows.append(Row(f"slope of ln {name} in ln n, n >= 64", slope, known, "V"))
    return rows


def _finish(left: Any, middle: Any, right: Any) -> None:
    left.set(xlabel="training steps", ylabel="loss of the noise guess per coordinate")
    left.legend(frameon=False, title="dashed: train")
    middle.axhline(ONSET, color="grey", lw=0.8)
    middle.set(xlabel="training steps / n", ylabel="share of samples that are copies")
    middle.legend(frameon=False)
    right.set(xlabel="training points n", ylabel="training steps")
    right.legend(frameon=False)
