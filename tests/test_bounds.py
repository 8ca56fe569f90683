import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import two_point_mmse
from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan import plan_steps
from reverie.theory.bounds import (
    Facts,
    certificates,
    geometric_bound,
    geometric_steps,
    information_bound,
    initial_bound,
    roughness,
)

random_rates = st.lists(st.floats(0, 5), min_size=4, max_size=30).map(
    lambda drops: np.cumsum(np.array(drops)[::-1])[::-1] + 1e-3
)


@pytest.fixture(scope="module")
def image_like():
    """Gaussian with variances j^-1.7, d = 3072, mean .25; sigma from 80 to .02 (spec 1.7)."""
    lam = np.arange(1, 3073) ** -1.7
    lam *= 0.25 / lam.mean()
    u = np.geomspace(80.0**-2, 0.02**-2, 1500)
    rate = np.array([0.5 * (lam / (1 + g * lam)).sum() for g in u])
    return LossCurve(u, rate, dim=3072), lam


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rate=random_rates, steps=st.integers(1, 30), span=st.floats(1, 15))
def test_t1_is_never_violated(rate, steps, span):
    """Geometric grid and the best grid: excess <= kappa (u_0 rate_0 + area), spec 1.6 (T1)."""
    curve = LossCurve(np.geomspace(1e-2, 1e-2 * math.exp(span), len(rate)), rate, dim=2)
    bound = geometric_bound(steps, span, information_bound(curve))
    for method in ("log-snr", "loss-adaptive"):
        assert plan_steps(curve, steps, method, clock="nats").excess <= bound * (1 + 1e-6) + 1e-6


@settings(max_examples=60, deadline=None)
@given(rate=random_rates, span=st.floats(1, 15))
def test_the_limit_is_below_its_cauchy_schwarz_bound(rate, span):
    """S^2 / 4 <= I log(ratio) / 2 (spec T2)."""
    curve = LossCurve(np.geomspace(1e-2, 1e-2 * math.exp(span), len(rate)), rate)
    assert roughness(curve) ** 2 / 4 <= information_bound(curve) * span / 2 * (1 + 1e-3)


def test_the_limit_of_many_steps(two_point_curve):
    """K KL -> S^2 / 4 = 1.505 within 3% at K = 80; closed form for a Gaussian (spec 1.5, 6.5)."""
    limit = roughness(two_point_curve) ** 2 / 4
    assert abs(limit - 1.505) < 1e-3
    assert abs(80 * plan_steps(two_point_curve, 80, clock="nats").excess / limit - 1) < 0.03
    u, c2, dim = np.geomspace(1 / 400, 400, 1200), 0.49, 3
    gauss = LossCurve(u, 0.5 * dim * c2 / (1 + u * c2), dim=dim)
    closed = dim * math.log((1 + u[-1] * c2) / (1 + u[0] * c2)) ** 2 / 4
    assert abs(roughness(gauss) ** 2 / 4 / closed - 1) < 1e-4


@pytest.mark.parametrize(
    ("p", "shannon", "renyi"),
    [(0.5, 3.14, 3.15), (0.2, 4.18, 3.03), (0.05, 9.43, 2.84), (0.01, 29.2, 2.78)],
)
def test_renyi_not_shannon_sets_the_price_of_a_rare_mode(p, shannon, renyi):
    """(S^2 / 4) / H^2 of the two-point law {1 - p, p}, by quadrature (spec T3)."""
    u = np.geomspace(1e-4, 1e3, 600)
    z = np.linspace(-9, 9, 1201)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    mmse = np.zeros_like(u)
    for x, mass in (
        (1.0, 1 - p),
        (-1.0, p),
    ):  # log odds 2 y + log((1 - p) / p), y = g x + sqrt(g) z
        y = u[:, None] * x + np.sqrt(u)[:, None] * z
        mean = np.tanh(y + 0.5 * math.log((1 - p) / p))
        mmse += mass * ((x - mean) ** 2) @ weight
    limit = roughness(LossCurve(u, 0.5 * mmse)) ** 2 / 4
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    half = 2 * math.log(math.sqrt(p) + math.sqrt(1 - p))
    assert abs(limit / entropy**2 / shannon - 1) < 0.02
    assert abs(limit / half**2 / renyi - 1) < 0.02


