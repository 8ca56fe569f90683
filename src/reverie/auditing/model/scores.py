"""Membership scores of a row: small where the model was trained on it.

Everything is written in (alpha, sigma), so that it holds for every Gaussian process. With
s = sigma / alpha (the noise in units of the data), xhat the denoiser's guess and
ehat = (x_t - alpha xhat) / sigma its guess of the noise:

    loss    E |e - ehat(alpha x + sigma e)|^2 = E |x - xhat|^2 / s^2         Yeom et al. 2018;
                                                                          Carlini et al. 2023
    PIA     |e0 - ehat(alpha x + sigma e0)|_4^4, e0 = ehat at the cleanest level
    PIAN    the same with e0 rescaled to mean |e0| = sqrt(2 / pi)           Kong et al. 2024
    SecMI   |there and back - xt|^2: x is carried to x_t by the deterministic reversal run
            backwards, then one level up and down again                     Duan et al. 2023
    SimA    |ehat(alpha x)|: one query, no noise            Rao, Qu & Moyer 2025; their code sums
            fourth powers at x unscaled; the norm at alpha x is sigma |score| in any process
    FLIPD   d + s^2 (tr grad score + |score|^2) at x, the local intrinsic dimension
            (Kamkari et al. 2024) = E[|x0 - x|^2 | x_s = x] / s^2 = tr dxhat/dx + |xhat - x|^2/s^2
    divergence  mean over unit steps v of length r of v . (s^2 score)(x + r v) / r: -1 where the
            model pulls everything around x back to it, near 0 where it lets it be. Verma et al.
            2026, who take r = .075 of the median nearest-neighbour distance and 64 directions
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, Memoriser, condition_rows, convert, evaluating
from reverie.errors import InputError
from reverie.processes import GaussianProcess
from reverie.processes.gaussian import require_gaussian

BATCH = 256
DRAWS = 8  # noises of the loss; probes of the trace
INVERSION_STEPS = 10
DIRECTIONS = 64  # of the divergence, in antithetic pairs


@dataclass(frozen=True, eq=False)
class Query:
    """One denoiser at one noise level; its methods are the quantities the scores are made of."""

    denoiser: Denoiser
    t: Tensor  # () in float64
    condition: Any = None  # of the rows that are scored
    radius: float | None = None  # of the divergence's steps; None: the level sigma / alpha

    @property
    def process(self) -> GaussianProcess:
        return gaussian_process(self.denoiser)

    def at(self, t: Tensor | float) -> Query:
        """The same denoiser at another time."""
        return replace(self, t=torch.as_tensor(t, dtype=torch.float64))

    def clean(self, state: Tensor) -> Tensor:
        """The guess xhat (B, *shape)."""
        return self.denoiser(state, self.t.expand(len(state)), self.condition)

    def noise(self, state: Tensor) -> Tensor:
        """The guess of the noise, ehat (B, *shape)."""
        return convert(self.clean(state), state, self.t, self.process, "clean", "noise")

    def state(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """alpha x + sigma e, or alpha x alone."""
        if noise is None:
            noise = torch.zeros_like(x)
        return self.process.corrupt(x, self.t, end=noise)

    def move(self, state: Tensor, t: Tensor) -> Tensor:
        """One deterministic (DDIM) step from here to `t`, in either direction."""
        return self.process.corrupt(self.clean(state), t, end=self.noise(state))


Score = Callable[[Query, Tensor, torch.Generator | None], Tensor]


def loss(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mean squared error (B,) of the noise guess, summed over coordinates, over DRAWS noises."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(DRAWS // 2):
        e = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x)
        for noise in (e, -e):
            total += _square(noise - query.noise(query.state(x, noise)))
    return total / (2 * (DRAWS // 2))


def pia(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Proximal initialisation (B,): how well the model's own noise guess is guessed again."""
    return _proximal(query, x, _first_noise(query, x))


