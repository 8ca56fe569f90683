"""The diffusion Schrodinger bridge on a chain of Gaussian kernels, fitted by ridge regression.

Iterative proportional fitting with mean matching (De Bortoli, Thornton, Heng & Doucet 2021): roll
the chain of one direction, regress its reversal, and so on in turn. Means are linear in x and in
radial functions around states of the step, so that each regression is one solve. Targets and
variances are those of `mean_matching`: the posterior mean with learned variance is the default,
the paper's target the other choice.

frozen > 0: the last coordinates of every point never move (the conditional bridge of Shi, De
Bortoli, Deligiannidis & Doucet 2022): with rows (x, y) of a joint law and rows (z, y) of noise
beside the same y's, a path back from (z, y) draws x given y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.coupling import Coupling
from reverie.bridges.mean_matching import TARGETS
from reverie.bridges.process import BridgeDenoiser
from reverie.bridges.reference import Reference
from reverie.errors import InputError

RIDGE = 1e-6  # of the mean squared feature
FORWARD, BACKWARD = 0, 1


class ChainBridge(Bridge):
    """`steps` Gaussian kernels each way. Tables (2, steps, ...): forward, backward.

    Points are (B, dim), of which the first dim - frozen coordinates move. power: times are
    (k / steps)^power; above 1 steps are short near the first end, as sharp data want them.
    InputError unless 0 <= frozen < dim. Source: De Bortoli et al. 2021.

    >>> import torch
    >>> from reverie.bridges import BrownianMotion, ChainBridge, Independent
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(200, 1, generator=noise), torch.randn(200, 1, generator=noise) + 3
    >>> settings = {"steps": 4, "iterations": 2, "rows": 200, "radial": 4, "generator": noise}
    >>> bridge = ChainBridge.fit(Independent(a, b), BrownianMotion(1.0), **settings)
    >>> bridge.sample(a, generator=noise).mean().round(decimals=0)
    tensor(3.)
    """

    centres: Tensor  # (2, steps, radial, dim), in units of the step's states
    shift: Tensor  # (2, steps, dim)
    scale: Tensor
    weights: Tensor  # (2, steps, 1 + dim + radial, moving)
    variance: Tensor  # (2, steps, moving)

    def __init__(
        self,
        dim: int,
        reference: Reference,
        steps: int = 20,
        radial: int = 60,
        frozen: int = 0,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= frozen < dim:
            raise InputError(f"{frozen} of {dim} coordinates are frozen; some must move")
        self.reference, self.dim = reference, dim
        self.steps, self.radial, self.frozen, self.power = steps, radial, frozen, power
        self.times = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** power
        self.shares = reference.share(self.times)
        moving = dim - frozen
        sizes = dict(
            centres=(radial, dim), shift=(dim,), scale=(dim,),
            weights=(1 + dim + radial, moving), variance=(moving,),
        )  # fmt: skip
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros((2, steps, *size), dtype=torch.float64))
        self.scale.fill_(1.0)
        self.variance += reference.epsilon * self.shares.diff()[:, None]

    def settings(self) -> dict[str, Any]:
        own = {"steps": self.steps, "radial": self.radial, "frozen": self.frozen}
        own |= {"power": self.power}
        return {**super().settings(), **own}

    @property
    def moving(self) -> int:
        """How many coordinates move."""
        return self.dim - self.frozen

    def features(self, y: Tensor, way: int, k: int) -> Tensor:
        """Features (B, 1 + dim + radial) of states from which kernel k of a way starts."""
        unit = (y - self.shift[way, k]) / self.scale[way, k]
        off = torch.cdist(unit, self.centres[way, k]).square() / (2 * self.dim)
        return torch.cat([torch.ones_like(unit[:, :1]), unit, (-off).exp()], 1)

    def mean(self, y: Tensor, way: int, k: int) -> Tensor:
        """Mean (B, moving) of the next state: forward k -> k + 1, backward k + 1 -> k."""
        return y[:, : self.moving] + self.features(y, way, k) @ self.weights[way, k]

    def advance(self, y: Tensor, way: int, k: int, generator: torch.Generator | None) -> Tensor:
        """A draw (B, dim) of the next state."""
        mean = self.mean(y, way, k)
        noise = torch.randn(mean.shape, generator=generator, dtype=y.dtype)
        return torch.cat([mean + self.variance[way, k].sqrt() * noise, y[:, self.moving :]], 1)

    def roll(self, y: Tensor, way: int, generator: torch.Generator | None) -> Tensor:
        """States (steps + 1, B, dim) in the order of time."""
        rows = [y.double()]
        order = range(self.steps) if way == FORWARD else range(self.steps - 1, -1, -1)
        for k in order:
            rows.append(self.advance(rows[-1], way, k, generator))
        return torch.stack(rows if way == FORWARD else rows[::-1])

    def path(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 0,
        times: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Paths at the chain's own `times`; the argument `steps` is not needed."""
        if times is not None:
            raise InputError("a chain of kernels walks at its own times: it takes no plan")
        start = self.to_brownian(x, 1.0 if reverse else 0.0)
        rows = self.roll(start, BACKWARD if reverse else FORWARD, generator)
        return (rows * self._scales()).to(x)

    def _walk(
        self,
        x: Tensor,
        reverse: bool,
        steps: int,
        times: Tensor | None,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        rows = self.path(x, reverse=reverse, times=times, generator=generator)
        yield from rows.flip(0) if reverse else rows

    def _scales(self) -> Tensor:
        scale = self.reference.scale(self.times)[:, None, None].repeat(1, 1, self.dim)
        scale[:, :, self.moving :] = 1.0
        return scale

    def to_brownian(self, x: Tensor, t: float) -> Tensor:
        scaled = super().to_brownian(x, t)
        return torch.cat([scaled[:, : self.moving], x[:, self.moving :]], 1)

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        """The far end to which the kernel of this step leads, were its drift kept."""
        far = y.double().clone()
        step = torch.searchsorted(self.shares, share.double(), right=not reverse) - 1
        step = step.clamp(0, self.steps - 1)
        for k in step.unique().tolist():
            rows, way = step == k, BACKWARD if reverse else FORWARD
            now, here, there = far[rows], self.shares[k], self.shares[k + 1]
            left = (there if reverse else 1 - here) / (there - here)
            moved = self.mean(now, way, k) - now[:, : self.moving]
            far[rows] = torch.cat([now[:, : self.moving] + left * moved, now[:, self.moving :]], 1)
        return far.to(y)

    def denoiser(self, *, reverse: bool = False, markov: bool = False) -> BridgeDenoiser:
        if self.frozen:
            raise InputError("a conditional chain has no loss curve yet")
        return super().denoiser(reverse=reverse, markov=markov)

    def regress(
        self, way: int, k: int, near: Tensor, goal: Tensor, learned: bool, generator: Any
    ) -> None:
        """Fit kernel k of a way: the mean of goal (n, moving) given near (n, dim)."""
        self.shift[way, k] = near.mean(0)
        self.scale[way, k] = near.std(0).clamp(min=1e-9)
        pick = torch.randint(len(near), (self.radial,), generator=generator)
        self.centres[way, k] = (near[pick] - self.shift[way, k]) / self.scale[way, k]
        seen = self.features(near, way, k)
        square = seen.T @ seen
        square += RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=near.dtype)
        increment = goal - near[:, : self.moving]
        self.weights[way, k] = torch.linalg.solve(square, seen.T @ increment)
        if learned:
            error = increment - seen @ self.weights[way, k]
            self.variance[way, k] = error.square().mean(0)

    @classmethod
    def fit(
        cls,
        ends: Coupling,
        reference: Reference,
        *,
        steps: int = 20,
        iterations: int = 10,
        rows: int = 4000,
        radial: int = 60,
        frozen: int = 0,
        power: float = 1.0,
        target: str = "posterior-mean",
        learned_variance: bool = True,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ChainBridge:
        """`iterations` of proportional fitting, each a backward and a forward fit on `rows` paths.

        ends: the two marginals; the last `frozen` coordinates of both are what paths are told.
        """
        if target not in TARGETS:
            raise InputError(f"no target is called {target!r}; choose {', '.join(TARGETS)}")
        bridge = cls(ends.a.shape[1], reference, steps, radial, frozen, power)
        learned = learned_variance and target == "posterior-mean"
        for half in range(2 * iterations):
            rolled, fitted = (FORWARD, BACKWARD) if half % 2 == 0 else (BACKWARD, FORWARD)
            x0, x1 = ends.sample(rows, generator=generator)
            start = bridge.to_brownian(x1, 1.0) if half % 2 else x0
            states = bridge.roll(start, rolled, generator)
            for k in range(steps):
                before, after = states[k], states[k + 1]
                near, far = (before, after) if fitted == FORWARD else (after, before)
                goal = far[:, : bridge.moving]
                if target == "drift":
                    goal = near[:, : bridge.moving] + bridge.mean(far, rolled, k)
                    goal = goal - bridge.mean(near, rolled, k)
                bridge.regress(fitted, k, near, goal, learned, generator)
            if progress is not None:
                progress(half + 1, 2 * iterations)
        return bridge
