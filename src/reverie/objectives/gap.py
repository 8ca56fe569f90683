"""The gap-noise objective: guess the noise of a step s -> t of random length instead of 0 -> t.

    x_t = (alpha_t / alpha_s) x_s + sigma_{t|s} xi,    c = sigma_{t|s} / sigma_t
    E[xi | x_t] = -sigma_{t|s} grad log p_t(x_t) = c E[eps | x_t]    for any law of the gap
    Var[xi | x_t, x] = 1 - c^2 = gamma_t / gamma_s                   per coordinate: the floor

so |xi - c eps_theta(x_t)|^2 has the minimiser of the standard objective, and a floor that no
network can interpolate. Yi, Sun & Li 2023 (arXiv 2305.14712) propose to estimate the noise of
random gaps; this concrete form is our reconstruction, not theirs.

What it can and cannot do: with x_s noised afresh at every step, the minimiser over a finite
training set is the memoriser, for every law of the gap. Only where the x_s are themselves the
fixed, finite, noisy sample (`resample=False`) is the optimum another one; see `fixed_optimum`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.objectives.base import Regression
from reverie.processes import GaussianProcess

GapLaw = Callable[[Tensor, torch.Generator], Tensor]


class GapNoise:
    """c * xhat(x_t) is regressed on what the noise of a gap s -> t says about the clean point.

    law: draws s (B,) in [least t, t] given t (B,); default uniform. resample: True noises x_s
    afresh at every step; False keeps one noise per row of `data` (n, *shape), drawn from `seed`
    (memory: one more copy of the data). Raises InputError when the law leaves its range.
    Source: Yi, Sun & Li 2023 (arXiv 2305.14712).

    >>> import torch
    >>> from reverie.objectives import GapNoise
    >>> from reverie.processes import VP
    >>> data = torch.zeros(10, 2)
    >>> noising, generator = GapNoise(VP(), data), torch.Generator().manual_seed(0)
    >>> drawn = noising.draw(torch.arange(4), data[:4], torch.full((4,), 0.5), generator)
    >>> drawn.state.shape, drawn.target.shape
    (torch.Size([4, 2]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        process: GaussianProcess,
        data: Tensor,
        *,
        law: GapLaw | None = None,
        resample: bool = True,
        seed: int = 0,
    ) -> None:
        self.process, self.law, self.kept = process, law or self._uniform, None
        if not resample:
            self.kept = fixed_noise(data, seed)

    def _uniform(self, t: Tensor, generator: torch.Generator) -> Tensor:
        least = self.process.t_range[0]
        share = torch.rand(t.shape, generator=generator, device=generator.device)
        return least + share.to(t) * (t - least)

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Regression:
        s = self.law(t, generator)
        if (s > t).any() or (s < self.process.t_range[0]).any():
            raise InputError("the gap law drew s outside [least t, t]: s must come before t")
        kept = None if self.kept is None else self.kept[rows]
        before = self.process.corrupt(x, s, end=kept, generator=generator)
        state, noise, gain = carry(self.process, before, t, s, generator=generator)
        alpha, sigma = self.process.scales(t, x)
        # (alpha / sigma) (gain xhat - target) = xi - c eps: no division by a gap that may vanish
        to_modes = self.process.to_modes
        target = (gain * to_modes(state) - sigma * to_modes(noise)) / alpha
        return Regression(state, self.process.from_modes(target), gain, self.process)


def fixed_noise(data: Tensor, seed: int) -> Tensor:
    """The noise (n, *shape) of the fixed x_s of `data`: the same for the same seed."""
    generator = torch.Generator(data.device).manual_seed(seed)
    return torch.randn(data.shape, generator=generator, dtype=data.dtype, device=data.device)


def carry(
    process: GaussianProcess,
    state: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise x_s (B, *shape) up to t >= s: returns x_t, the xi that did it, and c of each mode."""
    alpha_s, sigma_s = process.scales(s, state)
    alpha_t, sigma_t = process.scales(t, state)
    ratio = alpha_t / alpha_s
    gain = (1 - (ratio * sigma_s / sigma_t).square()).clamp(min=0).sqrt()
    noise = torch.randn(state.shape, generator=generator, dtype=state.dtype, device=state.device)
    moved = ratio * process.to_modes(state) + gain * sigma_t * process.to_modes(noise)
    return process.from_modes(moved), noise, gain


def floor(process: GaussianProcess, t: Tensor | float, s: Tensor | float) -> Tensor:
    """Var[xi | x_t, x] = gamma_t / gamma_s per coordinate, (B,) or (B, J); 0 only at s = 0."""
    return process.clock(t) / process.clock(s)


def fixed_optimum(
    process: GaussianProcess, noisy: Tensor, state: Tensor, t: float, s: float
) -> Tensor:
    """E[xi | x_t] when x_s is a random row of the fixed `noisy` (n, *shape), at one gap s -> t.

    sum_j v_j (x_t - a x_s^j) / sigma_{t|s}, v = softmax(-|x_t - a x_s^j|^2 / (2 sigma_{t|s}^2)),
    a = alpha_t / alpha_s: the memoriser of the noisy sample. Returns (B, *shape), like `state`.
    """
    if not process.isotropic:
        raise InputError("the fixed optimum is written for one noise level per point")
    if s >= t:
        raise InputError(f"s is {s}, t is {t}: s must come before t")
    times = torch.tensor([t, s], dtype=torch.float64)
    alpha, sigma = process.alpha(times), process.sigma(times)
    ratio = float(alpha[0] / alpha[1])
    spread = float((sigma[0].square() - (ratio * sigma[1]).square()).sqrt())
    points = ratio * noisy.flatten(1)
    apart = torch.cdist(state.flatten(1), points, compute_mode="donot_use_mm_for_euclid_dist")
    weights = torch.softmax(-0.5 * (apart / spread).square(), 1)
    return (state - (weights @ points).reshape(state.shape)) / spread
