"""Wright-Fisher noise on the simplex: shares drift by chance and mutate at rates a.

    dX = 1/2 (a - |a| X) dtau + S(X) dW,   S S^T = diag(x) - x x^T,   |a| = sum_i a_i

It is reversible and its stationary law is Dirichlet(a), of density pi. With h = q / pi, q the law
of the noised data, and m_i = x_i d/dx_i log h, the reversal adds m - |m| x to the drift: it is a
Wright-Fisher diffusion again, with the rates a + 2 m, and never leaves the simplex. Given clean
shares x0, m_i is the mean number of lineages of type i (see `lineages`) given both ends.

The prediction is the point p = x + tau (m - |m| x) on the plane of the simplex, a Tweedie guess of
the clean shares, and the mean of its target over p(x0 | x_tau) is right. The clock is u = 1 / tau
and the score-matching operator makes the rate (Benton et al. 2022, section 3; this form is ours)

    1/2 sum_i (p_i(given x0) - p_i)^2 / x_i,

whose ideal area is information between a point and its noised self, as for Brownian motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Draw, Guess, Process, State
from reverie.processes.lineages import (
    draw_dirichlet,
    evolve,
    lineage_law,
    log_rising,
    mean_lineages,
    sum_over_lineages,
)
from reverie.spaces import Simplex

FORGETTING = 14.0  # of the slowest mode exp(-7) is left at the noisy end
LEAST = 1e-30  # of a share, so that it has a logarithm
BLIND = 256
CHUNK = 2048  # pairs whose series are in memory at a time


class WrightFisher(Process):
    """Mutation rates `mutation` (k,) to the k types, tau(t) = tau_min^(1 - t) tau_max^t.

    By default tau_max = 14 / |a|, where the noised law is the prior Dirichlet(a) to 1e-5 nats.
    Noise of duration tau moves a share by sqrt(tau x (1 - x)). Noise is drawn exactly; kernels
    cost 1 / tau^2 operations a pair. A step's charge is exact in the limit of short steps only.
    Raises InputError on rates that are not positive and on bad durations.
    Source: Benton et al. 2022, section 3; the form of the rate is ours.

    >>> import torch
    >>> from reverie.processes import WrightFisher
    >>> process = WrightFisher([1.0, 1.0, 1.0])  # ends in the uniform law of three shares
    >>> state = process.corrupt(torch.tensor([[0.2, 0.3, 0.5]]).double(), 0.5)
    >>> state.shape, float(state.sum().round(decimals=9))
    (torch.Size([1, 3]), 1.0)
    """

    space: Simplex
    monotone = False
    steps_exact = False
    clock_label = "inverse duration 1/tau"

    def __init__(
        self,
        mutation: Sequence[float] | Tensor,
        tau_min: float = 0.01,
        tau_max: float | None = None,
    ) -> None:
        super().__init__()
        rates = torch.as_tensor(mutation, dtype=torch.float64)
        if rates.ndim != 1 or len(rates) < 2:
            raise InputError(f"mutation has shape {tuple(rates.shape)}; give one rate per type")
        bad = ~(rates > 0) | torch.isinf(rates)
        if bad.any():
            place = int(bad.nonzero()[0, 0])
            raise InputError(
                f"the mutation rate to type {place} is {float(rates[place]):g}; it "
                "must be positive"
            )
        self.mutation, self.total = rates, float(rates.sum())
        tau_max = FORGETTING / self.total if tau_max is None else tau_max
        if not 0 < tau_min < tau_max or not math.isfinite(tau_max):
            raise InputError(f"durations are {tau_min}, {tau_max}; need 0 < tau_min < tau_max")
        self.space, self.t_range = Simplex(len(rates)), (0.0, 1.0)
        self.tau_min, self.tau_max = float(tau_min), float(tau_max)

    def settings(self) -> dict[str, list[float] | float]:
        """Keyword arguments that rebuild this process, for a run's `config.json`."""
        rates = self.mutation.tolist()
        return dict(mutation=rates, tau_min=self.tau_min, tau_max=self.tau_max)

    # --- noise levels ------------------------------------------------------------------------

    def tau(self, t: Tensor | float) -> Tensor:
        """Duration (T,) at times t, float64."""
        time = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        return self.tau_min * (self.tau_max / self.tau_min) ** time

    def clock(self, t: Tensor | float) -> Tensor:
        return 1 / self.tau(t)

    def time(self, u: Tensor | float) -> Tensor:
        clock = torch.as_tensor(u, dtype=torch.float64).reshape(-1)
        return -(clock * self.tau_min).log() / math.log(self.tau_max / self.tau_min)

    @property
    def slowest(self) -> float:
        return self.total

    def blind_rate(self, u: Tensor) -> Tensor:
        """The rate of the guess x, of h = 1, the mean over BLIND clean shares of the noise's law.

        Shares of the data have one of their own, which differs by their spread over the simplex.
        """
        generator = torch.Generator().manual_seed(0)
        shares = self.sample_prior(BLIND, generator=generator, dtype=torch.float64)
        found = []
        for clock in u.double():
            t = self.time(clock)
            state = self.corrupt(shares, t, generator=torch.Generator().manual_seed(1))
            found.append(self.rate(state, shares, state, t).mean())
        return torch.stack(found)

    # --- noising -----------------------------------------------------------------------------

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """Draw n shares (n, k) of Dirichlet(a), which stands in for any t."""
        weights = self.mutation.to(draw.get("device", "cpu")).expand(n, -1)
        return draw_dirichlet(weights, draw.get("generator")).to(draw.get("dtype", torch.float32))

    def log_prior(self, state: State) -> Tensor:
        """Log-density (B,) of Dirichlet(a), with respect to the first k - 1 shares."""
        a = self.mutation.to(state)
        norm = torch.lgamma(a.sum()) - torch.lgamma(a).sum()
        return norm + ((a - 1) * state.clamp(min=LEAST).log()).sum(1)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.with_types(x, t, generator=generator)[0]

    def with_types(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, Tensor]:
        """Draw X_t given x (B, k) and the types (B, k) of its lineages, whose mean is m."""
        tau, a = self._durations(t, x), self.mutation.to(x.device)
        state, types = evolve(x.double(), a.expand(len(x), -1), tau, generator)
        return state.to(x), types

    # --- kernel and target -------------------------------------------------------------------

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """log p(x_t | x) (B, N), with respect to the first k - 1 shares, by the series."""
        ratio = self._given(*self._pairs(state, x, t))[0].reshape(len(state), len(x))
        return (ratio + self.log_prior(state.double())[:, None]).to(state)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """The point p (B, k) of paired clean shares x (B, k) and states."""
        tau = self._durations(t, state)
        lineages = self._given(state.double(), x.double(), tau)[1]
        return self.guess(lineages, state.double(), tau).to(state)

    def average_target(
        self, weights: Tensor, state: Tensor, x: Tensor, t: Tensor | float
    ) -> Tensor:
        left, right, tau = self._pairs(state, x, t)
        points = self.guess(self._given(left, right, tau)[1], left, tau)
        points = points.reshape(len(state), len(x), -1)
        return (weights.double()[..., None] * points).sum(1).to(state)

    def guess(self, lineages: Tensor, state: State, tau: Tensor) -> Tensor:
        """The prediction p = x + tau (m - |m| x) of lineages m (B, k); tau: (B,)."""
        pull = lineages - lineages.sum(1, keepdim=True) * state
        return state + tau.to(state)[:, None] * pull

    def _pairs(self, state: State, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """All pairs of states and points, row by row of states, and their durations."""
        left = state.double().repeat_interleave(len(x), 0)
        tau = self._durations(t, state).repeat_interleave(len(x))
        return left, x.double().repeat(len(state), 1), tau

    def _given(self, state: Tensor, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x_t | x) / pi(x_t) (P,) and m (P, k) of pairs (P, k)."""
        powers = (state * x).clamp(min=LEAST)
        overlap = powers.sqrt().sum(1).log()
        return self._series(powers.log(), tau, lambda mean: 2 * (math.log(mean) - overlap))

    def given_dirichlet(
        self, state: State, weights: Tensor, t: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """log q(x_t) / pi(x_t) (B,) and m (B, k) where clean shares have law Dirichlet(weights).

        weights: (k,), positive. The types of n lineages are then Dirichlet-multinomial.
        """
        tau, whole = self._durations(t, state), float(weights.sum())
        powers = state.double().clamp(min=LEAST).log()

        def tilt(mean: float) -> Tensor:
            return torch.full_like(tau, 2 * math.log(mean) - math.log(whole + mean))

        return self._series(powers, tau, tilt, weights.double())

    def _series(
        self,
        powers: Tensor,
        tau: Tensor,
        tilt: Callable[[float], Tensor],
        law: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log sum_n P(A = n) (|a|)_n n! [z^n] prod_i sum_l (e^(powers_i) z)^l / (l! (a_i)_l).

        With `law` each term also has the weight (law_i)_l, and n of them 1 / (|law|)_n.
        """
        ratio, lineages = torch.zeros_like(tau), torch.zeros_like(powers)
        for level in tau.unique():
            spread = torch.tensor(self.total, dtype=torch.float64)
            mean = float(mean_lineages(spread, level.cpu()).clamp(min=1))
            chance = lineage_law(self.total, float(level)).to(powers)
            count = torch.arange(len(chance)).to(powers)
            a, whole = self.mutation.to(powers), self.mutation.sum().to(powers)
            weights = chance.log() + log_rising(whole, count) + torch.lgamma(count + 1)
            fixed = -torch.lgamma(count + 1) - log_rising(a[:, None], count)
            if law is not None:
                weights = weights - log_rising(law.sum().to(powers), count)
                fixed = fixed + log_rising(law.to(powers)[:, None], count)
            shift = tilt(mean)
            for rows in (tau == level).nonzero()[:, 0].split(CHUNK):
                terms = fixed + powers[rows][..., None] * count
                ratio[rows], lineages[rows] = sum_over_lineages(terms, weights, shift[rows])
        return ratio, lineages

    # --- costs and the reversal --------------------------------------------------------------

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.cost(prediction, self.target(state, x, t), state)

    def cost(self, prediction: Tensor, target: Tensor, state: State) -> Tensor:
        """1/2 sum_i (target_i - prediction_i)^2 / x_i, (B,)."""
        off = (target - prediction).square() / state.clamp(min=LEAST)
        return 0.5 * off.sum(1)

    def implicit(self, guess: Guess, state: State, t: Tensor | float) -> Tensor:
        """(L h) / h + L log h (B,), nats per unit of tau, of the h that the guess stands for.

        With w = (p - x) / tau it is 1/2 sum_i w_i^2 / x_i + div w + sum_i (a_i - 1) w_i / x_i: the
        implicit objective of Benton et al. 2022 (eq. 9) relative to Dirichlet(a), k gradients.
        Its mean is that of the rate, per unit of tau, but for a number that no guess touches.
        """
        tau = self._durations(t, state).to(state)
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = state.detach().requires_grad_()
            flow = (guess(x, torch.as_tensor(t).to(x).expand(len(x))) - x) / tau[:, None]
            slopes = torch.stack(
                [
                    torch.autograd.grad(part.sum(), x, create_graph=training, retain_graph=True)[0]
                    for part in flow.unbind(1)
                ],
                1,
            )
            # the part along (1, ..., 1) leaves the simplex
            spread = slopes.diagonal(dim1=1, dim2=2).sum(1) - slopes.sum((1, 2)) / x.shape[1]
            a = self.mutation.to(x)
            total = 0.5 * (flow.square() / x).sum(1) + spread + ((a - 1) * flow / x).sum(1)
        return total if training else total.detach()

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """A Wright-Fisher step with rates a + 2 m, exactly on the simplex.

        m counts up to multiples of x; the one with |m| = 1/tau pulls towards p as a bridge does
        (as far as m stays positive), and grows as 1/tau on the way.
        """
        now, then = self._durations(t, state), self._durations(s, state)
        x = state.double().clamp(min=LEAST)
        pull = prediction.double() - x
        least = (-pull / x).amax(1, keepdim=True).clamp(min=1)
        growth = (now / then).log() / (now - then)
        lineages = growth[:, None] * (pull + least * x).clamp(min=0)
        rates = self.mutation.to(x) + 2 * lineages
        return evolve(x, rates, now - then, generator)[0].to(state)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.space.project(prediction)

    def _durations(self, t: Tensor | float, like: Tensor) -> Tensor:
        return self.tau(t).to(like.device).expand(len(like))


def require_wright_fisher(process: Process, purpose: str) -> WrightFisher:
    """The process, if it is Wright-Fisher noise; else InputError that says what needs it."""
    if not isinstance(process, WrightFisher):
        raise InputError(f"{purpose} needs a Wright-Fisher process")
    return process
