"""The probability-flow ODE with adaptive steps, and the likelihood it gives.

In y = x/alpha and s = sigma/alpha every Gaussian process has the same flow, dy/ds = (y - xhat)/s
(Song et al. 2021, eq. 13; Karras et al. 2022, eq. 1), here integrated by torchdiffeq's `dopri5`
in r, the mean of log s over the clocks: dy_j/dr = (dlog s_j/dr) (y_j - xhat_j) in mode j, and the
pace dlog s_j/dr is 1 where there is one clock. The path is kept in float64, so that the tolerance
is met; the denoiser sees the states' own type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.processes import GaussianProcess
from reverie.processes.base import Guess
from reverie.processes.gaussian import require_gaussian


class LogLikelihood(NamedTuple):
    """log p in nats (B,), its standard error over the probes (B,), and denoiser evaluations.

    Both tensors are float64. The standard error is 0 with the exact trace.
    """

    nats: Tensor
    stderr: Tensor
    evaluations: int


@torch.no_grad()
def flow_density(
    denoiser: Denoiser,
    x: Tensor,
    *,
    probes: int | None = 8,
    t_range: tuple[float, float] | None = None,
    tolerance: float = 1e-5,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> LogLikelihood:
    """Log-density in nats of points x (B, *shape) under the model's probability-flow ODE.

    log p(x) = log N(y_T; 0, s_T^2) + int sum_j (1 - d xhat_j/d y_j) dlog s_j (Song et al. 2021,
    eq. 39), in modes, on which the density does not depend.
    Ends: the density is that of the flow's state at the cleanest level of `t_range` (default the
    process's), before the last denoise, at y = x; the prior is the sampler's own, N(0, sigma_T^2).
    probes: Rademacher vectors of the trace estimate (Hutchinson 1989), the same along a path; one
        gradient each, and no standard error (nan) from fewer than two. None: the exact trace, by
        d gradients an evaluation.
    Raises InputError without torchdiffeq, on another process than Gaussian, or on probes < 1.
    """
    process = require_gaussian(denoiser.process, "the likelihood by the probability flow")
    check_tolerance(tolerance)
    low, high = process.t_range if t_range is None else t_range
    ends = torch.tensor([low, high], dtype=torch.float64)
    vectors, evaluations = _probes(x, probes, generator), 0

    def guess(modes: Tensor, t: Tensor) -> Tensor:
        return process.to_modes(denoiser(process.from_modes(modes), t, condition))

    def slope(log_s: Tensor, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal evaluations
        evaluations += 1
        with torch.enable_grad():
            y = both[0].detach().requires_grad_()
            clean, pace = denoised(process, guess, log_s, y, x.dtype)
            trace = _traces(clean, y, vectors, pace)
        if probes is None:
            trace = trace.sum(1, keepdim=True)
        grown = pace.expand_as(y).flatten(1).sum(1, keepdim=True)
        return pace * (y - clean).detach(), grown - trace

    with evaluating(denoiser):
        volume = x.new_zeros(len(x), 1 if probes is None else probes, dtype=torch.float64)
        start = (process.to_modes(x.double()), volume)
        y, volume = integrate(slope, start, mean_log_spread(process, ends), tolerance)
    alpha, sigma = process.scales(high, y)
    log_prior = _log_normal(y, sigma / alpha)
    stderr = torch.zeros_like(log_prior) if probes is None else _standard_error(volume)
    return LogLikelihood(log_prior + volume.mean(1), stderr, evaluations)


def _log_normal(y: Tensor, deviation: Tensor) -> Tensor:
    """log N(y; 0, deviation^2), (B,), summed over modes."""
    volume = deviation.log() + 0.5 * math.log(2 * math.pi)
    return (-0.5 * (y / deviation).square() - volume).flatten(1).sum(1)


def _standard_error(draws: Tensor) -> Tensor:
    """Of the mean over axis 1; nan from a single draw."""
    count = draws.shape[1]
    if count < 2:
        return torch.full_like(draws[:, 0], torch.nan)
    return draws.std(1) / math.sqrt(count)


def check_tolerance(tolerance: float) -> None:
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; it must lie between 0 and 1")


def mean_log_spread(process: GaussianProcess, times: Tensor) -> Tensor:
    """Mean (L,) over the clocks of log s = -1/2 log u at process times (L,)."""
    return -0.5 * process.clock(times).reshape(len(times), -1).log().mean(1)


def denoised(
    process: GaussianProcess, guess: Guess, log_s: Tensor, y: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The guess for modes y = x/alpha where the mean log s is `log_s`, and the modes' pace."""
    goal = -2 * log_s.reshape(1, 1).expand(-1, process.columns)
    t = process.time(goal.exp() if process.columns > 1 else goal[0].exp())
    alpha, _ = process.scales(t, y)
    state = (y * alpha).to(dtype)
    return guess(state, t.to(state).expand(len(y))).to(y), _pace(process, t, y)


def _pace(process: GaussianProcess, t: Tensor, like: Tensor) -> Tensor:
    """dlog s_j / dr of each mode at t, (1, ...) to broadcast against `like`."""
    if process.columns == 1:
        return like.new_ones((1,) * like.ndim)
    speed = -0.5 * torch.func.jvp(lambda t: process.gamma(t).log(), (t,), (torch.ones_like(t),))[1]
    mean = -0.5 * torch.func.jvp(lambda t: process.clock(t).log(), (t,), (torch.ones_like(t),))[1]
    return (speed / mean.mean()).reshape(1, *like.shape[1:]).to(like)


def integrate(
    slope: Callable[[Tensor, Any], Any], start: Any, ends: Tensor, tolerance: float
) -> Any:
    """The state at ends[1] > ends[0]; no evaluation lies outside the two."""
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise InputError(
            "the probability-flow ODE needs torchdiffeq: pip install 'reverie[flows]'"
        ) from error
    device = start.device if isinstance(start, Tensor) else start[0].device
    ends = ends.to(device)
    found = odeint(
        slope, start, ends, rtol=tolerance, atol=tolerance, method="dopri5",
        options=dict(step_t=ends[1:]),
    )  # fmt: skip
    return found[-1] if isinstance(found, Tensor) else tuple(part[-1] for part in found)


def _probes(x: Tensor, probes: int | None, generator: torch.Generator | None) -> list[Tensor]:
    """Rademacher vectors like x, or the unit vectors whose products make the exact trace."""
    if probes is None:
        units = torch.eye(x[0].numel(), dtype=torch.float64, device=x.device)
        return [unit.reshape(1, *x.shape[1:]).expand_as(x) for unit in units]
    if probes < 1:
        raise InputError(f"probes is {probes}; use at least one, or None for the exact trace")
    signs = torch.randint(0, 2, (probes, *x.shape), generator=generator, device=x.device)
    return list((2 * signs - 1).double())


def _traces(clean: Tensor, y: Tensor, vectors: list[Tensor], pace: Tensor) -> Tensor:
    """v diag(pace) (d clean / d y) v of every point for every vector, (B, len(vectors))."""
    traces = []
    for left, vector in zip(range(len(vectors) - 1, -1, -1), vectors, strict=True):
        (product,) = torch.autograd.grad(clean, y, vector, retain_graph=left > 0)
        traces.append((product * pace * vector).flatten(1).sum(1))
    return torch.stack(traces, 1)
