"""LightSB against entropic plans that are known: closed forms, then a short fit."""

from __future__ import annotations

import math

import pytest
import torch

from reverie.bridges import (
    BrownianMotion,
    EntropicPair,
    GaussianBridge,
    LightSB,
    OrnsteinUhlenbeck,
    conditional_uvp,
    fit_light,
)
from reverie.bridges.benchmark import bures_square


def known(pair: EntropicPair) -> LightSB:
    """The bridge whose mixture is that of the pair: nothing is fitted."""
    bridge = LightSB(pair.dim, BrownianMotion(pair.epsilon**0.5), len(pair.centres))
    with torch.no_grad():
        bridge.forwards.log_spread.copy_((pair.variances / pair.epsilon).log())
        bridge.forwards.centre.copy_(pair.variances / pair.spreads * pair.centres)
        bridge.forwards.log_weight.copy_(pair.law(torch.zeros(1, pair.dim))[0][0])
    return bridge


def test_the_mixture_gives_the_exact_plan() -> None:
    pair = EntropicPair(3, 0.7)
    x, _ = pair.sample(50, generator=torch.Generator().manual_seed(0))
    mean, cov = known(pair).plan_moments(x)
    want_mean, want_cov = pair.moments(x)
    assert torch.allclose(mean, want_mean, atol=1e-12)
    assert torch.allclose(cov, want_cov, atol=1e-12)
    assert conditional_uvp((mean, cov), (want_mean, want_cov), 1.0) < 1e-6


def test_the_plan_is_normalised_by_c() -> None:
    """c(x) = integral of exp(x y / e) v(y), by quadrature."""
    potential = known(EntropicPair(1, 0.7)).forwards
    y = torch.linspace(-60, 60, 60_001, dtype=torch.float64)[:, None]
    for x in (-1.0, 0.5):
        inner = potential.log_v(y).detach() + x * y[:, 0] / 0.7
        integral = inner.logsumexp(0) + math.log(120 / 60_000)
        assert float(integral) == pytest.approx(
            float(potential.log_c(torch.tensor([[x]], dtype=torch.float64)).detach()), abs=1e-9
        )


def test_the_far_end_on_the_way_by_quadrature() -> None:
    """p(y | z at s) prop. to N(y; z, e (1 - s)) times exp(|y|^2 / 2e) v(y)."""
    bridge = known(EntropicPair(1, 0.7))
    y = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    tilt = bridge.forwards.log_v(y[:, None]).detach() + y.square() / 1.4
    for s in (0.1, 0.9):
        for z in (-0.4, 1.3):
            weight = (tilt - (y - z).square() / (1.4 * (1 - s))).softmax(0)
            share = torch.tensor([s], dtype=torch.float64)
            guess = bridge.guess(torch.tensor([[z]], dtype=torch.float64), share)
            assert float(guess) == pytest.approx(float(weight @ y), abs=1e-7)


def test_paths_end_in_the_plan() -> None:
    pair = EntropicPair(2, 1.0)
    bridge = known(pair)
    x = torch.tensor([[0.3, -0.5]], dtype=torch.float64).repeat(4000, 1)
    ends = bridge.path(x, steps=60, generator=torch.Generator().manual_seed(0))[-1]
    drawn = bridge.sample(x, generator=torch.Generator().manual_seed(1))
    mean, cov = pair.moments(x[:1])
    for found in (ends, drawn):
        assert torch.allclose(found.mean(0), mean[0], atol=0.15)
        assert torch.allclose(torch.cov(found.T), cov[0], atol=0.35)


def test_bures_of_commuting_covariances() -> None:
    one, two = torch.diag(torch.tensor([1.0, 4.0])), torch.diag(torch.tensor([9.0, 1.0]))
    zero = torch.zeros(2)
    assert float(bures_square(zero, one, zero + 1, two)) == pytest.approx(2 + 4 + 1, abs=1e-5)


@pytest.mark.parametrize("reference", [BrownianMotion(0.8), OrnsteinUhlenbeck(0.8, 0.5)],
                         ids=["brownian", "ou"])  # fmt: skip
def test_a_fit_finds_the_gaussian_plan_both_ways(reference) -> None:
    generator = torch.Generator().manual_seed(0)
    a = 0.6 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64) + 3
    b = 1.3 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64) - 1
    bridge = fit_light(a, b, reference, components=2, steps=250, generator=generator)
    exact = GaussianBridge.fit(a, b, reference)
    want = float(exact.covariance)
    x1 = bridge.sample(a, generator=generator)
    assert float(torch.cov(torch.cat([a, x1], 1).T)[0, 1]) == pytest.approx(want, abs=0.03)
    assert float(x1.mean()) == pytest.approx(float(b.mean()), abs=0.04)
    x0 = bridge.sample(b, reverse=True, generator=generator)
    assert float(torch.cov(torch.cat([x0, b], 1).T)[0, 1]) == pytest.approx(want, abs=0.03)
    y = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
    for s in (0.2, 0.8):
        share = torch.full((2,), s, dtype=torch.float64)
        assert torch.allclose(bridge.guess(y, share), exact.guess(y, share), atol=0.12)


def test_a_short_fit_of_a_benchmark_pair() -> None:
    """Published at D = 2, epsilon = 1: .05 % after 10,000 steps."""
    pair = EntropicPair(2, 1.0)
    generator = torch.Generator().manual_seed(1)
    bridge = LightSB.fit(pair, BrownianMotion(1.0), components=10, steps=500,
                         directions=(False,), generator=generator)  # fmt: skip
    x, y = pair.sample(1000, generator=generator)
    found = conditional_uvp(bridge.plan_moments(x), pair.moments(x), float(y.var(0).sum()))
    assert found < 0.05


def test_few_different_rows_do_no_harm() -> None:
    a = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64).repeat(20, 1)
    bridge = fit_light(a, a + 1, BrownianMotion(1.0), steps=5,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert torch.isfinite(bridge.sample(a, generator=torch.Generator().manual_seed(0))).all()
