"""Bridges into a domain as noise: for tables whose numbers have ends, beside categories.

A point becomes a vector: its numbers, and of each symbol a one-hot corner of its own. The Brownian
motion from 0 that is conditioned to end in that vector x (the x-bridge of Liu, Wu, Ye & Liu 2022,
2023) is, with a share s of its variance epsilon gone,

    y_s = s x + sqrt(epsilon s (1 - s)) e,        u = s / (epsilon (1 - s)),        s = 1 - t,

Gaussian noise of one level. A model of it drifts by (E[x | y] - y) / (1 - s), and the path KL of a
guess is a rate of 1/2 |x - guess|^2 nats per unit of u (Girsanov): curve, plan and staircase are
those of Gaussian noise, here of vectors that lie in the domain. What the domain gives is the far
end of the unguided motion, N(y, epsilon (1 - s)) cut to it: its mean is in closed form, and a
network that tilts the Gaussian before it is cut guesses points of the domain's hull whatever it
says (see `denoisers.networks.into_domain`). The end of a run is drawn from the guess: numbers
within their ends, a symbol of each site. So every sample lies inside.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Draw, Process, State
from reverie.processes.domains import Box
from reverie.processes.gaussian import GaussianProcess
from reverie.spaces import Bounded, FiniteSet, Intervals

LEAST, MOST = 5e-4, 1 - 5e-4  # of the way left at the last and at the first level


class BrownianBridge(GaussianProcess):
    """x_t = (1 - t) x + sigma sqrt(t (1 - t)) e: the Brownian bridge from 0 to x, run backwards.

    InputError unless sigma is positive.

    >>> from reverie.processes import BrownianBridge
    >>> BrownianBridge(sigma=2.0).clock(0.5)  # (1 - t) / (4 t)
    tensor([0.2500], dtype=torch.float64)
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__((LEAST, MOST))
        if not 0 < sigma < float("inf"):
            raise InputError(f"sigma is {sigma}; a bridge needs a positive deviation")
        self.deviation = float(sigma)

    def settings(self) -> dict[str, float]:
        return {"sigma": self.deviation}

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return self.deviation * (t * (1 - t)).sqrt()

    def gamma(self, t: Tensor) -> Tensor:
        return (1 - t) / (self.deviation**2 * t)

    def time(self, u: Tensor | float) -> Tensor:
        return 1 / (1 + self.deviation**2 * torch.as_tensor(u, dtype=torch.float64).reshape(-1))


