"""Bridges by regression: the known bias of mean matching, and networks against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie import InputError, measure
from reverie.bridges import (
    BrownianMotion,
    Independent,
    MinibatchSinkhorn,
    OrnsteinUhlenbeck,
    Paired,
    fit_matching,
    gaussian_mean_matching,
    pairs_for,
)
from reverie.bridges.gaussian import plan_covariance
from reverie.reproduce.schrodinger_bridge import gaussian_rows, light_row

EXACT = 0.52309  # covariance of the plan between variances .36 and 1.69 at epsilon .64


def gaussians(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, 1, generator=generator)
    return 0.6 * a + 2, 1.3 * b - 1


def mean_matched(**settings) -> tuple[float, float, float]:
    def number(value):
        return torch.tensor(value, dtype=torch.float64)

    found = gaussian_mean_matching(
        (number([2.0]), number([[0.36]])), (number([-1.0]), number([[1.69]])), 0.64, **settings
    )
    return tuple(float(v) for v in found)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("settings", "mean", "variance", "covariance"),
    [
        (dict(target="drift"), -0.715, 1.536, 0.459),
        (dict(target="drift", steps=100), -0.937, 1.656, 0.493),
        (dict(), -1.0, 1.690, 0.5231),
        (dict(learned_variance=False), -1.0, 1.570, 0.475),
    ],
)
def test_mean_matching_has_its_known_bias(settings, mean, variance, covariance) -> None:
    """Spec 2.1, after 60 iterations: only the posterior mean with learned variance is exact."""
    assert mean_matched(**settings) == pytest.approx((mean, variance, covariance), abs=6e-4)


def test_mean_matching_is_exact_in_any_dimension() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    first, second = a @ a.T, b @ b.T
    _, cov, across = gaussian_mean_matching((zero, first), (zero, second), 1.5, steps=5,
                                            iterations=200)  # fmt: skip
    assert torch.allclose(cov, second, atol=1e-6)
    assert torch.allclose(across, plan_covariance(first, second, 1.5), atol=1e-6)


def covariance_of(bridge, a: Tensor) -> tuple[float, float]:
    x1 = bridge.sample(a, steps=50, generator=torch.Generator().manual_seed(5))
    cov = torch.cov(torch.cat([a, x1], 1).T)
    return float(cov[0, 1]), float(cov[1, 1])


SMALL = dict(width=32, depth=1, steps=300, batch=512, rate=1e-2)
TINY = {**SMALL, "steps": 100, "batch": 128}


@pytest.mark.slow
def test_one_matching_is_the_first_markov_projection() -> None:
    """From independent pairs: .4654 of spec 2.2."""
    a, b = gaussians(20_000)
    bridge = fit_matching(Independent(a, b), BrownianMotion(0.8), **SMALL,
                          generator=torch.Generator().manual_seed(1))  # fmt: skip
    across, variance = covariance_of(bridge, a)
    assert across == pytest.approx(0.4654, abs=0.04)
    assert variance == pytest.approx(1.69, abs=0.1)


@pytest.mark.slow
def test_score_and_flow_matching_learns_the_plan_of_its_pairs() -> None:
    a, b = gaussians(5000)
    reference = OrnsteinUhlenbeck(0.8, 0.5)
    coupling = MinibatchSinkhorn(a, b, reference, batch=128)
    bridge = fit_matching(coupling, reference, **TINY,
                          generator=torch.Generator().manual_seed(1))  # fmt: skip
    last = reference.last_scale
    want = last * float(
        plan_covariance(
            torch.tensor([[0.36]]), torch.tensor([[1.69 / last**2]]), reference.epsilon
        )
    )
    across, variance = covariance_of(bridge, a)
    assert across == pytest.approx(want, abs=0.06)
    assert variance == pytest.approx(1.69, abs=0.2)


@pytest.mark.slow
def test_iterated_matching_finds_the_plan() -> None:
    a, b = gaussians(20_000)
    bridge = fit_matching(Independent(a, b), BrownianMotion(0.8), rounds=3, **SMALL,
                          path_steps=40, generator=torch.Generator().manual_seed(1))  # fmt: skip
    across, variance = covariance_of(bridge, a)
    assert across == pytest.approx(EXACT, abs=0.04)
    assert variance == pytest.approx(1.69, abs=0.12)


@pytest.mark.slow
def test_paired_ends_are_told_the_start() -> None:
    """b = -a exactly: a Markov bridge would mix at the crossing, one told its start does not."""
    a, _ = gaussians(4000)
    a = a - 2
    tiny = {**TINY, "steps": 250}
    bridge = fit_matching(Paired(a, -a), BrownianMotion(0.5), told_start=True, **tiny,
                          generator=torch.Generator().manual_seed(1))  # fmt: skip
    x1 = bridge.sample(a, steps=20, generator=torch.Generator().manual_seed(2))
    assert float((x1 + a).square().mean().sqrt()) < 0.1
    pairs = pairs_for(a, -a)
    told = measure(bridge.denoiser(), pairs, levels=8, condition=a)
    assert told.rate.max() < 0.02


def test_unknown_target_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no target"):
        mean_matched(target="score")


@pytest.mark.slow
def test_the_reproduction_has_its_closed_forms() -> None:
    rows, _ = gaussian_rows()
    for row in rows:
        assert row.ours == pytest.approx(row.reference, abs=4e-4)
    assert light_row(2, 1.0, 0, 300).ours < 0.05
