"""One bound, many losses: targets, weights and schedules on a Gaussian and on digits.

After Luo 2022 (arXiv 2208.11970) and Kingma et al. 2021: the evidence bound is the same number for
every target (clean data, noise, score, v) and every schedule between the same ends; a bound in T
steps falls to it; what a schedule changes is the variance of the loss, and a learned one lowers
it. On digits, networks trained with every loss weight are compared by their held-out bound.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve, level_times, measure
from reverie.denoisers import Linear, Network, ResidualMLP, convert
from reverie.information import Bound, bound
from reverie.objectives import VariationalFit
from reverie.objectives.weights import WEIGHTS, loss_weight
from reverie.processes import Custom, GaussianProcess, Learned
from reverie.reproduce.networks import build_network, digits
from reverie.reproduce.tables import Row, panels, save_figure, write_table

VARIANCE, CLEAN, NOISY = 0.3, 13.3, -5.0
BOUND = 6.047007
IN_STEPS = {10: 15.99, 100: 6.586, 1000: 6.098}
PIXELS = torch.arange(17) / 8 - 1.0
DIGITS_CLEAN = 8.0  # log ratio: pixel values are 3.5 deviations of the noise from half-way
TRAIN = 1000
STYLES = {"simple": "--", "g2": ":"}  # on a linear schedule both are the bound but for a factor
TARGETS = ("clean", "noise", "score", "v")


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains the networks ten times as long."""
    steps = 6000 if full else 600
    generator = torch.Generator().manual_seed(seed)
    figure, (left, middle, right) = panels(3)
    rows = _gaussian_bounds(right)
    rows += _gaussian_variance(left, generator)
    rows += _digits(left, middle, right, steps, seed, generator)
    left.set(xlabel="process time t", ylabel="log signal-to-noise ratio")
    left.legend(frameon=False)
    middle.legend(frameon=False, title="trained with")
    right.set(xscale="log", xlabel="steps T", ylabel="diffusion term / its continuous limit")
    right.axhline(1, color="grey", lw=0.8)
    right.legend(frameon=False)
    save_figure(figure, out / "unified_view.png")
    settings = dict(training_steps=steps, digits=TRAIN)
    title = "One bound for every target, weight and schedule (Luo 2022; Kingma et al. 2021)"
    return write_table(out, title, rows, seed, settings)


# --- a Gaussian, in closed form ------------------------------------------------------------------


def gaussian(process: GaussianProcess) -> Linear:
    """The exact denoiser of N(0, .3)."""
    spectrum = torch.tensor([VARIANCE], dtype=torch.float64)
    return Linear(process, torch.zeros(1), spectrum, torch.eye(1))


def power_schedule(power: float) -> Custom:
    """log gamma a power of t between the ends."""

    def log_gamma(t: Tensor) -> Tensor:
        return CLEAN + (NOISY - CLEAN) * t**power

    return Custom(
        lambda t: log_gamma(t).sigmoid().sqrt(),
        lambda t: (-log_gamma(t)).sigmoid().sqrt(),
        (0.0, 1.0),
    )


def information(log_gamma: np.ndarray) -> np.ndarray:
    """I(x; x_t) in nats of N(0, .3)."""
    return 0.5 * np.log1p(VARIANCE * np.exp(log_gamma))


def _area(process: GaussianProcess) -> float:
    clock = process.clock(torch.as_tensor(level_times(process, 2001))).numpy()
    return LossCurve(clock, gaussian(process).exact_rate(clock), process=process).area()


def _staircase(steps: int) -> float:
    clock = power_schedule(1).clock(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).numpy()
    return float((np.diff(clock) * gaussian(power_schedule(1)).exact_rate(clock)[:-1]).sum())


def _gaussian_bounds(axes: Any) -> list[Row]:
    rows = [
        Row(f"Gaussian: bound in nats, schedule {name}", _area(power_schedule(p)), BOUND, "D")
        for name, p in (("linear", 1.0), ("quadratic", 2.0), ("cubic", 3.0))
    ]
    for steps, known in IN_STEPS.items():
        rows.append(Row(f"Gaussian: bound in {steps} steps", _staircase(steps), known, "D"))
    counts = np.unique(np.geomspace(10, 1000, 25).astype(int))
    axes.plot(counts, [_staircase(int(k)) / BOUND for k in counts], label="Gaussian, closed form")
    return rows


