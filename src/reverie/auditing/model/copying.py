"""How far a model is from pure copying: its distance to the memoriser, by noise level.

    Delta(t) = E |ehat_theta - e*|^2 / d,   e* the noise guess of the empirical optimum,

on noised training rows, on noised held-out rows and on the states that a sampler visits. The
slight difference is what generalises (Yi, Sun & Li 2023, the "optimisation bias"); the states of a
sampler lie off the noised rows, hence all three. 0 is the memoriser itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import Z95, level_times
from reverie.data import some_rows
from reverie.denoisers import Denoiser, Memoriser, convert, evaluating
from reverie.processes.gaussian import require_gaussian
from reverie.sampling import sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS, ROWS = 24, 512
WHERE = {
    "train": ("noised training rows", "#c2410c"),
    "holdout": ("noised held-out rows", "#1d4ed8"),
    "sampler": ("sampler states", "#047857"),
}


@dataclass(frozen=True, eq=False)
class CopyingDistance:
    """Delta by level, per coordinate: `mean` and `stderr` (L,) for each place in WHERE.

    spread: (L,) levels sigma / alpha, falling. In units of the noise's variance, which is 1; far
    below the rows' spacing a fresh row's value is its squared distance to the nearest training
    row over sigma^2 d, whatever the model.
    """

    spread: np.ndarray
    mean: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray]
    rows: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        groups = {name: getattr(self, name) for name in ("mean", "stderr")}
        plain = {k: {w: v.tolist() for w, v in group.items()} for k, group in groups.items()}
        return {"spread": self.spread.tolist(), **plain, "rows": self.rows}

    def figure(self) -> Figure:
        """Delta against the noise level, with 95% bands."""
        from matplotlib.figure import Figure  # only drawing needs it

        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        ax = figure.add_subplot()
        for where, mean in self.mean.items():
            label, colour = WHERE[where]
            band = Z95 * self.stderr[where]
            ax.plot(self.spread, mean, color=colour, lw=1.6, label=label)
            ax.fill_between(self.spread, mean - band, mean + band, color=colour, alpha=0.2, lw=0)
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_yscale("symlog", linthresh=0.01)  # the memoriser's own distance is 0
        ax.set_ylim(0, None)
        ax.set_xlabel("noise level sigma / alpha (noisy to clean)")
        ax.set_ylabel("squared distance to the memoriser,\nper coordinate")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
        return figure


@torch.no_grad()
def copying_distance(
    denoiser: Denoiser,
    train: Tensor,
    holdout: Tensor | None = None,
    *,
    levels: int = LEVELS,
    rows: int = ROWS,
    sampler: str = "ddim",
    seed: int = 0,
) -> CopyingDistance:
    """Measure Delta of `denoiser` against the memoriser of all rows of `train` (n, *shape).

    holdout: (m, *shape), left out when None. rows: at most so many of each, and as many sampler
    trajectories on the same levels. Raises InputError on a process that is not Gaussian.
    """
    process = require_gaussian(denoiser.process, "the distance to the memoriser")
    weight = next(denoiser.parameters(), train)
    train = train.to(weight)
    memoriser = Memoriser(process, train)
    times = torch.as_tensor(level_times(process, levels))
    generator = torch.Generator().manual_seed(seed)
    splits = {"train": train, "holdout": holdout}
    found: dict[str, list[Tensor]] = {}
    with evaluating(denoiser):
        for where, points in splits.items():
            if points is None or not len(points):
                continue
            x = some_rows(points.to(weight), rows, seed)
            noise = torch.randn(x.shape, generator=generator).to(x)
            states = (process.corrupt(x, t, end=noise) for t in times)
            found[where] = _distances(denoiser, memoriser, states, times)
        start = process.sample_prior(
            rows, shape=tuple(train.shape[1:]), t=float(times[0]), generator=generator
        ).to(weight)
        visited = sample.states(denoiser, rows, times, sampler, init=start, generator=generator)
        found["sampler"] = _distances(denoiser, memoriser, _first(start, visited), times)
    spread = process.clock(times).reshape(levels, -1).log().mean(1).mul(-0.5).exp()
    return CopyingDistance(
        spread.numpy(),
        {where: np.array([float(v.mean()) for v in values]) for where, values in found.items()},
        {where: np.array([_stderr(v) for v in values]) for where, values in found.items()},
        {where: len(values[0]) for where, values in found.items()},
    )


def _first(start: Tensor, visited: Iterator[Tensor]) -> Iterator[Tensor]:
    yield start
    yield from visited


def _distances(
    denoiser: Denoiser, memoriser: Memoriser, states: Iterator[Tensor], times: Tensor
) -> list[Tensor]:
    """Per-state |ehat - e*|^2 / d, (B,) for every level; states beyond the levels are not read."""
    values = []
    for t, state in zip(times, states, strict=False):  # the sampler's last state is its readout
        first, second = (_noise(model, state, t) for model in (denoiser, memoriser))
        values.append((first - second).double().square().flatten(1).mean(1).cpu())
    return values


def _noise(model: Denoiser, state: Tensor, t: Tensor) -> Tensor:
    process = require_gaussian(model.process, "the guess of the noise")
    guess = model(state, t.expand(len(state)))
    return convert(guess, state, t, process, "clean", "noise")


def _stderr(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
