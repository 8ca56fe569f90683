"""Critically damped Langevin diffusion (Dockhorn, Vahdat & Kreis 2022): score, samplers, nats.

Left: the scale of the velocity's score, with v_0 given, averaged out, and averaged out with the
small variance that the paper's code adds to x_0. Middle: samplers on data of N(2, .01) with the
exact score, their references made again from the formulas. Right: a network trained on five Swiss
rolls without a velocity and transferred to the damped process, where its loss curve is the same;
what is left of the damped process is its path, and samples of it are compared with fresh rows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.metrics.fidelity import energy_distance
from reverie.curve import LossCurve, measure
from reverie.denoisers import (
    Denoiser,
    Linear,
    Network,
    ResidualMLP,
    StateNetwork,
    Transferred,
)
from reverie.plan import plan_steps
from reverie.processes import EDM, CriticallyDamped
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs.config import FitConfig
from reverie.runs.trainer import Trainer
from reverie.sampling import sample

SCALES = {0.01: 12.9788, 0.3: 2.95360, 2.0: 2.00843}  # of the velocity's score at b
# deviation (true .1) and error of the mean after N steps
TOY = {
    "euler-maruyama": {20: (0.596, 0.18), 50: (0.171, 0.045), 100: (0.113, 0.021),
                       200: (0.103, 0.010)},
    "sscs": {20: (0.310, 0.051), 50: (0.062, 0.032), 100: (0.079, 0.016), 200: (0.089, 0.008)},
}  # fmt: skip
NUMERICAL = 1e-6  # variance that the authors' code adds to x_0
EVALUATIONS = (8, 16, 32, 64)
ENDS = (1e-3, 4e4)  # signal-to-noise ratios of the plans
LABELS = {"ancestral": "ancestral", "sscs": "SSCS", "sscs-midpoint": "SSCS, midpoint rule",
          "euler-maruyama": "Euler-Maruyama"}  # fmt: skip


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains longer and draws more."""
    generator = torch.Generator().manual_seed(seed)
    steps, paths = (10_000, 100_000) if full else (1500, 20_000)
    figure, (left, middle, right) = panels(3)
    rows = _scales(left)
    rows += _toy(middle, paths, generator)
    rows += _rolls(right, steps, 3 if full else 2, seed)
    save_figure(figure, out / "damped.png")
    settings = dict(training_steps=steps, paths=paths)
    title = "Critically damped Langevin diffusion (Dockhorn et al. 2022)"
    return write_table(out, title, rows, seed, settings)


def _scales(axes: Any) -> list[Row]:
    hybrid, given = CriticallyDamped(t_min=1e-6), CriticallyDamped(share=1e-12, t_min=1e-6)
    b = torch.logspace(-5, 0.6, 200, dtype=torch.float64)
    t = b / hybrid.duration
    axes.loglog(b, given.velocity_scale(t), label="velocity given")
    axes.loglog(b, hybrid.velocity_scale(t), label="averaged out")
    move = hybrid.transition(b)[0][:, :, :1]
    blurred = hybrid.moments(t)[1] + NUMERICAL * move @ move.mT
    axes.loglog(b, torch.linalg.inv(blurred)[:, 1, 1].sqrt(), "--", label="and x_0 blurred")
    axes.set(xlabel="integrated speed b", ylabel="scale of the velocity's score")
    axes.legend(frameon=False)
    limit = float(given.velocity_scale(t[0]) / hybrid.velocity_scale(t[0]))
    return [
        *(
            Row(
                f"scale at b = {at}",
                float(hybrid.velocity_scale(at / hybrid.duration)),
                known,
                "D",
            )
            for at, known in SCALES.items()
        ),
        Row("velocity given over averaged out, b = 1e-5", limit, math.sqrt(4 / 3), "D"),
    ]


def _toy(axes: Any, paths: int, generator: torch.Generator) -> list[Row]:
    """Deviation and mean after N steps of equal time, exact score, as evaluations grow."""
    mean, deviation = 2.0, 0.1
    law = torch.tensor([mean], dtype=torch.float64), torch.tensor([deviation**2])
    linear = Linear(EDM(1e-4, 1e3), *law, torch.ones(1, 1, dtype=torch.float64))
    denoiser, rows = Transferred(linear, CriticallyDamped()), []
    for sampler in LABELS:
        line = []
        for steps in (10, 20, 50, 100, 200):
            taken = steps // 2 if sampler == "sscs-midpoint" else steps
            times = torch.linspace(1, 1e-3, taken + 1, dtype=torch.float64)
            kind = dict(shape=(1,), dtype=torch.float64, generator=generator)
            drawn = sample(denoiser, paths, times, sampler, **kind)  # type: ignore[arg-type]
            spread, off = float(drawn.std()), abs(float(drawn.mean()) - mean)
            line.append((steps, abs(spread - deviation)))
            known = TOY.get(sampler, {}).get(steps)
            if known or sampler == "ancestral":
                name = f"N(2, .01), {LABELS[sampler]}, {steps} steps"
                first, second = known or (None, None)
                tag, error = "D" if known else "", spread / math.sqrt(paths)
                rows.append(Row(f"{name}: deviation", spread, first, tag, error / math.sqrt(2)))
                rows.append(Row(f"{name}: error of the mean", off, second, tag, error))
        axes.loglog(*np.array(line).T, "o-", ms=3, label=LABELS[sampler])
    axes.set(xlabel="network evaluations", ylabel="error of the deviation (true .1)")
    axes.legend(frameon=False)
    return rows


