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
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.processes.base import Guess, Process, State
from reverie.processes.jump import JumpProcess
from reverie.processes.site_tables import fit_level, shared_level, times_of, uniform_like
from reverie.spaces import FiniteSet


class Masking(JumpProcess):
    """Symbols 0..S-1 and the mask S on `sites`; sigma(t) = -log(1 - t). See the module."""

    monotone = True
    steps_exact = True
    steps_measured = False
    clock_label = "share of revealed sites"

    def __init__(self, symbols: int | str, sites: int | tuple[int, ...]) -> None:
        space = FiniteSet(symbols, sites)
        rates = -torch.eye(space.symbols + 1, dtype=torch.float64)
        rates[:, -1] += 1
        stationary = torch.zeros(space.symbols + 1, dtype=torch.float64)
        stationary[-1] = 1
        super().__init__(space, rates, stationary)
        self.mask = space.symbols

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
        eye = torch.eye(self.states, dtype=kept.dtype, device=kept.device)
        kept = kept[:, None, None]
        return kept * eye + (1 - kept) * eye[-1]

    def clean_law(self, logits: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Carry-over: a revealed site is certain; in time and memory linear in the symbols."""
        hidden = (state == self.mask)[..., None]
        shown = state.clamp(max=self.symbols - 1)[..., None]
        certain = torch.zeros_like(logits).scatter(-1, shown, 1.0)
        return torch.where(hidden, logits.softmax(-1), certain)

    # --- costs -------------------------------------------------------------------------------

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

    # --- the reversal ------------------------------------------------------------------------

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
        kept = torch.nn.functional.one_hot(state, self.states)[..., : self.symbols].to(share)
        return torch.where((state == self.mask)[..., None], share, kept)

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
        drawn = super().finish(prediction, state, t, generator=generator)
        return torch.where(state == self.mask, drawn, state)

    def prior_kl(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
