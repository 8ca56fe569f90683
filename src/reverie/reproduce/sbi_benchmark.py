"""Neural posteriors on four tasks of the sbibm benchmark (Lueckmann et al. 2021), by C2ST.

10,000 simulations a task; 10,000 draws for every observation against the benchmark's reference
posterior. The published figures are of neural posterior score estimation with a variance-exploding
or variance-preserving process, whichever is better, read off the figures of Gloeckler et al. 2024.
"""

from __future__ import annotations

import bz2
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from reverie.reproduce.real_data import real_data
from reverie.reproduce.sbi_tasks import TASKS
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.simulation import Posterior, classifier_accuracy, posterior

PUBLISHED = {
    "two_moons": 0.513,
    "gaussian_linear": 0.522,
    "gaussian_mixture": 0.528,
    "slcp": 0.818,
}
TITLE = "Neural posterior scores on sbibm (Lueckmann et al. 2021; Gloeckler et al. 2024)"
SIMULATIONS, DRAWS = 10_000, 10_000
SETTINGS: dict[str, Any] = {}  # of every fit: the library's own
KNOWN: dict[str, dict[str, Any]] = {
    "slcp": dict(exchangeable=4)
}  # four draws of one law, whose order means nothing


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` scores all observations given, not the first two."""
    figure, axes = panels(1 + len(TASKS), width=3.2)
    rows, scores = [], {}
    for axis, name in zip(axes[1:], TASKS, strict=True):
        start = process_time()
        task = TASKS[name]
        found = posterior(
            task.simulate,
            task.prior,
            n=SIMULATIONS,
            seed=seed,
            **SETTINGS,
            **KNOWN.get(name, {}),
        )
        seconds = process_time() - start
        scores[name], sampling = _scores(found, name, full, seed, axis)
        value = np.array(scores[name])
        error = float(value.std(ddof=1) / len(value) ** 0.5) if len(value) > 1 else None
        note = (
            f"{len(value)} observations; {seconds + sampling:.0f} s of CPU to train and sample; "
            f"leak {found.curves['train'].leak(found.curves['holdout'])}"
        )
        title = f"{name}: C2ST"
        rows.append(Row(title, float(value.mean()), PUBLISHED[name], "V", error, note))
        write_table(out, TITLE, rows, seed, _settings(full))  # what is known so far
    _summary(axes[0], scores)
    save_figure(figure, out / "sbi_benchmark.png")
    return write_table(out, TITLE, rows, seed, _settings(full))


def _settings(full: bool) -> dict[str, Any]:
    return dict(simulations=SIMULATIONS, draws=DRAWS, observations="all given" if full else 2)


def _scores(
    found: Posterior, name: str, full: bool, seed: int, axis: Any
) -> tuple[list[float], float]:
    """C2ST of every observation, and the seconds of sampling; draws the first observation."""
    folder = real_data(f"sbibm_reference/{name}", "the sbibm package holds these files")
    values, seconds = [], 0.0
    observations = sorted(folder.glob("num_observation_*"), key=_number)
    for number, place in enumerate(observations if full else observations[:2]):
        with bz2.open(place / "reference_posterior_samples.csv.bz2", "rt") as file:
            reference = np.loadtxt(file, delimiter=",", skiprows=1, max_rows=DRAWS)
        x = np.loadtxt(place / "observation.csv", delimiter=",", skiprows=1)
        start = process_time()
        drawn = found.sample(len(reference), x, seed=seed + number).numpy()
        seconds += process_time() - start
        values.append(classifier_accuracy(reference, drawn))
        if number == 0:
            axis.plot(*reference[:2000, :2].T, ".", ms=2, alpha=0.4, label="reference")
            axis.plot(*drawn[:2000, :2].T, ".", ms=2, alpha=0.4, label="ours")
            axis.set(title=name, xlabel="parameter 1", ylabel="parameter 2")
            axis.legend(frameon=False, markerscale=4)
    return values, seconds


def _number(place: Path) -> int:
    return int(place.name.rsplit("_", 1)[1])


def _summary(axis: Any, scores: dict[str, list[float]]) -> None:
    for place, (name, values) in enumerate(scores.items()):
        axis.plot([place] * len(values), values, "o", ms=4, alpha=0.5, color="C0")
        axis.plot(place, np.mean(values), "_", ms=16, color="C0")
        axis.plot(place, PUBLISHED[name], "x", ms=7, color="C3")
    axis.axhline(0.5, color="grey", lw=0.8)
    axis.set_xticks(range(len(scores)), [name.replace("_", "\n") for name in scores])
    axis.set(ylabel="C2ST accuracy (1/2 is best)", title="dots: ours, bar: mean\ncross: published")
