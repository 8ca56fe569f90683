"""Standard curves of a fitted bridge: each direction on rows of its far end.

A row of the far end is joined to a start that the bridge's other direction draws for it (paired
ends have theirs), so that one row's rate is what the bridge pays to find it. Rows that it was
fitted on, rows that it has not seen, and between which exact curves they lie:

    memoriser   the exact bridge between the training rows themselves, a mixture of bridges: the
                optimum of the training loss. Its area on training rows is H(row | start)
    linear      the bridge between the Gaussians of the same moments
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.gaussian import GaussianBridge
from reverie.bridges.process import BridgeProcess, pairs_for
from reverie.bridges.run import BridgeRun
from reverie.bridges.sinkhorn import SinkhornBridge
from reverie.curve import LossCurve, measure
from reverie.data import some_rows
from reverie.denoisers import Denoiser, Memoriser

ROWS, LEVELS = 1000, 48
HELD = 2000  # rows of each end that the memoriser of unpaired ends joins
PRECISION = 1e-4  # by which its plan may miss a marginal


def bridge_curves(
    run: BridgeRun,
    *,
    reverse: bool = False,
    rows: int = ROWS,
    levels: int = LEVELS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LossCurve]:
    """Curves of one direction by the names that a page has for a run's: `train`, `holdout`,
    `memoriser on train`, `memoriser on holdout`, `linear on holdout`.

    rows: at most so many of each split. InputError where the bridge knows no rows.
    """
    pairs = end_pairs(run, reverse, rows, seed)
    model = run.bridge.denoiser(reverse=reverse, markov=True)
    jobs = [(name, model, name, run.paired) for name in pairs]
    copier = memoriser(run, reverse=reverse, seed=seed)
    jobs += [(f"memoriser on {name}", copier, name, False) for name in pairs]
    if "holdout" in pairs and not run.paired:
        straight = linear_bridge(run).denoiser(reverse=reverse, markov=True)
        jobs.append(("linear on holdout", straight, "holdout", False))
    found = {}
    for done, (key, denoiser, name, told) in enumerate(jobs, 1):
        kind = key.split(" ")[0] if " " in key else "bridge"
        found[key] = measure(
            denoiser,
            pairs[name],
            levels,
            condition=pairs[name][:, 1] if told else None,
            generator=torch.Generator().manual_seed(seed + 2),
            label=f"{kind} on {'training' if name == 'train' else 'held-out'} rows",
        )
        if progress is not None:
            progress(done, len(jobs))
    return found


def end_pairs(run: BridgeRun, reverse: bool, rows: int, seed: int) -> dict[str, Tensor]:
    """Pairs (n, 2, d) of training and of held-out rows of a direction's far end."""
    found = {}
    for split in ("train", "holdout"):
        held = [end.holdout_rows for end in run.known_rows()]
        if split == "holdout" and min(map(len, held)) < 2:
            continue
        first, second = (_points(run, split, place) for place in (0, 1))
        x1, x0 = (first, second) if reverse else (second, first)
        x1 = some_rows(x1, rows, seed)
        if run.paired:
            x0 = some_rows(x0, rows, seed)
        else:
            draw = torch.Generator().manual_seed(seed)
            x0 = run.bridge.sample(x1, reverse=not reverse, generator=draw)
        ends = (x1, x0) if reverse else (x0, x1)
        found[split] = pairs_for(*ends, reverse=reverse)
    return found


def memoriser(run: BridgeRun, *, reverse: bool = False, seed: int = 0) -> Denoiser:
    """The optimum of the training loss: the exact mixture of bridges between training rows.

    Of unpaired ends the entropic plan of at most HELD rows an end; of paired ones the bridges of
    the pairs, without being told the start.
    """
    first, second = (_points(run, "train", place) for place in (0, 1))
    if run.paired:
        process = BridgeProcess(run.bridge.reference, run.bridge.dim, reverse=reverse)
        return Memoriser(process, pairs_for(first, second, reverse=reverse))
    first, second = (some_rows(rows, HELD, seed) for rows in (first, second))
    exact: Bridge = SinkhornBridge(first, second, run.bridge.reference, tolerance=PRECISION)
    return exact.denoiser(reverse=reverse, markov=True)


def linear_bridge(run: BridgeRun) -> GaussianBridge:
    """The bridge between the Gaussians of the training rows' moments."""
    first, second = (_points(run, "train", place) for place in (0, 1))
    return GaussianBridge.fit(first, second, run.bridge.reference)


def _points(run: BridgeRun, split: str, place: int) -> Tensor:
    """Rows of a split of one end as divided vectors (n, d)."""
    end = run.known_rows()[place]
    return run.points(end.train if split == "train" else end.holdout, reverse=bool(place))
