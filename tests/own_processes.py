"""Three processes of a user's own, each in forty lines: what the package has never seen."""

from __future__ import annotations

import math

import torch

from reverie.processes import JumpProcess, Process
from reverie.processes.heat_kernels import circle
from reverie.spaces import Euclidean, FiniteSet, Torus


class Whirl(Process):
    """An Ornstein-Uhlenbeck process whose drift turns: x_t = e^-b R(w b) x + sigma e, b = 5 t."""

    clock_is_snr = True
    clock_label = "signal-to-noise ratio"

    def __init__(self, speed=2.0):
        super().__init__()
        self.speed, self.space, self.t_range = speed, Euclidean((2,)), (0.01, 1.0)

    def _parts(self, t, like):
        b = 5 * torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        turn = torch.stack([b.mul(self.speed).cos(), b.mul(self.speed).sin()], 1)
        cos, sin = turn[:, :1], turn[:, 1:]
        matrix = torch.stack([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 1)
        alpha = (-b).exp()[:, None, None] * matrix
        return alpha.to(like), (-torch.expm1(-2 * b)).sqrt()[:, None].to(like)

    def sample_prior(
        self, n, *, shape=None, t=None, generator=None, dtype=torch.float32, device="cpu"
    ):
        return torch.randn(n, 2, generator=generator, dtype=dtype)

    def corrupt(self, x, t, *, end=None, generator=None):
        alpha, sigma = self._parts(t, x)
        end = torch.randn(x.shape, generator=generator, dtype=x.dtype) if end is None else end
        return (alpha @ x[..., None])[..., 0] + sigma * end

    def log_kernel(self, state, x, t):
        alpha, sigma = self._parts(t, state)
        gap = state[:, None] - torch.einsum("bij,nj->bni", alpha.expand(len(state), 2, 2), x)
        square = (gap / sigma[:, None]).square().sum(2)
        return -0.5 * square - 2 * sigma.log() - math.log(2 * math.pi)

    def target(self, state, x, t):
        return x

    def clock(self, t):
        return 1 / torch.expm1(10 * torch.as_tensor(t, dtype=torch.float64).reshape(-1))

    def rate(self, prediction, x, state, t):
        return 0.5 * (x - prediction).square().sum(1)

    def reverse(self, prediction, state, t, s, *, generator=None):
        (a_t, v_t), (a_s, v_s) = self._parts(t, state), self._parts(s, state)
        move = a_t @ a_s.mT / (a_s @ a_s.mT)[:, :1, :1]  # from s to t
        kept = (v_s / v_t).square()[:, :, None] * move.mT
        mean = a_s @ prediction[..., None] + kept @ (
            state[..., None] - a_t @ prediction[..., None]
        )
        size = 1 - (v_s / v_t).square() * (move @ move.mT)[:, :1, 0]
        noise = torch.randn(state.shape, generator=generator, dtype=state.dtype)
        return mean[..., 0] + v_s * size.clamp(min=0).sqrt() * noise


class Potts(JumpProcess):
    """Symbols on a ring that jump to their two neighbours only."""

    def __init__(self, sites=4, symbols=5):
        ring = torch.eye(symbols, dtype=torch.float64)
        rates = ring.roll(1, 0) + ring.roll(-1, 0) - 2 * ring
        slowest = 2 - 2 * math.cos(2 * math.pi / symbols)
        even = torch.full((symbols,), 1 / symbols, dtype=torch.float64)
        super().__init__(FiniteSet(symbols, sites), rates / slowest, even)


class Windy(Process):
    """Brownian motion on a circle with a wind: rows drift by c tau while they spread."""

    monotone, steps_exact, clock_label = False, False, "inverse duration 1/tau"

    def __init__(self, c=3.0, lo=1e-3, hi=14.0):
        super().__init__()
        self.space, self.c, self.lo, self.hi, self.t_range = Torus(1), c, lo, hi, (0.0, 1.0)

    def tau(self, t):
        return self.lo * (self.hi / self.lo) ** torch.as_tensor(t, dtype=torch.float64).reshape(-1)

    def clock(self, t):
        return 1 / self.tau(t)

    def sample_prior(
        self, n, *, shape=None, t=None, generator=None, dtype=torch.float32, device="cpu"
    ):
        return self.space.uniform(n, generator=generator).to(dtype)

    def corrupt(self, x, t, *, end=None, generator=None):
        tau = self.tau(t).expand(len(x))[:, None]
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return self.space.exp(x.double(), self.c * tau + tau.sqrt() * noise).to(x)

    def _pairs(self, state, x, t):
        tau = self.tau(t).expand(len(state))[:, None]
        gap = torch.remainder(state.double() - x.double().T - self.c * tau + math.pi, 2 * math.pi)
        return circle(gap - math.pi, tau)

    def log_kernel(self, state, x, t):
        return self._pairs(state, x, t)[0].to(state)

    def target(self, state, x, t):
        tau = self.tau(t).expand(len(state))[:, None]
        gap = torch.remainder(state.double() - x.double() - self.c * tau + math.pi, 2 * math.pi)
        return circle(gap - math.pi, tau)[1].to(state)

    def average_target(self, weights, state, x, t):
        return (weights * self._pairs(state, x, t)[1]).sum(1, keepdim=True).to(state)

    def rate(self, prediction, x, state, t):
        tau = self.tau(t).expand(len(state)).to(state)
        return 0.5 * tau.square() * (self.target(state, x, t) - prediction).square()[:, 0]

    def reverse(self, prediction, state, t, s, *, generator=None):
        gone = self.tau(t) - self.tau(s)
        noise = torch.randn(state.shape, generator=generator, dtype=torch.float64)
        spread = (gone * self.tau(s) / self.tau(t)).sqrt()
        move = gone * (prediction.double() - self.c) + spread * noise
        return self.space.exp(state.double(), move).to(state)

    def finish(self, prediction, state, t, *, generator=None):
        move = self.tau(t) * (prediction.double() - self.c)
        return self.space.exp(state.double(), move).to(state)
