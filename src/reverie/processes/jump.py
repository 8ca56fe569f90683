"""Jumps between symbols: every site runs its own continuous-time Markov chain.

A chain has a rate matrix Q (M, M), Q[x, y] the rate of the jump x -> y, slowed down and sped up by
a noise level sigma(t): p(x_t | x) = exp(sigma(t) Q)[x, x_t], site by site. The first S of its M
states are the data's symbols; a chain may own further states (a mask).

The prediction is the posterior p(x | x_t) of every site's clean symbol, (B, *sites, S). It fixes
the ratios r(y) = sum_x p(x | x_t) K_t[x, y] / K_t[x, x_t] of the reversal, whose jump x_t -> y has
rate sigma' Q[y, x_t] r(y), and by Bayes' rule the law of a step back. The loss curve's rate is the
score entropy of the ratios (Lou, Meng & Ermon 2024, eq. 9): the path KL between the reversal that
knows x and the model's, so that the area under the ideal curve is information. A step's charge is
the discrete-time bound's own term (Austin et al. 2021, eq. 1).
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Draw, Guess, Process, State
from reverie.processes.site_tables import (
    drawn_from,
    fit_level,
    inverse_cdf,
    off_diagonal,
    pick,
    shared_level,
    times_of,
    uniform_like,
)
from reverie.spaces import FiniteSet

IMPOSSIBLE = -1000.0  # log-probability of what cannot be: its exponential is 0 in any type
CLEAN_JUMPS = 1e-3  # expected jumps of the fastest state by the cleanest level


class JumpProcess(Process):
    """Chain `rates` (M, M) on every site of `space`; rows sum to 0, time unit: slowest relaxation.

    sigma_range: noise levels at t = 0 and t = 1, between which sigma(t) is geometric. By default
    the fastest state jumps with probability .001 by the first, and the second leaves e^-8 of the
    slowest mode. `stationary` (M,) is the law of the noise. The clock is u = 1 / (e^sigma - 1),
    for the uniform chain the odds that a site is untouched.
    InputError unless 0 < low < high in sigma_range.
    Source: Lou, Meng & Ermon 2024, eq. 9 (the score entropy).

    >>> import torch
    >>> from reverie.processes import JumpProcess
    >>> from reverie.spaces import FiniteSet
    >>> rates = torch.tensor([[-0.5, 0.5], [0.5, -0.5]], dtype=torch.float64)
    >>> process = JumpProcess(FiniteSet(2, sites=3), rates, torch.tensor([0.5, 0.5]).double())
    >>> process.kernel(0.5).round(decimals=3)  # law of a site, for each clean symbol
    tensor([[[0.9410, 0.0590],
             [0.0590, 0.9410]]], dtype=torch.float64)
    """

    space: FiniteSet
    monotone = False
    steps_exact = False
    steps_measured = True
    ordered = False  # jumps of a step add up along the line of symbols
    clock_label = "odds of an untouched site"

    def __init__(
        self,
        space: FiniteSet,
        rates: Tensor,
        stationary: Tensor,
        sigma_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        # plain attributes: a module moved to half precision must keep its rates
        self.space, self._rates, self.stationary = space, rates, stationary
        self.symbols, self.states = space.symbols, len(stationary)
        low, high = sigma_range or (CLEAN_JUMPS / float(-rates.diagonal().min()), 8.0)
        if not 0 < low < high:
            raise InputError(f"sigma_range is {(low, high)}; it must satisfy 0 < low < high")
        self.sigma_range = (float(low), float(high))
        self.t_range = (0.0, 1.0)

    # --- noise levels and kernels ------------------------------------------------------------

    @property
    def rates(self) -> Tensor:
        """The rate matrix Q (M, M)."""
        return self._rates

    @property
    def numbers(self) -> int:
        """A share for each symbol of a site."""
        return self.symbols

    def sigma(self, t: Tensor | float) -> Tensor:
        """Noise level (T,) at t: how long the chain has run, in relaxation times."""
        low, high = self.sigma_range
        return low * (high / low) ** times_of(t)

    def clock(self, t: Tensor | float) -> Tensor:
        return 1 / torch.expm1(self.sigma(t))

    def time(self, u: Tensor | float) -> Tensor:
        low, high = self.sigma_range
        return (torch.log1p(1 / times_of(u)) / low).log() / math.log(high / low)

    def transition(self, sigma: Tensor) -> Tensor:
        """exp(sigma Q) (T, M, M) for noise (T,)."""
        return torch.linalg.matrix_exp(sigma[:, None, None] * self.rates.to(sigma))

    def kernel(self, t: Tensor | float) -> Tensor:
        """K_t (T, S, M): the law of a site's state at t, for each clean symbol.

        T is 1 where all times are equal.
        """
        return self.transition(self.sigma(shared_level(t)))[:, : self.symbols].clamp(min=0)

    def between(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """The law (T, M, M) of a site's state at t > s, for each state at s."""
        span = self.sigma(shared_level(t)) - self.sigma(shared_level(s))
        return self.transition(span).clamp(min=0)

    def log_likelihood(self, state: State, t: Tensor | float) -> Tensor:
        """log p(x_t | x) of every site for each clean symbol, (B, *sites, S), `IMPOSSIBLE` for 0.

        Added to a network's logits it makes the own site's evidence exact.
        """
        table = self.kernel(t).to(state.device).log().clamp(min=IMPOSSIBLE)
        return pick(table.mT, state)

    def clean_law(self, logits: Tensor, state: State, t: Tensor | float) -> Tensor:
        """The posterior (B, *sites, S) of logits (B, *sites, S) that leave the own site out.

        What a site's own state says about its clean symbol is known exactly and is added here.
        """
        return (logits + self.log_likelihood(state, t).to(logits)).softmax(-1)

    # --- noising -----------------------------------------------------------------------------

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """Draw n states (n, *sites), int64, of the stationary law, which stands in for any t."""
        law = self.stationary.to(draw.get("device", "cpu")).expand(n, *self.space.shape, -1)
        return drawn_from(law, draw.get("generator"))

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw X_t given x; `end` (B, *sites) are the uniform variates to use, if given."""
        return self._invert(x, t, uniform_like(x, generator) if end is None else end)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        variates = uniform_like(x, generator)
        return self._invert(x, t, variates), self._invert(x, t, 1 - variates)

    def _invert(self, x: Tensor, t: Tensor | float, variates: Tensor) -> State:
        law = pick(self.kernel(t).to(x.device), x)
        return inverse_cdf(law, variates)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """log p(x_t | x) (B, N) in float64; a site that cannot be counts `IMPOSSIBLE` nats.

        So a memoriser that no row explains falls back on the rows with the fewest contradictions.
        """
        own = self.log_likelihood(state, t).flatten(1)
        return own @ self.target(state, x, t).flatten(1).T

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """One-hot symbols (N, *sites, S) in float64."""
        return torch.nn.functional.one_hot(x, self.symbols).double()

    def average_target(
        self, weights: Tensor, state: Tensor, x: Tensor, t: Tensor | float
    ) -> Tensor:
        sites = x.flatten(1)
        found = weights.new_zeros(len(weights), sites.shape[1], self.symbols, dtype=torch.float64)
        for site in range(sites.shape[1]):
            found[:, site].index_add_(1, sites[:, site], weights.double())
        return found.flatten(1)

    # --- what a prediction implies -----------------------------------------------------------

    def _weights(self, prediction: Tensor, state: State, kernel: Tensor) -> Tensor:
        """p(x | x_t) / K_t[x, x_t] (B, d, S), 0 where x_t cannot come from x."""
        evidence = pick(kernel.mT, state)
        share = prediction.double() / evidence.where(evidence > 0, 1.0)
        return share.where(evidence > 0, 0.0).reshape(len(state), -1, self.symbols)

    def ratios(self, prediction: Tensor, state: State, t: Tensor | float) -> Tensor:
        """p_t(y) / p_t(x_t) for every state y of a site, (B, *sites, M), from the posterior."""
        kernel = self.kernel(t).to(state.device)
        return (self._weights(prediction, state, kernel) @ kernel).reshape(*state.shape, -1)

    def posterior(self, ratios: Tensor, state: State, t: Tensor | float) -> Tensor:
        """The prediction (B, *sites, S) that has these ratios: the inverse of `ratios`.

        Ratios that no posterior has (a network's) are projected: negative shares become 0.
        """
        kernel = self.kernel(t).to(state.device)
        flat = ratios.double().reshape(len(state), -1, self.states)
        weights = (flat @ torch.linalg.pinv(kernel)).reshape(*state.shape, -1)
        share = (weights * pick(kernel.mT, state)).clamp(min=0)
        return share / share.sum(-1, keepdim=True)

    def score_entropy(self, ratios: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Nats (B,) per unit of sigma: sum_y Q[y, x_t] (r - r0 + r0 log(r0 / r)), r0 given x.

        Source: Lou, Meng & Ermon 2024, eq. 9. A ratio of 0 is charged as the least positive one.
        """
        law = pick(self.kernel(t).to(state.device), x)
        exact = law / law.gather(-1, state[..., None])
        guess = ratios.clamp(min=torch.finfo(ratios.dtype).tiny).to(exact)
        gap = guess - exact + torch.xlogy(exact, exact) - exact * guess.log()
        inward = pick(off_diagonal(self.rates).mT.to(gap), state)
        return (inward * gap).flatten(1).sum(1)

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        clock = self.clock(t).to(state.device)
        return self.score_entropy(self.ratios(prediction, state, t), x, state, t) / (
            clock * (1 + clock)
        )

    def step_law(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """Law (B, *sites, M) of each site at s < t given the states at t and the prediction."""
        weights = self._weights(prediction, state, self.kernel(t).to(state.device))
        moved = (weights @ self.kernel(s).to(weights)).reshape(*state.shape, -1)
        law = moved * pick(self.between(s, t).to(weights).mT, state)
        return law / law.sum(-1, keepdim=True)

    def charge(
        self, guess: Guess, x: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """KL (B,) in nats between the step's laws given x and given the guess at t."""
        times = times_of(t).expand(len(state))
        exact = self.step_law(self.target(state, x, t), state, t, s)
        model = self.step_law(guess(state, times), state, t, s)
        least = torch.finfo(model.dtype).tiny
        gap = torch.xlogy(exact, exact) - exact * model.clamp(min=least).log()
        return gap.flatten(1).sum(1)

    def expected_charge(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """Mean (B,) in nats of `charge` over clean symbols drawn from the prediction itself.

        The information, site by site, that a step to s gives about x. For an exact prediction it
        is the charge's mean given the state, without the variance of x. t and s: one level each.
        """
        evidence = self.kernel(t)[0].to(state.device)
        joint = self.kernel(s)[0][:, :, None] * self.between(s, t)[0]  # [x, y, z]
        law = joint.to(evidence) / evidence.where(evidence > 0, 1.0)[:, None]
        known = torch.special.entr(law).sum(1)  # entropy of y given x and z: [x, z]
        spread = torch.special.entr(self.step_law(prediction, state, t, s)).sum(-1)
        gain = spread - (prediction.double() * pick(known.mT, state)).sum(-1)
        return gain.flatten(1).sum(1)

    # --- the reversal ------------------------------------------------------------------------

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        return drawn_from(self.step_law(prediction, state, t, s), generator)

    def reverse_rates(self, prediction: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Rate (B, *sites, M) per unit of sigma of the reversal's jumps x_t -> y, 0 at x_t."""
        inward = pick(off_diagonal(self.rates).mT.to(state.device), state)
        return inward * self.ratios(prediction, state, t)

    def forward_rates(self, state: State) -> Tensor:
        """Rate (B, *sites, M) per unit of sigma of the noising jumps x_t -> y, 0 at x_t."""
        return pick(off_diagonal(self.rates).to(state.device), state)

    def jumps(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """Expected jumps (B, *sites, M) of the reversal from t to s at the rates it has at t."""
        span = (self.sigma(t) - self.sigma(s)).to(state.device)
        return fit_level(span, state) * self.reverse_rates(prediction, state, t)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return drawn_from(prediction, generator)

    # --- the ends of the bound ---------------------------------------------------------------

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL (B,) in nats of p(x_t | x) at the noisiest level from the stationary law."""
        law = self.kernel(self.t_range[1])[0]
        gap = (torch.xlogy(law, law) - torch.xlogy(law, self.stationary)).sum(1).to(x.device)
        return gap[x].flatten(1).sum(1)

    def reconstruction(self, prediction: Tensor, x: Tensor, state: State) -> Tensor:
        """Nats (B,) that the last denoise of a state at the cleanest level costs."""
        return self.surprise(prediction, x).flatten(1).sum(1).double()

    def surprise(self, prediction: Tensor, x: Tensor) -> Tensor:
        """-log of the probability (B, *sites) that the prediction gives the true symbols, in nats.

        A probability of 0 is charged as the least positive number of its type.
        """
        share = prediction.gather(-1, x[..., None])[..., 0]
        return -share.clamp(min=torch.finfo(share.dtype).tiny).log()
