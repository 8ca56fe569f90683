"""Membership tests with the model at hand: do its scores tell training rows from held-out rows?

The scores (see `auditing.scores`) are taken at one noise level, found without looking at who is a
member (see `level`): a level chosen for its result would be selection. PIAN and SecMI can be asked
for but are not in the audit's table: on the small networks of this library's tests they rank no
better than chance, or backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.detection import Roc, roc
from reverie.auditing.model.scores import gaussian_process, score, spreads
from reverie.auditing.row import Row
from reverie.curve import level_times
from reverie.data import some_rows
from reverie.denoisers import Denoiser, Memoriser, condition_rows
from reverie.processes import GaussianProcess

ROWS = 1000
DELTA = 1e-5
LEVELS, LEVEL_ROWS = 48, 512  # of the search for the half-collapsed level
BELOW = 0.25  # of that level: there nearly every row is told from all others, so copying shows
AT = 0.01  # false positives
TRUE_POSITIVES = "true positives at 1% false positives"
TABLE = ("loss", "PIA", "SimA", "FLIPD", "divergence")
STEP = 0.075  # of the median distance between neighbours: the divergence's steps


def half_collapse(process: GaussianProcess, pool: Tensor, seed: int = 0) -> float:
    """The level sigma / alpha at which a noised row of `pool` is half told from the others.

    There the mean posterior weight of a row's own origin, among all rows of the pool, is 1/2. It
    is a function of the pool alone, whatever the labels: members and held-out rows stay
    exchangeable under the null.
    """
    rows = some_rows(pool, LEVEL_ROWS, seed)
    memoriser = Memoriser(process, rows)
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    times = level_times(process, LEVELS)
    weights = [float(_own_weight(memoriser, rows, noise, t)) for t in times]
    clock = process.clock(torch.as_tensor(times)).reshape(LEVELS, -1).log().mean(1).numpy()
    rising = np.maximum.accumulate(weights)
    return math.exp(-0.5 * float(np.interp(0.5, rising, clock)))


def level(process: GaussianProcess, pool: Tensor, seed: int = 0) -> float:
    """The level sigma / alpha at which rows are scored: a quarter of `half_collapse`.

    The quarter was fixed beforehand, and the rest depends on the pool without its labels.
    """
    return max(BELOW * half_collapse(process, pool, seed), spreads(process)[0])


def _own_weight(memoriser: Memoriser, rows: Tensor, noise: Tensor, t: float) -> Tensor:
    state = memoriser.process.corrupt(rows, t, end=noise)
    _, sigma = memoriser.process.scales(t, state)  # type: ignore[operator]
    volume = (sigma * math.sqrt(2 * math.pi)).log().expand(state.shape).flatten(1).sum(1)
    own = -0.5 * noise.flatten(1).square().sum(1) - volume - math.log(len(rows))
    return (own - memoriser.log_density(state, t)).exp().mean()


def membership_rocs(
    denoiser: Denoiser,
    train: Tensor,
    holdout: Tensor,
    *,
    spread: float | None = None,
    names: tuple[str, ...] = TABLE,
    rows: int = ROWS,
    seed: int = 0,
    conditions: tuple[Any, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Roc]:
    """ROC of every score in `names`, on at most `rows` rows of each split.

    train, holdout: (n, *shape) in the denoiser's space. spread: the level sigma / alpha, fixed
    beforehand (default: `level` of the pool). conditions: of the rows of each. InputError on a
    process that is not Gaussian.
    """
    told = None
    if conditions is not None:  # the same rows are picked: `some_rows` depends on the count alone
        told = torch.cat(
            [
                some_rows(condition_rows(given, len(points), points), rows, seed)
                for given, points in zip(conditions, (train, holdout), strict=True)
            ]
        )
    train, held = (some_rows(points, rows, seed) for points in (train, holdout))
    both = torch.cat([train, held])
    process = gaussian_process(denoiser)
    spread = level(process, both, seed) if spread is None else spread
    radius = step_length(both)
    result = {}
    for index, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        values = score(
            name, denoiser, both, spread, generator, condition=told, radius=radius
        ).numpy()
        result[name] = roc(values[: len(train)], values[len(train) :])
        if progress is not None:
            progress(index + 1, len(names))
    return result


def step_length(pool: Tensor) -> float | None:
    """STEP of the median distance of rows (n, *shape) to their nearest other; None where it is 0.

    Of the pool without its labels.
    """
    rows = np.unique(pool.detach().cpu().double().flatten(1).numpy(), axis=0)
    if len(rows) < 2:
        return None
    return STEP * float(np.median(nearest(rows, rows, 1, skip_self=True)[0])) or None


def membership_rows(
    denoiser: Denoiser,
    train: Tensor,
    holdout: Tensor,
    seed: int = 0,
    rows: int = ROWS,
    conditions: tuple[Any, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Lines of the audit's table: the AUC of every score, and the epsilon they bound from below.

    train, holdout: (n, *shape) in the denoiser's space; at most `rows` of each are scored, given
    their `conditions`. p_joint is left to the caller.
    """
    rocs = membership_rocs(
        denoiser, train, holdout, rows=rows, seed=seed, conditions=conditions, progress=progress
    )
    lines = auc_lines(rocs)
    best = max(rocs.values(), key=lambda found: found.at(AT).tpr).at(AT)
    caught = Row(
        TRUE_POSITIVES, best.tpr, f"{AT:.0%} when private", best.interval, None, None,
        best.members + best.held,
        f"the best of {len(rocs)} scores; {best.allowed} of {best.held} held-out rows stand for "
        f"{AT:.0%}", "membership",
    )  # fmt: skip
    bound = max(found.epsilon(DELTA, tests=len(rocs)) for found in rocs.values())
    detail = (
        f"lower 95% bound, over all scores, on the epsilon of any privacy claim with delta = "
        f"{DELTA:g}; 0 shows nothing, and no value shows that the model is private"
    )
    null, n = "0 when private", lines[0].n
    return [
        *lines,
        caught,
        Row("epsilon lower bound", bound, null, None, None, None, n, detail, "membership"),
    ]


def auc_lines(rocs: dict[str, Roc]) -> list[Row]:
    """A line of the audit's table for the AUC of every score."""
    return [
        Row(
            f"membership by {name} (AUC)",
            found.auc,
            "Mann-Whitney; expects .5",
            found.interval,
            found.p_value,
            None,
            found.members + found.held,
            found.sentence() + ("; ranks backwards here" if found.interval[1] < 0.5 else ""),
            "membership",
        )
        for name, found in rocs.items()
    ]
