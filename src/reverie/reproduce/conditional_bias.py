"""How far conditional samplers lean when the condition is noised too (Batzolis et al. 2021).

Jointly Gaussian x and y of correlation .9, asked for x given y = 1.5. With exact scores a sampler
is a linear chain whose law follows from a recursion; sampling must agree with it. Then the same
estimators with learned networks, one of them with y's noise annealed in training.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reverie.curve import measure
from reverie.denoisers import (
    Denoiser,
    JointConditional,
    Linear,
    Network,
    ResidualMLP,
    annealed_level,
    condition_of,
    speed_to,
)
from reverie.objectives import Conditional, Standard
from reverie.objectives.base import DenoisingFit
from reverie.processes import VE, GaussianProcess, ModalProcess
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.sampling.multistep import exponential_euler
from reverie.sampling.scales import Scales

RHO, GIVEN = 0.9, 1.5
LOW, HIGH = 5e-3, 50.0
TRUTH = (RHO * GIVEN, math.sqrt(1 - RHO**2))
# greatest noise of y: mean and deviation of 200,000 samples, each after 2,000 steps; compared with
# Euler steps of the reverse SDE, as ancestral ones of the same number are narrower by .5%
SIMULATED = {
    0.0: (1.349, 0.4359),
    0.1: (1.349, 0.4366),
    0.5: (1.345, 0.4389),
    1.0: (1.341, 0.4404),
    5.0: (1.286, 0.4528),
    HIGH: (0.943, 0.560),
}
SIMULATED_DRAWS, SIMULATED_STEPS = 200_000, 2000
SAMPLER = "exponential-euler"
NAMES = {0.0: "CDE", HIGH: "CDiffE"}


class Law(NamedTuple):
    """Mean and standard deviation of x given y = 1.5, as a sampler draws it."""

    mean: float
    std: float


def schedule() -> VE:
    """The noise of x."""
    return VE(LOW, HIGH)


def joint_process(level: float) -> ModalProcess:
    """Noise of (x, y) where y ends at sigma = level."""
    speeds = torch.tensor([1.0, speed_to(schedule(), level)], dtype=torch.float64)
    return ModalProcess(schedule(), shape=(2,), speed=speeds)


class ExactGiven(Denoiser):
    """E[x | x_t, y] of the Gaussian pair: y is told clean."""

    process: GaussianProcess

    def __init__(self) -> None:
        super().__init__()
        self.process = schedule()

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        mean, variance = RHO * condition, TRUTH[1] ** 2
        gain = alpha * variance / (alpha.square() * variance + sigma.square())
        return mean + gain * (state - alpha * mean)


def exact(level: float, generator: torch.Generator) -> Denoiser:
    """The exact conditional denoiser; `level` 0 is CDE, `HIGH` CDiffE, between them CMDE."""
    if level == 0:
        return ExactGiven()
    pair = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
    spectrum, basis = torch.linalg.eigh(pair)
    joint = Linear(joint_process(level), torch.zeros(2), spectrum, basis.float())
    return JointConditional(joint, schedule(), generator=generator)


def exact_law(level: float, steps: int) -> Law:
    """The law that `SAMPLER` draws from with exact scores, by its linear recursion.

    x_s = kept x_t + weight xhat + noise z with xhat = a x_t + b y_t and y_t = y + sigma_y e, drawn
    afresh: mean and variance follow step by step.
    """
    process = schedule()
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    table = exponential_euler(Scales(process, times, torch.zeros(1, 1)))
    last = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)  # the last denoise
    moves = torch.cat([torch.stack([table.kept, table.weights[0], table.noise], 1), last])
    var_x = process.sigma(times).square()
    var_y = torch.zeros_like(var_x)
    if level > 0:
        var_y = process.sigma(speed_to(process, level) * times).square()
    mean, variance = 0.0, float(var_x[0])
    for (kept, weight, noise), vx, vy in zip(
        moves.tolist(), var_x.tolist(), var_y.tolist(), strict=True
    ):
        # E[x | x_t, y_t] of unit variances and covariance rho
        det = (1 + vx) * (1 + vy) - RHO**2
        a, b = (1 + vy - RHO**2) / det, RHO * vx / det
        slope, push = kept + weight * a, weight * b
        mean = slope * mean + push * GIVEN
        variance = slope**2 * variance + push**2 * vy + noise**2
    return Law(mean, math.sqrt(variance))


def sampled_law(model: Denoiser, n: int, steps: int, generator: torch.Generator) -> Law:
    """Mean and deviation of `n` samples given y = 1.5."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    given = torch.full((1, 1), GIVEN)
    drawn = sample(
        model, n, times, SAMPLER, shape=(1,), condition=given, generator=generator
    ).double()
    return Law(float(drawn.mean()), float(drawn.std()))


