"""Further signs that a model has stored its rows: without training rows, by basins, of symbols.

    divergence of samples   score divergence (see `scores`) of generated against held-out rows: a
                            model that has stored rows draws points that it pulls at as it pulls at
                            those rows. No training row is needed (Verma et al. 2026)
    basin volume            the largest noise from which at least RECOVERED of COPIES noised copies
                            of a row, denoised, come back to it; on any space
    token loss, recovery,   at hidden sites of a noised row: -log p of the truth, the share guessed
    conditional entropy     right, and the entropy of the guess; of symbols (Pham et al. 2026)

All are small for members, as scores of membership are; levels and distances are read off the pool
without its labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.cyclic import cyclic_states
from reverie.auditing.model.detection import Roc, roc
from reverie.auditing.model.membership import auc_lines, level, step_length
from reverie.auditing.model.returning import probe_levels
from reverie.auditing.model.scores import gaussian_process, score
from reverie.auditing.row import Row
from reverie.curve import level_times
from reverie.data import some_rows
from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.spaces import FiniteSet, Manifold

COPIES, RECOVERED = 10, 9
BACK = 1 / 3  # of the distance to the nearest other row: as near copies are counted
SWEEP = (0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1)  # mean weight left of a row's own origin
BASIN_ROWS, SAMPLE_ROWS, TOKEN_ROWS = 150, 300, 500
TOKEN_DRAWS = 8
TOKENS = ("token loss", "token recovery", "conditional entropy")


def coordinates(denoiser: Denoiser, points: Tensor) -> np.ndarray:
    """Points as float64 (n, d) whose nearest rows are the space's own: one-hot, or embedded."""
    space = denoiser.process.space
    if isinstance(space, FiniteSet):
        points = torch.nn.functional.one_hot(points.long(), space.symbols)
    elif isinstance(space, Manifold):
        points = space.features(points)
    return points.detach().cpu().double().flatten(1).numpy()


# --- without training rows -----------------------------------------------------------------------


def samples_roc(
    denoiser: Denoiser, samples: Tensor, holdout: Tensor, *, rows: int = SAMPLE_ROWS, seed: int = 0
) -> Roc:
    """ROC of the score divergence of samples against held-out rows, (n, *shape) of either.

    1/2 where the model pulls at its samples as at fresh rows. InputError on a process that is not
    Gaussian.
    """
    drawn, held = (some_rows(points, rows, seed) for points in (samples, holdout))
    both = torch.cat([drawn, held.to(drawn)])
    spread = level(gaussian_process(denoiser), both, seed)
    generator = torch.Generator().manual_seed(seed)
    values = score(
        "divergence", denoiser, both, spread, generator, radius=step_length(both)
    ).numpy()
    return roc(values[: len(drawn)], values[len(drawn) :])


def samples_line(found: Roc) -> Row:
    """Its line of the audit's table; without a p-value: samples differ in other ways too."""
    return Row(
        "divergence of samples (AUC)", found.auc, "about .5 where nothing is stored",
        found.interval, None, None, found.members + found.held,
        "samples against held-out rows; no training row is used. Samples that are unlike the data "
        "in other ways move it too", "membership",
    )  # fmt: skip


# --- basins --------------------------------------------------------------------------------------


