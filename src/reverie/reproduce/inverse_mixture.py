"""Where the posterior is known: the guess on Gaussian data, draws on a Gaussian mixture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from reverie.auditing.metrics.fidelity import energy_distance
from reverie.denoisers import GaussianMixture
from reverie.inverse import MMPS, TMPD, Inpainting, LinearMeasurement, PiGDM, reconstruct
from reverie.processes import EDM
from reverie.reproduce.inverse_scores import (
    DRAWS,
    METHODS,
    covered,
    draws_of,
    mean_row,
    misfits,
)
from reverie.reproduce.tables import Row, save_figure
from reverie.sampling import sample

LEVELS = (0.05, 0.3, 1.0, 5.0)  # sigma / alpha
NOISE = 0.3  # of what is observed
SHOWN = 0.4  # the observation of the figure
STEPS = 100
PROCESS = EDM(0.01, 20)
TIMES = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
COUNTS = (8, 32, 128, 512, 2048)  # of particles
SETTINGS: dict[str, dict[str, Any]] = {"dps": dict(guidance_scale=0.05)}  # best of .01 to 1
NOTES = {
    "tmpd": "one observed number: the same guess as mmps",
    "dps": "guidance_scale 0.05, the best of 0.01 to 1",
    "repaint": "takes y to be exact",
}
FIRST = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # the observed coordinate, as a matrix
MEASUREMENT = Inpainting(torch.tensor([True, False]), NOISE)


def gaussian_rows(seed: int) -> list[Row]:
    """Root mean square of |xhat_y - E[x | x_t, y]| on N(0, C) in 8 dimensions, 3 observed."""
    generator = torch.Generator().manual_seed(seed)
    root, matrix = (torch.randn(k, 8, generator=generator, dtype=torch.float64) for k in (8, 3))
    root = root / root.norm(dim=1, keepdim=True)  # unit variances, which pigdm supposes
    covariance = (root @ root.T)[None]
    prior = GaussianMixture(PROCESS, torch.zeros(1, 8), covariance, torch.ones(1))
    measurement = LinearMeasurement(matrix, NOISE)
    guided = {"mmps": MMPS, "pigdm": PiGDM, "tmpd": TMPD}
    rows = []
    for level in LEVELS:
        t = PROCESS.time(torch.tensor(level**-2.0, dtype=torch.float64))
        x = prior.draw(200, generator)
        y, state = measurement.simulate(x, generator), PROCESS.corrupt(x, t, generator=generator)
        exact = torch.cat(
            [prior.posterior(matrix, v, NOISE)(s[None], t) for s, v in zip(state, y, strict=True)]
        )
        guesses = {name: make(prior, measurement)(state, t, y) for name, make in guided.items()}
        for name, guess in (guesses | {"unguided": prior(state, t)}).items():
            error = float((guess - exact).square().sum(1).mean().sqrt())
            known = (0.0, "D") if name == "mmps" else (None, "")
            rows.append(Row(f"Gaussian data, sigma {level:g}: error of the guess, {name}", error,
                            *known))  # fmt: skip
    return rows


def ring() -> GaussianMixture:
    """Five Gaussians on a circle of radius 1.2, stretched along it, with uneven weights."""
    angle = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5 + 0.3
    outward = torch.stack([angle.cos(), angle.sin()], 1)
    along = torch.stack([-angle.sin(), angle.cos()], 1)
    covariances = 0.02 * outward[:, :, None] * outward[:, None]
    covariances = covariances + 0.15 * along[:, :, None] * along[:, None]
    weights = torch.tensor([0.3, 0.1, 0.2, 0.25, 0.15])
    return GaussianMixture(PROCESS, 1.2 * outward, covariances, weights)


def mixture_rows(out: Path, seed: int, observations: int) -> list[Row]:
    """One of two coordinates observed: each method against the posterior; writes the figure."""
    generator = torch.Generator().manual_seed(seed)
    prior = ring()
    x = prior.draw(observations, generator)
    y = MEASUREMENT.simulate(x, generator)
    rows = _scores("the posterior's own denoiser", x, y, _exact_draws(prior, y, generator))
    for name in METHODS:
        draws = draws_of(prior, MEASUREMENT, y, TIMES, name, generator, **SETTINGS.get(name, {}))
        rows += _scores(name, x, y, draws)
    shown = torch.tensor([SHOWN], dtype=torch.float64)
    drawn = {name: _many(prior, shown, name, generator) for name in METHODS}
    means, evidence = _particle_errors(prior, shown, generator)
    exact = prior.posterior(FIRST, shown, NOISE)
    _picture(out, prior, exact, drawn, means)
    goal = prior.log_evidence(FIRST, shown, NOISE)
    for count, values in zip(COUNTS, evidence, strict=True):
        rows.append(mean_row(f"mixture: evidence of one y, {count} particles (ratio to exact)",
                             np.exp(values - goal), 1.0))  # fmt: skip
    return rows


def _exact_draws(prior: GaussianMixture, y: Tensor, generator: torch.Generator) -> Tensor:
    """Draws guided by E[x | x_t, y] itself: only the steps are at fault."""
    posteriors = (prior.posterior(FIRST, v, NOISE) for v in y)
    options: Any = dict(shape=(2,), generator=generator, dtype=torch.float64)
    return torch.stack([sample(p, DRAWS, TIMES, **options) for p in posteriors])


def _scores(name: str, x: Tensor, y: Tensor, draws: Tensor) -> list[Row]:
    """Distance to the posterior, coverage and misfit, each a mean over observations."""
    prior, generator = ring(), torch.Generator().manual_seed(1)
    distances = []
    for value, found in zip(y, draws, strict=True):
        truth = prior.posterior(FIRST, value, NOISE).draw(400, generator)
        distances.append(energy_distance(found.numpy(), truth.numpy()))
    coverage = covered(x, draws).mean(1).numpy()
    return [
        mean_row(
            f"mixture: energy distance to the posterior, {name}",
            np.array(distances),
            0.0,
            NOTES.get(name, ""),
        ),
        mean_row(f"mixture: coverage of 90% intervals, {name}", coverage, 0.9),
        mean_row(f"mixture: misfit, {name}", misfits(MEASUREMENT, y, draws), 1.0),
    ]


def _many(
    prior: GaussianMixture, y: Tensor, name: str, generator: torch.Generator, n: int = 2000
) -> Tensor:
    """`n` draws of one observation, for the figure."""
    settings: Any = dict(particles=4 * n) if name == "twisted-smc" else SETTINGS.get(name, {})
    return reconstruct(
        prior, MEASUREMENT, y, n, method=name, plan=TIMES, generator=generator,
        dtype=torch.float64, **settings,
    ).draws  # fmt: skip


def _particle_errors(
    prior: GaussianMixture, y: Tensor, generator: torch.Generator, repeats: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the weighted mean from the posterior's, and log-evidence: (counts, repeats)."""
    goal = _mean(prior.posterior(FIRST, y, NOISE))
    means, evidence = np.empty((2, len(COUNTS), repeats))
    for row, count in enumerate(COUNTS):
        for again in range(repeats):
            found = reconstruct(
                prior, MEASUREMENT, y, 1, method="twisted-smc", plan=TIMES[::2],
                generator=generator, dtype=torch.float64, particles=count,
            ).particles  # fmt: skip
            assert found is not None
            mean = (found.log_weights.exp()[:, None] * found.points).sum(0)
            means[row, again] = float((mean - goal).norm())
            evidence[row, again] = found.log_evidence
    return means, evidence


