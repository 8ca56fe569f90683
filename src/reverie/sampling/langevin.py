"""Predictor-corrector: Langevin steps at every level, ancestral steps between them.

Song et al. 2021, algorithms 2 to 5: x <- x + e score + sqrt(2 e) z, e = 2 (snr |z| / |score|)^2
with norms averaged over the batch. Their VP variant multiplies e by 1 - beta_t, which is 1 to
within a step of the training grid and is left out.
"""

from __future__ import annotations

from torch import Tensor

from reverie.errors import InputError
from reverie.sampling.multistep import ddim, walk
from reverie.sampling.scales import Guess, Scales, Visits


def predictor_corrector(
    scales: Scales, state: Tensor, guess: Guess, snr: float, corrections: int
) -> Visits:
    """(1 + corrections)(K + 1) evaluations; samples of one batch share the step sizes."""
    if snr <= 0 or corrections < 1:
        raise InputError(
            f"snr is {snr} and corrections {corrections}; need snr > 0 and corrections >= 1"
        )
    alpha, sigma = scales.fit(scales.alpha), scales.fit(scales.sigma)

    def correct(state: Tensor, k: int) -> Tensor:
        for _ in range(corrections):
            clean = guess(state, scales.given[k])
            score = (alpha[k] * clean - state) / sigma[k] ** 2
            noise = scales.noise(state)
            size = 2 * (snr * _norm(noise) / _norm(score)).square()
            state = state + size * score + (2 * size).sqrt() * noise
        return state

    return walk(scales, state, guess, ddim(scales, 1.0), correct)


def _norm(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).mean()
