"""Score-based annealed sampling (Doucet et al. 2022) and its kin, SMC beside every row.

log Z of the funnel and of logistic regressions (ionosphere, sonar, german credit, breast cancer)
by SMC, CMCD and DDS, beside the values that the DDS repository holds for DDS, PIS and SMC; those
clip their noise, so that a value above the truth is no success.
The reference of each row is the known value, or a longer SMC. Then modes: forty Gaussians and a
many-well by SMC, and by CMCD with either loss. Data are those of REVERIE_DATA/sampling_targets;
without them those rows are left out.
full: longer training, more steps, and all posteriors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.errors import InputError
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.targets import (
    Funnel,
    Known,
    LogisticRegression,
    ManyWell,
    TargetRun,
    forty_gaussians,
    mode_coverage,
    mode_shares,
    sample,
)

FOLDER, SOURCE = "sampling_targets", "DenisBless/variational_sampling_methods, targets/data"
# DDS, PIS and SMC of the DDS repository, 64, 128 and 256 steps
PUBLISHED = {
    "funnel": {64: (-0.206, -0.290, -0.209), 128: (-0.176, -0.268, -0.198),
               256: (-0.221, -0.301, -0.163)},
    "ionosphere": {64: (-111.69, -111.62, -112.02), 128: (-111.59, -111.98, -111.81),
                   256: (-111.58, -112.95, -111.65)},
    "sonar": {64: (-109.42, -108.92, -111.88), 128: (-108.90, -109.35, -110.05),
              256: (-108.89, -108.89, -109.26)},
}  # fmt: skip
LEARNED = ("cmcd", "dds")


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` trains ten times as long."""
    n, longer = (4096, 16_384) if full else (1024, 4096)
    steps, training = ((64, 128, 256), 2000) if full else ((16,), 200)
    figure, (left, right) = panels(2)
    rows: list[Row] = []
    for name, target in _targets(rows, full):
        known = _reference(target, longer, seed)
        rows.append(_row(f"{name}: log Z, SMC, {known.settings['steps']} temperatures (reference)",
                         known, target.log_z))  # fmt: skip
        truth = target.log_z if target.log_z is not None else known.log_z.value
        found = [("SMC", _timed(sample, target, n=n, start=known.start, seed=seed + 1))]
        for method in LEARNED:
            for count in steps:
                spent = _timed(
                    sample, target, method=method, n=n, steps=count, training=training,
                    start=known.start, seed=seed,
                )  # fmt: skip
                found.append((f"{method.upper()}, {count} steps", spent))
        for label, (part, seconds) in found:
            rows.append(_row(f"{name}: log Z, {label}", part, truth, f"{seconds:.0f} CPU s"))
        left.plot([v.log_z.value - truth for _, (v, _) in found], "o-", ms=3, label=name)
        left.set_xticks(range(len(found)), [k for k, _ in found], rotation=30, fontsize=7)
        for count, values in PUBLISHED.get(name, {}).items():
            for label, value in zip(("DDS", "PIS", "SMC"), values, strict=True):
                quantity = f"{name}: published log Z, {label}, {count} steps"
                rows.append(
                    Row(quantity, truth, value, "V", note="ours: the reference of the row")
                )
    left.set_ylabel("log Z less the reference, nats")
    left.legend(frameon=False, fontsize=7)
    rows += _modes(right, n, seed, full)
    save_figure(figure, out / "score_annealing.png")
    title = "Score-based annealed importance sampling (Doucet et al. 2022)"
    return write_table(out, title, rows, seed, dict(n=n, steps=list(steps), training=training))


def _row(quantity: str, found: TargetRun, truth: float | None, more: str = "") -> Row:
    z = found.log_z
    told = f"[{z.low:.4g}, {z.high:.4g}]" if z.told else f"no interval: {z.reason}"
    note = f"{told}; ELBO {found.elbo:.4g}, ESS {found.ess:.0f}{'; ' + more if more else ''}"
    error = z.stderr if math.isfinite(z.stderr) else None
    return Row(quantity, z.value, truth, "D" if truth is not None else "", error, note)


