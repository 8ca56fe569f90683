"""What a model's score points at, by noise level: points, a manifold, or the whole space.

The guess's Jacobian tr dxhat/dy tends to the dimension of that set as the noise falls (see
`theory.manifold`): 0 where single rows are stored, k on a manifold, d where it is a density. Taken
at noised training rows and at noised held-out rows; where they part, the model points at its
training rows as points. Beside it, without a gradient, d - |ehat|^2, which is the same for an
exact score, and for small d the number of directions that the guess keeps (eigenvalues above 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.model.scores import Query, guess_trace
from reverie.curve import Z95, level_times
from reverie.data import some_rows
from reverie.denoisers import Denoiser, evaluating
from reverie.processes.gaussian import require_gaussian

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS, ROWS, PROBES = 20, 128, 8
SMALL = 16  # coordinates up to which every direction is asked
WHERE = {
    "train": ("noised training rows", "#c2410c"),
    "holdout": ("noised held-out rows", "#1d4ed8"),
}


@dataclass(frozen=True, eq=False)
class DimensionCurve:
    """Dimension by level: means and standard errors (L,) over rows, for each place of WHERE.

    spread: (L,) levels sigma / alpha, falling. trace: of the guess's Jacobian. norm: d - |ehat|^2.
    rank: mean number of eigenvalues above 1/2, None where d is over SMALL. dim: d.
    """

    spread: np.ndarray
    trace: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray]
    norm: dict[str, np.ndarray]
    rank: dict[str, np.ndarray] | None
    dim: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        groups = {"trace": self.trace, "stderr": self.stderr, "norm": self.norm}
        if self.rank is not None:
            groups["rank"] = self.rank
        plain = {k: {w: v.tolist() for w, v in group.items()} for k, group in groups.items()}
        return {"spread": self.spread.tolist(), "dim": self.dim, **plain}

    def figure(self) -> Figure:
        """Dimension against the noise level, with 95% bands."""
        from matplotlib.figure import Figure  # only drawing needs it

        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        ax = figure.add_subplot()
        for where, mean in self.trace.items():
            label, colour = WHERE[where]
            band = Z95 * self.stderr[where]
            ax.plot(self.spread, mean, color=colour, lw=1.6, label=label)
            ax.fill_between(self.spread, mean - band, mean + band, color=colour, alpha=0.2, lw=0)
        ax.axhline(self.dim, color="#6b7280", lw=0.8, ls=":")
        ax.axhline(0, color="#6b7280", lw=0.8)
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_xlabel("noise level sigma / alpha (noisy to clean)")
        ax.set_ylabel("dimension of what\nthe score points at")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
        return figure


def dimension_curve(
    denoiser: Denoiser,
    train: Tensor,
    holdout: Tensor | None = None,
    *,
    levels: int = LEVELS,
    rows: int = ROWS,
    probes: int = PROBES,
    seed: int = 0,
) -> DimensionCurve:
    """Dimension of what the score of `denoiser` points at, around rows (n, *shape).

    rows: at most so many of each. probes: of the trace, where d is over SMALL. Raises InputError
    on a process that is not Gaussian.
    """
    process = require_gaussian(denoiser.process, "the dimension of what the score points at")
    weight = next(denoiser.parameters(), train)
    times = torch.as_tensor(level_times(process, levels))
    dim = train[0].numel()
    found: dict[str, list[tuple[Tensor, Tensor, Tensor | None]]] = {}
    with evaluating(denoiser):
        for where, points in {"train": train, "holdout": holdout}.items():
            if points is None or not len(points):
                continue
            x = some_rows(points.to(weight), rows, seed)
            generator = torch.Generator().manual_seed(seed)
            found[where] = [_at(Query(denoiser, t), x, probes, generator) for t in times]
    spread = process.clock(times).reshape(levels, -1).log().mean(1).mul(-0.5).exp()
    ranks = {w: [r for _, _, r in each if r is not None] for w, each in found.items()}
    return DimensionCurve(
        spread.numpy(),
        {w: np.array([float(t.mean()) for t, _, _ in each]) for w, each in found.items()},
        {w: np.array([float(t.std() / len(t) ** 0.5) for t, _, _ in each])
         for w, each in found.items()},
        {w: np.array([float(n.mean()) for _, n, _ in each]) for w, each in found.items()},
        {w: np.array([float(r.mean()) for r in rank]) for w, rank in ranks.items()}
        if dim <= SMALL else None,
        dim,
    )  # fmt: skip


def _at(
    query: Query, x: Tensor, probes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Trace (B,), d - |ehat|^2 (B,) and rank (B,) of the guess at noised rows."""
    noise = torch.randn(x.shape, generator=generator).to(x)
    state = query.state(x, noise).detach().requires_grad_()
    dim = x[0].numel()
    with torch.enable_grad():
        guess = query.clean(state)
        if dim <= SMALL:
            eigenvalues = _eigenvalues(query, guess, state)
            trace, rank = eigenvalues.sum(1), (eigenvalues > 0.5).sum(1).double()
        else:
            trace, rank = guess_trace(query, guess, state, probes, generator), None
    with torch.no_grad():
        ehat = query.noise(state.detach())
    norm = dim - ehat.double().flatten(1).square().sum(1).cpu()
    return trace.detach(), norm, rank


def _eigenvalues(query: Query, guess: Tensor, state: Tensor) -> Tensor:
    """Eigenvalues (B, d) of the symmetric part of d guess / d (state / alpha), in modes."""
    process, dim = query.process, state[0].numel()
    alpha, _ = process.scales(query.t, state)
    lines = []
    for k in range(dim):
        unit = torch.zeros_like(state)
        unit.flatten(1)[:, k] = 1
        (product,) = torch.autograd.grad(guess, state, process.from_modes(unit), retain_graph=True)
        lines.append((process.to_modes(product) * alpha).flatten(1).double().cpu())
    matrix = torch.stack(lines, 1).detach()
    return torch.linalg.eigvalsh(0.5 * (matrix + matrix.mT))
