"""Which rows are memorised? Measures from the data alone, against what trained models give away.

Merger & Goldt 2026 (arXiv 2606.14390, known from its abstract): the local coverage of a row, a
kernel density of the others at it, predicts which rows are memorised. Beside it stand the bound
A_i of the memoriser's returns ("alone"), the local intrinsic dimension and the number of
near-twins, as `auditing.model.risk` reads them off the training rows.

Every set is fitted past its first copies, and each training row is then

    copied      met by a sample, or by a trajectory that was cycled, as the audit's facts count
    exposed     told by the score divergence at 1% false alarms
    stored      its loss is in the lowest quarter, relative to that of its nearest held-out rows

AUC: how often a row with that fate has the larger measure than one without, with its 95% interval
(coverage with its sign turned: sparse rows first).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.cyclic import cyclic_probe
from reverie.auditing.model.detection import roc
from reverie.auditing.model.membership import level, step_length
from reverie.auditing.model.risk import MEASURES, RowRisk, row_risk
from reverie.auditing.model.scores import gaussian_process, score
from reverie.curve import Z95
from reverie.denoisers import Denoiser
from reverie.reproduce.early_memorisation import mixture
from reverie.reproduce.networks import digits
from reverie.reproduce.parts import Parts
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs import FitConfig, fit
from reverie.runs.following import paired_samples
from reverie.workers.pieces import Piece, Tell, Ticker, Workers

WIDTH, SAMPLES, CYCLES = 192, 1000, 20
ALARMS, LOWEST, NEAR = 0.01, 0.25, 8
LEAST = 8  # rows of either fate, below which an AUC says nothing
FATES = ("copied", "exposed", "stored")


@dataclass(frozen=True)
class Fitted:
    """A set, the number of training rows, and the steps of a fit past its first copies."""

    name: str
    n: int
    steps: int


CASES = (
    Fitted("digits", 100, 1500), Fitted("digits", 300, 3500),
    Fitted("breast-cancer", 80, 2500), Fitted("breast-cancer", 250, 6000),
    Fitted("mixture, 8-D", 100, 2500), Fitted("mixture, 8-D", 250, 6000),
)  # fmt: skip


def breast_cancer(seed: int) -> np.ndarray:
    """The 569 rows of scikit-learn in random order, standardised: (569, 30)."""
    from sklearn.datasets import load_breast_cancer

    values = np.asarray(load_breast_cancer(return_X_y=True)[0])
    order = np.random.default_rng(seed).permutation(len(values))
    return ((values - values.mean(0)) / values.std(0))[order]


DATA: dict[str, Callable[[int], np.ndarray]] = {
    "digits": lambda seed: digits(torch.Generator().manual_seed(seed)).numpy()[:, 0],
    "breast-cancer": breast_cancer,
    "mixture, 8-D": lambda seed: mixture(1000, seed),
}


def fates(model: Denoiser, train: Tensor, held: Tensor, seed: int) -> dict[str, np.ndarray]:
    """Masks (n,) of the training rows (n, *shape) that met each of FATES."""
    drawn = paired_samples(model, tuple(train.shape[1:]), SAMPLES, seed=seed + 1)
    probe = cyclic_probe(model, drawn, train.numpy(), held.numpy(), cycles=CYCLES, seed=seed)
    copied = np.zeros(len(train), bool)
    copied[probe.rows] = True
    both = torch.cat([train, held])
    found = {}
    for name in ("divergence", "loss"):
        found[name] = score(
            name, model, both, level(gaussian_process(model), both, seed),
            torch.Generator().manual_seed(seed), radius=step_length(both),
        ).numpy()  # fmt: skip
    members, others = np.split(found["divergence"], [len(train)])
    own, held_loss = np.split(np.log(found["loss"]), [len(train)])
    flat = [rows.flatten(1).double().numpy() for rows in (train, held)]
    usual = held_loss[nearest(flat[0], flat[1], min(NEAR, len(held)))[1]].mean(1)
    relative = own - usual
    return {
        "copied": copied,
        "exposed": members < np.quantile(others, ALARMS),
        "stored": relative <= np.quantile(relative, LOWEST),
    }


def predicted(risk: RowRisk, fate: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """AUC of each of MEASURES for a fate (n,), and its interval; none for few rows of a kind."""
    if min(fate.sum(), (~fate).sum()) < LEAST:
        return {}
    found = {}
    for name in MEASURES:
        value = getattr(risk, name) * (1 if name == "coverage" else -1)  # small: at risk
        curve = roc(value[fate].astype(float), value[~fate].astype(float))
        found[name] = curve.auc, *curve.interval
    return found


def study(case: Fitted, seed: int) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """How many rows met each fate, and what predicted it."""
    data = DATA[case.name](seed)
    held = min(2 * case.n, len(data) - case.n)
    config = FitConfig(
        steps=case.steps, width=WIDTH, network="mlp", seed=seed, check_every=case.steps
    )
    places = np.arange(case.n), np.arange(case.n, case.n + held)
    run = fit(data, config=config, rows=places)
    risk = row_risk(run.train_points().flatten(1).numpy())
    assert risk is not None
    met = fates(run.denoiser, run.train_points(), run.holdout_points(), seed)
    return (
        {name: int(mask.sum()) for name, mask in met.items()},
        {name: predicted(risk, mask) for name, mask in met.items()},
    )


def run(
    out: Path,
    seed: int = 0,
    full: bool = False,
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Write the figure and the table; `full` takes three seeds of every set."""
    rows: list[Row] = []
    every: dict[tuple[str, str], list[tuple[float, float]]] = {}
    figure, axes = panels(len(FATES))
    marks = 0
    seeds = range(seed, seed + (3 if full else 1))
    parts = Parts(out, dict(seed=seed, full=full), workers, progress)
    made = iter(parts.made(_studied, [
        Piece(f"{case.name},n={case.n},seed={which}", (place, which), case.steps)
        for place, case in enumerate(CASES)
        for which in seeds
    ]))  # fmt: skip
    for case in CASES:
        for which in seeds:
            counts, found = next(made)
            where = f"{case.name}, n = {case.n}" + (f", seed {which}" if full else "")
            for axis, fate in zip(axes, FATES, strict=True):
                rows.append(Row(f"{where}: rows {fate}", counts[fate]))
                for place, (name, (auc, low, high)) in enumerate(found[fate].items()):
                    half = (high - low) / (2 * Z95)
                    rows.append(
                        Row(f"{where}: {fate}, AUC of {name}", auc, 0.5, "D", half,
                            f"[{low:.2f}, {high:.2f}]; reference: chance")
                    )  # fmt: skip
                    every.setdefault((fate, name), []).append((auc, half))
                    axis.errorbar(auc, place + 0.1 * (marks % 6), xerr=Z95 * half, fmt="o", ms=3,
                                  color=f"C{CASES.index(case)}",
                                  label=where if place == 0 else None)  # fmt: skip
            marks += 1
    for (fate, name), values in every.items():
        auc = np.array([value for value, _ in values])
        error = float(auc.std(ddof=1) / len(auc) ** 0.5) if len(auc) > 1 else values[0][1]
        note = f"mean of {len(auc)} fits; {int((auc > 0.5).sum())} of them above 1/2"
        rows.append(Row(f"all: {fate}, AUC of {name}", float(auc.mean()), 0.5, "D", error, note))
    for axis, fate in zip(axes, FATES, strict=True):
        axis.axvline(0.5, color="grey", lw=0.8)
        axis.set_yticks(range(len(MEASURES)), MEASURES)
        axis.set(title=fate, xlabel="AUC", xlim=(0, 1))
    axes[-1].legend(frameon=False, fontsize=7)
    save_figure(figure, out / "risk.png")
    settings = dict(width=WIDTH, samples=SAMPLES, cycles=CYCLES, false_alarms=ALARMS)
    table = write_table(out, "Rows at risk (Merger & Goldt 2026)", rows, seed, settings)
    parts.done()
    return table


def _studied(given: tuple[int, int], shared: None, tell: Tell) -> Any:
    place, seed = given
    return study(CASES[place], seed)