class DomainBridges(Process):
    """Bridges from 0 to points of `space`, numbers and symbols; see the module.

    sigma: deviation of the unconditioned motion at its end; numbers are of deviation 1. Points
    are rows (B, D), states and predictions vectors (B, dim): guesses of numbers, and then the
    chance of each symbol. InputError unless sigma is positive.
    Source: Liu, Wu, Ye & Liu 2022, 2023; embedding and clock are derived here.

    >>> import torch
    >>> from reverie.processes import DomainBridges
    >>> from reverie.spaces import Bounded, FiniteSet, Intervals
    >>> process = DomainBridges(Bounded(Intervals([0.0], [1.0]), FiniteSet(3, sites=1)))
    >>> rows = torch.tensor([[0.25, 2.0]])  # a number and a symbol
    >>> process.target(None, rows, 0.5)
    tensor([[0.2500, 0.0000, 0.0000, 1.0000]])
    """

    space: Bounded
    clock_is_snr = True
    clock_label = "far end's signal-to-noise ratio"

    def __init__(self, space: Bounded, sigma: float = 1.0) -> None:
        super().__init__()
        self.space, self.base = space, BrownianBridge(sigma)
        self.t_range = self.base.t_range
        first, last = space.parts[0], space.parts[-1]
        self.ends = first if isinstance(first, Intervals) else None
        self.count = 0 if self.ends is None else self.ends.dim
        self.box = (
            None if self.ends is None else Box(self.ends.low.tolist(), self.ends.high.tolist())
        )
        sizes = _sizes(last) if isinstance(last, FiniteSet) else torch.empty(0, dtype=torch.long)
        self.sizes = sizes.tolist()
        self.dim = self.count + int(sizes.sum())
        self.first = self.count + torch.cat([sizes.new_zeros(1), sizes]).cumsum(0)[:-1]
        place = self.first[:, None] + torch.arange(max(self.sizes, default=1))
        outside = torch.arange(max(self.sizes, default=1)) >= sizes[:, None]
        # symbols side by side, as (sites, most symbols), and where a site has none
        self.place, self.outside = place.clamp(max=self.dim - 1), outside

    def settings(self) -> dict[str, float]:
        return self.base.settings()

    @property
    def numbers(self) -> int:
        return -(-self.dim // self.space.dim)

    # --- points and vectors --------------------------------------------------------------------

    def embed(self, x: Tensor) -> Tensor:
        """Points (B, D) as vectors (B, dim): numbers, and one-hot symbols."""
        vector = torch.zeros(len(x), self.dim, dtype=x.dtype, device=x.device)
        vector[:, : self.count] = x[:, : self.count]
        symbols = self.first.to(x.device) + x[:, self.count :].long()
        return vector.scatter(1, symbols, 1.0) if self.sizes else vector

    def chances(self, vector: Tensor) -> Tensor:
        """The part of vectors (B, dim) that belongs to symbols, (B, sites, most symbols)."""
        seen = vector[:, self.place.to(vector.device)]
        return seen.masked_fill(self.outside.to(vector.device), 0.0)

    def cut(self, centre: Tensor, variance: Tensor) -> Tensor:
        """Mean (B, dim) of N(centre, variance) cut to the domain; variance (B,).

        Of a site's corners the chances are softmax(centre / variance), since all are as long.
        """
        pieces = [centre[:, : self.count]]
        if self.box is not None:
            pieces = [self.box.mean(pieces[0], variance)]
        return torch.cat([*pieces, self.law(centre, variance)], 1) if self.sizes else pieces[0]

    def law(self, centre: Tensor, variance: Tensor) -> Tensor:
        """The chances (B, dim - count) of symbols alone in `cut`."""
        if not self.sizes:
            return centre[:, self.count :]
        logits = centre[:, self.place.to(centre.device)] / variance.to(centre)[:, None, None]
        hidden = self.outside.to(centre.device)
        return logits.masked_fill(hidden, -torch.inf).softmax(2)[:, ~hidden]

    def left(self, t: Tensor | float) -> Tensor:
        """Variance (B,) that the unconditioned motion has to go at time t."""
        return self.base.deviation**2 * torch.as_tensor(t, dtype=torch.float64).reshape(-1)

    # --- Gaussian noise on the vectors -----------------------------------------------------------

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        one: Draw = {**draw, "shape": (self.dim,)}
        return self.base.sample_prior(n, **one)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.base.corrupt(self.embed(x), t, end=end, generator=generator)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        return self.base.corrupt_pair(self.embed(x), t, generator=generator)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return self.base.log_kernel(state, self.embed(x), t)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return self.embed(x)

    def clock(self, t: Tensor | float) -> Tensor:
        return self.base.clock(t)

    def time(self, u: Tensor | float) -> Tensor:
        return self.base.time(u)

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.base.rate(prediction, self.embed(x), state, t)

    def start_kl(self, u: float, second: float) -> float:
        return self.base.start_kl(u, second)

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL (B,) in nats, at the first level, of noised x (B, D) from the prior."""
        return self.base.prior_kl(self.embed(x))

    def reconstruction(
        self,
        prediction: Tensor,
        x: Tensor,
        values: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Nats (B,) of the last denoise: the density of numbers, and the chance of symbols.

        values: the grid (V,) on which all numbers lie; None for a density.
        """
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if self.count:
            clean = x[:, : self.count]
            total = total + self.base.reconstruction(clean, values, generator=generator)
        return total + self.surprise(prediction, x)

    def surprise(self, prediction: Tensor, x: Tensor) -> Tensor:
        """-log of the chances (B,) that a prediction gives to the symbols of x (B, D), summed."""
        if not self.sizes:
            return prediction.new_zeros(len(x))
        symbols = self.first.to(x.device) + x[:, self.count :].long()
        return -prediction.gather(1, symbols).clamp(min=1e-30).log().sum(1)

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.base.reverse(prediction, state, t, s, generator=generator)

    def readout(self, state: State) -> Tensor:
        """The nearest point (B, D) of a vector: numbers within their ends, likeliest symbols."""
        return self._point(
            state, self.chances(state).masked_fill(self.outside, -torch.inf).argmax(2)
        )

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Numbers as guessed, within their ends; a symbol of each site, drawn by its chance."""
        law = self.chances(prediction).clamp(min=0).double()
        law = torch.where(law.sum(2, keepdim=True) > 0, law, (~self.outside).to(law))
        drawn = torch.rand(
            (*law.shape[:2], 1), generator=generator, dtype=law.dtype, device=law.device
        )
        running = law.cumsum(2)
        symbol = torch.searchsorted(running, drawn * running[..., -1:], right=True)[..., 0]
        most = (~self.outside).sum(1).to(symbol) - 1
        return self._point(prediction, torch.minimum(symbol, most))

    def _point(self, vector: Tensor, symbols: Tensor) -> Tensor:
        numbers = vector[:, : self.count]
        if self.ends is not None:
            numbers = self.ends.project(numbers)
        return torch.cat([numbers, symbols.to(numbers)], 1)


def _sizes(sites: FiniteSet) -> Tensor:
    """How many symbols each site has, (sites,)."""
    if sites.sizes is None:
        return torch.full((sites.dim,), sites.symbols)
    return sites.sizes.flatten().long()
