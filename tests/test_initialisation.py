"""Initial states and their price, against torch.distributions and exact Gaussian data."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from reverie import as_denoiser, initial_states, initialisation_kl, measure, plan_steps, sample
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.curve import LossCurve
from reverie.denoisers import LowRankLinear, Memoriser, Moments
from reverie.errors import InputError
from reverie.processes import (
    EDM,
    VP,
    Brownian,
    Masking,
    ModalProcess,
    ProductProcess,
    Tabulated,
    Uniform,
)
from reverie.sampling import sample_many
from reverie.sampling.starting import start_law
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


def noise_model(guess, table=SHORT):
    """`guess` (state, alpha, sigma) of the noise as a network that is told the table's index."""

    class Noise(nn.Module):
        def forward(self, x, index):
            kept = table[index].to(x)[:, None]
            return guess(x, kept.sqrt(), (1 - kept).sqrt())

    process = Tabulated(table)
    return as_denoiser(Noise(), process, predicts="noise", time="index", steps=len(table))


@pytest.fixture
def standard():
    """The exact model of N(0, 1) on a table that keeps 78% of its variance."""
    return noise_model(lambda x, alpha, sigma: sigma * x)


def test_table_that_keeps_signal_is_started_right(standard, generator):
    """Deviation 1 by whatever tells of the data, where the noise alone gives .6."""
    rows = torch.randn(2000, 2, generator=generator)
    plan = plan_steps(measure(standard, rows, generator=generator), 20)
    level = float(plan.times[0])
    start = initial_states(standard.process, rows, 4000, level, generator)
    assert start.dtype == rows.dtype
    noise = standard.process.sample_prior(4000, shape=(2,), t=level, generator=generator)
    right = [
        sample(standard, 4000, plan, init=start, generator=generator),
        sample(standard, 4000, plan, shape=(2,), generator=generator),  # the curve's rows
        sample(standard, 4000, torch.as_tensor(plan.times), start=rows, generator=generator),
        sample(LowRankLinear(standard.process, Moments.fit(rows)), 4000,
               torch.as_tensor(plan.times), generator=generator),
        sample_many(standard, 4000, plan, shape=(2,), block=1500),
    ]  # fmt: skip
    for drawn in right:
        assert drawn.dtype == rows.dtype
        assert float(drawn.std()) == pytest.approx(1, abs=0.06)
    assert float(sample(standard, 4000, plan, init=noise, generator=generator).std()) < 0.75
    saved = initialisation_kl(standard.process, rows).saved
    ratio = float(SHORT[-1] / (1 - SHORT[-1]))
    assert saved == pytest.approx(ratio - math.log1p(ratio), rel=0.1)  # 2 x 1/2 (r - log(1 + r))
    assert "nats" in str(initialisation_kl(standard.process, rows))


def test_a_start_that_knows_nothing_says_so(standard, generator):
    rows = torch.randn(400, 2, generator=generator)
    plan = plan_steps(measure(standard, rows, 24, generator=generator), 5)
    with pytest.warns(UserWarning, match="78% of signal.*nothing is known.*start=rows"):
        sample(standard, 10, torch.as_tensor(plan.times), shape=(2,))
    read = LossCurve.from_json(plan.curve.to_json(), plan.curve.process)  # its rows are not kept
    with pytest.warns(UserWarning, match="nothing is known"):
        sample(standard, 10, plan_steps(read, 5), shape=(2,))
    with pytest.raises(InputError, match="at least two rows"):
        sample(standard, 10, plan, start=rows[:1])


@pytest.mark.parametrize("process", [VP(), EDM(0.02, 40)], ids=["vp", "edm"])
def test_where_noise_has_drowned_the_data_it_is_the_start(process, generator):
    """Bit for bit: rows of 200 columns cost .03 nats at sigma = 40, and that is let be."""
    rows = torch.randn(300, 200, generator=generator)
    model = Memoriser(process, rows)
    plan = plan_steps(measure(model, rows[:50], 24, generator=generator), 4)
    noise = process.sample_prior(
        5, shape=(200,), t=float(plan.times[0]), generator=torch.Generator().manual_seed(3)
    )
    given = sample(model, 5, plan, "ddim", init=noise)
    again = torch.Generator().manual_seed(3)
    own = sample(model, 5, plan, "ddim", shape=(200,), generator=again)
    assert torch.equal(given, own)


