"""H^n in any dimension has an exact heat kernel; SO(n) beyond 4 an exact objective instead."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from reverie import measure
from reverie.denoisers import Denoiser, Memoriser, TangentNetwork
from reverie.errors import InputError
from reverie.objectives import Bound, Implicit, build_objective
from reverie.objectives.score_matching import implicit_integrand
from reverie.processes import Brownian, heat_kernels
from reverie.processes.heat_hyperbolic import MOST_DIMENSIONS, hyperbolic
from reverie.spaces import Hyperbolic, Product, Rotations, Sphere

RADII = torch.tensor([0.02, 0.5, 1.2, 1.4, 3.0, 8.0], dtype=torch.float64)


def duration(tau: float) -> torch.Tensor:
    return torch.tensor([tau], dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.01, 0.5, 4.0])
def test_hyperbolic_kernels_agree_with_the_known_ones(tau):
    for dim, known in ((2, heat_kernels.hyperbolic_two), (3, heat_kernels.hyperbolic_three)):
        for ours, theirs in zip(
            hyperbolic(RADII, duration(tau), dim), known(RADII, duration(tau)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dim", [4, 6, 15])
@pytest.mark.parametrize("tau", [0.01, 4.0])
def test_two_dimensions_more_are_one_derivative(dim, tau):
    """Millson's recursion, with the derivative taken by autograd of the kernel two below."""
    r = RADII.clone().requires_grad_()
    below = hyperbolic(r, duration(tau), dim - 2)[0]
    (slope,) = torch.autograd.grad(below.sum(), r)
    shift = 0.5 * (dim - 2) * tau + math.log(2 * math.pi)
    want = below + (-slope / RADII.sinh()).log() - shift
    r = RADII.clone().requires_grad_()
    log_p, pull = hyperbolic(r, duration(tau), dim)
    torch.testing.assert_close(log_p, want.detach(), rtol=1e-7, atol=1e-7)
    (slope,) = torch.autograd.grad(log_p.sum(), r)
    torch.testing.assert_close(pull, -slope / RADII.sinh(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dim", [4, 7, MOST_DIMENSIONS])
@pytest.mark.parametrize("tau", [0.01, 4.0])
def test_mass_is_one_and_cosh_grows_as_its_eigenvalue(dim, tau):
    """cosh r is an eigenfunction: E[cosh r] = exp(dim tau / 2)."""
    reach = 9 * tau**0.5 + 0.5 * (dim + 1) * tau + 2 * (tau * dim) ** 0.5
    r = np.linspace(0, reach, 4001)[1:]
    log_p = hyperbolic(torch.from_numpy(r), duration(tau), dim)[0].numpy()
    area = (
        (dim - 1) * np.log(np.sinh(r)) + math.log(2 * math.pi ** (dim / 2)) - math.lgamma(dim / 2)
    )
    f = np.concatenate([[0.0], np.exp(log_p + area)])
    grid = np.concatenate([[0.0], r])
    assert integrate.simpson(f, x=grid) == pytest.approx(1, abs=1e-8)
    growth = integrate.simpson(f * np.cosh(grid), x=grid)
    assert growth == pytest.approx(math.exp(0.5 * dim * tau), rel=1e-6)


def test_draws_memoriser_and_curve_on_a_space_of_five_dimensions(generator):
    process = Brownian(Hyperbolic(5), 1e-2)
    space = process.space
    assert process.has_kernel
    assert process.targets_exact
    assert process.area_exact
    origin = space.origin().expand(4000, 6)
    drawn = process.spread(origin, torch.full((4000,), 0.5).double(), generator=generator)
    growth = drawn[:, 0]  # cosh of the distance
    far = abs(float(growth.mean()) - math.exp(0.5 * 5 * 0.5)) / float(growth.std() / 4000**0.5)
    assert far < 4
    rows = space.exp(origin[:30], 0.4 * space.noise(origin[:30], generator=generator))
    state = process.corrupt(rows, 0.4, generator=generator).requires_grad_()
    memoriser, t = Memoriser(process, rows), torch.full((30,), 0.4).double()
    log_p = process.log_kernel(state, rows, t).logsumexp(1)
    (slope,) = torch.autograd.grad(log_p.sum(), state)
    want = space.gradient(state.detach(), slope)
    torch.testing.assert_close(memoriser(state.detach(), t), want, rtol=1e-5, atol=1e-6)
    assert "approximate" not in measure(memoriser, rows, levels=4, generator=generator).label


class Characters(Denoiser):
    """The score on SO(5) of a point at 1 that Brownian motion has carried to tau = 1.5.

    From sum dim(V) chi_V(x) exp(-c_V tau / 2) over the vector representation (c = 4), the
    antisymmetric (6) and the symmetric matrices (10); the next, of dimension 35 and c = 12, has a
    weight of .004.
    """

    process: Brownian

    def __init__(self, process: Brownian) -> None:
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        tau = self.process.tau(t).to(state).expand(len(state))
        first, second, third = (
            dim * (-0.5 * c * tau).exp() for dim, c in ((5, 4), (10, 6), (14, 10))
        )
        with torch.enable_grad():
            x = state if state.requires_grad else state.detach().requires_grad_()
            one, two = (y.diagonal(dim1=1, dim2=2).sum(1) for y in (x, x @ x))
            low, high = 0.5 * (one.square() - two), 0.5 * (one.square() + two) - 1
            log_p = (1 + first * one + second * low + third * high).log().sum()
            (slope,) = torch.autograd.grad(log_p, x, create_graph=True)
            return self.process.space.gradient(x, slope)


@pytest.mark.slow
def test_without_a_kernel_the_implicit_objective_finds_the_score_and_the_other_does_not(generator):
    """The factor of the true score at which each objective, a parabola in it, is least."""
    process, n = Brownian(Rotations(5), 1e-2, 4.0), 2000
    assert not process.has_kernel
    assert not process.targets_exact
    x = torch.eye(5, dtype=torch.float64).expand(n, 5, 5)
    t = process.time(torch.tensor(1 / 1.5)).expand(n)
    state, model = process.corrupt(x, t, generator=generator), Characters(process)
    score = model(state, t).detach()
    square = process.space.inner(state, score, score)
    spread = implicit_integrand(model, state, t).detach() - 0.5 * square
    pulled = process.space.inner(state, score, process.target(state, x, t))
    best, biased = (float(part.mean() / square.mean()) for part in (-spread, pulled))
    errors = [float(part.std() / n**0.5 / square.mean()) for part in (spread + square, pulled)]
    assert errors[0] < 0.15
    assert abs(best - 1) < 4 * errors[0]
    assert abs(biased - 1) > 6 * errors[1]  # Varadhan's log map for a target


def test_a_fit_takes_the_objective_that_is_exact():
    network = TangentNetwork(Brownian(Rotations(5), 1e-2), width=16, depth=1)
    rows = Rotations(5).uniform(32, generator=torch.Generator().manual_seed(0)).float()
    objective = build_objective("standard", network, rows, 0)
    assert isinstance(objective, Implicit)
    losses = objective.losses(torch.arange(32), rows, torch.Generator().manual_seed(1))
    losses.mean().backward()
    assert losses.shape == (32,)
    assert torch.isfinite(losses).all()
    known = TangentNetwork(Brownian(Rotations(4), 1e-2), width=16, depth=1)
    assert isinstance(build_objective("standard", known, rows, 0), Bound)


def test_without_a_kernel_no_curve_is_nats():
    process = Brownian(Product(Sphere(2), Rotations(5)), 1e-2)
    assert not process.has_kernel
    assert not process.area_exact
    network = TangentNetwork(process, width=8, depth=1)
    rows = process.space.uniform(6, generator=torch.Generator().manual_seed(0)).float()
    curve = measure(network, rows, levels=3, generator=torch.Generator().manual_seed(0))
    assert "approximate" in curve.label
    with pytest.raises(InputError, match="no heat kernel"):
        Memoriser(process, rows)(rows, torch.full((6,), 0.5))
