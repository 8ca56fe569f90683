"""Conditional bridges against exact conditional laws."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from reverie import InputError
from reverie.bridges import ConditionalLight, plan_covariance
from reverie.reproduce.conditional_bridge import quadrature


def test_of_gaussian_pairs_it_has_the_conditional_law_and_the_plan() -> None:
    """x = y + N(0, 1/4): mean y, deviation 1/2; from z the plan of N(0, 1) with that law. The
    tolerances are some five times what other seeds gave."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    y = torch.randn(20_000, 1, generator=draw)
    x = y + 0.5 * torch.randn(20_000, 1, generator=draw)
    found = ConditionalLight.fit(
        x, y, steps=250, components=8, width=32, depth=1, batch=256, generator=draw
    )
    for at in (-1.0, 0.5):
        told = torch.full((20_000, 1), at)
        made = found.sample(told, generator=draw)[:, 0]
        assert stats.kstest(made.numpy(), "norm", args=(at, 0.5)).statistic < 0.05
        path = found.path(told[:5000], steps=4, generator=draw)
        assert path.shape == (5, 5000, 1)
        assert stats.kstest(path[-1, :, 0].numpy(), "norm", args=(at, 0.5)).statistic < 0.06
        unit = torch.ones(1, 1, dtype=torch.float64)  # paths live in units of x given y
        want = float(plan_covariance(unit, unit, found.epsilon))
        z = torch.randn(20_000, 1, generator=draw)
        mean = found.plan_moments(z, told)[0]
        slope = float((z * (mean - mean.mean())).mean())
        assert slope == pytest.approx(want, abs=0.06)


def test_the_moments_of_oxygen_demand_are_those_of_the_posterior() -> None:
    """Quadrature on another grid; the figures of the specification to its digits."""
    found = quadrature(600)
    want = ((0.0436, 0.9265), (0.1693, 0.3995), (2.012, 0.6415), (9.061, 3.400))
    for pair, known in zip(found, want, strict=True):
        assert pair == pytest.approx(known, rel=2e-3)


def test_rows_that_do_not_fit_together_are_one_sentence() -> None:
    with pytest.raises(InputError, match="a row of y for each row of x"):
        ConditionalLight.fit(torch.zeros(5, 1), torch.zeros(4, 1))
    with pytest.raises(InputError, match="rows of 2 numbers"):
        ConditionalLight(1, 2).sample(torch.zeros(3, 1))
