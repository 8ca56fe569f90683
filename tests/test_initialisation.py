"""Initial states and their price, against torch.distributions and exact Gaussian data."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from reverie import as_denoiser, initial_states, initialisation_kl, measure, plan_steps, sample
from reverie.denoisers import Moments
from reverie.errors import InputError
from reverie.processes import EDM, VP, Brownian, Masking, ModalProcess, Tabulated, Uniform
from reverie.sampling.initialisation import moments_of
from reverie.spaces import Sphere

SHORT = torch.cumprod(1 - torch.linspace(1e-5, 1e-2, 50), 0)  # its last level keeps 78%
PROCESSES = {
    "table": Tabulated(SHORT),
    "spectrum": ModalProcess(VP(), shape=(3,), spectrum=torch.tensor([1.0, 2.0, 0.5])),
    "speeds": ModalProcess(EDM(), shape=(3,), speed=[1.0, 0.9, 0.8]),
}


def law(process, moments, t):
    """(N(alpha m, alpha^2 C + sigma^2), N(0, sigma^2)) in full matrices."""
    eye = torch.eye(moments.dim, dtype=torch.float64)
    inside = moments.basis @ moments.basis.T
    covariance = moments.basis * moments.spectrum @ moments.basis.T
    covariance = covariance + moments.rest * (eye - inside)
    alpha, sigma = (v.flatten(1)[0].expand(3) for v in process.scales(t, moments.mean[None]))
    noise = torch.diag(sigma.square())
    noised = alpha[:, None] * covariance * alpha + noise
    return (
        MultivariateNormal(alpha * moments.mean, noised),
        MultivariateNormal(torch.zeros_like(moments.mean), noise),
    )


@pytest.fixture
def moments(generator):
    basis = torch.linalg.qr(torch.randn(3, 2, generator=generator).double()).Q
    mean = torch.randn(3, generator=generator).double()
    return Moments(mean, basis, torch.tensor([2.0, 0.4]).double(), 0.1)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_price_is_the_gaussian_kl(name, share, moments):
    process = PROCESSES[name]
    t = share * process.t_range[1]
    noised, noise = law(process, moments, t)
    found = initialisation_kl(process, moments, t)
    assert found.saved == pytest.approx(float(kl_divergence(noised, noise)), rel=1e-9)
    information = 0.5 * float(noised.covariance_matrix.logdet() - noise.covariance_matrix.logdet())
    assert found.left_at_most == pytest.approx(information, rel=1e-9)
    assert found.to_json()["t"] == t


@pytest.mark.parametrize("name", PROCESSES)
def test_states_have_the_noised_moments(name, moments, generator):
    process = PROCESSES[name]
    t = 0.5 * process.t_range[1]
    states = initial_states(process, moments, 60000, t, generator, dtype=torch.float64)
    noised, _ = law(process, moments, t)
    deviation = noised.covariance_matrix.diagonal().sqrt()
    scale = deviation[:, None] * deviation
    # 5 s.e. of 60,000 draws
    assert ((states.mean(0) - noised.mean).abs() / deviation).max() < 5 / math.sqrt(60000)
    assert ((states.T.cov() - noised.covariance_matrix).abs() / scale).max() < 0.03


def test_saving_holds_for_any_data(generator):
    """KL(p_t | noise) - KL(p_t | moments) by quadrature, for two points with noise."""
    points = torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
    process = Tabulated(SHORT)
    moments = Moments(points.mean(0), torch.ones(1, 1).double(), points.var(0, correction=0), 0.0)
    found = initialisation_kl(process, moments)
    alpha, sigma = (float(v) for v in process.scales(found.t, points))
    grid = torch.linspace(-6, 6, 200001, dtype=torch.float64)

    def density(centre, spread):
        return torch.exp(-0.5 * ((grid - centre) / spread) ** 2) / spread / math.sqrt(2 * math.pi)

    truth = 0.5 * sum(density(alpha * float(p), sigma) for p in points)
    spread = math.sqrt(alpha**2 * float(moments.spectrum) + sigma**2)
    rivals = density(0.0, sigma), density(alpha * float(moments.mean), spread)
    noise, own = (float(torch.trapezoid(torch.xlogy(truth, truth / q), grid)) for q in rivals)
    assert noise - own == pytest.approx(found.saved, rel=1e-6)
    assert 0 < own <= found.left_at_most


def test_table_that_keeps_signal_is_started_right(generator):
    """The exact model of N(0, 1) on that table: deviation 1, where the noise alone gives .5."""

    class Noise(nn.Module):
        def forward(self, x, index):
            return (1 - SHORT[index]).sqrt()[:, None] * x

    model = as_denoiser(Noise(), Tabulated(SHORT), predicts="noise", time="index", steps=50)
    rows = torch.randn(2000, 2, generator=generator)
    plan = plan_steps(measure(model, rows, generator=generator), 20)
    start = initial_states(model.process, rows, 4000, float(plan.times[0]), generator)
    assert start.dtype == rows.dtype
    right = sample(model, 4000, plan, shape=(2,), init=start, generator=generator)
    wrong = sample(model, 4000, plan, shape=(2,), generator=generator)
    assert float(right.std()) == pytest.approx(1, abs=0.06)
    assert float(wrong.std()) < 0.75
    saved = initialisation_kl(model.process, rows).saved
    ratio = float(SHORT[-1] / (1 - SHORT[-1]))
    assert saved == pytest.approx(ratio - math.log1p(ratio), rel=0.1)  # 2 x 1/2 (r - log(1 + r))
    assert "nats" in str(initialisation_kl(model.process, rows))


def test_wide_rows_are_started_at_low_rank(generator):
    rows = torch.randn(120, 3, 16, 16, generator=generator) * 0.1
    rows = rows + torch.randn(120, 1, 1, 1, generator=generator)  # one strong mode
    states = initial_states(Tabulated(SHORT), rows, 500, generator=generator)
    assert states.shape == (500, 3, 16, 16)
    alpha, sigma = math.sqrt(float(SHORT[-1])), math.sqrt(1 - float(SHORT[-1]))
    overall = states.mean((1, 2, 3)).std()
    assert float(overall) == pytest.approx(alpha * float(rows.mean((1, 2, 3)).std()), rel=0.15)
    assert float((states - states.mean((1, 2, 3), keepdim=True)).std()) == pytest.approx(
        math.hypot(alpha * 0.1, sigma), rel=0.02
    )


@pytest.mark.parametrize("process", [Masking(4, 3), Uniform(4, 3)], ids=["masking", "uniform"])
def test_symbols(process, generator):
    rows = (torch.rand(500, 3, generator=generator) ** 2 * 4).long()
    t = 0.5
    states = initial_states(process, rows, 20000, t, generator)
    table = torch.nn.functional.one_hot(rows, 4).double().mean(0)
    table = (table * 500 + 0.25) / 501
    law = table @ process.kernel(t)[0]
    seen = torch.nn.functional.one_hot(states, process.states).double().mean(0)
    torch.testing.assert_close(seen, law, rtol=0, atol=0.02)  # 5 s.e.
    noise = process.stationary
    if bool((noise > 0).all()):
        expected = float((law * (law / noise).log()).sum())
        assert initialisation_kl(process, rows, t).saved == pytest.approx(expected, rel=1e-9)
    assert initialisation_kl(process, rows).saved == pytest.approx(0, abs=1e-3)


def test_numpy_rows_and_refusals(generator):
    rows = np.random.default_rng(0).standard_normal((50, 2))
    assert initial_states(VP(), rows, 3, generator=generator).dtype == torch.float32
    assert moments_of(VP(), rows).dim == 2
    with pytest.raises(InputError, match="at least one state"):
        initial_states(VP(), rows, 0)
    with pytest.raises(InputError, match="at least two rows"):
        initial_states(VP(), rows[:1], 3)
    sphere = Sphere(2)
    with pytest.raises(InputError, match="the prior is the start"):
        initial_states(Brownian(sphere), sphere.uniform(9), 3)
