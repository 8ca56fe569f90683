"""A learned linear forward process (Du, Zhang, Yang & Du 2023), and what there is to gain by it.

The paper's figures could not be retrieved: every reference here is derived. With an exact denoiser
the bound of infinitely many steps does not depend on the process. What can be learned is a path
that costs less in K steps, and one along which a network errs less. The first is shown on normal
data in closed form, beside what learning the levels alone gains (left: the gap of the K-step bound
to the entropy; middle: the information that each principal direction keeps), the second by
networks trained with the bound on a thin curve in the plane (right).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import ResidualMLP, StateNetwork
from reverie.objectives.variational import state_bound
from reverie.processes import CriticallyDamped, Flexible, LinearSDE
from reverie.reproduce.tables import Row, panels, save_figure, write_table

DIMS, SPREAD = 4, 1e-3  # of normal data: variances from 1 down to SPREAD
STEPS = (4, 8, 16, 32)
ROUNDS = 250  # of Adam
SHOWN = 16  # steps whose learned process the middle panel draws
FIXED, LEVELS = "variance preserving", "learned levels"
METRIC, BOTH = "and metric", "and twist"


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains the networks ten times as long."""
    figure, (left, middle, right) = panels(3)
    rows = _normal(left, middle, seed)
    steps = 6000 if full else 600
    rows += _curve(right, steps, seed)
    save_figure(figure, out / "flexible.png")
    settings = dict(dims=DIMS, spread=SPREAD, training_steps=steps)
    title = "A learned linear forward process (Du et al. 2023)"
    return write_table(out, title, rows, seed, settings)


def step_bound(process: LinearSDE, covariance: Tensor, times: Tensor) -> Tensor:
    """Mean bound in nats of K ancestral steps along falling times (K + 1,), exact denoiser.

    Data are N(0, covariance): prior, staircase and decoder, as in `state_bound`.
    """
    gamma = process.precision(times)[1]
    eye = torch.eye(len(covariance)).to(covariance)
    left = torch.linalg.solve(eye + covariance @ gamma[:-1], covariance.expand_as(gamma[:-1]))
    stairs = 0.5 * (left * gamma.diff(dim=0)).sum()
    decoder = 0.5 * (len(covariance) * math.log(2 * math.pi * math.e) - gamma[-1].logdet())
    return 0.5 * (gamma[0] * covariance).sum() + stairs + decoder


def _normal(left: Any, middle: Any, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.logspace(0, math.log10(SPREAD), DIMS, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(DIMS, DIMS, generator=generator).double())[0]
    covariance = turn * spectrum @ turn.mT
    entropy = 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance))
    rows, shown = [], {}
    for name in (FIXED, LEVELS, METRIC, BOTH):
        line = []
        for steps in STEPS:
            process = Flexible(DIMS)
            process.metric.requires_grad_(name in (METRIC, BOTH))
            process.twist.requires_grad_(name == BOTH)
            bound = _learn(process, covariance, steps, 0 if name == FIXED else ROUNDS)
            line.append(bound - entropy)
            rows.append(Row(f"normal data, {name}, {steps} steps: bound less entropy", line[-1]))
            if steps == SHOWN:
                shown[name] = process
        left.loglog(STEPS, line, "o-", ms=3, label=name)
    left.set_xticks(STEPS, [str(k) for k in STEPS])
    left.minorticks_off()
    left.set(xlabel="steps", ylabel="bound less entropy (nats)")
    left.legend(frameon=False, fontsize=8)
    t = torch.logspace(-5, 0, 100, dtype=torch.float64)
    for name, style in ((FIXED, "--"), (METRIC, "-")):
        gamma = shown[name].precision(t)[1].detach()
        kept = 0.5 * torch.log1p(spectrum * (turn.mT @ gamma @ turn).diagonal(dim1=1, dim2=2))
        for j, curve in enumerate(kept.mT):
            middle.semilogx(t, curve, style, color=f"C{j}", label=name if j == 0 else None)
    middle.set(xlabel="process time t", ylabel="information kept (nats per direction)")
    middle.legend(frameon=False, fontsize=8)
    return rows


def _learn(process: Flexible, covariance: Tensor, steps: int, rounds: int) -> float:
    """Adam on the bound of `steps` steps, by the levels and what of the process may move.

    Without rounds the levels are equal in log t. The cleanest level may move too.
    """
    width = math.log(process.t_range[0])
    shares = torch.zeros(steps + 1, dtype=torch.float64)
    shares[-1] = -20.0 if rounds == 0 else -2.0
    shares.requires_grad_()

    def bound() -> Tensor:
        places = torch.cat([torch.zeros(1), shares.softmax(0).cumsum(0)[:-1]])
        return step_bound(process, covariance, (width * places).exp())

    learned = [shares, *(p for p in process.parameters() if p.requires_grad)]
    optimiser = torch.optim.Adam(learned, lr=0.03)
    for step in range(rounds):
        for group in optimiser.param_groups:
            group["lr"] = 0.03 * (1 - step / rounds)
        optimiser.zero_grad()
        bound().backward()
        optimiser.step()
    return float(bound().detach())


def thin_curve(n: int, generator: torch.Generator) -> Tensor:
    """A sine wave in the plane, thin and turned by 30 degrees, of unit mean variance: (n, 2)."""
    s = 2 * torch.rand(n, generator=generator) - 1
    flat = torch.stack([2.3 * s, 0.35 * torch.sin(6 * s)], 1)
    flat = flat + 0.05 * torch.randn(n, 2, generator=generator)
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    return flat @ torch.tensor([[cos, sin], [-sin, cos]])


def _curve(axes: Any, steps: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    x, held = thin_curve(20_000, generator), thin_curve(8000, generator)
    processes: dict[str, LinearSDE] = {
        FIXED: Flexible(2).requires_grad_(False),
        "learned metric": Flexible(2),
        "learned metric, twist": Flexible(2),
        "critically damped": CriticallyDamped(shape=(2,)),
    }
    processes["learned metric"].get_parameter("twist").requires_grad_(False)
    rows = []
    for place, (name, process) in enumerate(processes.items()):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = StateNetwork(process, ResidualMLP((2,), 64, 2))
        _fit(network, x, steps, seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            parts = (state_bound(network, held, generator=draw) for _ in range(4))
            bounds = [torch.stack(part).sum(0) for part in parts]
        each = torch.stack(bounds).mean(0).double()
        error = float(each.std()) / math.sqrt(len(each))
        rows.append(Row(f"thin curve, {name}: held-out bound", float(each.mean()), stderr=error))
        axes.errorbar(place, each.mean(), 2 * error, fmt="o", color=f"C{place}")
    axes.set_xticks(range(len(processes)), [n.replace(" ", "\n") for n in processes], fontsize=8)
    axes.set(ylabel="held-out bound (nats per row; 2 s.e.)")
    return rows


def _fit(network: StateNetwork, x: Tensor, steps: int, seed: int) -> None:
    """Adam on the bound, process and network together; the rate falls to nothing."""
    generator = torch.Generator().manual_seed(seed)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=2e-3, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, step / 50) * (1 - step / steps)
        rows = torch.randint(len(x), (256,), generator=generator)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(state_bound(network, x[rows], generator=generator)).sum(0).mean().backward()
        torch.nn.utils.clip_grad_norm_(learned, 10.0)
        optimiser.step()
    network.eval()
