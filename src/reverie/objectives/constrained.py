"""Constrained training by dual ascent: fit the data, and every group at most at its price.

    min_p KL(q0 | p)  subject to  KL(q_i | p) <= b_i
    optimum           p = (q0 + sum_i lam_i q_i) / (1 + sum_i lam_i)
    dual step         lam_i <- [lam_i + eta (L_i - b_i)]_+

Each minibatch is drawn from that mixture (Khalafi, Ding & Ribeiro 2024, arXiv 2408.15094; the
form of the algorithm is a reconstruction, the mixture follows in one line from the sum of KLs).
Uses: a rare class; held-out rows as a group, for "held-out loss at most b". The rows of a group
whose multiplier is positive are trained on: keep other rows for the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import rel_entr
from torch import Tensor

from reverie.curve import measure
from reverie.data import some_rows
from reverie.denoisers import Network
from reverie.errors import InputError
from reverie.objectives.base import DenoisingFit

CHECK_LEVELS, CHECK_ROWS = 16, 256
MOST = 1e6  # a multiplier that grows beyond this has no finite optimum


@dataclass(frozen=True, eq=False)
class Constrained:
    """A network, and what its multipliers went through: one row per dual step.

    multipliers, losses: (R, m), of R dual steps and m groups, losses in nats.

    >>> import numpy as np
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import Constrained
    >>> from reverie.processes import VP
    >>> network = Network(VP(), ResidualMLP((2,), width=16))
    >>> Constrained(network, np.array([[1.0]]), np.array([[0.3]])).group_weights()
    array([[0.5, 0.5]])
    """

    network: Network
    multipliers: np.ndarray  # (R, m), after the step
    losses: np.ndarray  # (R, m) in nats: the area under each group's loss curve before it

    def group_weights(self) -> np.ndarray:
        """(R, 1 + m): the share of a minibatch that comes from the data and from each group."""
        raw = np.concatenate([np.ones((len(self.multipliers), 1)), self.multipliers], 1)
        return raw / raw.sum(1, keepdims=True)


def train_constrained(
    network: Network,
    data: Tensor,
    groups: Sequence[Tensor],
    budgets: Sequence[float],
    steps: int,
    *,
    dual_rate: float = 0.05,
    every: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Constrained:
    """Train `network` in place on `data` (n, *shape) with each group's loss at most its budget.

    groups: m tensors (n_i, *shape). budgets: m prices in nats per sample, of the area under the
    group's loss curve. dual_rate: eta, per nat; `every` so many optimiser steps of batch_size
    rows comes a dual step. Raises InputError on an empty group, other counts, or bad rates.
    Source: Khalafi, Ding & Ribeiro 2024 (arXiv 2408.15094).

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import train_constrained
    >>> from reverie.processes import VP
    >>> data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> network = Network(VP(), ResidualMLP((2,), width=8))
    >>> found = train_constrained(network, data, [data[:8]], [5.0], steps=10, every=5)
    >>> found.multipliers.shape
    (2, 1)
    """
    if len(groups) != len(budgets) or not groups:
        raise InputError(f"{len(groups)} groups but {len(budgets)} budgets: give each one budget")
    if min(len(points) for points in (data, *groups)) == 0:
        raise InputError("the data and every group need at least one row")
    if min(steps, every, batch_size) < 1 or dual_rate <= 0 or lr <= 0:
        raise InputError("steps, every and batch_size must be >= 1; dual_rate and lr positive")
    generator = generator or torch.Generator().manual_seed(0)
    fitting, sources = DenoisingFit(network, lr), [data, *groups]
    multipliers = np.zeros(len(groups))
    history, losses = [], []
    for step in range(1, steps + 1):
        fitting.step(_minibatch(sources, multipliers, batch_size, generator), generator)
        if step % every == 0:
            losses.append([_area(network, points) for points in groups])
            multipliers = dual_step(multipliers, np.array(losses[-1]), budgets, dual_rate)
            history.append(multipliers)
    shape = (len(history), len(groups))
    return Constrained(network.eval(), np.reshape(history, shape), np.reshape(losses, shape))


def dual_step(
    multipliers: np.ndarray, losses: np.ndarray, budgets: Sequence[float], rate: float
) -> np.ndarray:
    """[lam_i + rate (L_i - b_i)]_+ of every group, (m,)."""
    return np.maximum(multipliers + rate * (losses - np.asarray(budgets)), 0.0)


def _minibatch(
    sources: list[Tensor], multipliers: np.ndarray, count: int, generator: torch.Generator
) -> Tensor:
    """`count` rows: a source is drawn with odds (1, multipliers), then a row of it uniformly."""
    odds = torch.tensor([1.0, *multipliers], dtype=torch.float64)
    source = torch.multinomial(odds, count, replacement=True, generator=generator)
    sizes = torch.tensor([len(points) for points in sources])
    place = torch.rand(count, generator=generator, dtype=torch.float64)
    starts = sizes.cumsum(0) - sizes
    return torch.cat(sources)[starts[source] + (place * sizes[source]).long()]


def _area(network: Network, points: Tensor) -> float:
    """Nats under the loss curve of a group, with the same noise at every dual step."""
    noise = torch.Generator().manual_seed(0)
    return measure(network, some_rows(points, CHECK_ROWS, 0), CHECK_LEVELS, generator=noise).area()


def dual_optimum(
    law: np.ndarray, groups: np.ndarray, budgets: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Exact multipliers (m,) and optimal p (K,) for laws on K cells: the oracle of the algorithm.

    law: (K,) and groups: (m, K), each summing to 1. Maximises the concave dual, whose gradient is
    KL(q_i | p) - b_i at p = the mixture. Raises InputError when no law meets all budgets.

    >>> import numpy as np
    >>> from reverie.objectives import dual_optimum
    >>> law, rare = np.array([0.9, 0.1]), np.array([[0.0, 1.0]])
    >>> multipliers, p = dual_optimum(law, rare, budgets=[np.log(4)])  # KL(rare | p) <= log 4
    >>> p.round(3)
    array([0.75, 0.25])
    """
    everything, prices = np.vstack([law, groups]).astype(np.float64), np.asarray(budgets)

    def mixture(multipliers: np.ndarray) -> np.ndarray:
        return np.append(1.0, multipliers) @ everything / (1 + multipliers.sum())

    def negative_dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        costs = rel_entr(everything, mixture(multipliers)).sum(1)
        slack = costs[1:] - prices
        return -float(costs[0] + multipliers @ slack), -slack

    start = np.zeros(len(prices))
    found = minimize(
        negative_dual, start, jac=True, bounds=[(0, MOST)] * len(prices), method="L-BFGS-B",
        options=dict(ftol=1e-16, gtol=1e-12, maxiter=10_000),
    )  # fmt: skip
    if (found.x >= MOST).any() or (-negative_dual(found.x)[1] > 1e-6).any():
        raise InputError("no law meets all budgets at once: raise one of them")
    return found.x, mixture(found.x)
