"""The bias-potential model: early stopping generalises, the long run memorises (Yang & E 2020).

    p_V = e^-V p_base / Z,    L(V) = E_data V + log E_base e^-V = KL(data | p_V) + const

V is linear in random features f_k, gradient flow acts on their weights a, and the gradient is the
gap of feature means, dL/da = E_data f - E_pV f: it vanishes exactly where the moments match
(arXiv 2011.14269, read in its abstract; grid, features and target are a reconstruction).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import approx_fprime, minimize
from scipy.special import logsumexp

from reverie.reproduce.tables import Row, panels, save_figure, write_table

POINTS, FEATURES, COUNT = 201, 200, 50
STEPS, RATE, MARKS = 30_000, 1.0, 60
SEEDS = 3


def grid() -> np.ndarray:
    """Cells of [-1, 1], (G,)."""
    return np.linspace(-1, 1, POINTS)


def target() -> np.ndarray:
    """Masses (G,) of a smooth law with two modes."""
    x = grid()
    raw = np.exp(-1.5 * np.cos(1.8 * np.pi * x) - 0.8 * x)
    return raw / raw.sum()


def features(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random ridges (count, G), with kinks spread over the interval."""
    slope, offset = rng.normal(size=count), rng.uniform(-1, 1, count)
    return 3 * np.maximum(slope[:, None] * grid() + offset[:, None], 0) / np.sqrt(count)


def law_of(potential: np.ndarray) -> np.ndarray:
    """e^-V p_base / Z, (G,), on a uniform base."""
    raw = np.exp(potential.min() - potential)
    return raw / raw.sum()


def loss(weights: np.ndarray, bank: np.ndarray, masses: np.ndarray) -> float:
    """E_data V + log E_base e^-V in nats."""
    potential = weights @ bank
    return float(masses @ potential + logsumexp(-potential) - np.log(POINTS))


def gradient(weights: np.ndarray, bank: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Gap of feature means (K,): E_data f - E_pV f."""
    return bank @ (masses - law_of(weights @ bank))


def descend(
    bank: np.ndarray, sample: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, KL(target | p_t) and training cross-entropy along gradient descent, in nats."""
    kernel, truth = RATE * bank.T @ bank, target()
    marks = set(np.unique(np.geomspace(1, steps, MARKS).astype(int)).tolist())
    potential, found = np.zeros(POINTS), []
    for step in range(1, steps + 1):
        law = law_of(potential)
        potential = potential - kernel @ (sample - law)
        if step in marks:
            log_law = np.log(law_of(potential))
            found.append((step * RATE, truth @ (np.log(truth) - log_law), -sample @ log_law))
    times, divergence, fit = np.array(found).T
    return times, divergence, fit


def matched_moments(bank: np.ndarray, sample: np.ndarray) -> float:
    """Largest gap of feature means at the minimum of the loss."""
    found = minimize(
        loss, np.zeros(len(bank)), (bank, sample), "BFGS", jac=gradient, options=dict(gtol=1e-10)
    )
    return float(np.abs(gradient(found.x, bank, sample)).max())


def _identity(seed: int) -> list[Row]:
    """The gradient against differences of the loss, and the moments at a minimum."""
    rng = np.random.default_rng(seed)
    bank, sample = features(5, rng), rng.multinomial(COUNT, target()) / COUNT
    point = rng.normal(size=5)
    apart = gradient(point, bank, sample) - approx_fprime(point, loss, 1e-6, bank, sample)
    note = "moment identity at the minimum over five features"
    return [
        Row("largest gap of feature means", matched_moments(bank, sample), 0.0, "D", note=note),
        Row("gradient less its differences", float(np.abs(apart).max()), 0.0, "D"),
    ]


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` runs ten times longer."""
    steps = 10 * STEPS if full else STEPS
    figure, (left, right) = panels(2)
    rows: list[Row] = []
    rises, falls = [], []
    for k in range(SEEDS):
        rng = np.random.default_rng(seed + k)
        bank = features(FEATURES, rng)
        sample = rng.multinomial(COUNT, target()) / COUNT
        times, divergence, fit = descend(bank, sample, steps)
        left.loglog(times, divergence, lw=1, label=f"seed {seed + k}")
        right.semilogx(times, fit, lw=1)
        best = int(divergence.argmin())
        rises.append(0 < best < len(times) - 1 and divergence[-1] > 1.05 * divergence[best])
        falls.append(bool((np.diff(fit) < 0).all()))
        rows.append(Row(f"best time, seed {seed + k}", times[best]))
        rows.append(Row("  KL there (nats)", divergence[best]))
        rows.append(Row("  KL at the end (nats)", divergence[-1]))
    head = [
        *_identity(seed),
        Row("share of seeds with U-shaped KL", float(np.mean(rises)), 1.0, "V"),
        Row("share of seeds with falling training loss", float(np.mean(falls)), 1.0, "V"),
    ]
    left.set(xlabel="training time", ylabel="KL(target | p_t) (nats)")
    left.legend(frameon=False)
    right.set(xlabel="training time", ylabel="training cross-entropy (nats)")
    save_figure(figure, out / "bias_potential.png")
    settings = dict(n=COUNT, features=FEATURES, grid=POINTS, steps=steps)
    return write_table(out, "Bias-potential model (Yang & E 2020)", head + rows, seed, settings)
