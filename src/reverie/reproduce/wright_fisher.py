"""Mixtures of Dirichlet laws: Wright-Fisher noise beside Gaussian noise on log-ratios.

Four components on the simplex (ours; the paper has four of its own, and finds its model's
likelihood close to the true one). Noised by Wright-Fisher diffusion the law has a series, so that
the exact denoiser is known and a network's KL from the truth is the area between two loss curves,
at the cleanest noise level. One network is trained on the implicit objective, as in Benton et al.
2022, one on drawn lineages; a third in log-ratios, whose likelihood is read by I-MMSE.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve, measure
from reverie.denoisers import (
    Denoiser,
    DirichletMixture,
    InLogRatios,
    Linear,
    ResidualMLP,
    SharesNetwork,
)
from reverie.information import log_density
from reverie.objectives.shares import implicit_shares_loss, lineage_loss
from reverie.plan import plan_steps
from reverie.processes import LogRatios, WrightFisher
from reverie.reproduce.networks import build_network, train
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample

MUTATION, TAU_MIN = 2.0, 0.02  # 2 per class, as the paper's code
LOSSES = {"implicit": implicit_shares_loss, "lineages": lineage_loss}
BATCH, RATE = 256, 3e-3


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; three parts, about a minute; `full`: 3, 5 and 10 parts."""
    steps, rows = (8_000, 400) if full else (800, 160)
    table = []
    for parts in (3, 5, 10) if full else (3,):
        generator = torch.Generator().manual_seed(seed)
        truth = mixture(parts)
        data, fresh = truth.draw(20_000, generator).float(), truth.draw(rows, generator).float()
        best = _curve(truth, fresh, seed)
        drawn = {"data": fresh}
        label = f"{parts} parts"
        table.append(
            Row(f"{label}: information from tau = {TAU_MIN} on, exact denoiser, nats",
                best.area(), stderr=best.area_stderr())
        )  # fmt: skip
        times = plan_steps(best, 40, "log-snr")
        for name, loss in LOSSES.items():
            network = fit(truth.process, loss, data, steps, seed)
            gap = best.gap(_curve(network, fresh, seed))
            table.append(
                Row(f"{label}, {name}: KL from the truth at that level, nats", gap.nats, 0.0, "S",
                    gap.stderr, "reference: the paper finds the likelihood close to the true one")
            )  # fmt: skip
            drawn[f"Wright-Fisher, {name}"] = sample(network, rows, times, generator=generator)
        model = _in_log_ratios(parts, data, steps, seed)
        gap = true_density(truth, fresh) - _nats(model, fresh, data, seed)
        error = float(gap.std()) / math.sqrt(rows)
        table.append(
            Row(f"{label}, log-ratios: KL from the truth of the data, nats", float(gap.mean()),
                0.0, "S", error, "the paper's baseline")
        )  # fmt: skip
        levels = plan_steps(measure(model, fresh, 24, generator=generator), 40, "log-snr")
        drawn["Gaussian on log-ratios"] = sample(model, rows, levels, generator=generator)
        if parts == 3:
            _draw(drawn, out / "wright_fisher.png")
    settings = {"training steps": steps, "batch": BATCH, "rows": rows, "mutation": MUTATION}
    title = "Wright-Fisher noise on mixtures of four Dirichlet laws (after Benton et al. 2022)"
    return write_table(out, title, table, seed, settings)


def mixture(parts: int) -> DirichletMixture:
    """Four components: three near corners, one in the middle."""
    process = WrightFisher([MUTATION] * parts, TAU_MIN)
    components = torch.full((4, parts), 2.0, dtype=torch.float64)
    components[:3, :3] += 10 * torch.eye(3, dtype=torch.float64)
    components[3] += 4
    return DirichletMixture(process, components, torch.ones(4))


def fit(process: WrightFisher, loss: Any, data: Tensor, steps: int, seed: int) -> SharesNetwork:
    """A network trained by one of LOSSES; the learning rate falls to 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SharesNetwork(process, width=64)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x = data[torch.randint(len(data), (BATCH,), generator=generator)]
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        value = loss(network, x, (torch.arange(BATCH) + start) / BATCH, generator=generator)
        optimiser.zero_grad(set_to_none=True)
        value.mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


def true_density(truth: DirichletMixture, x: Tensor) -> Tensor:
    """Log-density (n,) of clean shares in nats, of the first k - 1 of them."""
    a, log = truth.components, x.double().log()
    norm = torch.lgamma(a.sum(1)) - torch.lgamma(a).sum(1)
    return torch.logsumexp(truth.shares.log() + norm + log @ (a - 1).T, 1)


def _curve(denoiser: Denoiser, x: Tensor, seed: int) -> LossCurve:
    """On the noise of the seed, so that differences of curves are paired."""
    generator = torch.Generator().manual_seed(seed)
    return measure(denoiser, x, 16, generator=generator, keep_samples=True)


def _in_log_ratios(parts: int, data: Tensor, steps: int, seed: int) -> InLogRatios:
    process = LogRatios(parts)
    z = process.space.log_ratios(data)
    inner = build_network(process.base, lambda: ResidualMLP((parts - 1,), 64, 2), z, seed)
    generator = torch.Generator().manual_seed(seed)
    train(inner, z, steps, generator=generator, batch_size=BATCH, rate=RATE)
    return InLogRatios(process, inner)


def _nats(model: InLogRatios, x: Tensor, data: Tensor, seed: int) -> Tensor:
    """Log-density (n,) of shares: that of their log-ratios, and the map's volume."""
    z = model.process.space.log_ratios(x)
    generator = torch.Generator().manual_seed(seed)
    linear = Linear.fit(model.process.base, model.process.space.log_ratios(data))
    with torch.no_grad():
        found = log_density(model.inner, z, linear, levels=64, draws=4, generator=generator)
    return torch.as_tensor(found.nats).double() - x.double().log().sum(1)


def _draw(points: dict[str, Tensor], path: Path) -> None:
    figure, axes = panels(len(points), 3.2, 3.2)
    corners = np.array([[0, 0], [1, 0], [0.5, math.sqrt(0.75)]])
    for axis, (name, x) in zip(axes, points.items(), strict=True):
        axis.plot(*corners[[0, 1, 2, 0]].T, color="grey", lw=0.8)
        axis.plot(*(x.double().numpy() @ corners).T, ".", ms=3, color="#b91c1c")
        for corner, letter, side in zip(corners, "123", ("right", "left", "center"), strict=True):
            axis.annotate(f"share {letter} = 1", corner, ha=side, fontsize=7, va="bottom")
        axis.set(title=name, aspect="equal")
        axis.set_axis_off()
    save_figure(figure, path)
