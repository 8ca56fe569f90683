"""The probability-flow ODE with adaptive steps, as a sampler (see `information.flow`)."""

from __future__ import annotations

from torch import Tensor

from reverie import lazily
from reverie.information.flow import check_tolerance, denoised, integrate, mean_log_spread
from reverie.sampling.scales import Guess, Scales, Visit, Visits


def ode(scales: Scales, state: Tensor, guess: Guess, tolerance: float) -> Visits:
    """Two visits, at the plan's two ends: the steps between them are the integrator's own."""
    process = scales.process
    check_tolerance(tolerance)
    yield Visit(scales.t[0], state, guess(state, scales.given[0]))

    def slope(back: Tensor, y: Tensor) -> Tensor:
        clean, pace = denoised(process, guess, -back, y, state.dtype)
        return pace * (clean - y)

    alpha, _ = process.scales(scales.times[[0, -1]], state.double())
    ends = -mean_log_spread(process, scales.times[[0, -1]])
    y = integrate(slope, state.double() / alpha[:1], ends, tolerance)
    state = (y * alpha[1:]).to(state.dtype)
    yield Visit(scales.t[-1], state, guess(state, scales.given[-1]))


__getattr__ = lazily(
    __name__,
    {},
    {
        "LogLikelihood": "reverie.information.flow:LogLikelihood",
        "log_likelihood": "reverie.information.flow:flow_density",
    },
)
