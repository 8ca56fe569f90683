"""Guidance: denoisers that lean a denoiser towards a condition.

A guided guess is the denoiser of no noised law (Chidambaram et al. 2024 on the Gaussian mixture),
so that the area under its curve is no information. The curve of a guided denoiser is nevertheless
that of the sampler that runs it: what every step costs on the rows it is measured on, with their
conditions. Measure it to see where guidance costs, and the model itself for nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import GaussianProcess, Process
from reverie.processes.gaussian import require_gaussian

LogProb = Callable[[Tensor, Tensor, Any], Tensor]


class ClassifierFreeGuidance(Denoiser):
    """xhat(null) + guidance_scale (xhat(condition) - xhat(null)): 1 = off, 0 = no condition.

    guidance_scale is 1 + w in (1 + w) cond - w uncond (Ho & Salimans 2022, eq. 6). At a fixed
    state and time all predictions are affine in one another, so that guiding clean data, noise,
    score, v or velocity is the same. Every call evaluates the model twice.

    denoiser: takes a condition, and `null` (default None) for none. interval: guide only where
    low < sigma/alpha <= high (Kynkaanniemi et al. 2024). A denoiser that limits its guess (see
    `as_denoiser`) is guided first and limited then, as samplers clip. Raises InputError on another
    process than Gaussian with one noise level, where an interval is given, or on an empty
    interval.

    >>> import torch
    >>> from reverie.denoisers import ClassifierFreeGuidance, Labels, Network, ResidualMLP
    >>> from reverie.processes import VP
    >>> denoiser = Network(VP(), ResidualMLP((2,), width=16, condition=Labels(3)))
    >>> guided = ClassifierFreeGuidance(denoiser, guidance_scale=2.0)
    >>> guided(torch.zeros(4, 2), torch.tensor(0.5), torch.tensor([0, 1, 2, 2])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance_scale: float,
        *,
        null: Any = None,
        interval: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        super().__init__()
        low, high = interval
        if not 0 <= low < high:
            raise InputError(f"interval is {interval}; need 0 <= low < high, in sigma/alpha")
        self.denoiser, self.process, self.seen = denoiser, denoiser.process, denoiser.seen
        self.guidance_scale, self.null, self.interval = float(guidance_scale), null, interval
        self._everywhere = low == 0 and math.isinf(high)
        if not self._everywhere:
            _gaussian(self.process, one_level=True)

    @property
    def limit(self) -> Callable[[Tensor], Tensor] | None:
        """What is done to the guided guess: the denoiser's own limit."""
        return getattr(self.denoiser, "limit", None)

    def unlimited(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The guided guess before `limit`."""
        guess = getattr(self.denoiser, "unlimited", self.denoiser)
        clean = guess(state, t, self.null)
        if condition is None:
            return clean
        return clean + self._scale(state, t) * (guess(state, t, condition) - clean)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Guided guess (B, *shape); without a condition the unguided one for `null`."""
        clean = self.unlimited(state, t, condition)
        return clean if self.limit is None else self.limit(clean)

    def _scale(self, state: Tensor, t: Tensor) -> Tensor | float:
        if self._everywhere:
            return self.guidance_scale
        alpha, sigma = _gaussian(self.process).scales(t, state)
        low, high = self.interval
        inside = (low * alpha < sigma) & (sigma <= high * alpha)
        return torch.where(inside, self.guidance_scale, 1.0)


class ClassifierGuidance(Denoiser):
    """score + guidance_scale grad log p(condition | x_t); 1 = Bayes's rule, 0 = off.

    In clean data: xhat + guidance_scale sigma^2/alpha grad (Dhariwal & Nichol 2021, algorithm 1).

    log_prob: (state, t, condition) -> (B,) in nats, differentiable in the state; t is (B,) or ().
    The condition goes to it alone; the denoiser is asked without one. Raises InputError on another
    process than Gaussian, or where log_prob returns another shape.

    >>> import torch
    >>> from reverie.denoisers import ClassifierGuidance, Linear
    >>> from reverie.processes import VP
    >>> prior = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> near = lambda state, t, y: -0.5 * (state - y).square().sum(1)  # log p(y | x_t) in nats
    >>> guided = ClassifierGuidance(prior, near)
    >>> guided(torch.zeros(1, 2), torch.tensor(0.3), torch.tensor([[1.0, 0.0]]))[0, 0] > 0
    tensor(True)
    """

    process: GaussianProcess

    def __init__(self, denoiser: Denoiser, log_prob: LogProb, guidance_scale: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.process = denoiser, _gaussian(denoiser.process)
        self.seen = denoiser.seen
        self.log_prob, self.guidance_scale = log_prob, float(guidance_scale)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Guided guess (B, *shape); without a condition the denoiser's own."""
        clean = self.denoiser(state, t)
        if condition is None:
            return clean
        alpha, sigma = self.process.scales(t, state)
        slope = self.process.to_modes(self._gradient(state, t, condition))
        push = self.process.from_modes(sigma.square() / alpha * slope)
        return clean + self.guidance_scale * push

    def _gradient(self, state: Tensor, t: Tensor, condition: Any) -> Tensor:
        """grad log p(condition | x_t), itself differentiable where the state is (likelihoods)."""
        outer = torch.is_grad_enabled() and state.requires_grad
        with torch.enable_grad():
            point = state if outer else state.detach().requires_grad_()
            value = self.log_prob(point, t, condition)
            if value.shape != (len(state),):
                raise InputError(
                    f"log_prob returned shape {tuple(value.shape)} for {len(state)} states; "
                    "it must return one log-probability for each"
                )
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=outer)
        return gradient


def _gaussian(process: Process, one_level: bool = False) -> GaussianProcess:
    purpose = "an interval of guidance" if one_level else "guidance of a score"
    return require_gaussian(process, purpose, one_level=one_level)