@torch.no_grad()
def basin_volume(
    denoiser: Denoiser,
    rows: Tensor,
    levels: list[float],
    within: np.ndarray | float,
    *,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """How much noise rows (n, *shape) come back from: (n,) from 0 to len(levels).

    The number of levels, of rising noise times, before the first from which fewer than RECOVERED
    of COPIES noised copies return to `within` of the row (in `coordinates`), and the share that
    does return there.
    """
    volume, alive = np.zeros(len(rows)), np.ones(len(rows), bool)
    places = coordinates(denoiser, rows)
    reach = np.broadcast_to(within, (len(rows),))
    for index, t in enumerate(levels):
        kept = np.flatnonzero(alive)
        if not len(kept):
            break
        copies = rows[torch.as_tensor(kept)].repeat_interleave(COPIES, 0)
        ended = coordinates(
            denoiser, next(cyclic_states(denoiser, copies, t, generator=generator))
        )
        distance = np.linalg.norm(ended - places[kept].repeat(COPIES, 0), axis=1)
        back = (distance <= reach[kept].repeat(COPIES)).reshape(-1, COPIES).mean(1)
        volume[kept] += np.where(back >= RECOVERED / COPIES, 1.0, back)
        alive[kept] = back >= RECOVERED / COPIES
        if progress is not None:
            progress(index + 1, len(levels))
    return volume


def basin_roc(
    denoiser: Denoiser,
    train: Tensor,
    holdout: Tensor,
    *,
    rows: int = BASIN_ROWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Roc:
    """ROC of the basin volume, on at most `rows` rows of each split, on any space."""
    sides = [some_rows(points, rows, seed) for points in (train, holdout)]
    both = torch.cat([sides[0], sides[1].to(sides[0])])
    levels = sorted(set(probe_levels(denoiser.process, both, SWEEP, seed)))
    low = denoiser.process.t_range[0]
    levels = [t for t in levels if t > low] or [float(level_times(denoiser.process, 8)[-3])]
    places = coordinates(denoiser, both)
    within = BACK * nearest(places, places, 1, skip_self=True)[0][:, 0]
    generator = torch.Generator().manual_seed(seed)
    values = -basin_volume(denoiser, both, levels, within, generator=generator, progress=progress)
    return roc(values[: len(sides[0])], values[len(sides[0]) :])


# --- symbols -------------------------------------------------------------------------------------


@torch.no_grad()
def token_scores(
    denoiser: Denoiser,
    rows: Tensor,
    t: float,
    *,
    draws: int = TOKEN_DRAWS,
    generator: torch.Generator | None = None,
) -> dict[str, np.ndarray]:
    """TOKENS of rows (n, *sites) at noise level t: (n,) each, means over hidden sites and draws.

    Hidden: where the state is not the symbol. A row of which no site was ever hidden scores the
    mean of the others. InputError on data that are no symbols.
    """
    process = denoiser.process
    if not isinstance(process.space, FiniteSet):
        raise InputError("token recovery is for symbols")
    level_ = torch.as_tensor(t, dtype=torch.float64)
    total = torch.zeros(3, len(rows), dtype=torch.float64)
    count = torch.zeros(len(rows), dtype=torch.float64)
    with evaluating(denoiser):
        for _ in range(draws):
            state = process.corrupt(rows, level_, generator=generator)
            law = denoiser(state, level_.expand(len(rows))).double()
            law = (law / law.sum(-1, keepdim=True)).clamp(min=1e-30)
            truth = law.gather(-1, rows.long()[..., None])[..., 0]
            right = (law.argmax(-1) == rows).double()
            each = torch.stack([-truth.log(), -right, -(law * law.log()).sum(-1)])
            hidden = (state != rows).double()
            total += (each * hidden).flatten(2).sum(2).cpu()
            count += hidden.flatten(1).sum(1).cpu()
    means = total / count.clamp(min=1)
    if (count == 0).any():
        means[:, count == 0] = means[:, count > 0].mean(1, keepdim=True) if count.any() else 0.0
    return dict(zip(TOKENS, means.numpy(), strict=True))


def token_rocs(
    denoiser: Denoiser, train: Tensor, holdout: Tensor, *, rows: int = TOKEN_ROWS, seed: int = 0
) -> dict[str, Roc]:
    """ROC of every one of TOKENS, at the level where rows of the pool are half told apart."""
    sides = [some_rows(points, rows, seed) for points in (train, holdout)]
    both = torch.cat(sides)
    (t,) = probe_levels(denoiser.process, both, (0.5,), seed)
    generator = torch.Generator().manual_seed(seed)
    found = token_scores(denoiser, both, t, generator=generator)
    split = len(sides[0])
    return {name: roc(values[:split], values[split:]) for name, values in found.items()}


def token_rows(denoiser: Denoiser, train: Tensor, holdout: Tensor, seed: int = 0) -> list[Row]:
    """Lines of the audit's table for symbols."""
    return auc_lines(token_rocs(denoiser, train, holdout, seed=seed))