def rolls(n: int, generator: torch.Generator) -> Tensor:
    """Five Swiss rolls (n, 2), one in the middle and four around, of unit mean variance."""
    turn = math.pi * (1 + 2 * torch.rand(n, generator=generator))
    roll = turn[:, None] * torch.stack([turn.cos(), turn.sin()], 1) / 10
    roll = roll + 0.03 * torch.randn(n, 2, generator=generator)
    centres = torch.tensor([[0.0, 0.0], [3, 3], [3, -3], [-3, 3], [-3, -3]])
    # variances: of the centres 7.2 a coordinate, of a roll about .2
    return (roll + centres[torch.randint(5, (n,), generator=generator)]) / 2.72


def _trained(network: Network, x: Tensor, steps: int, seed: int) -> Denoiser:
    config = FitConfig(
        steps=steps, batch_size=256, check_every=steps, lr=2e-3, warmup=50, ema=0.998, seed=seed
    )
    trainer = Trainer(network, x, None, config)
    for _ in trainer.events():
        pass
    return trainer.averaged().__enter__()


def _rolls(axes: Any, steps: int, seeds: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    x, held = rolls(20_000, generator), rolls(2000, generator)
    bodies = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            bodies.append(ResidualMLP((2,), 96, 3))
    still = EDM(5e-4, 300.0)  # reaches as far as the damped process, at both ends
    damped = CriticallyDamped(shape=(2,))
    plain = _trained(Network(still, bodies[0]), x, steps, seed)
    moved = Transferred(plain, damped)
    own = _trained(StateNetwork(damped, bodies[1]), x, steps, seed)
    levels = np.geomspace(*ENDS, 48)
    curves = [
        measure(d, held, levels, generator=torch.Generator().manual_seed(seed), keep_samples=True)
        for d in (plain, moved, own)
    ]
    rows = _areas(curves)
    fresh = [_distance(rolls(2000, generator), held) for _ in range(5)]
    floor = float(np.sqrt(np.mean(np.square(fresh))))  # unbiased, so that it falls on both sides
    axes.axhline(floor, color="grey", lw=0.8, label="fresh rows")
    models: dict[str, tuple[Denoiser, str]] = {
        f"no velocity, {name}": (plain, name) for name in ("ancestral", "ddim", "dpm++2m")
    }
    models |= {f"damped, {label}": (moved, name) for name, label in LABELS.items()}
    for label, (denoiser, sampler) in models.items():
        line = []
        for evaluations in EVALUATIONS:
            taken = evaluations // 2 if sampler == "sscs-midpoint" else evaluations
            curve = curves[0 if denoiser is plain else 1]
            plan = plan_steps(curve, taken, clock="samples", ends=ENDS)
            found = [
                _distance(
                    sample(denoiser, 2000, plan, sampler, shape=(2,),
                           generator=torch.Generator().manual_seed(seed + k)), held
                )
                for k in range(seeds)
            ]  # fmt: skip
            line.append((evaluations, max(float(np.mean(found)), floor)))
            error = float(np.std(found, ddof=1) / math.sqrt(seeds))
            name = f"rolls, {label}, {evaluations} evaluations: energy distance"
            note = f"fresh rows {floor:.1g}"
            if evaluations in (16, 64):
                rows.append(Row(name, float(np.mean(found)), stderr=error, note=note))
        style = "s--" if denoiser is plain else "o-"
        axes.loglog(*np.array(line).T, style, ms=3, label=label)
    axes.set(xlabel="network evaluations", ylabel="energy distance to held-out rows")
    axes.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
    axes.minorticks_off()
    axes.set_ylim(top=3)  # room for the legend
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return rows


def _areas(curves: list[LossCurve]) -> list[Row]:
    """Held-out nats of one network without and with a velocity, and of one trained with it."""
    plain, moved, own = curves
    rows = [Row("rolls, no velocity: nats", plain.area(), stderr=plain.area_stderr())]
    for label, curve in (("the same network, damped", moved), ("a network trained damped", own)):
        gap = plain.gap(curve)
        note = "reference 0: one statistic knows all that the state does"
        rows.append(Row(f"rolls, {label}: nats more", gap.nats, 0.0, "D", gap.stderr, note))
    return rows


def _distance(x: Tensor, y: Tensor) -> float:
    return energy_distance(x.double().numpy(), y.double().numpy())
