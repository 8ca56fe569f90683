"""Brownian bridges on manifolds against quadrature, and the plan that paths reproduce."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from reverie import InputError
from reverie.bridges import ManifoldBridge, ManifoldMotion
from reverie.spaces import Sphere, Torus


def law_of(density: Tensor, grid: Tensor) -> Callable[[np.ndarray], np.ndarray]:
    """The distribution function of a density on an even grid, by the trapezoid rule."""
    total = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, grid)])
    return lambda x: np.interp(x, grid.numpy(), (total / total[-1]).numpy())


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_bridge_on_the_circle(share: float) -> None:
    """Sums of wrapped normal densities at ends two radians apart; 2,000 draws, KS at .1%."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.full((2000, 1), at, dtype=torch.float64) for at in (-1.0, 1.0))
    z = ManifoldMotion(Torus(1), 2.0).between(x, y, share, generator=draw)[:, 0]
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    turns = 2 * math.pi * torch.arange(-5, 6).double()[:, None]
    density = torch.ones_like(grid)
    for at, duration in ((-1.0, 2 * share), (1.0, 2 * (1 - share))):
        density *= (-0.5 * (grid - at + turns).square() / duration).exp().sum(0)
    assert stats.kstest(z.numpy(), law_of(density, grid)).pvalue > 1e-3


def test_a_bridge_on_the_sphere_back_to_its_start() -> None:
    """The angle from the start has the density of two kernels times sin r, by their series."""
    draw = torch.Generator().manual_seed(0)
    north = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(1500, 3)
    z = ManifoldMotion(Sphere(2), 1.0).between(north, north, 0.4, generator=draw)
    r = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    density, cosine = r.sin(), r.cos().numpy()
    for duration in (0.4, 0.6):
        degrees = np.arange(30)
        weight = (2 * degrees + 1) * np.exp(-0.5 * degrees * (degrees + 1) * duration)
        density = density * torch.from_numpy(np.polynomial.legendre.legval(cosine, weight))
    angle = torch.arccos(z[:, 2].clamp(-1, 1)).numpy()
    assert stats.kstest(angle, law_of(density.clamp(min=0), r)).pvalue > 1e-3


@pytest.mark.slow
def test_paths_end_in_the_plan_of_two_sets() -> None:
    """Counts of 1,200 paths against the plan's rows (chi-squared at .1%), and the drift against
    the slope of the log of the mixture."""
    draw = torch.Generator().manual_seed(0)
    space = Sphere(2)
    a, b = (space.uniform(n, generator=draw) for n in (3, 4))
    found = ManifoldBridge(a, b, space, 1.0)
    assert found.error < 1e-8
    assert found.plan.sum(0) == pytest.approx(torch.full((4,), 0.25).double())
    path = found.path(a.repeat_interleave(400, 0), steps=3, generator=draw)
    assert float(space.residual(path.reshape(-1, 3)).max()) < 1e-9
    ends = torch.cdist(path[-1], b).argmin(1).reshape(3, 400)
    for row, law in zip(ends, found.plan * 3, strict=True):
        counts = np.bincount(row.numpy(), minlength=4)
        assert stats.chisquare(counts, 400 * law.numpy()).pvalue > 1e-3
    back = found.path(b, reverse=True, steps=2, generator=draw)
    assert torch.equal(back[-1], b)
    state, way = a[:1], space.tangent(a[:1], torch.ones(1, 3).double())
    value = [
        float(
            (found.motion.log_density(space.exp(state, h * way), b, 0.5) + found.potentials[1])
            .logsumexp(1)
        )
        for h in (-1e-4, 1e-4)
    ]  # fmt: skip
    slope = float((found.drift(state, 0.5) * way).sum())
    assert slope == pytest.approx((value[1] - value[0]) / 2e-4, rel=1e-3)


def test_no_bridge_without_a_duration() -> None:
    with pytest.raises(InputError, match="tau > 0"):
        ManifoldMotion(Torus(1), 0.0)
