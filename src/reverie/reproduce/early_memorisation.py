"""Copies that a model holds before its samples show them, brought out by cycling.

Verma et al. 2026 (arXiv 2610.11670, read in the body): on a mixture of two Gaussians in 8
dimensions with 512 rows, an MLP of 102,024 weights shows copies in 4.3% of its samples at a step
where 100 cycles of noise and denoising end at a training row in about 20%; an early one shows none
either way. The mixture, the network and the definition of a copy are ours (the facts of the audit,
held-out rows beside them), so that the shape is compared and not the digits. Digits, and
photographs of clothing where the folder REVERIE_DATA names holds `clothing/clothing128.zip`: is
there a checkpoint whose samples alone give at most `leans`, and of which cycling extracts rows?

The fresh control asks the last model for rows that it was not trained on. The score divergence
(its AUC, training against held-out rows) stands beside the leak of every checkpoint, and that of
held-out rows against others.
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing import audit
from reverie.auditing.model.cyclic import CyclicProbe, cyclic_probe
from reverie.auditing.model.detection import Roc
from reverie.auditing.model.membership import membership_rocs
from reverie.auditing.nulls.rank_tests import wilson
from reverie.curve import Z95, Leak, measure
from reverie.data import Scaler, load
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.reproduce.networks import digits
from reverie.reproduce.real_data import real_data
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.runs import FitConfig, fit
from reverie.runs.following import paired_samples
from reverie.runs.trainer import Event, Trainer

CONTROLS, CONTROL_CYCLES = 20, 10
AUDITED = 300
PUBLISHED = (0.043, 0.20)
SOURCE = "clothing128.zip: photographs in 10 classes, 128 x 128"


@dataclass(frozen=True)
class Setting:
    """A model and the checkpoints that are looked at.

    steps: over which the learning rate decays; the fit ends at the last of `at`, the first of
    which stands near the best held-out curve.
    """

    name: str
    n: int
    width: int
    steps: int
    at: tuple[int, ...]
    trajectories: int
    cycles: int
    p_mean: float = -0.5
    p_std: float = 1.2


LOW = (-1.7, 0.8)  # training levels: where rows are stored, below those where samples are decided
MIXTURE = Setting("mixture, 8-D", 512, 192, 40_000, (1000, 15_000, 16_000), 300, 100)
DIGITS = Setting("digits", 300, 256, 6000, (100, 250, 500, 2000, 2500), 120, 100, *LOW)
CLOTHING = Setting("clothing, 16 x 16", 100, 256, 5000, (250, 2000, 3000), 90, 100, *LOW)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was found at a step."""

    step: int
    leak: Leak
    probe: CyclicProbe
    finding: str  # of samples alone
    divergence: Roc
    null: Roc


