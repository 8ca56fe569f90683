"""How both directions of a bridge are fitted by turns, or together, to pairs of their own making.

What is fitted need only be a module with `body(reverse)`, the network of a direction; `loss(x0,
x1, reverse, generator)` of pairs; `fitted(x0, x1, reverse, generator)`, told some pairs after a
fit; and `sample(x, reverse=, steps=, generator=)`, far ends of near ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reverie.bridges.coupling import Coupling, Paired

SPAN = 0.05  # of a fit, over which its weights are averaged
WARM = 0.25  # share of an online fit that meets the first coupling alone
FRESH = 8  # an online step simulates one pair in so many of a batch's
TOLD = 1024  # pairs that a direction is told after its fit
M = TypeVar("M", bound=nn.Module)
Tell = Callable[[int, int], None]


class Trainer:
    """Adam and an average of weights for both directions of a bridge."""

    def __init__(
        self, bridge: Any, batch: int, rate: float, generator: torch.Generator | None
    ) -> None:
        self.bridge, self.batch, self.generator = bridge, batch, generator
        self.average = copy.deepcopy(bridge)
        self.optimisers = [
            torch.optim.Adam(bridge.body(r).parameters(), lr=rate) for r in (False, True)
        ]
        self.rate = rate

    def fit(self, pairs: Coupling, reverse: bool, steps: int, tell: Callable[[], None]) -> None:
        """`steps` steps of one direction; the learning rate falls linearly over the last half."""
        for k in range(steps):
            x0, x1 = pairs.sample(self.batch, generator=self.generator)
            self.step([(x0, x1, reverse)], reverse, fallen(k, steps))
            self.keep(reverse, max(1 / (SPAN * steps + 1), 1 / (k + 1)))
            tell()
        self.tell_pairs(pairs, reverse)

    def step(
        self, pairs: Iterable[tuple[Tensor, Tensor, bool]], reverse: bool, share: float
    ) -> None:
        """One step on the sum of losses of (x0, x1, direction); share: of the learning rate."""
        optimiser = self.optimisers[reverse]
        optimiser.param_groups[0]["lr"] = self.rate * share
        losses = [self.bridge.loss(x0, x1, way, self.generator) for x0, x1, way in pairs]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.bridge.body(reverse).parameters(), 1.0)
        optimiser.step()

    def keep(self, reverse: bool, share: float) -> None:
        """Move the average of a direction towards its weights by `share`."""
        averaged = self.average.body(reverse).parameters()
        for mean, now in zip(averaged, self.bridge.body(reverse).parameters(), strict=True):
            mean.data.lerp_(now.data, share)

    def tell_pairs(self, pairs: Coupling, reverse: bool) -> None:
        x0, x1 = pairs.sample(TOLD, generator=self.generator)
        self.average.fitted(x0, x1, reverse, self.generator)


def alternate(
    bridge: M,
    coupling: Coupling,
    *,
    rounds: int,
    steps: int,
    batch: int,
    rate: float,
    pool: int,
    path_steps: int,
    generator: torch.Generator | None = None,
    progress: Tell | None = None,
) -> M:
    """Fit backward, then forward, to the pairs of `coupling`; refit `rounds` times to their own.

    Each refit meets `pool` pairs that the other direction's average simulates in `path_steps` from
    rows of its own end, so that neither marginal drifts. Returns the bridge of averaged weights.
    """
    trainer, total = Trainer(bridge, batch, rate, generator), 2 * (rounds + 1) * steps
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    pairs: Coupling = coupling
    for turn in range(rounds + 1):
        for reverse in (True, False):
            if turn:
                pairs = simulated(
                    trainer.average, coupling, not reverse, pool, path_steps, generator
                )
            trainer.fit(pairs, reverse, steps, tell)
    return trainer.average


def online(
    bridge: M,
    coupling: Coupling,
    *,
    steps: int,
    batch: int,
    rate: float,
    pool: int,
    path_steps: int,
    generator: torch.Generator | None = None,
    progress: Tell | None = None,
) -> M:
    """Both directions at once, without refits: after a share WARM of `steps` on the pairs of
    `coupling`, every step simulates a few pairs with the average of weights, which take the place
    of the oldest of the last `pool` of their direction, and is taken on pairs of both.

    The bridge has one body for both directions. Returns the bridge of averaged weights.
    """
    trainer, warm = Trainer(bridge, batch, rate, generator), int(WARM * steps)
    made = [coupling.sample(pool, generator=generator) for _ in range(2)]
    fresh = max(1, batch // FRESH)
    for k in range(steps):
        if k >= warm:
            start = (k - warm) * fresh % (pool - fresh + 1)
            for reverse in (False, True):  # pairs that a direction meets, the other one makes
                new = simulated(
                    trainer.average, coupling, not reverse, fresh, path_steps, generator
                )
                for rows, ends in zip(made[reverse], (new.a, new.b), strict=True):
                    rows[start : start + fresh] = ends
        pairs = []
        for reverse in (False, True):
            pick = torch.randint(pool, (batch,), generator=generator)
            x0, x1 = (
                coupling.sample(batch, generator=generator)
                if k < warm
                else (rows[pick] for rows in made[reverse])
            )
            pairs.append((x0, x1, reverse))
        trainer.step(pairs, False, fallen(k, steps))
        trainer.keep(False, max(1 / (SPAN * steps + 1), 1 / (k + 1)))
        if progress is not None:
            progress(k + 1, steps)
    for reverse in (False, True):
        trainer.tell_pairs(Paired(*made[reverse]), reverse)
    return trainer.average


def fallen(k: int, steps: int) -> float:
    """Share of the learning rate at step k of `steps`: it falls linearly over the last half."""
    return min(1.0, 2 * (steps - k) / steps)


def simulated(
    bridge: Any,
    ends: Coupling,
    reverse: bool,
    pool: int,
    steps: int,
    generator: torch.Generator | None,
) -> Paired:
    """Pairs that a bridge makes from rows of the end where it starts: b if reverse, else a."""
    rows = ends.b if reverse else ends.a
    start = rows[torch.randint(len(rows), (pool,), generator=generator)]
    far = bridge.sample(start, reverse=reverse, steps=steps, generator=generator)
    return Paired(far, start) if reverse else Paired(start, far)
