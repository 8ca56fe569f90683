"""Brownian motion on a manifold, slowed down by a noise schedule.

X_t is Brownian motion (generator half the Laplacian) of duration tau(t) from the data. The clock
is u = 1/tau, the prediction the score grad log p_tau, a tangent vector, and the rate

    1/2 tau^2 |grad log p_tau(x_t | x) - prediction|^2

whose ideal area is information between a point and its noised self (de Bruijn's identity; on flat
space it is 1/2 |x - xhat|^2). Time reversal: De Bortoli et al. 2022, Theorem 1.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Draw, Process, State
from reverie.processes.heat import HeatKernel, heat_kernel
from reverie.spaces import Manifold
from reverie.spaces.manifold import scale

FORGETTING = 14.0  # of the slowest mode exp(-7) is left at the noisy end: less than 1e-5 nats
UNBOUNDED_DURATION = 4.0
BLIND = 2000


class Brownian(Process):
    """Brownian motion on `space` with tau(t) = tau_min^(1 - t) tau_max^t.

    tau_min, tau_max: durations at t = 0 and t = 1, in squared units of length. On a compact space
    tau_max is by default 14 / gap, where the noised law is uniform to 1e-5 nats; then the prior is
    uniform. Elsewhere (default tau_max 4) the prior is the heat kernel of duration
    tau_max + `dispersion` from `centre` (*shape), default the origin. That is exactly the noised
    law where the data are themselves a heat kernel of duration `dispersion` from there; `around`
    reads both from data. On hyperbolic space a longer tau_max does not help: a path keeps its
    direction for ever, so that what the kernel misses of the data's directions stays missed.
    A step's charge is that of the tangent normal laws of `reverse`: exact in the limit of short
    steps and on flat space, so `steps_exact` is False. Raises InputError on bad durations, and on
    a prior where the law is uniform.
    Source: De Bortoli et al. 2022, theorem 1 (the reversal).

    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Sphere
    >>> process = Brownian(Sphere(2))
    >>> x = process.sample_prior(4)  # uniform on the sphere
    >>> x.shape, process.clock(0.5).round().tolist()  # u = 1 / tau
    (torch.Size([4, 3]), [38.0])
    """

    space: Manifold
    monotone = False  # at the uniform end a score tells nothing, and costs nothing
    steps_exact = False
    costly_kernel = True
    clock_label = "inverse duration 1/tau"
    centre: Tensor

    def __init__(
        self,
        space: Manifold,
        tau_min: float = 1e-4,
        tau_max: float | None = None,
        *,
        centre: Tensor | str | None = None,
        dispersion: float = 0.0,
    ) -> None:
        super().__init__()
        if tau_max is None:
            tau_max = FORGETTING / space.gap if space.compact else UNBOUNDED_DURATION
        if not 0 < tau_min < tau_max or not math.isfinite(tau_max):
            raise InputError(f"durations are {tau_min}, {tau_max}; need 0 < tau_min < tau_max")
        self.space, self.tau_min, self.tau_max = space, float(tau_min), float(tau_max)
        self.t_range = (0.0, 1.0)
        if space.compact and (centre is not None or dispersion):
            raise InputError(f"noise on {space} ends in the uniform law, which has no centre")
        if not 0 <= dispersion < math.inf:
            raise InputError(f"dispersion is {dispersion}; it is a duration, 0 or more")
        self.dispersion = float(dispersion)
        self.register_buffer("centre", _point(space, centre), persistent=False)

    @classmethod
    def around(
        cls, space: Manifold, data: Tensor, tau_min: float = 1e-4, tau_max: float | None = None
    ) -> Brownian:
        """The process whose prior stands around the rows of `data` (N, *shape).

        Its centre and dispersion are those of the heat kernel with the rows' own moments
        (`Manifold.heat_moments`); on compact spaces it is the plain process.
        """
        if space.compact:
            return cls(space, tau_min, tau_max)
        centre, dispersion = space.heat_moments(space.check(data.double()))
        return cls(space, tau_min, tau_max, centre=centre, dispersion=dispersion)

    def fitted_to(self, points: Tensor) -> Brownian:
        """Where the noise has no uniform end, the process whose prior stands around the points."""
        return self.around(self.space, points, self.tau_min, self.tau_max)

    def settings(self) -> dict[str, str | float]:
        """What rebuilds this process, for a run's `config.json`; see `spaces.space_named`.

        A centre is written as its coordinates, with spaces between them.
        """
        known: dict[str, str | float] = dict(
            space=repr(self.space), tau_min=self.tau_min, tau_max=self.tau_max
        )
        if not self.space.compact:
            known["centre"] = " ".join(repr(v) for v in self.centre.flatten().tolist())
            known["dispersion"] = self.dispersion
        return known

    @property
    def has_kernel(self) -> bool:
        """Whether densities are known here; elsewhere there is a random walk only."""
        return self.heat.known

    @property
    def slowest(self) -> float:
        return self.space.gap if self.space.compact and self.has_kernel else 0.0

    def blind_rate(self, u: Tensor) -> Tensor:
        """The rate of the score 0, the mean over BLIND draws of fixed noise for all levels."""
        generator = torch.Generator().manual_seed(0)
        points = self.space.uniform(BLIND, generator=generator)
        noise = self.space.noise(points, generator=generator)
        # of exactly the right mean square: then short noise, flat, has the exact rate
        size = self.space.inner(points, noise, noise).mean() / self.space.dim
        noise, zero, found = noise / size.sqrt(), torch.zeros_like(points), []
        for clock in u.double():
            t = self.time(clock)
            state = self.corrupt(points, t, end=noise)
            found.append(self.rate(zero, points, state, t).mean())
        return torch.stack(found)

    @property
    def area_exact(self) -> bool:  # type: ignore[override]
        """Whether targets are scores of the kernel; a random walk's are Varadhan's, too short.

        Held against the kernel of SO(4) they are 5% off at tau = .05, and twice too long late on.
        """
        return self.has_kernel

    @property
    def targets_exact(self) -> bool:  # type: ignore[override]
        """As `area_exact`; without a kernel a fit matches scores implicitly, which needs none."""
        return self.has_kernel

    @property
    def heat(self) -> HeatKernel:
        """The heat kernel of the space."""
        return heat_kernel(self.space)

    def tau(self, t: Tensor | float) -> Tensor:
        """Duration at time t, float64 (B,)."""
        time = torch.as_tensor(t).to(torch.float64).reshape(-1)
        low, high = math.log(self.tau_min), math.log(self.tau_max)
        return (low + (high - low) * time).exp()

    def clock(self, t: Tensor | float) -> Tensor:
        return 1 / self.tau(t)

    def time(self, u: Tensor | float) -> Tensor:
        clock = torch.as_tensor(u).to(torch.float64).reshape(-1)
        return -(clock * self.tau_min).log() / math.log(self.tau_max / self.tau_min)

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """As `Process`, but in float64 where the space is not compact: float32 is too coarse.

        Hyperbolic coordinates grow as exp(distance), and the length of a tangent vector is what is
        left of their squares.
        """
        generator, device = draw.get("generator"), draw.get("device", "cpu")
        if self.space.compact:
            points = self.space.uniform(n, generator=generator, dtype=torch.float64)
            return points.to(dtype=draw.get("dtype", torch.float32), device=device)
        t, start = draw.get("t"), self.centre.expand(n, *self.space.shape)
        duration = self._durations(1.0 if t is None else t, start) + self.dispersion
        return self.spread(start, duration, generator=generator).to(device=device)

    def log_prior(self, state: State) -> Tensor:
        """Log-density (B,) in nats of the prior at the noisiest level."""
        if self.space.compact:
            return state.new_full((len(state),), -self.space.log_volume)
        duration = self._durations(1.0, state) + self.dispersion
        return self.heat.log_density(self._exact(state), self.centre[None], duration)[:, 0]

    def prior_score(self, state: State, t: Tensor | float) -> Tensor:
        """The score (B, *shape) at t of data whose noised law ends in the prior exactly.

        0 where the prior is uniform; elsewhere that of the heat kernel from `centre`.
        """
        if self.space.compact:
            return torch.zeros_like(state)
        duration = self._durations(t, state) + self.dispersion
        start = self.centre.expand(len(state), *self.space.shape)
        return self.heat.score(self._exact(state), start, duration).to(state)

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw X_t given X_0 = x; `end` is the standard normal tangent vector to go along."""
        return self.spread(x, self._durations(t, x), noise=end, generator=generator)

    def spread(
        self,
        x: Tensor,
        tau: Tensor,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw from the heat kernel of durations tau (B,) at x."""
        start = x.double()
        if noise is None:
            noise = self.space.noise(start, generator=generator)
        return self.heat.draw(start, tau, noise.double(), generator).to(x)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        noise = self.space.noise(x.double(), generator=generator)
        first = self.corrupt(x, t, end=noise, generator=generator)
        return first, self.corrupt(x, t, end=-noise, generator=generator)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        y, centres = self._exact(state), self._exact(x)
        return self.heat.log_density(y, centres, self._durations(t, state)).to(state)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """The score (B, *shape) of the heat kernel at the states, for paired points."""
        y, centres = self._exact(state), self._exact(x)
        return self.heat.score(y, centres, self._durations(t, state)).to(state)

    def average_target(
        self, weights: Tensor, state: Tensor, x: Tensor, t: Tensor | float
    ) -> Tensor:
        y, centres = self._exact(state), self._exact(x)
        tau = self._durations(t, state)
        return self.heat.mean_score(weights.double(), y, centres, tau).to(state)

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        off = self.target(state, x, t) - prediction
        tau = self._durations(t, state).to(state)
        return 0.5 * tau.square() * self.space.inner(state, off, off)

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """A geodesic step: exp((tau_t - tau_s) score + sqrt(tau_s (tau_t - tau_s)/tau_t) z).

        The noise is that of a Brownian bridge to the point tau_t * score away, so that on flat
        space the step is the exact posterior; De Bortoli et al. 2022 (Algorithm 1) use
        sqrt(tau_t - tau_s), the same in the limit of short steps.
        """
        now, then = self._durations(t, state), self._durations(s, state)
        here = self._exact(state)  # far out in hyperbolic space float32 loses a vector's length
        step = scale(now - then, self.space.tangent(here, prediction.double()))
        noise = self.space.noise(here, generator=generator)
        spread = (then * (now - then) / now).sqrt()
        return self.space.exp(here, step + scale(spread, noise)).to(state)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The point a geodesic of velocity tau * score leads to (Tweedie on flat space)."""
        here = self._exact(state)
        step = scale(self._durations(t, state), self.space.tangent(here, prediction.double()))
        return self.space.exp(here, step).to(state)

    def _durations(self, t: Tensor | float, like: Tensor) -> Tensor:
        return self.tau(t).to(like.device).expand(len(like))

    def _exact(self, x: Tensor) -> Tensor:
        """Float64 points that satisfy the constraint to its precision."""
        return x if x.dtype == torch.float64 else self.space.project(x.double())


def require_manifold_noise(process: Process, purpose: str) -> Brownian:
    """The process, if it is Brownian motion on a manifold; else InputError with the purpose."""
    if not isinstance(process, Brownian):
        raise InputError(f"{purpose} needs Brownian motion on a manifold")
    return process


def _point(space: Manifold, centre: Tensor | str | None) -> Tensor:
    """The centre (*shape) in float64, checked; the origin where none is given."""
    if centre is None:
        return space.origin()
    if isinstance(centre, str):
        centre = torch.tensor([float(v) for v in centre.split()], dtype=torch.float64)
        centre = centre.reshape(space.shape)
    return space.check(centre.double()[None])[0]