def pairs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n pairs x, y (n, 1)."""
    y, e = torch.randn(2, n, 1, generator=generator)
    return RHO * y + TRUTH[1] * e, y


def learn_given(x: Tensor, y: Tensor, steps: int, seed: int) -> Network:
    """CDE: a network that is told y."""
    network = _network(schedule(), (1,), seed, condition_of(y))
    told = Conditional(Standard(network.process), y)
    _train(network, x, steps, seed, told=told)
    return network


def learn_joint(
    x: Tensor, y: Tensor, level: float, steps: int, seed: int, *, annealed: bool = False
) -> JointConditional:
    """CDiffE, CMDE or, with y's noise annealed, VS-CMDE: a network of (x, y)."""
    network = _network(joint_process(HIGH if annealed else level), (2,), seed)
    _train(network, torch.cat([x, y], 1), steps, seed, level=level if annealed else None)
    noise = torch.Generator().manual_seed(seed)
    return JointConditional(network, schedule(), generator=noise)


def _network(
    process: GaussianProcess, shape: tuple[int, ...], seed: int, condition: Any = None
) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(process, ResidualMLP(shape, 64, 2, condition=condition))


def _train(
    network: Network,
    data: Tensor,
    steps: int,
    seed: int,
    *,
    told: Conditional | None = None,
    level: float | None = None,
) -> None:
    """Denoising score matching with a cosine learning rate; `level`: anneal y's noise to it."""
    generator = torch.Generator().manual_seed(seed)
    fitting = DenoisingFit(network, 2e-3)
    for step in range(steps):
        if level is not None and step % (steps // 20) == 0:
            # the first half of the training anneals, the second refines
            network.process = joint_process(annealed_level(step, HIGH, level, steps // 2))
            fitting = DenoisingFit(network, 2e-3)
        for group in fitting.optimiser.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        rows = torch.randint(len(data), (256,), generator=generator)
        condition = None if told is None else told.tell(rows, generator)
        fitting.step(data[rows], generator, condition)
    network.eval()


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` draws as many samples in as many steps as theirs."""
    n, steps = (SIMULATED_DRAWS, SIMULATED_STEPS) if full else (20_000, 300)
    fit_steps = 6000 if full else 1000
    rows, sampled = _exact_rows(n, steps, seed)
    learned, information = _learned(fit_steps, seed)
    for name, law in learned.items():
        rows.append(Row(f"learned {name}: mean", law.mean, TRUTH[0], "D", note="reference: truth"))
        rows.append(Row(f"learned {name}: deviation", law.std, TRUTH[1], "D"))
    rows.append(information)
    _figure(out, sampled, learned)
    settings = dict(rho=RHO, y=GIVEN, draws=n, sampler_steps=steps, training_steps=fit_steps)
    title = "Conditional estimators on a Gaussian pair (Batzolis et al. 2021)"
    return write_table(out, title, rows, seed, settings)


def _exact_rows(n: int, steps: int, seed: int) -> tuple[list[Row], dict[float, Law]]:
    rows, sampled = [], {}
    for level, simulated in SIMULATED.items():
        name = NAMES.get(level, f"CMDE, y's noise up to {level:g}")
        generator = torch.Generator().manual_seed(seed)
        sampled[level] = sampled_law(exact(level, generator), n, steps, generator)
        fine, here = exact_law(level, SIMULATED_STEPS), exact_law(level, steps)
        error = here.std / math.sqrt(n)
        note = f"reference: closed form at {steps} steps"
        for field, stderr in (("mean", error), ("std", error / math.sqrt(2))):
            word, k = ("mean", 0) if field == "mean" else ("deviation", 1)
            closed, drawn = getattr(fine, field), getattr(sampled[level], field)
            rows.append(Row(f"exact {name}: {word}", closed, simulated[k], "D"))
            limit = getattr(here, field)
            rows.append(Row(f"sampled {name}: {word}", drawn, limit, "D", stderr, note))
    return rows, sampled


def _learned(steps: int, seed: int) -> tuple[dict[str, Law], Row]:
    generator = torch.Generator().manual_seed(seed + 1)
    x, y = pairs(50_000, generator)
    given = learn_given(x, y, steps, seed)
    models: dict[str, Denoiser] = {
        "CDE": given,
        "CMDE .5": learn_joint(x, y, 0.5, steps, seed),
        "VS-CMDE .5": learn_joint(x, y, 0.5, steps, seed, annealed=True),
        "CMDE 5": learn_joint(x, y, 5.0, steps, seed),
        "CDiffE": learn_joint(x, y, HIGH, steps, seed),
    }
    laws = {
        name: sampled_law(model, 5000, 150, torch.Generator().manual_seed(seed))
        for name, model in models.items()
    }
    return laws, _information(given, generator)


def _information(given: Network, generator: torch.Generator) -> Row:
    """I(x; y) from the curves of one network without and with its condition."""
    x, y = pairs(2000, generator)
    free, told = (
        measure(
            given, x, 32, condition=c, keep_samples=True,
            generator=torch.Generator().manual_seed(0),
        )
        for c in (None, y)
    )  # fmt: skip
    gap = told.gap(free)
    exact = -0.5 * math.log(1 - RHO**2)
    note = "areas of one network's curves without and with y"
    return Row("I(x; y) in nats of the learned CDE", gap.nats, exact, "D", gap.stderr, note)


def _figure(out: Path, sampled: dict[float, Law], learned: dict[str, Law]) -> None:
    figure, (left, right) = panels(2)
    levels = np.geomspace(0.02, HIGH, 60)
    laws = [exact_law(float(level), 1000) for level in levels]
    shown = {level: law for level, law in sampled.items() if level > 0}
    places = {"CDE": 0.02, "CMDE .5": 0.5, "VS-CMDE .5": 0.5, "CMDE 5": 5.0, "CDiffE": HIGH}
    for axes, field, truth in ((left, "mean", TRUTH[0]), (right, "std", TRUTH[1])):
        axes.plot(levels, [getattr(law, field) for law in laws], label="exact scores")
        axes.plot(
            list(shown), [getattr(law, field) for law in shown.values()], "o", label="sampled"
        )
        for name, law in learned.items():
            marker = {"CDE": "s", "VS-CMDE .5": "^"}.get(name, "x")
            label = {"CDE": "learned, y told clean", "VS-CMDE .5": "learned, annealed"}.get(
                name, "learned" if name == "CDiffE" else None
            )
            axes.plot(places[name], getattr(law, field), marker, color="C3", label=label)
        axes.axhline(truth, color="grey", lw=0.8, label="truth")
        axes.set(xscale="log", xlabel="greatest noise of y (its deviation is 1)")
    left.set_ylabel("mean of x given y = 1.5")
    right.set_ylabel("deviation of x given y = 1.5")
    left.legend(frameon=False)
    save_figure(figure, out / "conditional_bias.png")
