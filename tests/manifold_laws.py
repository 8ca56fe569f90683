"""Laws on manifolds whose noised score is known by a route of its own."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import special

from reverie.denoisers import Denoiser
from reverie.spaces import Hyperbolic, Product, Rotations, Sphere, Torus

SPACES = [
    Sphere(2),
    Sphere(3),
    Sphere(5),
    Torus(2),
    Rotations(3),
    Rotations(4),
    Hyperbolic(2),
    Hyperbolic(3),
    Product(Sphere(2), Torus(1), Rotations(3)),
]


def points(space, n, generator, spread=0.8):
    """Uniform points, or points `spread` around the origin where there is no uniform law."""
    if space.compact:
        return space.uniform(n, generator=generator)
    start = space.origin().expand(n, *space.shape)
    return space.exp(start, spread * space.noise(start, generator=generator))


class MixtureOnSphere(Denoiser):
    """Exact score of a von Mises-Fisher mixture on S^2, by its Legendre series.

    A vMF law of concentration k has E[P_l(x.m)] = I_(l+1/2)(k) / I_(1/2)(k), and Brownian motion
    multiplies it by exp(-l (l + 1) tau / 2). At k = 8 degree 26 has moment 1e-13.
    """

    def __init__(self, process, centres, concentration, weights, degrees=26):
        super().__init__()
        self.process, self.concentration = process, concentration
        self.centres = torch.as_tensor(centres, dtype=torch.float64)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        order = np.arange(degrees) + 0.5
        moments = special.ive(order, concentration) / special.ive(0.5, concentration)
        self.moments = torch.as_tensor(moments)

    def _density(self, state, tau):
        z = state @ self.centres.T
        old, new = torch.ones_like(z), z
        total = old * self.moments[0]
        for degree in range(1, len(self.moments)):
            decay = (-0.5 * degree * (degree + 1) * tau).exp()[:, None]
            total = total + (2 * degree + 1) * self.moments[degree] * decay * new
            old, new = new, ((2 * degree + 1) * z * new - degree * old) / (degree + 1)
        return (total * self.weights).sum(1) / (4 * math.pi)

    def log_density(self, state, t):
        return self._density(state, self.process.tau(t).expand(len(state))).log()

    def forward(self, state, t, condition=None):
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = state if state.requires_grad else state.detach().requires_grad_()
            value = self.log_density(y, t).sum()
            (slope,) = torch.autograd.grad(value, y, create_graph=keep)
        return self.process.space.tangent(state, slope)

    def draw(self, n, generator):
        """Exact draws: the cosine has density proportional to exp(k cosine)."""
        part = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        k = self.concentration
        cosine = 1 + torch.log(uniform + (1 - uniform) * math.exp(-2 * k)) / k
        centre = self.centres[part]
        side = self.process.space.noise(centre, generator=generator)
        side = side / side.norm(dim=1, keepdim=True)
        sine = (1 - cosine.square()).clamp(min=0).sqrt()
        return cosine[:, None] * centre + sine[:, None] * side


class MixtureOnTorus(Denoiser):
    """Exact score of a mixture of wrapped normals of variance `spread`, by Fourier series."""

    def __init__(self, process, centres, spread, weights, terms=40):
        super().__init__()
        self.process, self.spread, self.terms = process, spread, terms
        self.centres = torch.as_tensor(centres, dtype=torch.float64)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)

    def log_density(self, state, t):
        tau = self.process.tau(t).expand(len(state)) + self.spread
        k = torch.arange(1, self.terms, dtype=torch.float64)
        angle = state[:, None] - self.centres
        waves = (k * angle[..., None]).cos() * (-0.5 * k * k * tau[:, None, None, None]).exp()
        each = (1 + 2 * waves.sum(-1)) / (2 * math.pi)
        return (each.prod(2) * self.weights).sum(1).log()

    def forward(self, state, t, condition=None):
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = state if state.requires_grad else state.detach().requires_grad_()
            value = self.log_density(y, t).sum()
            (slope,) = torch.autograd.grad(value, y, create_graph=keep)
        return slope

    def draw(self, n, generator):
        part = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        centre = self.centres[part]
        z = self.process.space.noise(centre, generator=generator)
        return self.process.space.exp(centre, math.sqrt(self.spread) * z)


def sine_law(angles, middle, concentration, coupling):
    """Bivariate von Mises sine law (Singh, Hnizdo & Demchuk 2002) of angles (..., 2)."""
    first, second = (angles - torch.tensor(middle, dtype=torch.float64)).unbind(-1)
    k = concentration
    exponent = k[0] * first.cos() + k[1] * second.cos() + coupling * first.sin() * second.sin()
    total = sum(
        math.comb(2 * m, m) * (coupling**2 / (4 * k[0] * k[1])) ** m
        * special.iv(m, k[0]) * special.iv(m, k[1])
        for m in range(60)
    )  # fmt: skip
    return exponent.exp() / (4 * math.pi**2 * total)


class FourierOnTorus(Denoiser):
    """Exact score of any smooth density on T^2: Brownian motion damps its Fourier coefficients."""

    def __init__(self, process, density, size=64):
        super().__init__()
        self.process, self.density = process, density
        grid = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
        values = density(torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1))
        self.coefficients = torch.fft.fft2(values.to(torch.complex128)) / size**2
        self.waves = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
        self.highest = 1.1 * float(values.max())

    def log_density(self, state, t):
        tau = self.process.tau(t).expand(len(state))
        damp = (-0.5 * self.waves.square() * tau[:, None]).exp()
        first, second = (damp * (1j * self.waves * state[:, [axis]]).exp() for axis in (0, 1))
        value = torch.einsum("bk,kl,bl->b", first, self.coefficients, second)
        return value.real.clamp(min=1e-9).log()

    def forward(self, state, t, condition=None):
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = state if state.requires_grad else state.detach().requires_grad_()
            value = self.log_density(y, t).sum()
            (slope,) = torch.autograd.grad(value, y, create_graph=keep)
        return slope

    def draw(self, n, generator):
        """By rejection from the uniform law."""
        kept = torch.empty(0, 2, dtype=torch.float64)
        while len(kept) < n:
            x = self.process.space.uniform(4 * n, generator=generator)
            level = torch.rand(len(x), generator=generator, dtype=torch.float64)
            kept = torch.cat([kept, x[level * self.highest < self.density(x)]])
        return kept[:n]


class HeatMixture(Denoiser):
    """A mixture of heat kernels of duration `spread`: on every space its score is the heat's."""

    def __init__(self, process, centres, spread):
        super().__init__()
        self.process, self.centres, self.spread = process, centres, spread

    def _tau(self, state, t):
        return self.process.tau(t).expand(len(state)) + self.spread

    def log_density(self, state, t):
        logits = self.process.heat.log_density(state, self.centres, self._tau(state, t))
        return logits.logsumexp(1) - math.log(len(self.centres))

    def forward(self, state, t, condition=None):
        tau = self._tau(state, t)
        weights = self.process.heat.log_density(state, self.centres, tau).softmax(1)
        return self.process.heat.mean_score(weights, state, self.centres, tau)

    def draw(self, n, generator):
        part = torch.randint(len(self.centres), (n,), generator=generator)
        tau = torch.full((n,), self.spread, dtype=torch.float64)
        return self.process.spread(self.centres[part], tau, generator=generator)
