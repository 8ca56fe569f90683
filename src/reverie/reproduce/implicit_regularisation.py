"""Why networks generalise before they memorise: two training times, one of which grows with N.

The toy of Bonnaire et al. 2025 (arXiv 2505.17638): two Gaussian clusters at +-(1, ..., 1) in d = 8
with unit variance, a residual MLP of 102,024 parameters trained on the noise-prediction loss by
full-batch Adam. Samples become good at a time that does not depend on N; they become copies, by
the ratio of the distances to the two nearest training points, at a time that grows with N. The
layout of the network is inferred from the published parameter count.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers import as_denoiser
from reverie.processes import VP
from reverie.reproduce.tables import Row, panels, save_figure, write_table, write_text
from reverie.sampling import sample

DIM, WIDTH, BLOCKS = 8, 128, 3
RATE = 6e-4
LEVELS = 1000
STEPS = {32: 4_000, 64: 6_000, 128: 9_000, 256: 16_000}
MORE_STEPS = {512: 30_000}
CHECKS = 22
COPY_RATIO = 1 / 3
COPIED_SHARE = 0.17  # the share at which the references were measured
GOOD = 1.05  # of the least held-out loss
REFERENCES = {32: 2400.0, 128: 5600.0, 256: 10600.0, 512: 20000.0}
PARAMETERS = 102_024
COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00")


class TimeBlock(nn.Module):
    """h + second(act(first(act(h)) + time(t)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.time = nn.Linear(1, width)

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        inner = self.first(nn.functional.silu(h)) + self.time(t)
        return h + self.second(nn.functional.silu(inner))


class TimeMLP(nn.Module):
    """Residual MLP that predicts the noise in x_t (B, d) at t (B,)."""

    def __init__(self, dim: int = DIM, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList(TimeBlock(width) for _ in range(blocks))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, t[:, None])
        return self.leave(nn.functional.silu(h))


@dataclass(frozen=True)
class History:
    """One training: steps (C,), held-out and training loss per dimension, share of copies."""

    step: np.ndarray
    test: np.ndarray
    train: np.ndarray
    copied: np.ndarray

    def generalised(self) -> float:
        """First step at which the held-out loss is within 5% of its least."""
        return float(self.step[np.argmax(self.test <= GOOD * self.test.min())])

    def memorised(self, share: float = COPIED_SHARE) -> float:
        """Step at which the share of copies first passes `share`; NaN where it never does."""
        above = np.flatnonzero(self.copied >= share)
        if len(above) == 0 or above[0] == 0:
            return math.nan
        k = int(above[0])
        place = np.interp(share, self.copied[k - 1 : k + 1], np.log(self.step[k - 1 : k + 1]))
        return float(np.exp(place))


def clusters(n: int, generator: torch.Generator) -> Tensor:
    """Draw n points (n, d) of the two clusters."""
    signs = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
    return signs + torch.randn(n, DIM, generator=generator)


def copied_share(samples: Tensor, train: Tensor, ratio: float = COPY_RATIO) -> float:
    """Share of samples whose nearest training point is `ratio` times as far as the second."""
    two = torch.cdist(samples, train).topk(2, largest=False).values
    return float((two[:, 0] < ratio * two[:, 1]).double().mean())


def train(n: int, steps: int, seed: int, checks: int = CHECKS) -> History:
    """Train on n points, looking at `checks` geometric times; every look shares its noise."""
    generator = torch.Generator().manual_seed(seed)
    points, fresh = clusters(n, generator), clusters(4096, generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TimeMLP()
    process = VP()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    looks = {int(s) for s in np.geomspace(50, steps, checks).round()}
    rows: list[tuple[float, ...]] = []
    for step in range(1, steps + 1):
        t = torch.randint(1, LEVELS + 1, (n,), generator=generator) / LEVELS
        loss = _noise_loss(network, process, points, t, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in looks:
            rows.append((float(step), *_look(network, process, points, fresh, seed)))
    return History(*np.array(rows).T)


def _noise_loss(
    network: nn.Module, process: VP, x: Tensor, t: Tensor, generator: torch.Generator
) -> Tensor:
    noise = torch.randn(x.shape, generator=generator)
    state = process.corrupt(x, t, end=noise)
    return (network(state, t) - noise).square().mean(1)


@torch.no_grad()
def _look(
    network: nn.Module, process: VP, points: Tensor, fresh: Tensor, seed: int
) -> tuple[float, float, float]:
    """Held-out loss, training loss and share of copies, with the same noise at every look."""
    generator = torch.Generator().manual_seed(seed + 1)
    t = (torch.arange(4096) % LEVELS + 1) / LEVELS
    repeated = points[torch.arange(4096) % len(points)]
    test = float(_noise_loss(network, process, fresh, t, generator).mean())
    seen = float(_noise_loss(network, process, repeated, t, generator).mean())
    denoiser = as_denoiser(network, process, predicts="noise", time="t")
    times = torch.linspace(1, 0.01, 100)
    samples = sample(denoiser, 1000, times, "ddim", shape=(DIM,), generator=generator)
    return test, seen, copied_share(samples, points)


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write figure.png, figure.svg, table.json and table.txt into `out`; returns the table.

    full: N = 512 as well. About 5 minutes on one core without it, 8 more with it.
    """
    plan = STEPS | (MORE_STEPS if full else {})
    histories = {n: train(n, steps, seed) for n, steps in plan.items()}
    page = figure(histories)
    save_figure(page, out / "figure.png")
    text = io.StringIO()
    page.savefig(text, format="svg", metadata={"Date": None})
    write_text(out / "figure.svg", text.getvalue())
    title = "Implicit regularisation: when a network generalises, and when it memorises"
    settings = {"full": full, "rate": RATE, "width": WIDTH, "copies": COPIED_SHARE}
    return write_table(out, title, table(histories), seed, settings)


def table(histories: dict[int, History]) -> list[Row]:
    """Both times by N, and the exponent of each in N."""
    count = sum(p.numel() for p in TimeMLP().parameters())
    rows = [Row("parameters", count, PARAMETERS, "V")]
    for n, history in histories.items():
        rows.append(
            Row(f"N={n}: held-out loss within 5% of its least, step", history.generalised())
        )
        reached = history.memorised()
        if math.isfinite(reached):
            known = REFERENCES.get(n)
            tag = "D" if known else ""
            name = f"N={n}: {COPIED_SHARE:.0%} of samples are copies, step"
            rows.append(Row(name, reached, known, tag, note="one seed each"))
        rows.append(Row(f"N={n}: share of copies at the end", float(history.copied[-1])))
    times = {n: (h.generalised(), h.memorised()) for n, h in histories.items()}
    kept = {n: both for n, both in times.items() if n >= 64 and math.isfinite(both[1])}
    if len(kept) > 1:
        slopes = np.polyfit(np.log(list(kept)), np.log(list(kept.values())), 1)[0]
        names = ("generalisation", "memorisation")
        for name, slope, known in zip(names, slopes, (0.0, 1.0), strict=True):
            label = f"exponent of the {name} time in N, N >= 64"
            rows.append(Row(label, float(slope), known, "V", note="published for images"))
    return rows


def figure(histories: dict[int, History]) -> Any:
    """Losses and copies against training time, and against training time over N."""
    page, (losses, copies, scaled) = panels(3)
    for (n, history), colour in zip(histories.items(), COLOURS, strict=False):
        losses.plot(history.step, history.test, color=colour, label=f"N = {n}")
        losses.plot(history.step, history.train, "--", color=colour)
        copies.plot(history.step, history.copied, ".-", color=colour)
        scaled.plot(history.step / n, history.copied, ".-", color=colour)
    losses.set(
        yscale="log", ylabel="noise loss per dimension", title="held-out, training (dashed)"
    )
    copies.set(ylabel="share of samples that are copies", title="copies")
    scaled.set(ylabel="share of samples that are copies", title="copies, time over N")
    for ax in (losses, copies, scaled):
        ax.set(xscale="log", xlabel="training steps")
    scaled.set_xlabel("training steps / N")
    losses.legend(fontsize=8, frameon=False)
    return page
