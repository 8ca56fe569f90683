"""Posterior simulation: exact posteriors of Gaussian models, calibration, and bad input."""

import bz2
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression
from torch.distributions import (
    Bernoulli,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Poisson,
    Uniform,
)

import reverie
import reverie.reproduce.sbi_benchmark as benchmark
from reverie.denoisers import Denoiser
from reverie.processes import EDM
from reverie.reproduce.sbi_tasks import TASKS, box
from reverie.sampling import sample
from reverie.simulation import (
    Composed,
    Posterior,
    classifier_accuracy,
    density_calibration,
    rank_calibration,
)
from reverie.simulation.coordinates import border_push, coordinates, normal_guess
from reverie.simulation.fitting import shuffled
from reverie.simulation.network import LinearGuess, sparse_regression

SLOPE = torch.tensor([[1.0, 0.5], [0.0, 1.0], [-0.5, 0.3]], dtype=torch.float64)
NOISE = torch.diag(torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64))
PRIOR = MultivariateNormal(
    torch.tensor([0.5, -1.0], dtype=torch.float64),
    torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=torch.float64),
)


def gaussian_simulator(theta):
    return theta @ SLOPE.T + torch.randn(len(theta), 3).double() @ NOISE.sqrt()


def exact_posterior(x):
    """Posterior of theta given all rows of x (k, 3): Bayes's rule for Gaussians."""
    prior = torch.linalg.inv(PRIOR.covariance_matrix)
    precision = torch.linalg.inv(NOISE)
    total = prior + len(x) * SLOPE.T @ precision @ SLOPE
    mean = torch.linalg.solve(total, prior @ PRIOR.loc + SLOPE.T @ precision @ x.double().sum(0))
    return MultivariateNormal(mean, precision_matrix=total)