def outline(count, generator):
    """Points (count, 2) on the outline of an L."""
    corners = torch.tensor([[0, 0], [2, 0], [2, 1], [1, 1], [1, 3], [0, 3], [0, 0]]).float()
    sides = corners.diff(dim=0)
    pick = torch.multinomial(sides.norm(dim=1), count, replacement=True, generator=generator)
    place = torch.rand(count, 1, generator=generator)
    points = corners[pick] + place * sides[pick]
    return (points - points.mean(0)) / points.std(0)


def test_the_outline_of_a_shape_is_kept(generator):
    """Ten steps against the table's own fifty of DDPM, which start from N(0, 1): what ours are
    further from fresh points stays within two standard errors (over eight sets of draws)."""
    rows = outline(600, generator)
    optimum = Memoriser(Tabulated(SHORT), rows)

    def guess(x, alpha, sigma):
        t = optimum.process.time((alpha / sigma).square().flatten()[:1].double())
        return (x - alpha * optimum(x, t)) / sigma

    model = noise_model(guess)
    plan = plan_steps(measure(model, outline(300, generator), 32, generator=generator), 10)
    gaps, lost = [], []
    for _ in range(8):
        fresh = outline(500, generator).double().numpy()
        ours = sample(model, 500, plan, shape=(2,), generator=generator)
        distance = energy_distance(ours.double().numpy(), fresh)
        gaps.append(distance - energy_distance(ddpm(guess, 500, generator), fresh))
        noise = model.process.sample_prior(500, shape=(2,), generator=generator)
        alone = sample(model, 500, plan, init=noise, generator=generator)
        lost.append(energy_distance(alone.double().numpy(), fresh) - distance)
    error = np.std(gaps, ddof=1) / math.sqrt(len(gaps))
    assert np.mean(gaps) < 2 * error
    assert np.mean(lost) > 10 * error  # and the noise alone loses it


def ddpm(guess, count, generator):
    """Algorithm 2 of Ho, Jain & Abbeel 2020 on the whole table, its small variance."""
    betas = torch.linspace(1e-5, 1e-2, 50)
    x = torch.randn(count, 2, generator=generator)
    for i in reversed(range(50)):
        kept = SHORT[i]
        before = SHORT[i - 1] if i else torch.tensor(1.0)
        e = guess(x, kept.sqrt().expand(count, 1), (1 - kept).sqrt().expand(count, 1))
        x = (x - betas[i] / (1 - kept).sqrt() * e) / (1 - betas[i]).sqrt()
        variance = betas[i] * (1 - before) / (1 - kept)
        if i:
            x = x + variance.sqrt() * torch.randn(count, 2, generator=generator)
    return x.double().numpy()


def test_the_numbers_of_a_product_start_from_their_own_moments(generator):
    """Beside masked symbols, whose start at any level is the mask."""
    process = ProductProcess(VP(beta_max=2, shape=(2,)), Masking(3, sites=1))
    numbers = torch.randn(800, 2, generator=generator) + 5
    rows = torch.cat([numbers, torch.randint(3, (800, 1), generator=generator).float()], 1)
    states = initial_states(process, rows, 20000, generator=generator)
    part, time = process.parts[0], float(process.part_times(process.t_range[1])[0])
    alpha, sigma = (float(v) for v in part.scales(time, numbers[:1]))
    assert torch.allclose(states[:, :2].mean(0), alpha * numbers.mean(0), atol=0.03)
    spread = (alpha**2 * numbers.var(0, correction=0) + sigma**2).sqrt()
    assert torch.allclose(states[:, :2].std(0), spread, atol=0.03)
    assert (states[:, 2] == 3).all()
    own = initialisation_kl(part, numbers, time).saved
    assert initialisation_kl(process, rows).saved == pytest.approx(own, rel=1e-6)
    assert start_law(Memoriser(process, rows), torch.empty(0), process.t_range[1]) is not None


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
    with pytest.raises(InputError, match="at least one state"):
        initial_states(VP(), rows, 0)
    with pytest.raises(InputError, match="at least two rows"):
        initial_states(VP(), rows[:1], 3)
    sphere = Sphere(2)
    with pytest.raises(InputError, match="the prior is the start"):
        initial_states(Brownian(sphere), sphere.uniform(9), 3)
