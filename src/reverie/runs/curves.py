"""The standard curves of a run: model, memoriser, linear optimum; training and held-out rows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reverie.curve import LossCurve, measure
from reverie.data import some_rows
from reverie.denoisers import Denoiser, Memoriser, linear_of
from reverie.runs.folder import Fitted, conditions_of
from reverie.runs.ranks import ALONE, Ranks
from reverie.runs.sharing import shared

Ticker = Callable[[int, int], None]
CURVE_ROWS = 2000
COSTLY_ROWS = 400  # a U-Net takes minutes on thousands
COSTLY = ("unet", "convolutional")
PAIRS, LEAST_PAIRED = 1_000_000, 16  # of the memoriser on a manifold: a heat kernel for each


def standard_curves(
    run: Fitted,
    levels: int = 64,
    rows: int | None = None,
    progress: Ticker | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, LossCurve]:
    """Measure and keep the curves of a run: the model on `train` and `holdout` with common noise,
    the memoriser (where the kernel is known) and, for Gaussian noise, the linear optimum on
    `holdout`, and the memoriser on `train`.

    rows: at most so many of each split, at random (default 2,000; 400 for a U-Net, and where the
    noise is not Gaussian, since pairs of rows cost more there). ranks: processes that all make
    this call and share it.
    """
    if rows is None:
        costly = run.config.network in COSTLY or run.process.gaussian is None
        rows = COSTLY_ROWS if costly else CURVE_ROWS
    train, held = run.train_points(), run.holdout_points()
    process = run.process
    models: dict[str, Denoiser] = {"model": run.denoiser}
    jobs = [("model", "train", train), ("model", "holdout", held)]
    if process.has_kernel and run.whole is None:  # else `train` are some of its rows only
        models["memoriser"] = Memoriser(process, train)
        jobs += [("memoriser", "train", train), ("memoriser", "holdout", held)]
    reference = linear_of(process, train) if len(train) > 1 else None
    if reference is not None:
        models["linear"] = reference
        jobs.append(("linear", "holdout", held))
    jobs = [job for job in jobs if len(job[2])]
    for index, (name, where, points) in enumerate(jobs):
        generator = torch.Generator().manual_seed(run.config.seed + 2)
        few = rows
        if name == "memoriser" and process.costly_kernel:
            few = min(rows, max(LEAST_PAIRED, PAIRS // (len(train) * process.space.dim)))
        chosen = some_rows(points, few, run.config.seed)
        key = where if name == "model" else f"{name} on {where}"
        label = f"{name} on {'training' if where == 'train' else 'held-out'} rows"
        told = conditions_of(run.train if where == "train" else run.holdout)
        if told is not None and name == "model":
            told = some_rows(told, few, run.config.seed)
        with shared(models[name], ranks):
            run.curves[key] = measure(
                models[name], chosen, levels, generator=generator, label=label,
                condition=told if name == "model" else None,
            )  # fmt: skip
        if progress is not None:
            progress(index + 1, len(jobs))
    run.save_curves()
    return run.curves


def sampling_curve(run: Fitted) -> LossCurve:
    """The curve that plans of this run stand on: held-out rows, or training rows without any."""
    if not {"holdout", "train"} & set(run.curves):
        standard_curves(run)
    return run.curves.get("holdout", run.curves["train"])