class ExactGaussian(Denoiser):
    """E[w | w_t, x] of the model above in whitened coordinates; `factor` scales the variance."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.process = EDM(0.002, 80.0)
        self.root = PRIOR.scale_tril
        slope = SLOPE @ self.root  # of x on w
        self.precision = slope.T @ torch.linalg.inv(NOISE)
        true = torch.linalg.inv(torch.eye(2).double() + self.precision @ slope)
        self.gain, self.covariance = true @ self.precision, factor * true

    def forward(self, state, t, condition=None):
        _, sigma = self.process.scales(t, state.double())
        mean = (condition.double() - SLOPE @ PRIOR.loc) @ self.gain.T
        total = self.covariance + sigma.square()[:, :, None] * torch.eye(2).double()
        weight = torch.linalg.solve(total, self.covariance)  # both commute
        shift = torch.einsum("bij,bj->bi", weight.expand(len(state), 2, 2), state.double() - mean)
        return (mean + shift).to(state)


def exact(factor=1.0):
    return Posterior(ExactGaussian(factor), coordinates(PRIOR.loc[None], PRIOR), 2, 3)


def pairs(n, seed=0):
    torch.manual_seed(seed)
    theta = PRIOR.sample((n,))
    return theta, gaussian_simulator(theta)


OBSERVED = torch.tensor([[1.2, -0.7, 0.1], [0.4, -1.5, 0.6], [0.9, -0.2, -1.0]]).double()


def test_log_prob_and_samples_of_the_exact_score_are_the_gaussian_posterior():
    law, found = exact_posterior(OBSERVED[:1]), exact()
    theta = law.sample((50,))
    # ends of the flow: N(0, 80^2) for the noised posterior is off by |mean| / 80 deviations
    error = (found.log_prob(theta, OBSERVED[0]) - law.log_prob(theta)).abs()
    assert error.max() < 0.1
    assert error.mean() < 0.02
    n = 4000
    drawn = found.sample(n, OBSERVED[0])
    deviation = law.covariance_matrix.diagonal().sqrt()
    assert ((drawn.mean(0) - law.mean).abs() < (4 / math.sqrt(n) + 0.03) * deviation).all()
    ratio = torch.linalg.solve(law.covariance_matrix, drawn.T.cov())
    assert (ratio - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / n) + 0.03


def test_the_curve_of_the_exact_posterior_is_its_closed_form():
    theta, x = pairs(4000)
    found = exact()
    curve = found.measure(theta, x, 16)
    spectrum = torch.linalg.eigvalsh(found.denoiser.covariance).numpy()
    closed = 0.5 * (spectrum / (1 + curve.u[:, None] * spectrum)).sum(1)
    assert (np.abs(curve.rate - closed) < 4.5 * curve.stderr).all()


def test_composed_guesses_of_several_observations_are_exact_for_gaussians():
    single = ExactGaussian()
    covariances = single.covariance.expand(3, 2, 2)
    composed = Composed(single, normal_guess, OBSERVED, covariances)
    law = exact_posterior(OBSERVED)
    root = torch.linalg.inv(PRIOR.scale_tril)
    mean, covariance = root @ (law.mean - PRIOR.loc), root @ law.covariance_matrix @ root.T
    for t in (0.05, 0.4, 0.9):
        state = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double() * 3
        sigma = composed.process.sigma(torch.tensor([t]).double())
        weight = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(2).double())
        expected = mean + (state - mean) @ weight.T
        assert torch.allclose(composed(state, torch.tensor(t)), expected, atol=1e-9)


def test_draws_given_several_observations_have_the_joint_posteriors_moments():
    law, n = exact_posterior(OBSERVED), 4000
    drawn = exact().sample(n, OBSERVED)
    deviation = law.covariance_matrix.diagonal().sqrt()
    # single covariances from 1000 draws are known to 4.5%, and 4 standard errors of these draws
    assert ((drawn.mean(0) - law.mean).abs() < (4 / math.sqrt(n) + 0.1) * deviation).all()
    ratio = torch.linalg.solve(law.covariance_matrix, drawn.T.cov())
    assert (ratio - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / n) + 0.15


def test_ranks_are_uniform_for_the_exact_posterior_and_not_for_a_narrow_one():
    theta, x = pairs(600, seed=3)
    right = rank_calibration(exact(), theta, x, steps=25)
    assert right.p_value > 0.01
    spread = 4 * math.sqrt(0.8 * 0.2 / 600)
    assert (np.abs(right.coverage(0.8) - 0.8) < spread + 0.01).all()
    narrow = rank_calibration(exact(0.5), theta, x, steps=25)
    assert narrow.p_value < 1e-6
    # half the variance: the central 80% interval covers 2 Phi(1.2816 / sqrt 2) - 1
    expected = 2 * stats.norm.cdf(stats.norm.ppf(0.9) * math.sqrt(0.5)) - 1
    assert (np.abs(narrow.coverage(0.8) - expected) < spread + 0.01).all()


def test_highest_density_regions_cover_as_they_should():
    theta, x = pairs(200, seed=4)
    right = density_calibration(exact(), theta, x, draws=19, steps=30, tolerance=1e-2)
    assert right.p_value > 0.01
    assert abs(right.coverage(0.75)[0] - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 200) + 0.03
    wide = density_calibration(exact(3.0), theta, x, draws=19, steps=30, tolerance=1e-2)
    assert wide.p_value < 1e-4
    # square radius is chi-square with 2 degrees of freedom, read at three times the variance
    expected = stats.chi2(2).cdf(3 * stats.chi2(2).ppf(0.75))
    assert abs(wide.coverage(0.75)[0] - expected) < 4 * math.sqrt(expected * 0.1 / 200) + 0.03


def test_a_fitted_posterior_falls_back_on_the_regression_where_that_is_exact():
    found = reverie.posterior(
        gaussian_simulator, PRIOR, n=4000, steps=60, check_every=30, width=16, depth=1
    )
    law = exact_posterior(OBSERVED[:1])
    theta = law.sample((100,))
    off = found.log_prob(theta, OBSERVED[0]) - law.log_prob(theta)
    # E|difference| is about the root of twice the KL, (d m + d^2 / 2) / 2n = 1e-3
    assert off.abs().mean() < 0.1
    assert found.checks[0].nats <= found.curves["holdout"].area() + 1
    leak = found.curves["train"].leak(found.curves["holdout"])
    assert leak.low < 0.5


def test_sparse_regression_is_least_squares_on_the_slopes_that_are_there():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 4, generator=generator).double()
    w = torch.stack([x[:, 0] - 0.5 * x[:, 2], 2 * x[:, 3]], 1)
    w = w + 0.3 * torch.randn(w.shape, generator=generator).double() + 1
    slope, offset = sparse_regression(w, x)
    assert (slope != 0).tolist() == [[True, False, True, False], [False, False, False, True]]
    peer = LinearRegression().fit(x[:, [0, 2]].numpy(), w[:, 0].numpy())
    assert np.allclose(slope[0, [0, 2]], peer.coef_)
    assert offset[0].item() == pytest.approx(peer.intercept_)


def test_exchangeable_blocks_are_shuffled_whole_and_guessed_by_their_mean():
    x = torch.arange(24.0).reshape(4, 6)
    mixed = shuffled(x, 3, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.reshape(4, 3, 2).sort(1)[0], x.reshape(4, 3, 2))
    assert not torch.equal(mixed, x)
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(500, 1, generator=generator).double()
    x = w + torch.randn(500, 4, generator=generator).double()
    guess = LinearGuess(w, x, 4)
    peer = LinearRegression().fit(x.mean(1, keepdim=True).numpy(), w[:, 0].numpy())
    assert np.allclose(guess.slope, peer.coef_ / 4)


def test_the_flat_priors_push_is_the_mean_of_a_truncated_normal():
    bounds = torch.tensor([[-1.0], [2.0]])
    y = torch.tensor([[-3.0], [-1.0], [-0.9], [0.5], [1.99], [2.4]]).double()
    for spread in (0.1, 1.0, 30.0):
        low = np.minimum((-1.0 - y.numpy()) / spread, 6)
        high = np.maximum((2.0 - y.numpy()) / spread, -6)
        expected = stats.truncnorm(low, high).mean()
        push = border_push(y, torch.tensor(spread), bounds).numpy()
        assert np.allclose(push, expected, atol=1e-6)


@pytest.mark.parametrize(
    "prior",
    [
        box(2.0, 3),
        Independent(LogNormal(torch.zeros(3), torch.ones(3)), 1),
        MultivariateNormal(torch.ones(3), 0.5 * torch.eye(3) + 0.2),
        Independent(Gamma(2 * torch.ones(3), torch.ones(3)), 1),
        None,
    ],
    ids=["box", "log-normal", "normal", "no icdf", "none"],
)
def test_coordinates_invert_and_know_their_volume(prior):
    torch.manual_seed(0)
    theta = (box(2.0, 3) if prior is None else prior).sample((200,)).double()
    space = coordinates(theta, prior)
    w = space.to_model(theta)
    assert torch.allclose(space.to_user(w), theta, atol=1e-6)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: space.to_model(v[None])[0]))(theta[:5])
    assert torch.allclose(
        torch.linalg.slogdet(jacobian)[1], space.log_volume(theta[:5]), atol=1e-5
    )
    assert space.inside(theta).all()
    if space.prior_guess is not None:  # unit deviation, so that one noise law serves all
        assert torch.allclose(w.std(0), torch.ones(3).double(), atol=4 / math.sqrt(2 * 200))


def test_draws_and_densities_respect_the_priors_box():
    def simulator(theta):
        return theta + 0.5 * torch.randn(theta.shape)

    found = reverie.posterior(simulator, box(1.0, 2), n=500, steps=20, check_every=10, width=16)
    drawn = found.sample(300, [0.9, -0.9])
    assert (drawn.abs() <= 1).all()
    values = found.log_prob([[0.5, 0.5], [1.5, 0.0]], [0.9, 0.9])
    assert torch.isfinite(values[0])
    assert values[1] == -torch.inf


def test_seeds_reproduce_posteriors_and_draws():
    task = TASKS["two_moons"]

    def draw(seed):
        found = reverie.posterior(
            task.simulate, task.prior, n=200, steps=4, check_every=2, width=8, seed=seed
        )
        return found.sample(5, [0.0, 0.0], steps=5, seed=1)

    before = torch.random.get_rng_state()
    first = draw(0)
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))
    assert torch.equal(before, torch.random.get_rng_state())


def good(n=50):
    return np.random.default_rng(0).normal(size=(n, 2)), np.ones((n, 3)) * np.arange(n)[:, None]


def spoiled():
    theta, x = good()
    x[17, 1] = np.nan
    return theta, x


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (spoiled(), {}, "row 17 of x holds a value that is not finite"),
        ((good()[0][:40], good()[1]), {}, "theta has 40 rows and x has 50"),
        ((good()[0][:, 0], good()[1]), {}, "theta has shape"),
        ((good(5)), {}, "5 pairs are too few"),
        (("ab", good()[1]), {}, "theta is not an array of numbers"),
        (gaussian_simulator, {}, "needs prior= with a method sample"),
        (gaussian_simulator, {"prior": Uniform(0.0, 1.0)}, "wrap independent coordinates"),
        (gaussian_simulator, {"prior": Uniform(-torch.ones(2), torch.ones(2))}, "batch of 2"),
        (gaussian_simulator, {"prior": Independent(Poisson(torch.ones(2)), 1)}, r"\(Poisson\)"),
        (
            gaussian_simulator,
            {"prior": Independent(Bernoulli(torch.ones(2) / 2), 1)},
            "continuous",
        ),
        ((good()[0], 1e39 * good()[1]), {}, "row 1 of x holds 1e.39, whose square"),
        (good(), {"prior": box(0.1, 2)}, "lies outside the support of the prior"),
        (good(), {"holdout": 0.0}, "holdout is 0.0"),
        (good(), {"exchangeable": 2}, "exchangeable is 2, but x has 3 values"),
        (good(), {"speed": 3}, "posterior takes no 'speed'"),
        ((np.ones((50, 1)), good()[1]), {}, "column 0 of theta is constant"),
    ],
)
def test_bad_pairs_get_one_clear_sentence(data, settings, message):
    with pytest.raises(reverie.InputError, match=message):
        reverie.posterior(data, **settings)


def test_bad_questions_get_one_clear_sentence():
    found = exact()
    with pytest.raises(reverie.InputError, match="x has 2 values; the pairs had 3"):
        found.sample(5, [0.0, 1.0])
    with pytest.raises(reverie.InputError, match="n is 0"):
        found.sample(0, OBSERVED[0])
    with pytest.raises(reverie.InputError, match="one observation for all or for each"):
        found.log_prob(torch.zeros(5, 2), OBSERVED)
    without = Posterior(ExactGaussian(), coordinates(PRIOR.sample((50,))), 2, 3)
    with pytest.raises(reverie.InputError, match="need the prior in closed form"):
        without.sample(5, OBSERVED)
    with pytest.raises(reverie.InputError, match="give no test"):
        rank_calibration(found, *pairs(20), draws=6)


def test_classifier_accuracy_of_one_law_and_of_two():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1000, 1))
    # five dependent folds of 2000 rows: 4 standard errors of a fair coin
    assert abs(classifier_accuracy(first, second) - 0.5) < 4 * 0.5 / math.sqrt(2000)
    best = stats.norm.cdf(0.5)  # N(0, 1) against N(1, 1) is cut at 1/2
    assert classifier_accuracy(first, second + 1) == pytest.approx(best, abs=0.04)
    with pytest.raises(reverie.InputError, match="give as many"):
        classifier_accuracy(first, second[:-1])


def reference(folder):
    with bz2.open(folder / "reference_posterior_samples.csv.bz2", "rt") as file:
        draws = np.loadtxt(file, delimiter=",", skiprows=1)
    return torch.tensor(draws).float(), torch.tensor(
        np.loadtxt(folder / "observation.csv", delimiter=",", skiprows=1)
    ).float()


@pytest.mark.parametrize(("name", "edge"), [("two_moons", 1.0), ("gaussian_mixture", 10.0)])
def test_reference_posteriors_are_those_of_our_likelihoods(real_data, name, edge):
    """Moments of the benchmark's own draws against the posterior on a grid of the prior's box."""
    line = torch.linspace(-edge, edge, 1201)
    grid = torch.cartesian_prod(line, line)
    for number in (1, 7):
        draws, x = reference(real_data(f"sbibm_reference/{name}/num_observation_{number}"))
        weight = TASKS[name].log_likelihood(grid, x.expand(len(grid), -1)).double().softmax(0)
        for feature in (lambda v: v, torch.abs, torch.square):
            values = feature(grid).double()
            mean = weight @ values
            deviation = (weight @ (values - mean).square()).sqrt()
            error = (feature(draws).double().mean(0) - mean).abs()
            assert (error < 4.5 * deviation / math.sqrt(len(draws))).all()


def test_the_linear_tasks_reference_is_the_closed_form(real_data):
    draws, x = reference(real_data("sbibm_reference/gaussian_linear/num_observation_1"))
    error = (draws.mean(0) - x / 2).abs()
    assert (error < 4.5 * math.sqrt(0.05 / len(draws))).all()
    assert torch.allclose(draws.var(0), torch.tensor(0.05), rtol=4.5 * math.sqrt(2 / len(draws)))


def test_simulators_agree_with_their_likelihoods():
    """E_x over p(x | theta) of p(x | theta') / p(x | theta) is 1, whatever theta'."""
    torch.manual_seed(0)
    n = 20_000
    for name, near in (("gaussian_linear", 0.05), ("gaussian_mixture", 0.05), ("slcp", 0.03)):
        task = TASKS[name]
        theta = task.prior.sample((1,)).expand(n, -1)
        x = task.simulate(theta)
        moved = task.log_likelihood(theta + near, x) - task.log_likelihood(theta, x)
        ratio = moved.exp()
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(n), name


def test_slcp_reads_its_eight_numbers_as_four_points(real_data):
    draws, x = reference(real_data("sbibm_reference/slcp/num_observation_1"))
    task = TASKS["slcp"]
    as_given = task.log_likelihood(draws, x.expand(len(draws), -1)).mean()
    turned = x.reshape(4, 2).T.reshape(-1)
    assert as_given > task.log_likelihood(draws, turned.expand(len(draws), -1)).mean() + 5


@pytest.mark.slow
def test_the_benchmark_writes_its_table_and_figure(real_data, tmp_path, monkeypatch):
    real_data("sbibm_reference")
    monkeypatch.setattr(benchmark, "TASKS", {"two_moons": TASKS["two_moons"]})
    monkeypatch.setattr(benchmark, "SIMULATIONS", 300)
    monkeypatch.setattr(benchmark, "DRAWS", 100)
    monkeypatch.setattr(benchmark, "SETTINGS", dict(steps=4, check_every=2, width=8, depth=1))
    table = benchmark.run(tmp_path)
    (row,) = table["rows"]
    assert row["reference"] == benchmark.PUBLISHED["two_moons"]
    assert 0.3 < row["ours"] <= 1
    assert (tmp_path / "sbi_benchmark.png").stat().st_size > 1000


def test_one_observation_composed_is_that_observation_draw_for_draw():
    found = exact()
    times = torch.linspace(1, 0, 21, dtype=torch.float64)
    composed = Composed(
        found.denoiser, normal_guess, OBSERVED[:1], found.denoiser.covariance[None]
    )
    runs = [
        sample(d, 10, times, "unipc-3", shape=(2,), condition=OBSERVED[:1].expand(10, -1),
               generator=torch.Generator().manual_seed(0))
        for d in (found.denoiser, composed)
    ]  # fmt: skip
    assert torch.allclose(*runs, atol=1e-5)
