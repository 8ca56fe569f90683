"""Masking: every site is hidden at its own uniform time, and a hidden site tells nothing.

The clock is the share of revealed sites, u = 1 - t in [0, 1], and the rate

    rate(u) = E sum_{masked i} -log p_i(x_i | x_t) / (1 - u)

is the summed cross-entropy of a site given the others at that share. Its area under the ideal
curve is the entropy of the data: the masked bound is tight (Shi et al. 2024, eq. 4; Sahoo et al.
2024, eq. 10), by the chain rule along a random order.

`steps_exact` holds by derivation. In the step t -> s each masked site is revealed, whatever the
others do, with probability (u_s - u_t) / (1 - u_t), in the true law as in the model's; they differ
in the symbol alone, x_i against a draw from p_i. So

    KL(q(x_s | x_t, x) || p(x_s | x_t)) = sum_{masked i} (u_s - u_t) / (1 - u_t) (-log p_i(x_i))

whose mean over x_t is (u_s - u_t) rate(u_t): a rectangle. Summed over steps, less the area of the
ideal curve, it is the path KL of unmasking several sites at once. The rate falls in u since
conditioning lowers entropy.

Everything here is linear in the symbols, in time and memory: a hidden site's evidence is flat, a
shown one's is a point. Tables of states by states exist on request, for small alphabets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.processes.base import Guess, Process, State
from reverie.processes.jump import IMPOSSIBLE, JumpProcess
from reverie.processes.site_tables import (
    check_alphabet,
    drawn_from,
    fit_level,
    shared_level,
    times_of,
    uniform_like,
)
from reverie.spaces import FiniteSet

SIGMAS = (1e-3, 8.0)  # what other chains have; masking's levels are all of [0, 1]
PAIRS = 2**24  # sites of pairs of states and points compared at a time


class Masking(JumpProcess):
    """Symbols 0..S-1 and the mask S on `sites`; sigma(t) = -log(1 - t). See the module.

    sizes: how many of the symbols each site has, where they differ (see `FiniteSet`).
    States are int64 (B, *sites), predictions logits (B, *sites, S), the clock u = 1 - t.
    Source: Shi et al. 2024, eq. 4; Sahoo et al. 2024, eq. 10.

    >>> import torch
    >>> from reverie.processes import Masking
    >>> process = Masking("acgt", sites=8)
    >>> state = process.corrupt(torch.zeros(2, 8, dtype=torch.int64), 0.999)
    >>> state[0].tolist(), process.clock(0.25)  # 4 is the mask
    ([4, 4, 4, 4, 4, 4, 4, 4], tensor([0.7500], dtype=torch.float64))
    """

    monotone = True
    steps_exact = True
    steps_measured = False
    clock_label = "share of revealed sites"

    def __init__(
        self,
        symbols: int | str,
        sites: int | tuple[int, ...],
        sizes: Sequence[int] | None = None,
    ) -> None:
        space = FiniteSet(symbols, sites, sizes)
        stationary = torch.zeros(space.symbols + 1, dtype=torch.float64)
        stationary[-1] = 1
        super().__init__(space, torch.empty(0, 0), stationary, SIGMAS)
        self.mask = space.symbols

    @property
    def rates(self) -> Tensor:
        """Q (M, M): every symbol is masked at rate 1. InputError on a large alphabet."""
        check_alphabet(self.states, "this table of masking")
        rates = -torch.eye(self.states, dtype=torch.float64)
        rates[:, -1] += 1
        return rates

    # --- noise levels ------------------------------------------------------------------------

    def sigma(self, t: Tensor | float) -> Tensor:
        return -torch.log1p(-times_of(t))

    def clock(self, t: Tensor | float) -> Tensor:
        return 1 - times_of(t)

    def time(self, u: Tensor | float) -> Tensor:
        return 1 - times_of(u)

    def transition(self, sigma: Tensor) -> Tensor:
        return self._thinned((-sigma).exp())

    def kernel(self, t: Tensor | float) -> Tensor:
        return self._thinned(self.clock(shared_level(t)))[:, : self.symbols]

    def between(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        return self._thinned(self.clock(shared_level(t)) / self.clock(shared_level(s)))

    def _thinned(self, kept: Tensor) -> Tensor:
        """Transition (T, M, M) that keeps a symbol with probability `kept` and masks it else."""
        check_alphabet(self.states, "this table of masking")
        eye = torch.eye(self.states, dtype=kept.dtype, device=kept.device)
        kept = kept[:, None, None]
        return kept * eye + (1 - kept) * eye[-1]

    def clean_law(self, logits: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Carry-over: a revealed site is certain; in time and memory linear in the symbols.

        A symbol that its site does not have (see `FiniteSet`) has probability 0.
        """
        outside = self.space.outside
        if outside is not None:
            logits = logits.masked_fill(outside.to(logits.device), -torch.inf)
        hidden = state == self.mask
        shown = state.clamp(max=self.symbols - 1)[..., None]
        law = torch.zeros_like(logits).scatter_(-1, shown, 1.0)
        law[hidden] = logits[hidden].softmax(-1)
        return law

    def log_likelihood(self, state: State, t: Tensor | float) -> Tensor:
        """log p(x_t | x) (B, *sites, S): log t at hidden sites; a point at shown ones."""
        hide, show = self._logs(t)
        own = self._shown(state) * (fit_level(show, state) - IMPOSSIBLE) + IMPOSSIBLE
        return torch.where((state == self.mask)[..., None], fit_level(hide, state), own)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        hide, show = (level.reshape(-1, 1) for level in self._logs(t))
        flat, points = state.flatten(1), x.flatten(1)
        equal = torch.cat(
            [
                (part[:, None] == points).sum(2)
                for part in flat.split(max(1, PAIRS // points.numel()))
            ]
        )
        hidden = (flat == self.mask).sum(1, keepdim=True)
        wrong = flat.shape[1] - hidden - equal
        return hidden * hide + equal * show + wrong * IMPOSSIBLE

    def _logs(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Logarithms of the chances (T,) that a site is hidden, and that it is shown."""
        time = times_of(t)
        return time.log().clamp(min=IMPOSSIBLE), (1 - time).log().clamp(min=IMPOSSIBLE)

    def _shown(self, state: State) -> Tensor:
        """One-hot symbols (B, *sites, S) in float64 of the shown sites, 0 at hidden ones."""
        shown = state.clamp(max=self.symbols - 1)[..., None]
        value = (state != self.mask)[..., None].double()
        return value.new_zeros(*state.shape, self.symbols).scatter_(-1, shown, value)

    def ratios(self, prediction: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Of a hidden site's symbols p (1 - t)/t, its mask 1; of a shown site's mask t/(1 - t)."""
        time = fit_level(times_of(t), state).to(state.device)
        hidden, odds = (state == self.mask)[..., None], (1 - time) / time
        kept = self._shown(state) * prediction.double()
        symbols = torch.where(hidden, odds * prediction.double(), kept)
        mask = torch.where(hidden, 1.0, kept.sum(-1, keepdim=True) / odds)
        return torch.cat([symbols, mask], -1)

    # --- costs -------------------------------------------------------------------------------

    def score_entropy(self, ratios: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Nats (B,) per unit of sigma; only hidden sites can jump, to symbols."""
        time = fit_level(times_of(t), state)[..., 0].to(state.device)
        exact = ((1 - time) / time).expand(state.shape)
        guess = ratios[..., : self.symbols].clamp(min=torch.finfo(ratios.dtype).tiny).double()
        own = guess.gather(-1, x[..., None])[..., 0].log()
        gap = guess.sum(-1) - exact + torch.xlogy(exact, exact) - exact * own
        return gap.where(state == self.mask, 0.0).flatten(1).sum(1)

    def _invert(self, x: Tensor, t: Tensor | float, variates: Tensor) -> State:
        hidden = variates < fit_level(times_of(t), x)[..., 0].to(x.device)
        return x.masked_fill(hidden, self.mask)

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.reconstruction(prediction, x, state) / times_of(t).to(state.device)

    def reconstruction(self, prediction: Tensor, x: Tensor, state: State) -> Tensor:
        """Sum (B,) over masked sites of -log p_i(x_i), in nats."""
        hidden = state == self.mask
        surprise = self.surprise(prediction, x).where(hidden, 0.0)
        return surprise.flatten(1).sum(1).double()

    def probe(
        self,
        guess: Guess,
        x: Tensor,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Rates (B,), finite on all of [0, 1]: one site is masked for sure, the others by chance.

        Given that site i is masked the others are independent of it, so that the rate is the sum
        over i of -log p_i under that law. A uniform i and its mask set M make M size-biased, and
        given M every masked site is equally likely to be i: the estimate is d times the mean over
        masked sites (Hoogeboom et al. 2022, eq. 4, in continuous time). No 1 / t, no variance at
        small t.
        """
        batch, dim = len(x), self.space.dim
        time = times_of(t).to(x.device).expand(batch)
        variates = uniform_like(x, generator).flatten(1)
        sure = torch.randint(dim, (batch, 1), generator=generator, device=x.device)
        opposite = (sure + dim // 2) % dim
        states = [
            self._invert(x, time, v.scatter(1, site, -1.0).reshape(x.shape))
            for v, site in ((variates, sure), (1 - variates, opposite))
        ]
        state, both = torch.cat(states), torch.cat([x, x])
        total = self.reconstruction(guess(state, time.repeat(2)), both, state)
        rate = total * dim / (state == self.mask).flatten(1).sum(1)
        return 0.5 * (rate[:batch] + rate[batch:])

    def charge(
        self, guess: Guess, x: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        return Process.charge(self, guess, x, state, t, s)

    def expected_charge(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """The share of the step times the entropy of the hidden sites' predictions, (B,)."""
        share = ((times_of(t) - times_of(s)) / times_of(t)).to(state.device)
        spread = torch.special.entr(prediction).sum(-1).where(state == self.mask, 0.0)
        return share * spread.double().flatten(1).sum(1)

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
        """Reveal each hidden site with the step's share, as a draw from its prediction."""
        share = ((times_of(t) - times_of(s)) / times_of(t)).to(state.device)
        chance = fit_level(share, state)[..., 0]
        shown = (state == self.mask) & (uniform_like(state, generator) < chance)
        return self._revealed(prediction, state, shown, generator)

    def _revealed(
        self, prediction: Tensor, state: State, shown: Tensor, generator: torch.Generator | None
    ) -> State:
        """The state with the sites of `shown` (B, *sites) drawn; the others as they are."""
        state = state.clone()
        state[shown] = drawn_from(prediction[shown], generator)
        return state

    def reverse_rates(self, prediction: Tensor, state: State, t: Tensor | float) -> Tensor:
        time = fit_level(times_of(t), state).to(state.device)
        rates = (1 - time) / time * prediction.double()
        rates = torch.cat([rates, torch.zeros_like(rates[..., :1])], -1)
        return torch.where((state == self.mask)[..., None], rates, 0.0)

    def forward_rates(self, state: State) -> Tensor:
        rates = torch.zeros(*state.shape, self.states, dtype=torch.float64, device=state.device)
        rates[..., -1] = (state != self.mask).double()
        return rates

    def step_law(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """A revealed site stays (carry-over); a masked one is revealed with the step's share."""
        share = (times_of(t) - times_of(s)) / times_of(t)
        share = fit_level(share, state).to(prediction)
        hidden = (state == self.mask)[..., None]
        kept = torch.nn.functional.one_hot(state, self.states).to(prediction)
        shown = share * torch.cat([prediction, torch.zeros_like(prediction[..., :1])], -1)
        return torch.where(hidden, shown + (1 - share) * kept, kept)

    def posterior(self, ratios: Tensor, state: State, t: Tensor | float) -> Tensor:
        """The ratios of the symbols, normalised, at masked sites; the symbol itself elsewhere."""
        share = ratios[..., : self.symbols].double()
        share = share / share.sum(-1, keepdim=True)
        return torch.where((state == self.mask)[..., None], share, self._shown(state))

    def jumps(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        share = fit_level((times_of(t) - times_of(s)) / times_of(t), state).to(prediction)
        hidden = (state == self.mask)[..., None]
        shown = torch.cat([prediction, torch.zeros_like(prediction[..., :1])], -1)
        return torch.where(hidden, share * shown, 0.0)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Reveal what is still masked; every other site stays."""
        return self._revealed(prediction, state, state == self.mask, generator)

    def prior_kl(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