def mixture(count: int, seed: int) -> np.ndarray:
    """Rows (count, 8): two Gaussians of deviation 1/2, centred at all ones and all minus ones."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.random((count, 1)) < 0.5, 1.0, -1.0)
    return rng.normal(size=(count, 8)) * 0.5 + side


def clothing(seed: int) -> np.ndarray:
    """Photographs in random order, grey, averaged down to (n, 16, 16)."""
    from PIL import Image

    with zipfile.ZipFile(real_data("clothing/clothing128.zip", SOURCE)) as archive:
        pictures = []
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            with archive.open(name) as file:
                grey = Image.open(file).convert("L").resize((16, 16), Image.Resampling.BOX)
                pictures.append(np.asarray(grey, dtype=np.float32))
    order = np.random.default_rng(seed).permutation(len(pictures))
    return np.stack(pictures)[order]


class DoneError(Exception):
    """The last checkpoint was looked at."""


def checkpoints(
    setting: Setting, data: np.ndarray, seed: int
) -> tuple[list[Checkpoint], Denoiser, Scaler]:
    """Look at a fit on the first n rows, the next n held out; the model as last looked at, and the
    scaler of its rows."""
    n = setting.n
    config = FitConfig(
        steps=setting.steps, width=setting.width, network="mlp", seed=seed,
        check_every=setting.steps, p_mean=setting.p_mean, p_std=setting.p_std,
    )  # fmt: skip
    found: list[Checkpoint] = []
    kept: list[Denoiser] = []
    scaler = Scaler.fit(load(data[:n]))

    def look(event: Event, trainer: Trainer) -> None:
        if event.step in setting.at:
            with trainer.averaged() as network:
                found.append(_look(setting, network, trainer, event.step, seed))
                if event.step == setting.at[-1]:
                    kept.append(deepcopy(network))
                    raise DoneError

    with suppress(DoneError):
        fit(data, config=config, rows=(np.arange(n), np.arange(n, 2 * n)), on_event=look)
    return found, kept[0], scaler


def _look(
    setting: Setting, network: Denoiser, trainer: Trainer, step: int, seed: int
) -> Checkpoint:
    assert trainer.holdout is not None
    train, held = trainer.train, trainer.holdout
    shape = tuple(train.shape[1:])
    curves = [
        measure(network, rows, 24, generator=torch.Generator().manual_seed(seed + 1))
        for rows in (train, held)
    ]
    drawn = paired_samples(network, shape, AUDITED, seed=seed + 2)
    verdict = audit(train.numpy(), held.numpy(), drawn.numpy(), power=False, metrics=False)
    probe = cyclic_probe(
        network, drawn[: setting.trajectories], train.numpy(), held.numpy(),
        cycles=setting.cycles, seed=seed,
    )  # fmt: skip
    rocs = [
        membership_rocs(network, *rows, names=("divergence",), seed=seed)["divergence"]
        for rows in ((train, held), (held[::2], held[1::2]))
    ]
    return Checkpoint(step, curves[0].leak(curves[1]), probe, verdict.finding, rocs[0], rocs[1])


def controls(setting: Setting, network: Denoiser, rows: Tensor, seed: int) -> int:
    """In how many of CONTROLS random splits of `rows`, which the network never saw, cycling its
    samples extracts a row."""
    found = 0
    for k in range(CONTROLS):
        draw = torch.Generator().manual_seed(seed + 100 + k)
        order = torch.randperm(len(rows), generator=draw)
        sides = [
            rows[order[part]].numpy() for part in (slice(0, setting.n), slice(setting.n, None))
        ]
        drawn = paired_samples(
            network, tuple(rows.shape[1:]), setting.trajectories, seed=seed + 100 + k
        )
        probe = cyclic_probe(
            network, drawn, sides[0], sides[1][: setting.n], cycles=CONTROL_CYCLES, seed=seed + k
        )
        found += probe.extracts
    return found


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` cycles five times longer."""
    sets = [(MIXTURE, mixture(4 * MIXTURE.n, seed)), (DIGITS, digit_rows(seed))]
    note = {}
    try:
        sets.append((CLOTHING, clothing(seed)))
    except InputError as error:
        note = {"note": f"clothing skipped: {error}"}
    figure, axes = panels(len(sets))
    rows: list[Row] = []
    for axis, (setting, data) in zip(axes, sets, strict=True):
        chosen = replace(setting, cycles=5 * setting.cycles) if full else setting
        found, network, scaler = checkpoints(chosen, data, seed)
        rows += _rows(chosen, found)
        fresh = controls(chosen, network, scaler.to_model(data[2 * chosen.n :]), seed)
        rows.append(
            Row(f"{chosen.name}: fresh controls that extract, of {CONTROLS}", fresh, 0.0, "D")
        )
        _draw(axis, chosen, found)
    save_figure(figure, out / "early_memorisation.png")
    settings = dict(audited=AUDITED, control_cycles=CONTROL_CYCLES) | note
    title = "Copies before the samples show them (Verma et al. 2026)"
    return write_table(out, title, rows, seed, settings)


def digit_rows(seed: int) -> np.ndarray:
    """The digits in random order: (1797, 8, 8)."""
    return digits(torch.Generator().manual_seed(seed)).numpy()[:, 0]


def _rows(setting: Setting, found: list[Checkpoint]) -> list[Row]:
    rows = []
    for at in found:
        first, last = at.probe.looks[0], at.probe.looks[-1]
        where, total = f"{setting.name}, step {at.step:,}", at.probe.trajectories
        is_last = setting is MIXTURE and at is found[-1]
        for name, look, known in (
            ("one shot", first, PUBLISHED[0]), (f"{last.cycle} cycles", last, PUBLISHED[1])
        ):  # fmt: skip
            low, high = wilson(look.copies, total)
            said = (
                f"{look.rows} training rows, {look.held_rows} held-out ones; samples: {at.finding}"
            )
            rows.append(
                Row(f"{where}: copies, {name}", look.copies / total, known if is_last else None,
                    "V" if is_last else "", (high - low) / (2 * Z95), said)
            )  # fmt: skip
        leak = at.leak
        rows.append(Row(f"{where}: leak, nats", leak.nats, None, "", leak.stderr))
        for name, roc in (("", at.divergence), (", held-out against held-out", at.null)):
            low, high = roc.interval
            rows.append(
                Row(f"{where}: AUC of the score divergence{name}", roc.auc,
                    0.5 if name else None, "D" if name else "", (high - low) / (2 * Z95),
                    f"[{low:.3f}, {high:.3f}]")
            )  # fmt: skip
    return rows


def _draw(axis: Any, setting: Setting, found: list[Checkpoint]) -> None:
    """Share of trajectories that are training rows, against cycles, for every checkpoint."""
    for at in found:
        cycles = [max(look.cycle, 0.5) for look in at.probe.looks]
        share = [look.copies / at.probe.trajectories for look in at.probe.looks]
        axis.semilogx(
            cycles, share, "o-", ms=3, label=f"step {at.step:,} ({at.leak.nats:.3g} nats)"
        )
    axis.axhline(0, color="grey", lw=0.8)
    axis.set(title=setting.name, xlabel="cycles (leftmost: none)", ylabel="share that is a row")
    axis.legend(frameon=False, fontsize=8)
