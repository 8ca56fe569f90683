"""Which plan is made when nobody says: one rule for every way to ask for a plan.

The method is the exact program, "loss-adaptive", but for deterministic solvers of second order
(`METHOD_OF_SAMPLER`). The program counts what a guess costs that is held for a step; they draw a
line through two guesses, and long steps of log sigma, which cost the program little, lead them
astray (exact mixtures, sigma .002 to 80, K = 10 with Heun: energy distance .10 to .14, against
under .001 for "entropic-log-snr"; `benchmarks/bench_solver_plans.py`).

The program's clock is "samples" where it is defined: plans that charge what one sees came closest
to held-out data on real models and on invented laws with exact denoisers, for ancestral steps and
for DDIM (`reverie reproduce step-schedules`; digits, K = 10: energy distance .056, against .144
for nats). "nats", which is best for likelihood, elsewhere and on request.

A curve whose noisy end is dearer than a guess of the mean is not planned by: the samples clock
would jump from a guess that is worth nothing, and the program in nats spends too little there.
Such a model gets even steps of log-SNR, and is better calibrated.
"""

from __future__ import annotations

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.plan.excess import has_samples_clock, variance_of
from reverie.processes import Process

CLOCK_OF_SAMPLER: dict[str, str] = {}  # samplers that need another clock than their process's
METHOD_OF_SAMPLER = {"heun": "entropic-log-snr", "dpm++2m": "log-snr"}  # of second order
UNTRUSTED = "log-snr"  # the method where the curve's noisy end is worthless
WORTHLESS = 1.5  # times the guess of the mean


def default_plan(process: Process | LossCurve | None, sampler: str = "ancestral") -> str:
    """The clock of a loss-adaptive plan for a sampler, one of `CLOCKS`.

    process: or the curve that is planned on, which knows more: whether its dimension is known and
    whether its noisy end may be trusted. None is Gaussian noise of one clock. A sampler of one's
    own that wants another clock is entered in `CLOCK_OF_SAMPLER`.

    >>> from reverie.plan import default_plan
    >>> from reverie.processes import VP, Masking
    >>> default_plan(VP()), default_plan(Masking(4, sites=2))
    ('samples', 'nats')
    """
    if sampler in CLOCK_OF_SAMPLER:
        return CLOCK_OF_SAMPLER[sampler]
    if isinstance(process, LossCurve):
        sound = has_samples_clock(process) and not len(worthless(process))
        return "samples" if sound else "nats"
    if process is None:
        return "samples"
    if any(process.snr_sizes):
        return "samples"
    ends = process.clock(torch.tensor(process.t_range[::-1], dtype=torch.float64))
    one_clock = ends.ndim == 1 and bool((ends > 0).all())
    return "samples" if process.clock_is_snr and one_clock else "nats"


def default_method(process: Process | LossCurve | None, sampler: str = "ancestral") -> str:
    """The method of a plan for a sampler, one of `METHODS`.

    process: or the curve that is planned on, as in `default_plan`.

    >>> from reverie.plan import default_method
    >>> from reverie.processes import VP, Masking
    >>> [default_method(VP(), sampler) for sampler in ("ddim", "heun")]
    ['loss-adaptive', 'entropic-log-snr']
    """
    of_noise = process.process if isinstance(process, LossCurve) else process
    one = of_noise is None or of_noise.gaussian is not None
    if isinstance(process, LossCurve):
        one = one and process.u.ndim == 1 and has_samples_clock(process)
        if one and len(worthless(process)):
            return UNTRUSTED
    known = one and default_plan(process, sampler) == "samples"
    return METHOD_OF_SAMPLER.get(sampler, "loss-adaptive") if known else "loss-adaptive"


def worthless(curve: LossCurve) -> np.ndarray:
    """Levels at which the model is certainly dearer than a guess of the data's mean.

    None where the curve does not know the data's variance.
    """
    plain = curve.u.ndim == 1 and has_samples_clock(curve)
    if curve.variance is None or curve.dim is None or not plain:
        return np.empty(0, dtype=int)
    mean = mean_guess(curve)
    error = 0.0 if curve.stderr is None else curve.stderr
    return np.flatnonzero(curve.rate - 4 * error > WORTHLESS * mean)


def mean_guess(curve: LossCurve) -> float:
    """Rate of a guess of the mean, at every level: half the data's variance, over dimensions."""
    assert curve.dim is not None
    return 0.5 * curve.dim * variance_of(curve)