def _mean(mixture: GaussianMixture) -> Tensor:
    return mixture.log_weights.exp() @ mixture.means


def _picture(
    out: Path,
    prior: GaussianMixture,
    exact: GaussianMixture,
    drawn: dict[str, Tensor],
    means: np.ndarray,
) -> None:
    """Eight panels: the posterior, six methods, and the error against the number of particles."""
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    generator = torch.Generator().manual_seed(2)
    background = prior.draw(1500, generator)
    truth = exact.draw(2000, generator)
    for ax, (name, points) in zip(panels, {"posterior": truth, **drawn}.items(), strict=False):
        distance = energy_distance(points.numpy(), exact.draw(2000, generator).numpy())
        ax.scatter(*background.T, s=1, color="0.85")
        ax.scatter(*points.T, s=1.5, color="C0" if name == "posterior" else "C1")
        ax.axvspan(SHOWN - NOISE, SHOWN + NOISE, color="C2", alpha=0.15, lw=0)
        ax.set(title=f"{name} (distance {max(distance, 0):.3f})", xlim=(-2.2, 2.2),
               ylim=(-2.2, 2.2), xlabel="$x_1$ (observed: band)", ylabel="$x_2$")  # fmt: skip
    ax, goal = panels[-1], _mean(exact)
    ax.loglog(COUNTS, np.sqrt((means**2).mean(1)), "o-", color="k", label="twisted-smc")
    # with one observed number tmpd guesses what mmps does
    for place, name in enumerate(("mmps", "pigdm", "dps", "repaint")):
        error = float((drawn[name].mean(0) - goal).norm())
        ax.axhline(error, color=f"C{place}", lw=1, label="mmps, tmpd" if place == 0 else name)
    ax.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="particles", ylabel="error of the posterior mean (units of x)")
    ax.legend(frameon=False, fontsize=8)
    save_figure(figure, out / "inverse-problems-mixture.png")
