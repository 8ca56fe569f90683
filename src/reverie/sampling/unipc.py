"""UniPC-p: a multistep predictor, corrected at no cost by the guess that the next step needs.

Zhao et al. 2023, algorithms 1 and 2, in data prediction with B(h) = e^-h - 1 ("bh2"). With the
earlier guesses at r_i = (lambda_{k-i} - lambda_k)/h,

    x_{k+1} = sigma'/sigma x_k - alpha' B xhat_k - alpha' B sum_i rho_i (xhat_{k-i} - xhat_k)/r_i,
    sum_i rho_i r_i^(j-1) = -j! h phi_{j+1}(-h)/B,

with phi_0 = exp and phi_{k+1}(z) = (phi_k(z) - 1/k!)/z. The corrector adds the new guess at r = 1.
The first steps have the lower orders that their guesses allow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.sampling.scales import Guess, Number, Scales, Visit, Visits, combine


def unipc(scales: Scales, state: Tensor, guess: Guess, order: int) -> Visits:
    """One evaluation a level: the visited state is corrected, its guess is the predicted one's."""
    kept = scales.fit(scales.sigma[1:] / scales.sigma[:-1])
    predict, correct = _weights(scales, order, False), _weights(scales, order, True)
    guesses: list[Tensor] = []
    before = state
    for k, time in enumerate(scales.given):
        guesses.insert(0, guess(state, time))
        if k:
            state = combine(before, kept[k - 1], *zip(guesses, correct[k - 1], strict=False))
        del guesses[order:]
        yield Visit(scales.t[k], state, guesses[0])
        if k < len(kept):
            before = state
            state = combine(before, kept[k], *zip(guesses, predict[k], strict=False))


def _weights(scales: Scales, order: int, corrector: bool) -> list[tuple[Number, ...]]:
    """For every step the weights of the guesses, newest first (the corrector's own included)."""
    steps = len(scales.h)
    rows: list[tuple[Number, ...]] = []
    for part in range(1, order + 1):  # step part - 1 is the first with `part` guesses behind it
        last = min(part, steps) if part < order else steps
        if last >= part:
            columns = _of_order(scales, part, corrector, part - 1, last)
            rows += zip(*map(scales.fit, columns), strict=True)
    return rows


def _of_order(scales: Scales, order: int, corrector: bool, start: int, stop: int) -> list[Tensor]:
    """Weights (stop - start, ...) of each guess for the steps start to stop - 1 at this order."""
    h, log_snr = scales.h[start:stop], scales.log_snr
    reach = [(log_snr[start - i : stop - i] - log_snr[start:stop]) / h for i in range(1, order)]
    places = [*reach, torch.ones_like(h)] if corrector else reach
    shares = _shares(h, places)
    weight = -scales.alpha[start + 1 : stop + 1] * torch.expm1(-h)
    per_guess = [weight * share / place for share, place in zip(shares, places, strict=True)]
    now = weight - sum(per_guess, torch.zeros_like(weight))
    newest = [per_guess.pop()] if corrector else []
    return [*newest, now, *per_guess]


def _shares(h: Tensor, places: list[Tensor]) -> list[Tensor]:
    """The rho of each place r_i, from the equations above."""
    if not places:
        return []
    if len(places) == 1:  # the paper's own simplification: rho = 1/2
        return [torch.full_like(h, 0.5)]
    powers = torch.stack(
        [torch.stack([r.pow(j) for r in places], -1) for j in range(len(places))], -2
    )
    scale, phi, moments = torch.expm1(-h), torch.expm1(-h) / -h - 1, []
    for j in range(1, len(places) + 1):
        moments.append(phi * math.factorial(j) / scale)
        phi = phi / -h - 1 / math.factorial(j + 1)
    return list(torch.linalg.solve(powers, torch.stack(moments, -1)).unbind(-1))
