"""Steps to sample a field with a power-law spectrum: plain against wavelet models, by schedule.

Wavelet score-based generative models (Guth, Coste, De Bortoli & Mallat 2022) sample a field scale
by scale, details given the clean averages, and need a number of steps that does not grow with the
field; the plain model's does. Here both, with exact scores and in closed form, on a periodic field
with spectrum 1 / ((2 pi / L)^2 + w^2), to KL / d <= .01; and beside the uniform steps of that
comparison the quadratic and the loss-adaptive ones, and the ancestral sampler, which are just as
easily used and change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reverie.curve import LossCurve
from reverie.plan import plan_steps
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.spaces.filters import level_matrix, low_pass
from reverie.theory.step_counts import kl_per_mode, least_steps, outcome

SIDES, COARSE, HORIZON, BUDGET = (32, 64, 128, 256), 8, 8.0, 0.01
WAVELETS = ("haar", "db4")
LAST = 0.1  # share of the budget that the last denoise of a loss-adaptive plan may take
PLAIN = (431, 861, 1722, 3444)  # uniform, found before on a grid of powers of 2^(1/8)
QUADRATIC = (45, 64, 91, 128)
WORST, COARSEST = (38, 45), {"haar": 128, "db4": 108}
GRID = 8  # that grid's steps an octave
SCHEDULES = (
    ("uniform", "euler"),
    ("quadratic", "euler"),
    ("loss-adaptive", "euler"),
    ("uniform", "ancestral"),
    ("quadratic", "ancestral"),
    ("loss-adaptive", "ancestral"),
)
Times = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Law:
    """Modes of one model: variances (d,) given what it is told, and E mu^2 (d,) of their means."""

    variance: np.ndarray
    mean_square: np.ndarray

    def scaled(self, square: float) -> Law:
        """The same in units of sqrt(square)."""
        return Law(self.variance / square, self.mean_square / square)


def field_spectrum(side: int) -> np.ndarray:
    """Variances (side,) of the Fourier modes, with mean 1."""
    frequency = 2 * np.pi * np.fft.fftfreq(side)
    power = 1 / ((2 * np.pi / side) ** 2 + frequency**2)
    return power / power.mean()


def wavelet_laws(side: int, wavelet: str, whitened: bool = False) -> tuple[Law, list[Law]]:
    """The coarse averages' law and that of the details given the averages, finest first.

    Details have unit variance given the averages; `whitened` standardises them without, as the
    method does.
    """
    covariance = _circulant(field_spectrum(side))
    details = []
    while len(covariance) > COARSE:
        half = len(covariance) // 2
        matrix = level_matrix(low_pass(wavelet), 2 * half)
        joint = matrix @ covariance @ matrix.T
        covariance, cross, own = joint[:half, :half], joint[half:, :half], joint[half:, half:]
        told = cross @ np.linalg.solve(covariance, cross.T)
        law = Law(_eigenvalues(own - told), _eigenvalues(told))
        unit = np.trace(own) / half if whitened else law.variance.mean()
        details.append(law.scaled(unit))
    coarse = _eigenvalues(covariance)
    return Law(coarse / coarse.mean(), np.zeros(COARSE)), details


def _circulant(spectrum: np.ndarray) -> np.ndarray:
    row, place = np.fft.ifft(spectrum).real, np.arange(len(spectrum))
    return row[(place[:, None] - place) % len(spectrum)]


def _eigenvalues(circulant: np.ndarray) -> np.ndarray:
    """Of a symmetric circulant matrix, by frequency."""
    return np.maximum(np.fft.fft(circulant[0]).real, 0)


def uniform(steps: int) -> np.ndarray:
    """Equal steps of the Ornstein-Uhlenbeck time."""
    return HORIZON * np.arange(steps, -1, -1) / steps


def quadratic(steps: int) -> np.ndarray:
    """Equal steps of its square root."""
    return HORIZON * (np.arange(steps, -1, -1) / steps) ** 2


def adaptive(law: Law) -> Times:
    """Loss-adaptive times from the exact curve of `law`, whose last denoise is cheap enough."""
    lam = law.variance
    ends = np.geomspace(1e-9, 1, 4000)
    left = np.expm1(2 * ends)[:, None]  # 1 / gamma: the last denoise leaves lam^2 / (lam + left)
    cost = 0.5 * np.mean(left / lam - np.log1p(left / lam), 1)
    end = ends[cost <= LAST * BUDGET].max()
    clock = np.geomspace(1 / np.expm1(2 * HORIZON), 1 / np.expm1(2 * end), 500)
    rate = 0.5 * (lam / (1 + clock[:, None] * lam)).sum(1)
    curve = LossCurve(clock, rate, dim=len(lam))

    @cache
    def times(steps: int) -> np.ndarray:
        plan = plan_steps(curve, max(steps - 1, 1), clock="nats")
        return np.append(0.5 * np.log1p(1 / plan.u), 0.0)

    return times


def steps_for(law: Law, make: Times, sampler: str) -> int:
    """Least number of evaluations, at times `make`, that brings KL / d to the budget."""

    def kl(steps: int) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            found = outcome(law.variance, make(steps), sampler)
            return kl_per_mode(law.variance, found, law.mean_square)

    return least_steps(kl, BUDGET)


def on_grid(steps: float) -> int:
    """The next power of 2^(1/8), rounded: where a search on that grid would stop."""
    return round(2 ** (np.ceil(GRID * np.log2(steps)) / GRID))


def models_of(side: int) -> dict[str, list[Law]]:
    """Every model of a field, as the laws it samples one after the other."""
    spectrum = field_spectrum(side)
    models = {"plain": [Law(spectrum, np.zeros(side))]}
    for wavelet in WAVELETS:
        coarse, details = wavelet_laws(side, wavelet)
        models |= {f"{wavelet} details": details, f"{wavelet} coarse": [coarse]}
        models[f"{wavelet} standardised"] = wavelet_laws(side, wavelet, whitened=True)[1]
    return models


def counts(sides: tuple[int, ...] = SIDES) -> dict[str, dict[str, list[int]]]:
    """Steps by schedule and sampler, model and side; of several laws the most.

    The method's own standardisation is counted for its own steps alone.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for side in sides:
        for model, laws in models_of(side).items():
            planned = {id(law): adaptive(law) for law in laws}
            for schedule, sampler in SCHEDULES:
                if model.endswith("standardised") and (schedule, sampler) != SCHEDULES[0]:
                    continue
                fixed = {"uniform": uniform, "quadratic": quadratic}.get(schedule)
                steps = [steps_for(law, fixed or planned[id(law)], sampler) for law in laws]
                row = found.setdefault(f"{schedule}, {sampler}", {})
                row.setdefault(model, []).append(max(steps))
    return found


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; nothing is random, and `full` changes nothing."""
    found = counts()
    save_figure(_draw(found), out / "wavelet-steps.png")
    settings = dict(horizon=HORIZON, budget=f"KL/d <= {BUDGET}", coarse=COARSE)
    return write_table(out, "Steps to sample a field, by model and schedule", _rows(found), seed,
                       settings)  # fmt: skip


def _rows(found: dict[str, dict[str, list[int]]]) -> list[Row]:
    rows = []
    for label, models in found.items():
        for model, steps in models.items():
            for place, side in enumerate(SIDES):
                known, note = _reference(label, model, place, steps[place])
                tag = "D" if note else ""
                rows.append(
                    Row(f"{label}: {model}, L = {side}", steps[place], known, tag, None, note)
                )
    return rows


def _reference(label: str, model: str, place: int, steps: int) -> tuple[float | None, str]:
    """A count made before with the same law, and where ours falls on the grid it used."""
    note = f"{on_grid(steps)} on the reference's grid of 2^(1/8)"
    if label == "uniform, euler" and model == "plain":
        return PLAIN[place], note
    if label == "quadratic, euler" and model == "plain":
        return QUADRATIC[place], note
    if label == "uniform, euler" and model.endswith("coarse"):
        return COARSEST[model.split()[0]], note
    if label == "uniform, euler" and model.endswith("details"):
        return None, f"known: {WORST[0]} to {WORST[1]}; {note}"
    return None, ""


def _draw(found: dict[str, dict[str, list[int]]]) -> Any:
    figure, (left, right) = panels(2, 5.2, 4.0)
    for axes, model, title in ((left, "plain", "plain model"), (right, "", "wavelet model")):
        for place, (label, models) in enumerate(found.items()):
            style = dict(color=f"C{place % 3}", linestyle="-" if place < 3 else "--", marker="o")
            if model:
                axes.loglog(SIDES, models[model], label=label, **style)
            else:
                whole = [max(models[f"haar {part}"][k] for part in ("details", "coarse"))
                         for k in range(len(SIDES))]  # fmt: skip
                axes.loglog(SIDES, whole, label=label, **style)
        axes.set_xticks(SIDES, [str(side) for side in SIDES])
        axes.minorticks_off()
        axes.set_ylim(8, 2e4)
        axes.set_xlabel("sites L of the field")
        axes.set_title(title)
    left.set_ylabel(f"steps to KL / d = {BUDGET:g} nats")
    right.set_ylabel("steps at each scale (Haar, coarse 8 included)")
    right.legend(fontsize=8)
    return figure
