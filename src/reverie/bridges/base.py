"""A Schrodinger bridge as two denoisers: each guesses the far end of a path from where it is.

In Brownian coordinates (see `reference`) the law of a path given its ends is a Brownian bridge;
a Markov model of it knows E[far end | y_s] and drifts towards it,

    dy = (E[y_1 | y_s] - y_s) / (1 - s) ds + sqrt(epsilon) dW        (and its mirror image back).

A step of a path draws a far end given y_s, and then the Brownian bridge to it: where the law of
the far end is a closed form, paths are exact at any number of steps. A network knows its mean and
a deviation. (Frozen at the mean alone, the path KL of the steps is a staircase: see `process`.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reverie.bridges.process import BridgeDenoiser, BridgeProcess
from reverie.bridges.reference import Reference
from reverie.errors import InputError


class Bridge(nn.Module, ABC):
    """What every solver returns; `reference` is the noise, `dim` the number of coordinates.

    Points are vectors (B, dim). Forward paths run from the law a to b, `reverse` ones from b to a.

    >>> import torch
    >>> from reverie.bridges import Bridge, BrownianMotion, GaussianBridge
    >>> eye = torch.eye(2)
    >>> bridge = GaussianBridge(torch.zeros(2), eye, torch.ones(2), eye, BrownianMotion(1.0))
    >>> isinstance(bridge, Bridge), bridge.path(torch.zeros(5, 2), steps=4).shape
    (True, torch.Size([5, 5, 2]))
    """

    reference: Reference
    dim: int
    exact_steps = False  # `far_end` draws from the true law, so that one step does

    @abstractmethod
    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        """E[far end | y at share (B,)], all in Brownian coordinates: (B, dim).

        start: where the path began, for bridges of paired ends; a Markov bridge forgets it.
        """
        raise NotImplementedError

    def far_end(
        self,
        y: Tensor,
        share: Tensor,
        *,
        reverse: bool = False,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A draw (B, dim) of the far end given y at share; here its mean, the guess."""
        return self.guess(y, share, reverse=reverse, start=start)

    def settings(self) -> dict[str, Any]:
        """What rebuilds this bridge beside its tensors, for JSON."""
        return {"dim": self.dim}

    # --- coordinates ----------------------------------------------------------------------------

    def to_brownian(self, x: Tensor, t: float) -> Tensor:
        """A point at time t, divided by the reference's scale. InputError on another width."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(
                f"the points have shape {tuple(x.shape[1:])}; this bridge is between points of "
                f"{self.dim} coordinates"
            )
        return x / float(self.reference.scale(torch.tensor(t, dtype=torch.float64)))

    def drift(self, y: Tensor, share: Tensor, *, reverse: bool = False) -> Tensor:
        """Drift (B, dim) per unit of s (of 1 - s if reverse), in Brownian coordinates."""
        left = (share if reverse else 1 - share).to(y).reshape(-1, 1)
        return (self.guess(y, share, reverse=reverse) - y) / left

    # --- drawing --------------------------------------------------------------------------------

    def path(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 20,
        times: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Paths (steps + 1, B, dim) from x (B, dim), t rising: a reverse path ends with x.

        times: reference times (steps + 1,) from 0 to 1, by default equally far apart.
        """
        rows = list(self._walk(x, reverse, steps, times, generator))
        return torch.stack(rows[::-1] if reverse else rows)

    def _walk(
        self,
        x: Tensor,
        reverse: bool,
        steps: int,
        times: Tensor | None,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """The states of `path` one by one, from x on."""
        if steps < 1:
            raise InputError(f"a path of {steps} steps; it takes at least 1")
        if times is None:
            times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        steps = len(times) - 1
        times = times.flip(0) if reverse else times
        shares, scales = self.reference.share(times).tolist(), self.reference.scale(times).tolist()
        start = y = self.to_brownian(x, float(times[0]))
        yield x
        for k in range(steps):
            y = self.step(y, shares[k], shares[k + 1], origin=start, generator=generator)
            yield y if scales[k + 1] == 1 else y * scales[k + 1]

    def step(
        self,
        y: Tensor,
        start: float,
        end: float,
        *,
        origin: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One step of shares, forward where end > start; origin: where the path began."""
        reverse = end < start
        share = torch.full((len(y),), start, dtype=torch.float64)
        far = self.far_end(y, share, reverse=reverse, start=origin, generator=generator)
        gone, left = abs(end - start), (end if reverse else 1 - end)
        ratio = gone / (gone + left)
        kind = torch.promote_types(y.dtype, far.dtype)
        moved = torch.lerp(y.to(kind), far.to(kind), ratio)
        if left <= 0:
            return moved
        noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        return moved.add_(noise, alpha=(self.reference.epsilon * ratio * left) ** 0.5)

    def sample(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 100,
        times: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Far ends (B, dim) for near ends x, by simulating paths; exact steps take one."""
        if self.exact_steps:
            steps, times = 1, None
        for last in self._walk(x, reverse, steps, times, generator):
            x = last
        return x

    def denoiser(self, *, reverse: bool = False, markov: bool = False) -> BridgeDenoiser:
        """One of the two denoisers, to be measured, planned for and sampled like any other.

        markov: it will be measured on pairs that a Markov bridge made, or is told the start.
        """
        process = BridgeProcess(self.reference, self.dim, reverse=reverse, markov=markov)

        def guess(y: Tensor, share: Tensor, start: Tensor | None) -> Tensor:
            return self.guess(y, share, reverse=reverse, start=start)

        return BridgeDenoiser(process, guess)
