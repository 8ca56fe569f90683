"""Samplers of products: numbers along the probability flow while the other parts jump.

The parts' noises are independent, so that the generator of the reversal is a sum over parts, and
each may be exchanged for another that keeps the same marginals: for numbers y beside symbols m the
flow of the score of y given m, which needs no noise, beside the reversal of m as it is.

    ddim    one guess a step: x_s = alpha_s xhat + sigma_s ehat (Song, Meng & Ermon 2021, eta = 0)
    heun    two guesses: the step is made again with the mean of xhat at both ends, the second at
            the symbols that the step revealed

Of standard normal numbers a step from sigma t to s keeps all of the variance but (t - s)^2 / ((1 +
s^2) (1 + t^2)) of it with ddim, up to four times as much with ancestral steps, and less with heun.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from reverie.processes import ProductProcess
from reverie.sampling.scales import Request, Visit, Visits


def flow_beside_jumps(request: Request, *, second_order: bool = False) -> Visits:
    """Follow the plan: Gaussian parts by the flow, the others by their own reversal."""
    process: ProductProcess = request.process  # type: ignore[assignment]
    state, generator = request.state, request.generator
    times = request.times
    prediction = request.guess(state, times[0].to(state).expand(len(state)))
    for t, s in pairwise(times):
        yield Visit(float(t), state, prediction)
        jumped = process.reverse(prediction, state, t, s, generator=generator)
        there = _with_numbers(process, jumped, state, prediction, t, s)
        after = request.guess(there, s.to(state).expand(len(state)))
        if second_order:
            mean = 0.5 * (prediction + after)
            there = _with_numbers(process, jumped, state, mean, t, s)
            after = request.guess(there, s.to(state).expand(len(state)))
        state, prediction = there, after
    yield Visit(float(times[-1]), state, prediction)


def _with_numbers(
    process: ProductProcess,
    jumped: Tensor,
    state: Tensor,
    prediction: Tensor,
    t: Tensor,
    s: Tensor,
) -> Tensor:
    """The state at s whose symbols have jumped and whose numbers go by the flow from `state`."""
    pieces, before = process.space.split(jumped), process.space.split(state)
    guesses, now, then = process.split(prediction), process.part_times(t), process.part_times(s)
    for j, part in enumerate(process.parts):
        if part.gaussian is not None:
            kept, guess, _ = part.gaussian.step(now[j], then[j], eta=0.0)
            pieces[j] = kept.to(state) * before[j] + guess.to(state) * guesses[j]
    return process.space.join(pieces, state)