def _gaussian_variance(axes: Any, generator: torch.Generator) -> list[Row]:
    """The learned interior against the schedule of least variance, even in information."""
    process = Learned(NOISY, CLEAN, 16)
    fitting = VariationalFit(gaussian(process), learn_ends=False)
    x = math.sqrt(VARIANCE) * torch.randn(20_000, 1, generator=generator)
    before = _relative_variance(fitting, x)
    for rate in (0.03,) * 200 + (0.005,) * 150:
        fitting.optimiser.param_groups[0]["lr"] = rate
        fitting.step(x[torch.randint(len(x), (512,), generator=generator)], generator)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    log_gamma = process.clock(t).log().numpy()
    fine = np.linspace(NOISY, CLEAN, 2001)
    best = np.interp(np.linspace(1, 0, 101), *(_share(information(fine)), fine))
    axes.plot(t, CLEAN + (NOISY - CLEAN) * t, color="grey", lw=0.8, label="linear")
    axes.plot(t, best, "k--", lw=0.8, label="Gaussian, least variance")
    axes.plot(t, log_gamma, label="Gaussian, learned")
    nats = information(log_gamma)
    away = float(np.abs(_share(nats) - np.linspace(1, 0, 101)).max())
    return [
        Row("Gaussian: bound in nats, schedule learned", _area(process), BOUND, "D"),
        Row("Gaussian: variance of the loss / mean^2, linear", before),
        Row("Gaussian: the same, learned", _relative_variance(fitting, x), 2.0, "D",
            note="reference: least possible"),
        Row("Gaussian: learned schedule from even information", away, 0.0, "D",
            note="largest share of the information by which it is off"),
    ]  # fmt: skip


def _share(nats: np.ndarray) -> np.ndarray:
    low, high = min(nats[0], nats[-1]), max(nats[0], nats[-1])
    return (nats - low) / (high - low)


def _relative_variance(fitting: VariationalFit, x: Tensor) -> float:
    with torch.no_grad():
        drawn = fitting.diffusion(x, torch.Generator().manual_seed(1))
    return float(drawn.var() / drawn.mean().square())


# --- digits --------------------------------------------------------------------------------------


def target_losses(network: Network, x: Tensor, generator: torch.Generator) -> dict[str, float]:
    """The diffusion term in nats from the errors of every target, on the same noise.

    Weights of the squared errors: -1/2 dgamma/dt of clean data; of the noise that over gamma, of
    the score that over (alpha / sigma^2)^2, and of v that times sigma^2 (alpha^2 + sigma^2 = 1).
    """
    process = network.process
    t = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    noise = torch.randn(x.shape, generator=generator)
    state = process.corrupt(x, t, end=noise)
    with torch.no_grad():
        guess = network(state, t)
    alpha, sigma = process.scales(t, x)
    share = {
        "clean": torch.ones_like(alpha),
        "noise": (sigma / alpha).square(),
        "score": (sigma.square() / alpha).square(),
        "v": sigma.square(),
    }
    weight = loss_weight("elbo", process, t, x)
    losses = {}
    for name in TARGETS:
        truth, guessed = (convert(c, state, t, process, "clean", name) for c in (x, guess))
        each = weight * share[name] * (truth - guessed).square()
        losses[name] = float(each.flatten(1).sum(1).double().mean())
    return losses


def _train(network: Network, data: Tensor, weight: str, steps: int, seed: int) -> Network:
    """Adam on one loss weight, times drawn evenly in t; a cosine learning rate."""
    generator, process = torch.Generator().manual_seed(seed), network.process
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        x = data[torch.randint(len(data), (128,), generator=generator)]
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        t = (torch.arange(len(x), dtype=torch.float64) / len(x) + start) % 1
        guess = network(process.corrupt(x, t, generator=generator), t)
        scale = loss_weight(weight, process, t, x, network.data_std)
        loss = (scale * (x - guess).square()).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return network.eval()