def _timed(call: Callable[..., TargetRun], *given: Any, **named: Any) -> tuple[TargetRun, float]:
    began = time.process_time()
    return call(*given, **named), time.process_time() - began


def _reference(target: Known, n: int, seed: int) -> TargetRun:
    return sample(target, n=n, seed=seed)


def _targets(rows: list[Row], full: bool) -> list[tuple[str, Known]]:
    found: list[tuple[str, Known]] = [("funnel", Funnel(10))]
    names = ("ionosphere", "sonar", "german credit", "breast cancer")
    for name in names if full else names[:2]:
        try:
            found.append((name, posterior(name)))
        except InputError as error:
            rows.append(Row(f"{name}: skipped", math.nan, note=str(error)))
    return found


def posterior(name: str) -> LogisticRegression:
    """The logistic regression of a data set by name; InputError where it is not.

    The prior is N(0, I); of german credit and breast cancer N(0, 10^2 I) on columns that are not
    centred, and the signs of the labels are those that the reference draws were made with.
    """
    if name in ("ionosphere", "sonar"):
        with np.load(real_data(f"{FOLDER}/{name}_full.npz", SOURCE), allow_pickle=False) as file:
            return LogisticRegression(file["X"], file["y"] > 0)
    if name == "german credit":
        table = np.loadtxt(real_data(f"{FOLDER}/german.data-numeric", SOURCE))
        return LogisticRegression(table[:, :-1], table[:, -1] == 1, 10.0, centred=False)
    table = np.loadtxt(real_data(f"{FOLDER}/breast_cancer.data", SOURCE))
    return LogisticRegression(table[:, 2:], table[:, 1] == 0, 10.0, centred=False)


def _modes(axes: Any, n: int, seed: int, full: bool) -> list[Row]:
    """The share of modes found, and the entropy of their shares over that of exact draws."""
    forty, wells = forty_gaussians(), ManyWell(32 if full else 8)
    training = 2000 if full else 300
    corners = torch.cartesian_prod(*[torch.tensor([-1.7, 1.7]).double()] * wells.wells)
    rows, bars = [], []
    for name, law, start in (("40 Gaussians", forty, 30.0), ("many-well", wells, 2.0)):
        methods: dict[str, dict[str, Any]] = {"SMC": {}}
        if law is forty:
            for loss in ("log-variance", "reverse-kl"):
                more = dict(method="cmcd", loss=loss, steps=16, training=training)
                methods[f"CMCD, {loss}"] = more
        for label, more in methods.items():
            found = sample(law, n=n, start=start, seed=seed, **more)
            drawn = {"samples": found.samples} | ({} if label == "SMC" else {"paths": found.draws})
            exact = law.sample(n, torch.Generator().manual_seed(seed))
            for kind, x in drawn.items():
                shares = [_shares(law, v, corners) for v in (x, exact)]
                some, best = (int((s > 0).sum()) for s in shares)
                cover = [mode_coverage(s) for s in shares]
                rows.append(Row(f"{name}: modes found, {label}, {kind}", some, best, "D",
                                note=f"of {len(shares[0])}; reference: exact draws"))  # fmt: skip
                quantity = f"{name}: entropy of shares, {label}, {kind}"
                rows.append(Row(quantity, cover[0], cover[1], "D"))
                bars.append((f"{name}\n{label}\n{kind}", cover[0]))
            rows.append(_row(f"{name}: log Z, {label}", found, law.log_z))
    axes.barh([label for label, _ in bars], [value for _, value in bars])
    axes.tick_params(labelsize=6)
    axes.set_xlabel("entropy of mode shares")
    return rows


def _shares(law: Known, x: torch.Tensor, corners: torch.Tensor) -> np.ndarray:
    """Shares of modes; of a many-well of its corners, told by signs."""
    if law.modes is not None:
        return mode_shares(x, law.modes)
    count = corners.shape[1]
    place = (x[:, 0::2] > 0).long() @ (2 ** torch.arange(count))
    return np.bincount(place.numpy(), minlength=2**count) / len(x)
