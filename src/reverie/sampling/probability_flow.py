"""The probability-flow ODE with adaptive steps, and the likelihood it gives.

In y = x/alpha and s = sigma/alpha every Gaussian process has the same flow, dy/ds = (y - xhat)/s
(Song et al. 2021, eq. 13; Karras et al. 2022, eq. 1), here integrated in log s by torchdiffeq's
`dopri5`: dy/dlog s = y - xhat. The path is kept in float64, so that the tolerance is met; the
denoiser sees the states' own type.
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
from reverie.sampling.levels import Guess, Levels, Visit, Visits


class LogLikelihood(NamedTuple):
    """log p in nats (B,), its standard error over the probes (B,), and denoiser evaluations.

    Both tensors are float64. The standard error is 0 with the exact trace.
    """

    nats: Tensor
    stderr: Tensor
    evaluations: int


def ode(levels: Levels, state: Tensor, guess: Guess, tolerance: float) -> Visits:
    """Two visits, at the plan's two ends: the steps between them are the integrator's own."""
    process = levels.process
    _check(process, tolerance)
    yield Visit(levels.t[0], state, guess(state, levels.given[0]))

    def slope(log_snr: Tensor, y: Tensor) -> Tensor:
        return _denoise(process, guess, -log_snr, y, state.dtype) - y

    alpha = levels.alpha.tolist()
    y = integrate(slope, state.double() / alpha[0], levels.log_snr[[0, -1]], tolerance)
    state = (y * alpha[-1]).to(state.dtype)
    yield Visit(levels.t[-1], state, guess(state, levels.given[-1]))


@torch.no_grad()
def log_likelihood(
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

    log p(x) = log N(y_T; 0, s_T^2 I) + int (d - tr d xhat/d y) dlog s (Song et al. 2021, eq. 39).
    Ends: the density is that of the flow's state at the cleanest level of `t_range` (default the
    process's), before the last denoise, at y = x; the prior is the sampler's own, N(0, sigma_T^2).
    probes: Rademacher vectors of the trace estimate (Hutchinson 1989), the same along a path; one
        gradient each, and no standard error (nan) from fewer than two. None: the exact trace, by
        d gradients an evaluation.
    Raises InputError without torchdiffeq, on another process than Gaussian, on one speed per
    coordinate, or on probes < 1.
    """
    process = denoiser.process
    if not isinstance(process, GaussianProcess):
        raise InputError("the likelihood by the probability flow needs a Gaussian process")
    _check(process, tolerance)
    low, high = process.t_range if t_range is None else t_range
    ends = torch.tensor([low, high], dtype=torch.float64)
    log_s = (process.sigma(ends) / process.alpha(ends)).log()
    vectors, dim = _probes(x, probes, generator), x[0].numel()
    evaluations = 0

    def guess(state: Tensor, t: Tensor) -> Tensor:
        return denoiser(state, t, condition)

    def slope(log_s: Tensor, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal evaluations
        evaluations += 1
        with torch.enable_grad():
            y = both[0].detach().requires_grad_()
            clean = _denoise(process, guess, log_s, y, x.dtype)
            trace = _traces(clean, y, vectors)
        if probes is None:
            trace = trace.sum(1, keepdim=True)
        return y.detach() - clean.detach(), dim - trace

    with evaluating(denoiser):
        volume = x.new_zeros(len(x), 1 if probes is None else probes, dtype=torch.float64)
        y, volume = integrate(slope, (x.double(), volume), log_s, tolerance)
    log_prior = _log_normal(y, float(log_s[1].exp()))
    stderr = torch.zeros_like(log_prior) if probes is None else _standard_error(volume)
    return LogLikelihood(log_prior + volume.mean(1), stderr, evaluations)


def _log_normal(y: Tensor, deviation: float) -> Tensor:
    """log N(y; 0, deviation^2 I), (B,)."""
    scaled = (y / deviation).flatten(1)
    volume = math.log(deviation) + 0.5 * math.log(2 * math.pi)
    return -0.5 * scaled.square().sum(1) - scaled.shape[1] * volume


def _standard_error(draws: Tensor) -> Tensor:
    """Of the mean over axis 1; nan from a single draw."""
    count = draws.shape[1]
    if count < 2:
        return torch.full_like(draws[:, 0], torch.nan)
    return draws.std(1) / math.sqrt(count)


def _check(process: GaussianProcess, tolerance: float) -> None:
    if process.columns > 1:
        raise InputError(
            "the probability-flow ODE with adaptive steps needs one noise level for all "
            "coordinates: heun and dpm++2s solve it on a plan"
        )
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; it must lie between 0 and 1")


def _denoise(
    process: GaussianProcess, guess: Guess, log_s: Tensor, y: Tensor, dtype: torch.dtype
) -> Tensor:
    """The guess for y = x/alpha at the level s = sigma/alpha, in the type of y."""
    t = process.time((-2 * log_s).exp())
    alpha, _ = process.levels(t, y)
    state = (y * alpha).to(dtype)
    return guess(state, t.to(state).expand(len(y))).to(y)


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


def _traces(clean: Tensor, y: Tensor, vectors: list[Tensor]) -> Tensor:
    """v (d clean / d y) v of every point for every vector, (B, len(vectors))."""
    traces = []
    for left, vector in zip(range(len(vectors) - 1, -1, -1), vectors, strict=True):
        (product,) = torch.autograd.grad(clean, y, vector, retain_graph=left > 0)
        traces.append((product * vector).flatten(1).sum(1))
    return torch.stack(traces, 1)