def _train_with_schedule(network: Network, data: Tensor, steps: int, seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    fitting = VariationalFit(network, values=PIXELS)
    for step in range(steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, rate in zip(fitting.optimiser.param_groups, (2e-3, 2e-2), strict=True):
            group["lr"] = rate * decay
        fitting.step(data[torch.randint(len(data), (128,), generator=generator)], generator)
    return network.eval()


def _digits(
    left: Any, middle: Any, right: Any, steps: int, seed: int, generator: torch.Generator
) -> list[Row]:
    images = digits(generator).flatten(1)
    train, held = images[:TRAIN], images[TRAIN:]

    def fresh() -> Network:
        process = Learned(NOISY, DIGITS_CLEAN)
        process.heights.data.fill_(-60.0)  # linear
        return build_network(process, lambda: ResidualMLP((64,), 128, 2), train, seed)

    rows = []
    for weight in WEIGHTS:
        network = _train(fresh(), train, weight, steps, seed)
        curve = measure(network, held, 48, generator=torch.Generator().manual_seed(seed))
        curve.plot(middle, label=weight, linestyle=STYLES.get(weight, "-"))
        rows.append(_bits(f"digits: held-out bits per pixel, weight {weight}", network, held))
        if weight == "elbo":
            rows += _one_network(right, network, held, generator)
    learned = build_network(
        Learned(NOISY, DIGITS_CLEAN), lambda: ResidualMLP((64,), 128, 2), train, seed
    )
    before = _relative_variance(VariationalFit(learned, values=PIXELS), held)
    _train_with_schedule(learned, train, steps, seed)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    left.plot(t, learned.process.clock(t).log(), label="digits, learned")
    after = _relative_variance(VariationalFit(learned, values=PIXELS), held)
    note = f"pixels apart, by their histograms: {_histogram_bits(train, held):.3f} bits"
    rows.append(_bits("digits: the same, schedule learned with it", learned, held, note))
    clean = float(learned.process.clock(0.0).log())
    note = f"from {DIGITS_CLEAN:g}: between, the decoder's grid is cheaper than the network"
    rows.append(Row("digits: learned log ratio of the clean end", clean, note=note))
    note = f"before training, on an even schedule: {before:.3g}"
    rows.append(Row("digits: variance of the loss / mean^2, learned", after, note=note))
    return rows


def _bits(name: str, network: Network, held: Tensor, note: str = "") -> Row:
    bound = _bound(network, held)
    error = bound.stderr / (bound.dim * math.log(2))
    return Row(name, bound.bits_per_dim, stderr=error, note=note)


def _bound(network: Network, held: Tensor, steps: int | None = None) -> Bound:
    noise = torch.Generator().manual_seed(0)
    return bound(network, held, values=PIXELS, steps=steps, levels=64, generator=noise)


def _one_network(
    axes: Any, network: Network, held: Tensor, generator: torch.Generator
) -> list[Row]:
    losses = target_losses(network, held, generator)
    limit = _bound(network, held).diffusion
    counts = (10, 30, 100)
    found = [_bound(network, held, count).diffusion / limit for count in counts]
    axes.plot(counts, found, "o", label="digits, a network")
    reference = losses["clean"]
    return [
        Row(f"digits: diffusion term in nats from the target {name}", value, reference, "D",
            note="reference: from clean data")
        for name, value in losses.items()
    ]  # fmt: skip


def _histogram_bits(train: Tensor, held: Tensor) -> float:
    """Bits per pixel of held-out digits under independent pixels, with one count added to each."""
    place = ((train + 1) * 8).round().long()
    counts = torch.nn.functional.one_hot(place, 17).sum(0) + 1.0
    chance = counts / counts.sum(1, keepdim=True)
    where = ((held + 1) * 8).round().long()
    picked = chance[torch.arange(64), where]
    return float(-picked.log2().mean())
