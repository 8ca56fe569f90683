"""Mean matching by regression: the recursion of Gaussian chains, and conditional laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from reverie import InputError
from reverie.bridges import BrownianMotion, GaussianBridge, Independent, OrnsteinUhlenbeck
from reverie.bridges.chain import ChainBridge


def ends(n: int = 20_000) -> Independent:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, n, 1, generator=draw, dtype=torch.float64)
    return Independent(0.6 * a + 2, 1.3 * b - 1)


def moments(bridge: ChainBridge, x0: torch.Tensor) -> tuple[float, float, float]:
    x1 = bridge.sample(x0, generator=torch.Generator().manual_seed(1))
    cov = torch.cov(torch.cat([x0, x1], 1).T)
    return float(x1.mean()), float(cov[1, 1]), float(cov[0, 1])


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        (dict(), (-1.0, 1.690, 0.5231)),
        (dict(learned_variance=False), (-1.0, 1.570, 0.475)),
        pytest.param(
            dict(target="drift", iterations=60), (-0.715, 1.536, 0.459), marks=pytest.mark.slow
        ),
    ],
)
def test_linear_regressions_follow_the_gaussian_recursion(settings, want) -> None:
    """The closed form of `mean_matching` and spec 2.1, from samples."""
    draw = torch.Generator().manual_seed(2)
    bridge = ChainBridge.fit(
        ends(), BrownianMotion(0.8), radial=0, generator=draw, **{"iterations": 12, **settings}
    )
    assert moments(bridge, ends().a) == pytest.approx(want, abs=0.08)


def test_paths_run_both_ways_under_ou() -> None:
    reference, draw = OrnsteinUhlenbeck(0.8, 0.5), torch.Generator().manual_seed(2)
    bridge = ChainBridge.fit(ends(), reference, radial=10, iterations=6, generator=draw)
    exact = GaussianBridge.fit(ends().a, ends().b, reference)
    assert moments(bridge, ends().a)[2] == pytest.approx(float(exact.covariance), abs=0.06)
    back = bridge.path(ends().b, reverse=True, generator=draw)
    assert back.shape == (21, 20_000, 1)
    assert torch.allclose(back[-1], ends().b)
    assert float(back[0].mean()) == pytest.approx(2, abs=0.05)
    assert float(back[0].std()) == pytest.approx(0.6, abs=0.05)


def conditional(x: torch.Tensor, y: torch.Tensor, **settings) -> ChainBridge:
    """Bridge from (x, y) to (noise, y): back from noise, it draws x given y."""
    draw = torch.Generator().manual_seed(3)
    noise = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    pairs = Independent(torch.cat([x, y], 1), torch.cat([noise, y], 1))
    return ChainBridge.fit(pairs, BrownianMotion(1.0), frozen=y.shape[1], generator=draw,
                           **settings)  # fmt: skip


def drawn(bridge: ChainBridge, y: float, n: int = 4000) -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    start = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    start = torch.cat([start, torch.full((n, 1), y, dtype=torch.float64)], 1)
    found = bridge.sample(start, reverse=True, generator=draw)
    assert torch.equal(found[:, 1], start[:, 1])  # what is told does not move
    return found[:, 0]


def test_a_gaussian_posterior_has_its_mean_and_variance() -> None:
    draw = torch.Generator().manual_seed(5)
    x, e = torch.randn(2, 20_000, 1, generator=draw, dtype=torch.float64)
    bridge = conditional(x, x + 0.5 * e, radial=0, iterations=6)
    for y in (-1.0, 0.8):
        found = drawn(bridge, y)
        assert float(found.mean()) == pytest.approx(y / 1.25, abs=0.04)
        assert float(found.var()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("y", [-1.2, 0.0, 1.2])
def test_the_first_toy_of_conditional_bridges(y) -> None:
    """x = tanh y + Z, Z exponential of scale .3 (spec 3). A chain of few Gaussian steps blurs its
    sharp edge: the distance is far above a sample's own .01."""
    draw = np.random.default_rng(0)
    told = torch.as_tensor(draw.uniform(-3, 3, (50_000, 1)))
    x = told.tanh() + torch.as_tensor(draw.exponential(0.3, (50_000, 1)))
    bridge = conditional(x, told, steps=50, radial=60, rows=4000, iterations=2)
    found = drawn(bridge, y, 10_000).numpy()
    assert stats.kstest(found - np.tanh(y), stats.expon(scale=0.3).cdf).statistic < 0.15


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no target"):
        ChainBridge.fit(ends(), BrownianMotion(), target="score")
    with pytest.raises(InputError, match="frozen"):
        ChainBridge.fit(ends(), BrownianMotion(), frozen=1)
