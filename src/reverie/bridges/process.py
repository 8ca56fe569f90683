"""A bridge as a process: pinned at both ends, its path KL in nats a rate on an information clock.

Rows are pairs (B, 2, d): the end that is to be reached ("clean", process time 0) and the end from
which it starts (process time 1). With y the state in Brownian coordinates, epsilon the variance of
the whole reference and s the share of it that is gone on the way to the clean end,

    u = s / (epsilon (1 - s)),        rate = 1/2 |clean - guess|^2,

since the KL of two drifts (far - y) / (1 - s) is half their squared distance / epsilon ds, and
du = ds / (epsilon (1 - s)^2) (Girsanov). u is the signal-to-noise ratio at which y, its start
known, shows the clean end. A step that draws the Brownian bridge to a frozen guess costs
(u' - u) rate exactly, so that curve, plan and staircase are those of Gaussian noise.

A Markov bridge forgets its start at no cost, E[clean | y] = E[clean | y, start]. Its ideal curve
is then that of the clean end seen through noise, given the start: it never rises, and its area is
I(clean; y | start). Pairs whose mixture of bridges is no Markov process have neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor

from reverie.bridges.reference import Reference
from reverie.denoisers import Denoiser
from reverie.denoisers.base import one_level
from reverie.errors import InputError
from reverie.processes.base import Draw, Process, State, float64
from reverie.spaces import Euclidean

CLEANEST = 1e-3  # process time at which the last guess is taken
NOISIEST = 1e-4  # of the way gone at the first level of a curve: there a clock has a logarithm


class BridgeProcess(Process):
    """The reference pinned at both ends; reverse: the clean end is that of the law a.

    Process time runs against the path: 1 at its start, 0 at its end. States are (B, d) in Brownian
    coordinates. markov: the pairs that it is measured on are ends of a Markov process, or guesses
    are told the start; without it a rate need not fall, and areas are no information.

    >>> import torch
    >>> from reverie.bridges import BridgeProcess, BrownianMotion, pairs_for
    >>> process = BridgeProcess(BrownianMotion(1.0), 2)
    >>> pairs = pairs_for(torch.zeros(5, 2), torch.ones(5, 2))
    >>> process.corrupt(pairs, 0.5).shape, process.monotone
    (torch.Size([5, 2]), False)
    """

    clock_label = "far end's signal-to-noise ratio"

    def __init__(
        self, reference: Reference, dim: int, *, reverse: bool = False, markov: bool = False
    ) -> None:
        super().__init__()
        self.reference, self.dim, self.backwards = reference, dim, reverse
        self.monotone = self.area_exact = markov
        self.t_range = (CLEANEST, 1 - NOISIEST)
        self.space = Euclidean((2, dim))

    def share(self, t: Tensor | float) -> Tensor:
        """Share (B,) of the reference's variance gone on the way to the clean end."""
        time = float64(t).reshape(-1)
        place = self.reference.share(time if self.backwards else 1 - time)
        return (1 - place if self.backwards else place).clamp(0, 1)

    def path_share(self, t: Tensor | float) -> Tensor:
        """The same place as a share of the forward path, whatever the direction."""
        gone = self.share(t)
        return 1 - gone if self.backwards else gone

    def ends(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """(clean, start) of pairs (B, 2, d) in Brownian coordinates."""
        if pairs.ndim != 3 or pairs.shape[1:] != (2, self.dim):
            raise InputError(
                f"a bridge is measured on pairs of shape (2, {self.dim}), "
                f"not on rows of shape {tuple(pairs.shape[1:])}"
            )
        last = self.reference.last_scale
        clean, start = pairs[:, 0], pairs[:, 1]
        return (clean, start / last) if self.backwards else (clean / last, start)

    def start(self, x: Tensor) -> Tensor:
        """Starting points (B, d) in Brownian coordinates."""
        return x / self.reference.last_scale if self.backwards else x

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        raise InputError("a bridge starts from given points: bridge.sample(x), bridge.path(x)")

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """The bridge (B, d) at t between the ends of x, pairs (B, 2, d).

        end: starting points that replace those of the pairs.
        """
        pairs = x if end is None else torch.stack([x[:, 0], end], 1)
        middle, spread = self.kernel(pairs, t)
        return middle + spread * _noise_like(middle, generator)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        middle, spread = self.kernel(x, t)
        noise = spread * _noise_like(middle, generator)
        return middle + noise, middle - noise

    def kernel(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Mean (B, d) and deviation (B or 1, 1) of the Brownian bridge at t between pairs x."""
        clean, start = self.ends(x)
        gone = self.share(t).to(x).reshape(-1, 1)
        spread = (self.reference.epsilon * gone * (1 - gone)).sqrt()
        return (1 - gone) * start + gone * clean, spread

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        clean, start = (end.double() for end in self.ends(x))
        gone = self.share(t).to(state.device).expand(len(state))
        variance = (self.reference.epsilon * gone * (1 - gone))[:, None]
        log = torch.empty(len(state), len(x), dtype=torch.float64, device=state.device)
        for share in gone.unique():  # one matrix product a level
            rows = gone == share
            middle = (1 - share) * start + share * clean
            log[rows] = -0.5 * torch.cdist(state[rows].double(), middle).square()
        volume = 0.5 * self.dim * (2 * math.pi * variance).log()
        return (log / variance - volume).to(state)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return self.ends(x)[0]

    def clock(self, t: Tensor | float) -> Tensor:
        gone = self.share(t)
        return gone / (self.reference.epsilon * (1 - gone))

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return 0.5 * (self.ends(x)[0] - prediction).square().sum(1)

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        before, after = (self.share(v).to(state).reshape(-1, 1) for v in (t, s))
        ratio = (after - before) / (1 - before)
        spread = (self.reference.epsilon * ratio * (1 - after)).sqrt()
        moved = torch.lerp(state, prediction.to(state), ratio)
        return moved.addcmul(_noise_like(state, generator), spread)

    def times_of(self, u: Tensor) -> Tensor:
        """Reference times (L,), from the law a to b, at which clock values u (L,) are reached."""
        t = self.time(u)
        return t if self.backwards else 1 - t


class BridgeDenoiser(Denoiser):
    """One direction of a bridge: `far(y, share, start)` guesses the clean end, in Brownian
    coordinates. The condition, of a bridge of paired ends, is the start (B, d) of the path."""

    def __init__(
        self, process: BridgeProcess, far: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    ) -> None:
        super().__init__()
        self.process: BridgeProcess = process
        self.far = far

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        share = self.process.path_share(one_level(t)).to(state.device).expand(len(state))
        return self.far(state, share, None if condition is None else self.process.start(condition))


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def pairs_for(x0: Tensor, x1: Tensor, *, reverse: bool = False) -> Tensor:
    """Rows (n, 2, d) of a bridge's curve from ends (n, d) each: the clean end first.

    >>> import torch
    >>> from reverie.bridges import pairs_for
    >>> pairs_for(torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[[1., 1.],
             [0., 0.]]])
    """
    return torch.stack([x0, x1] if reverse else [x1, x0], 1)