def test_worked_example_of_an_image_like_gaussian(image_like):
    """I = 3173 nats, K = 5.3e4 by T1, S^2 / 4 = 6730 (spec 5.2)."""
    curve, lam = image_like
    information = 0.5 * np.log1p(curve.u[-1] * lam).sum()
    assert abs(information / 3173 - 1) < 1e-3
    ratio = math.log(curve.u[-1] / curve.u[0])
    assert abs(geometric_steps(1.0, ratio, information) / 5.3e4 - 1) < 0.02
    assert abs(roughness(curve) ** 2 / 4 / 6730 - 1) < 2e-3
    assert information_bound(curve) <= information * (1 + 1e-6)


def test_initialisation():
    """Under .06 nats for images from sigma = 80; the exact value by quadrature (spec T4)."""
    assert abs(initial_bound(80.0**-2, 0.25 * 3072) - 0.06) < 1e-9
    alpha = 0.3
    gamma = alpha**2 / (1 - alpha**2)
    dense = np.concatenate([[0], np.geomspace(1e-6, gamma, 400)])
    information = np.trapezoid(0.5 * two_point_mmse(dense), dense)
    x = np.linspace(-12, 12, 200_001)
    for prior, bound in (
        (1.0, initial_bound(gamma, 1.0, 1, alpha)),
        (1 - alpha**2, initial_bound(gamma, 1.0)),
    ):
        law = 0.5 * sum(_normal(x, s * alpha, 1 - alpha**2) for s in (1, -1))
        log_ratio = np.log(law + 1e-300) - np.log(_normal(x, 0.0, prior) + 1e-300)
        exact = np.trapezoid(law * log_ratio, x)
        assert abs(bound - information - exact) < 1e-6
        assert bound >= exact


def _normal(x, mean, var):
    return np.exp(-((x - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)


def test_slope_of_the_mmse_is_the_squared_posterior_variance():
    """mmse'(gamma) = -E Var(x | y)^2 (spec 1.1)."""
    gamma, step = 1.3, 1e-4
    slope = np.diff(two_point_mmse([gamma - step, gamma + step]))[0] / (2 * step)
    z = np.linspace(-12, 12, 8001)
    mean = np.tanh(gamma + math.sqrt(gamma) * z)
    exact = np.trapezoid((1 - mean**2) ** 2 * _normal(z, 0.0, 1.0), z)
    assert abs(slope + exact) < 1e-7


def test_certificates_run_from_sharp_to_loose(two_point_curve):
    facts = Facts(
        second_moment=1.0, entropy=math.log(2), renyi=math.log(2), lipschitz=1.0, fisher=1.0,
        intrinsic_dim=1.0,
    )  # fmt: skip
    found = {c.name: c for c in certificates(two_point_curve, 20, budget=0.1, facts=facts)}
    measured = found["measured"]
    assert measured.value == plan_steps(two_point_curve, 20, clock="nats").excess
    assert plan_steps(two_point_curve, measured.steps, clock="nats").excess <= 0.1
    assert plan_steps(two_point_curve, measured.steps - 1, clock="nats").excess > 0.1
    entropy = found["geometric grid, entropy"]
    kappa = math.expm1(math.log(1e4) / 20)
    assert abs(entropy.value - kappa * math.log(2)) < 1e-12
    for certificate in found.values():
        if certificate.tag == "derived":
            assert certificate.value > measured.value
    assert plan_steps(two_point_curve, entropy.steps, "log-snr").excess <= 0.1
    assert found["De Bortoli 2022"].value is None
    assert not found["De Bortoli 2022"].informative
    assert all(c.assumption and c.source and c.statement for c in found.values())


def test_vacuous_bounds_say_so(two_point_curve):
    """One step between the same ends is the yardstick: no grid is worse (spec 1.5)."""
    one = {c.name: c for c in certificates(two_point_curve, 1)}
    assert one["geometric grid, information"].vacuous
    many = {c.name: c for c in certificates(two_point_curve, 40)}
    assert many["geometric grid, information"].informative
    rough = {c.name: c for c in certificates(two_point_curve, 4, facts=Facts(lipschitz=50.0))}
    assert rough["Chen et al. 2023"].vacuous


def test_other_samplers_have_no_certificate(two_point_curve):
    assert certificates(two_point_curve, 10, sampler="ddim") == []
    with pytest.raises(InputError, match="must be a positive number"):
        certificates(two_point_curve, 10, budget=0.0)