def pian(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """PIA with the first guess rescaled to the mean size of Gaussian noise."""
    first = _first_noise(query, x)
    size = first.abs().flatten(1).mean(1).clamp(min=1e-30)
    scale = (math.sqrt(2 / math.pi) / size).reshape(-1, *(1,) * (x.ndim - 1))
    return _proximal(query, x, first * scale)


def _first_noise(query: Query, x: Tensor) -> Tensor:
    cleanest = query.at(query.process.t_range[0])
    return cleanest.noise(cleanest.state(x))


def _proximal(query: Query, x: Tensor, first: Tensor) -> Tensor:
    return _square((first - query.noise(query.state(x, first))).square())


def secmi(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Step-wise error (B,): a step up from the inverted state and down again misses it by this."""
    process = query.process
    ends = process.clock(torch.stack([torch.tensor(process.t_range[0]).double(), query.t]))
    ends = ends.reshape(2, -1).log().mean(1)
    stride = (ends[1] - ends[0]) / INVERSION_STEPS
    clock = (ends[0] + stride * torch.arange(INVERSION_STEPS + 2)).exp()
    times = process.time(clock).clamp(*process.t_range)
    here = query.at(times[0])
    state = here.state(x)
    for t in times[1:-1]:
        state, here = here.move(state, t), here.at(t)
    above = here.move(state, times[-1])
    return _square(query.at(times[-1]).move(above, times[-2]) - state)


def sima(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Norm (B,) of the guessed noise at the row itself: sigma times the norm of the score."""
    return _square(query.noise(query.state(x))).sqrt()


def flipd(
    query: Query, x: Tensor, generator: torch.Generator | None = None, probes: int = DRAWS
) -> Tensor:
    """Local intrinsic dimension (B,) of the model at the row: FLIPD of Kamkari et al. 2024.

    The trace is exact where d <= probes, else Hutchinson's estimate. For the memoriser it is
    sum_i w_i |x_i - x|^2 / s^2, the posterior mean that the identity states.
    """
    if isinstance(query.denoiser, Memoriser):
        return _posterior_square(query.denoiser, query, x)
    state = query.state(x).detach().requires_grad_()
    process = query.process
    alpha, sigma = process.scales(query.t, state)
    with torch.enable_grad():
        guess = query.clean(state)
        trace = guess_trace(query, guess, state, probes, generator)
    return trace + _square(process.to_modes(guess.detach() - x) * (alpha / sigma))


def guess_trace(
    query: Query, guess: Tensor, state: Tensor, probes: int, generator: torch.Generator | None
) -> Tensor:
    """Trace (B,) of d guess / d (state / alpha) in modes, by reverse-mode products with probes."""
    process, dim = query.process, state[0].numel()
    alpha, _ = process.scales(query.t, state)
    exact = dim <= probes
    total = torch.zeros(len(state), dtype=torch.float64)
    for k in range(dim if exact else probes):
        if exact:
            probe = torch.zeros_like(state)
            probe.flatten(1)[:, k] = 1
        else:
            sign = torch.randint(0, 2, state.shape, generator=generator)
            probe = (2 * sign - 1).to(state)
        vector = process.from_modes(probe)
        (product,) = torch.autograd.grad(guess, state, vector, retain_graph=True)
        each = process.to_modes(product) * alpha * probe
        total += each.flatten(1).sum(1).double().detach().cpu()
    return total if exact else total / probes


def _posterior_square(denoiser: Memoriser, query: Query, x: Tensor) -> Tensor:
    state, points = query.state(x).double(), denoiser.data.double()
    process = query.process
    alpha, sigma = process.scales(query.t, state)
    weights = process.log_kernel(state, points, query.t).softmax(1)
    scale = (alpha / sigma).expand(1, *x.shape[1:]).flatten(1)
    square = torch.cdist(
        process.to_modes(x.double()).flatten(1) * scale,
        process.to_modes(points).flatten(1) * scale,
        compute_mode="donot_use_mm_for_euclid_dist",  # differences: no cancellation at a row
    ).square()
    return (weights * square).sum(1)


def _square(x: Tensor) -> Tensor:
    return x.detach().flatten(1).double().square().sum(1).cpu()


def divergence(query: Query, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How strongly the score points back to the row (B,) from steps around it: -1 to about 0."""
    alpha, sigma = query.process.scales(query.t, x)
    radius = query.radius
    if radius is None:
        radius = float((sigma / alpha).double().log().mean().exp())
    total = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(DIRECTIONS // 2):
        step = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x)
        size = step.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))
        step = step / size
        for v in (step, -step):
            moved = x + radius * v
            pull = query.clean(query.state(moved)) - moved
            total += (pull * v).flatten(1).double().sum(1).cpu()
    return total / (2 * (DIRECTIONS // 2) * radius)


SCORES: dict[str, Score] = {
    "loss": loss,
    "PIA": pia,
    "PIAN": pian,
    "SecMI": secmi,
    "SimA": sima,
    "FLIPD": flipd,
    "divergence": divergence,
}


def score(
    name: str,
    denoiser: Denoiser,
    rows: Tensor,
    spread: float,
    generator: torch.Generator | None = None,
    *,
    condition: Any = None,
    radius: float | None = None,
) -> Tensor:
    """Score `name` (a key of SCORES) of rows (n, *shape): (n,) in float64, small for members.

    spread: the noise level sigma / alpha, in units of the data. condition (n, ...) goes row by
    row. radius: of the divergence's steps (default: the level). InputError on an unknown name, a
    process that is not Gaussian, or a level outside the process's range.
    """
    if name not in SCORES:
        raise InputError(f"no score is called {name!r}; choose {', '.join(SCORES)}")
    query = Query(denoiser, _time(gaussian_process(denoiser), spread))
    weight = next(denoiser.parameters(), rows)
    condition = condition_rows(condition, len(rows), weight)
    parts = []
    with evaluating(denoiser), torch.no_grad():
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            told = None if condition is None else condition[part]
            asked = replace(query, condition=told, radius=radius)
            parts.append(SCORES[name](asked, rows[part].to(weight), generator))
    return torch.cat(parts)


def gaussian_process(denoiser: Denoiser) -> GaussianProcess:
    """The process of a denoiser, or InputError when it is not Gaussian."""
    return require_gaussian(denoiser.process, "a membership score")


def _time(process: GaussianProcess, spread: float) -> Tensor:
    low, high = spreads(process)
    if not low * (1 - 1e-6) <= spread <= high * (1 + 1e-6):
        raise InputError(
            f"spread is {spread:g}; the process covers sigma/alpha from {low:.3g} to {high:.3g}"
        )
    return process.time(spread**-2.0)[0].clamp(*process.t_range)


def spreads(process: GaussianProcess) -> tuple[float, float]:
    """Least and largest sigma / alpha of the process."""
    ends = process.clock(torch.tensor(process.t_range)).reshape(2, -1).log().mean(1)
    low, high = (-0.5 * ends).exp().tolist()
    return low, high
