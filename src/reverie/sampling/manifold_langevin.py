"""Predictor and corrector on a manifold: geodesic steps, each level then smoothed by Langevin."""

from __future__ import annotations

from reverie.sampling.scales import Request, Visit, Visits
from reverie.spaces.manifold import scale


def manifold_predictor_corrector(request: Request, snr: float, corrections: int) -> Visits:
    """The process's reverse step, then `corrections` Langevin steps at the level it reached.

    A Langevin step is exp_x(e s + sqrt(2 e) z) with e = 2 snr^2 tau: the rule of Song et al. 2021
    (Algorithm 4) at the score's usual length sqrt(dim / tau).
    """
    process, times, state = request.process, request.times, request.state
    guess, generator = request.guess, request.generator
    given = [t.expand(len(state)) for t in times.to(state)]
    for k, t in enumerate(times):
        step = (2 * snr**2 * process.tau(t)).to(state).expand(len(state))
        for _ in range(corrections if k else 0):
            z = process.space.noise(state, generator=generator)
            drift = scale(step, guess(state, given[k]))
            state = process.space.exp(state, drift + scale((2 * step).sqrt(), z))
        score = guess(state, given[k])
        yield Visit(float(t), state, score)
        if k + 1 < len(times):
            state = process.reverse(score, state, t, times[k + 1], generator=generator)
