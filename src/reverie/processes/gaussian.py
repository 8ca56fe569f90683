"""Gaussian noise: x_t = alpha_t x + sigma_t e, everything through (alpha, sigma).

The information clock is the signal-to-noise ratio gamma = alpha^2 / sigma^2 and the rate is
1/2 |x - xhat|^2 (I-MMSE: Guo, Shamai & Verdu 2005; dI/dgamma = mmse/2). `alpha(t)` and `sigma(t)`
may differ per coordinate, or per mode of an orthonormal basis: all noise is diagonal between
`to_modes` and `from_modes`, which are the identity here. Modes of one speed share a column of the
clock and of the rate.

The reverse step is the posterior of the bridge x_s | x_t, xhat: DDPM's small-variance step, the
first-order stochastic solver for which the path KL of K steps is exact.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.formerly import warn
from reverie.processes.base import Draw, Process, State, float64, point_shape
from reverie.spaces import Euclidean


class Step(NamedTuple):
    """Coefficients of x_s = state * x_t + guess * xhat + noise * z."""

    state: Tensor
    guess: Tensor
    noise: Tensor


class GaussianProcess(Process, abstract=True):
    """x_t = alpha(t) x + sigma(t) e; subclasses give `alpha`, `sigma` and the exact inverse clock.

    `alpha(t)` and `sigma(t)` take t of shape (B,) and return (B,), or (B, *shape) when they differ
    per mode. `columns` is the number of clocks.
    The guess is of clean data (B, *shape); the clock is the ratio alpha^2 / sigma^2.
    InputError unless 0 <= low < high <= 1 in t_range.

    >>> import torch
    >>> from reverie.processes import GaussianProcess
    >>> class Line(GaussianProcess):  # alpha = 1 - t, sigma = t
    ...     def alpha(self, t):
    ...         return 1 - t
    ...     def sigma(self, t):
    ...         return t
    >>> Line((0.01, 0.99)).corrupt(torch.zeros(5, 3), 0.5).shape
    torch.Size([5, 3])
    """

    clock_is_snr = True
    clock_label = "signal-to-noise ratio"

    def __init__(
        self, t_range: tuple[float, float], shape: tuple[int, ...] | None = None, columns: int = 1
    ) -> None:
        super().__init__()
        low, high = t_range
        if not 0 <= low < high <= 1:
            raise InputError(f"t_range is {t_range}; it must satisfy 0 <= low < high <= 1")
        self.t_range = (float(low), float(high))
        self.space = Euclidean(shape)
        self.columns = columns

    @property
    def gaussian(self) -> GaussianProcess:
        return self

    @property
    def isotropic(self) -> bool:  # type: ignore[override]
        """Whether all modes have the same alpha and sigma, which then are (B,)."""
        return self.columns == 1

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the signal at time t."""
        raise NotImplementedError

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t."""
        raise NotImplementedError

    def settings(self) -> dict[str, float]:
        """Keyword arguments that rebuild this process, for a run's `config.json`."""
        raise InputError(f"{type(self).__name__} cannot be written to a run directory")

    def scales(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) at t, to broadcast against modes of the shape of `like`."""
        time = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        return _fit(self.alpha(time), like), _fit(self.sigma(time), like)

    def levels(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """The name of `scales` in the release before; it goes with the next."""
        warn("process.levels", "process.scales")
        return self.scales(t, like)

    def network_scales(self, t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """The (alpha, sigma) that a network's input and output are scaled by: `levels` for most.

        A process whose modes belong to a grid gives one level for all of them, so that a network
        can be read on another grid.
        """
        return self.scales(t, like)

    def clock(self, t: Tensor | float) -> Tensor:
        time = float64(t).reshape(-1)
        gamma = self.gamma(time)
        return gamma.flatten(1) if self.columns > 1 else gamma

    def gamma(self, t: Tensor) -> Tensor:
        """alpha^2 / sigma^2; subclasses override it where subtraction would cancel digits."""
        return (self.alpha(t) / self.sigma(t)).square()

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        noise = torch.randn(
            (n, *point_shape(self.space, draw.get("shape"))),
            generator=draw.get("generator"),
            dtype=draw.get("dtype", torch.float32),
            device=draw.get("device", "cpu"),
        )
        t = draw.get("t")
        _, sigma = self.scales(self.t_range[1] if t is None else t, noise)
        return self.from_modes(sigma * noise)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        alpha, sigma = self.scales(t, x)
        if end is None:
            end = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.from_modes(alpha * self.to_modes(x) + sigma * self.to_modes(end))

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        end = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.corrupt(x, t, end=end), self.corrupt(x, t, end=-end)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = self.scales(t, state)
        state, x = self.to_modes(state), self.to_modes(x)
        count = math.prod(state.shape[1:])
        scaled = (state / sigma).flatten(1)
        centre = (alpha / sigma).expand(state.shape[0], *alpha.shape[1:])
        if centre[0].numel() == 1:  # one speed: every state scales all points alike
            points = x.flatten(1)
            ratio = centre.reshape(-1, 1)
            square = scaled.square().sum(1, keepdim=True) - 2 * ratio * (scaled @ points.T)
            square = square + ratio.square() * points.square().sum(1)
        else:
            offset = scaled[:, None] - (centre[:, None] * x[None]).flatten(2)
            square = offset.square().sum(2)
        volume = sigma.log().expand(state.shape).flatten(1).sum(1, keepdim=True)
        return -0.5 * square - volume - 0.5 * count * math.log(2 * math.pi)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return x

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        return self.pool(0.5 * self.to_modes(x - prediction).square())

    def pool(self, squares: Tensor) -> Tensor:
        """Sum half squared errors of modes (B, *shape) by clock: (B,), or (B, J)."""
        squares = squares.flatten(1)
        return squares if self.columns > 1 else squares.sum(1)

    # --- the ends of the bound ------------------------------------------------------------------

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL (B,) in nats, at the noisiest level, of noised x (B, *shape) from the prior."""
        alpha, sigma = self.scales(self.t_range[1], x)
        return 0.5 * (alpha / sigma * x).square().flatten(1).sum(1)

    def reconstruction(
        self,
        x: Tensor,
        values: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """-log p(x | z_0) (B,) in nats, one draw of z_0 at the cleanest level each.

        values: the grid (V,) on which all of x (B, *shape) lies, as of pixels; None for a density.
        Raises InputError where x lies off the grid.
        """
        alpha, sigma = self.scales(self.t_range[0], x)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        spread = (sigma / alpha).expand_as(x)
        if values is None:
            each = 0.5 * noise.square() + spread.log() + 0.5 * math.log(2 * math.pi)
            return each.flatten(1).sum(1)
        grid = values.to(x)
        place = (x[..., None] - grid).abs().argmin(-1)
        if not torch.allclose(grid[place], x, atol=1e-4 * float(grid.max() - grid.min())):
            raise InputError(f"some values of the data are not among the {len(grid)} of the grid")
        logits = -0.5 * ((x + spread * noise)[..., None] - grid).div(spread[..., None]).square()
        each = -logits.log_softmax(-1).gather(-1, place[..., None])
        return each.flatten(1).sum(1)

    def start_kl(self, u: float, second: float) -> float:
        return 0.5 * u * second

    def step(self, t: Tensor | float, s: Tensor | float, eta: float = 1.0) -> Step:
        """Coefficients in float64 of the DDIM(eta) step t -> s; eta = 1 is ancestral.

        x_s = alpha_s xhat + sqrt(sigma_s^2 - v^2) ehat + v z, where
        v^2 = eta^2 sigma_s^2 (1 - gamma_t / gamma_s) (Song, Meng & Ermon 2021, eq. 12).
        """
        now, then = float64(t).reshape(-1), float64(s).reshape(-1)
        alpha_t, sigma_t, alpha_s, sigma_s = (
            self.alpha(now),
            self.sigma(now),
            self.alpha(then),
            self.sigma(then),
        )
        lost = eta * eta * (1 - self.gamma(now) / self.gamma(then)).clamp(min=0)
        kept = sigma_s / sigma_t * (1 - lost).clamp(min=0).sqrt()
        return Step(kept, alpha_s - kept * alpha_t, sigma_s * lost.sqrt())

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        kept, guess, noise = (_fit(c, state) for c in self.step(t, s))
        moved = kept * self.to_modes(state) + guess * self.to_modes(prediction)
        if noise.any():
            shape, kind = state.shape, state.dtype
            z = torch.randn(shape, generator=generator, dtype=kind, device=state.device)
            moved = moved + noise * z
        return self.from_modes(moved)


class VariancePreserving(GaussianProcess, abstract=True):
    """alpha^2 + sigma^2 = 1, by the log signal-to-noise ratio; subclasses give `log_gamma`.

    alpha^2 = sigmoid(log gamma), sigma^2 = sigmoid(-log gamma): no digit is lost at either end
    (Kingma, Salimans, Poole & Ho 2021, section 3.1). `VP` and `Cosine` preserve the variance too,
    and keep closed forms of alpha and sigma, which the logarithm would round.

    >>> import torch
    >>> from reverie.processes import VariancePreserving
    >>> class Straight(VariancePreserving):
    ...     def log_gamma(self, t):
    ...         return 8 - 16 * t
    >>> process = Straight((0.0, 1.0))
    >>> process.clock(0.5), process.alpha(torch.tensor(0.5)) ** 2
    (tensor([1.], dtype=torch.float64), tensor(0.5000))
    """

    @abstractmethod
    def log_gamma(self, t: Tensor) -> Tensor:
        """Log of the signal-to-noise ratio (B,) at time t (B,), decreasing in t."""
        raise NotImplementedError

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_gamma(t).sigmoid().sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (-self.log_gamma(t)).sigmoid().sqrt()

    def gamma(self, t: Tensor) -> Tensor:
        return self.log_gamma(t).exp()


def require_gaussian(
    process: Process, purpose: str, *, one_level: bool = False
) -> GaussianProcess:
    """The process, if it is Gaussian noise; else InputError that says what `purpose` needs.

    one_level: with one noise level for all coordinates.

    >>> from reverie.processes import VP, Masking, require_gaussian
    >>> require_gaussian(VP(), "this sampler").settings()["beta_max"]
    20.0
    >>> require_gaussian(Masking(4, sites=2), "this sampler")
    Traceback (most recent call last):
        ...
    reverie.errors.InputError: this sampler needs Gaussian noise, x_t = alpha x + sigma ...
    """
    known = process.gaussian
    if known is None or (one_level and not known.isotropic):
        kind = "one noise level for all coordinates" if one_level else "x_t = alpha x + sigma e"
        raise InputError(
            f"{purpose} needs Gaussian noise, {kind}; {type(process).__name__} is not"
        )
    return known


def _fit(level: Tensor, like: Tensor) -> Tensor:
    """Give a level (B,) or (B, *shape) the type and the rank of `like`."""
    level = level.to(dtype=like.dtype, device=like.device)
    if level.ndim <= 1:
        return level.reshape(-1, *(1,) * (like.ndim - 1))
    return level.reshape(-1, *like.shape[1:])
