"""Entropic transport between points, in the log domain, and the bridge that it gives for nothing.

    P_ij = exp((f_i + g_j - c_ij) / epsilon) / (n m),    c = |x - y|^2 / 2

(Cuturi 2013; the cost has its half, so that epsilon is the variance of the Brownian reference:
with the cost |x - y|^2 others write 2 epsilon). The potentials alone give the drift of the bridge
(Pooladian & Niles-Weed 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.reference import Reference
from reverie.errors import InputError

NAMES = ("x", "y", "f", "g")  # points and potentials
FASTER = 0.5  # factor by which epsilon falls while the potentials are warmed up


@dataclass(frozen=True)
class SinkhornPlan:
    """The entropic plan between x (n, d) and y (m, d), equal masses; f (n,), g (m,) potentials.

    error: total mass by which the rows' marginal is missed (the columns' holds exactly).

    >>> import torch
    >>> from reverie.bridges import SinkhornPlan, sinkhorn
    >>> x, y = torch.tensor([[0.0], [9.0]]).double(), torch.tensor([[1.0], [8.0]]).double()
    >>> plan = sinkhorn(x, y, epsilon=0.1)
    >>> isinstance(plan, SinkhornPlan), round(float(plan.cost), 3)
    (True, 0.5)
    """

    x: Tensor
    y: Tensor
    f: Tensor
    g: Tensor
    epsilon: float
    error: float
    iterations: int

    def log_rows(self) -> Tensor:
        """log P(j | i) (n, m), each row normalised."""
        return (self.g - cost_matrix(self.x, self.y)).div(self.epsilon).log_softmax(1)

    def matrix(self) -> Tensor:
        """The plan (n, m), of total mass 1."""
        log = (self.f[:, None] + self.g - cost_matrix(self.x, self.y)) / self.epsilon
        return (log - math.log(len(self.x) * len(self.y))).exp()

    @property
    def cost(self) -> float:
        """Mean of |x - y|^2 / 2 under the plan."""
        return float((self.matrix() * cost_matrix(self.x, self.y)).sum())


def cost_matrix(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 / 2: (n, m)."""
    square = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return 0.5 * square.clamp(min=0)


def sinkhorn(
    x: Tensor, y: Tensor, epsilon: float, *, tolerance: float = 1e-6, iterations: int = 5000
) -> SinkhornPlan:
    """The entropic plan between x (n, d) and y (m, d); epsilon falls to its value geometrically.

    Stops where the rows' marginal is missed by less than `tolerance` in total.
    Raises InputError unless epsilon > 0. Source: Cuturi 2013.

    >>> import torch
    >>> from reverie.bridges import sinkhorn
    >>> x, y = torch.tensor([[0.0], [9.0]]).double(), torch.tensor([[1.0], [8.0]]).double()
    >>> sinkhorn(x, y, epsilon=0.1).matrix().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """
    if epsilon <= 0:
        raise InputError(f"epsilon is {epsilon:g}; entropic transport needs epsilon > 0")
    x, y = x.double(), y.double()
    cost = cost_matrix(x, y)
    here, there = math.log(len(x)), math.log(len(y))
    f, g = x.new_zeros(len(x)), y.new_zeros(len(y))
    now, error, used = max(float(cost.max()), epsilon), math.inf, 0
    while used < iterations:
        now = max(now * FASTER, epsilon)
        f = -now * ((g - cost) / now - there).logsumexp(1)
        g = -now * ((f[:, None] - cost) / now - here).logsumexp(0)
        used += 1
        if now == epsilon and used % 10 == 0:
            miss = ((f[:, None] + g - cost) / now - there).logsumexp(1).exp() - 1
            error = float(miss.abs().mean())
            if error < tolerance:
                break
    return SinkhornPlan(x, y, f, g, epsilon, error, used)


class SinkhornBridge(Bridge):
    """The bridge between two sets of points: far ends are points of the other set.

    guess: a softmax over the far points, exp(potential / epsilon) times the reference's kernel.
    x: (n, d), y: (m, d). Exact for the two empirical laws; it memorises them, and is the oracle
    of small sets.
    Source: Pooladian & Niles-Weed 2024.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, SinkhornBridge
    >>> x, y = torch.tensor([[0.0], [9.0]]).double(), torch.tensor([[1.0], [8.0]]).double()
    >>> bridge = SinkhornBridge(x, y, BrownianMotion(0.5))
    >>> bridge.plan.matrix().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """

    x: Tensor
    y: Tensor
    f: Tensor
    g: Tensor

    def __init__(
        self, x: Tensor, y: Tensor, reference: Reference, *, tolerance: float = 1e-6
    ) -> None:
        super().__init__()
        plan = sinkhorn(x, y / reference.last_scale, reference.epsilon, tolerance=tolerance)
        self._keep({name: getattr(plan, name) for name in NAMES}, reference, plan.error)
        self.iterations = plan.iterations

    def _keep(self, tensors: dict[str, Tensor], reference: Reference, error: float) -> None:
        self.reference, self.dim, self.error = reference, tensors["x"].shape[1], error
        self.iterations = 0
        for name in NAMES:
            self.register_buffer(name, tensors[name])

    @classmethod
    def of(
        cls, tensors: dict[str, Tensor], reference: Reference, error: float = 0.0
    ) -> SinkhornBridge:
        """The bridge of points and potentials that were found before (x, y, f, g)."""
        made = cls.__new__(cls)
        Bridge.__init__(made)
        made._keep(tensors, reference, error)
        return made

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "error": self.error}

    @property
    def plan(self) -> SinkhornPlan:
        """The plan in Brownian coordinates."""
        epsilon = self.reference.epsilon
        return SinkhornPlan(self.x, self.y, self.f, self.g, epsilon, self.error, self.iterations)

    def log_weights(self, state: Tensor, share: Tensor, *, reverse: bool = False) -> Tensor:
        """log P(far point | state): (B, number of far points); far from its end by share."""
        points, potential = (self.x, self.f) if reverse else (self.y, self.g)
        left = (share if reverse else 1 - share).double().clamp(min=1e-12)[:, None]
        epsilon = self.reference.epsilon
        log = potential / epsilon - cost_matrix(state.double(), points) / (epsilon * left)
        return log.log_softmax(1)

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        points = self.x if reverse else self.y
        return (self.log_weights(y, share, reverse=reverse).exp() @ points).to(y)

    exact_steps = True

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        weights = self.log_weights(y, share, reverse=reverse).exp()
        pick = torch.multinomial(weights, 1, generator=generator)[:, 0]
        return (self.x if reverse else self.y)[pick].to(y)
