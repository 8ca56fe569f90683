"""One-step distillation: an exact gradient, a mixture, a student that copies (Luo et al. 2023).

For g = N(theta, 1), data N(0, 1) and exploding variance the gradient of the integral KL is
theta int w / (1 + sigma^2) dt. Then one-step students of two teachers in the plane: the smooth law
of two groups, and the memoriser of their two centres. If students inherit copies, samples crowd
around the centres under the second teacher more than the smooth law would put there, and under
the first they do not. A short distillation is inexact: both students are wider than their
teachers, with a thread between the groups that a continuous map of normal noise must leave, and
most samples of the second are no copies; how many are varies with the seed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, Linear, Memoriser, Network, ResidualMLP
from reverie.objectives import distil
from reverie.objectives.distillation import ikl_surrogate
from reverie.processes import EDM, VE
from reverie.reproduce.tables import Row, panels, save_figure, write_table

THETA, STEPS, DRAWS = 0.7, 600, 4000
CENTRES = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
SPREAD = 0.5
NEAR = 0.2  # of a centre: a copy
DEVIATION = 1.5  # of a coordinate, over both groups: the critic's scaling


class Groups(Denoiser):
    """Exact denoiser of equal round Gaussians at `centres` (k, d) of deviation `spread`."""

    process: EDM

    def __init__(self, process: EDM, centres: Tensor, spread: float) -> None:
        super().__init__()
        self.process, self.centres, self.spread = process, centres, spread

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        _, sigma = self.process.scales(t, state)  # alpha is 1
        wide = sigma.square() + self.spread**2
        apart = (state[:, None] - self.centres).square().sum(2)
        centre = torch.softmax(-0.5 * apart / wide, 1) @ self.centres
        return centre + self.spread**2 / wide * (state - centre)


class Push(nn.Module):
    """The student: normal noise of the plane, moved by a small network."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, z: Tensor) -> Tensor:
        return z + self.body(z)


def gradient(nodes: int = 2001) -> tuple[float, float]:
    """d IKL / d theta from the surrogate with exact scores and w = 1, and in closed form."""
    process, one = VE(0.01, 50), torch.ones(1, dtype=torch.float64)
    exact = [Linear(process, mean * one, one, one[:, None]) for mean in (0.0, THETA)]
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 1, nodes, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = theta + torch.randn(nodes, 1, generator=generator, dtype=torch.float64)
    each = ikl_surrogate(exact[0], exact[1], x, t, torch.ones_like, generator=generator)
    (found,) = torch.autograd.grad(torch.trapezoid(each, t), theta)
    known = THETA * torch.trapezoid(1 / (1 + process.sigma(t).square()), t)
    return float(found), float(known)


def student_of(teacher: Denoiser, seed: int, steps: int) -> Tensor:
    """Samples (DRAWS, 2) of a one-step student of `teacher`."""
    process: EDM = teacher.process  # type: ignore[assignment]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student, critic = Push(), Network(process, ResidualMLP((2,), 48, 1), DEVIATION)
    generator = torch.Generator().manual_seed(seed)
    found = distil(teacher, student, critic, (2,), steps, critic_steps=2, batch_size=128, lr=5e-3,
                   generator=generator)  # fmt: skip
    return found.sample(DRAWS, generator=generator)


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains five times longer."""
    steps = 5 * STEPS if full else STEPS
    process = EDM(0.1, 5)
    chance = 1 - math.exp(-0.5 * (NEAR / SPREAD) ** 2)
    teachers = {"two groups": Groups(process, CENTRES, SPREAD),
                "the memoriser": Memoriser(process, CENTRES)}  # fmt: skip
    figure, axes = panels(2)
    found, known = gradient()
    rows = [Row("gradient of the integral KL, exact scores", found, known, "D",
                note="theta int w / (1 + sigma^2) dt")]  # fmt: skip
    for ax, (name, teacher) in zip(axes, teachers.items(), strict=True):
        drawn = student_of(teacher, seed, steps)
        ax.plot(*drawn.T, ".", ms=1.5, alpha=0.5, label="student, one step")
        ax.plot(*CENTRES.T, "kx", ms=5, label="the two centres")
        ax.set(xlim=(-4, 4), ylim=(-4, 4), title=f"teacher: {name}", aspect="equal")
        ax.set(xlabel="first coordinate", ylabel="second coordinate")
        ax.legend(frameon=False, fontsize=7, loc="upper right")
        apart, kinds = torch.cdist(drawn, CENTRES).min(1)
        least = float(kinds.bincount(minlength=len(CENTRES)).min()) / DRAWS
        near = float((apart < NEAR).double().mean())
        rows += [
            Row(f"share within {NEAR} of a centre, student of {name}", near, chance, "D",
                math.sqrt(near * (1 - near) / DRAWS), "of the smooth law"),
            Row(f"least share of a group, student of {name}", least, 1 / len(CENTRES)),
            Row(f"distance to the group's centre, student of {name}",
                float(apart.square().mean().sqrt()), 2**0.5 * SPREAD, "D",
                note="root mean square; of the smooth law"),
        ]  # fmt: skip
    save_figure(figure, out / "distillation.png")
    settings = dict(steps=steps, draws=DRAWS, theta=THETA)
    return write_table(out, "One-step distillation (Luo et al. 2023)", rows, seed, settings)
