"""Linear diffusion theory against closed forms, brute force and simulation."""

import math
import resource
import time

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from reverie.curve import level_times
from reverie.denoisers import Linear
from reverie.errors import InputError
from reverie.processes import EDM, VP
from reverie.sampling import sample
from reverie.theory import (
    Atoms,
    LinearTheory,
    Scales,
    Traces,
    atoms,
    ddpm_scales,
    effective_ridge,
    expected_kl,
    gaussian_kl,
    limit_kl_per_dim,
    population,
    power_law,
    sample_measure,
    sampled_variance,
    seed_overlap,
    spectrum_of,
)
from reverie.theory.equivalents import compress
from reverie.theory.gradient_flow import (
    descent_weight,
    edm_stopped_variance,
    effective_variance,
    flow_weight,
    kept_noise,
    null_floor,
)
from reverie.theory.samplers import variance_path
from reverie.theory.times import collapse_time, speciation_time

MODES = np.array([0.0, 0.01, 1.0, 25.0])


def draw(rng, spectrum, n):
    """The known-mean covariance of n Gaussian points, in the basis of the true one."""
    points = rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)
    return points.T @ points / n


def bartlett(rng, spectrum, n):
    """The same law drawn by its Cholesky factor: a chi on the diagonal, normals below it."""
    d = len(spectrum)
    factor = np.tril(rng.standard_normal((d, d)), -1)
    factor[np.diag_indices(d)] = np.sqrt(rng.chisquare(n - np.arange(d)))
    root = np.sqrt(spectrum)[:, None] * factor
    return root @ root.T / n


def denoiser(covariance, ridge=0.0):
    values, basis = np.linalg.eigh(covariance)
    values = torch.tensor(values.clip(min=0) + ridge)
    return Linear(VP(), torch.zeros(len(values)).double(), values, torch.tensor(basis))


def rate_on(model, gamma, covariance):
    zero = torch.zeros(len(covariance), dtype=torch.float64)
    return model.exact_rate(np.atleast_1d(gamma), zero, torch.tensor(covariance))


def noise_loss(W, ab, covariance):
    """E|e - W x_t|^2 for centred data, written out (spec 1.3)."""
    d = len(W)
    state = ab * covariance + (1 - ab) * torch.eye(d, dtype=W.dtype)
    return d - 2 * math.sqrt(1 - ab) * W.trace() + (W @ state @ W.T).trace()


# --- T1, T2, T9, T10: the optimum and gradient descent ---------------------------------------


@pytest.mark.parametrize("ab", [0.05, 0.5, 0.98])
def test_optimum_has_no_gradient_and_the_closed_training_loss(ab):
    sample_covariance = draw(np.random.default_rng(0), power_law(8, 1), 20)
    values, basis = np.linalg.eigh(sample_covariance)
    weight = basis * flow_weight(values, ab, np.inf) @ basis.T
    W = torch.tensor(weight, requires_grad=True)
    loss = noise_loss(W, ab, torch.tensor(sample_covariance))
    (gradient,) = torch.autograd.grad(loss, W)
    assert gradient.abs().max() < 1e-12
    closed = ab * (values / (ab * values + 1 - ab)).sum()
    assert loss.item() == pytest.approx(closed, rel=1e-12)
    gamma = ab / (1 - ab)
    ours = 2 * gamma * rate_on(denoiser(sample_covariance), gamma, sample_covariance)[0]
    assert ours == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("ab", [0.05, 0.5, 0.98])
def test_weight_decay_proportional_to_ab_is_a_ridge(ab):
    """Minimising loss + ab c |W|^2 equals the optimum on S0 + c I."""
    c, covariance = 0.3, draw(np.random.default_rng(1), power_law(6, 1), 4)
    identity = np.eye(6)
    state = ab * covariance + (1 - ab) * identity
    decayed = math.sqrt(1 - ab) * np.linalg.inv(state + ab * c * identity)
    values, basis = np.linalg.eigh(covariance)
    assert np.allclose(basis * flow_weight(values, ab, np.inf, ridge=c) @ basis.T, decayed)


def test_gradient_descent_follows_the_closed_form():
    ab, rate, c = 0.4, 0.07, 0.2
    covariance = torch.tensor(draw(np.random.default_rng(2), power_law(5, 1), 9))
    W = torch.full((5, 5), 0.0, dtype=torch.float64, requires_grad=True)
    for _ in range(23):
        loss = noise_loss(W, ab, covariance) + ab * c * W.square().sum()
        (gradient,) = torch.autograd.grad(loss, W)
        W = (W - rate * gradient).detach().requires_grad_()
    values, basis = np.linalg.eigh(covariance.numpy())
    closed = basis * descent_weight(values, ab, 23, rate, ridge=c) @ basis.T
    assert np.allclose(W.detach().numpy(), closed, atol=1e-13)
    fine = descent_weight(values, ab, 400_000, 1e-5, ridge=c)
    assert np.allclose(fine, flow_weight(values, ab, 4.0, ridge=c), rtol=1e-4)


def test_gradient_flow_solves_its_equation_and_acts_as_an_effective_variance():
    ab, start = 0.6, 0.4

    def slope(_, w):
        return -2 * (w * (ab * MODES + 1 - ab) - math.sqrt(1 - ab))

    path = solve_ivp(slope, (0, 1.7), np.full(4, start), rtol=1e-11, atol=1e-13)
    assert np.allclose(path.y[:, -1], flow_weight(MODES, ab, 1.7, start=start), rtol=1e-8)
    stopped = flow_weight(MODES, ab, 1.7)
    assert np.allclose(flow_weight(effective_variance(MODES, ab, 1.7), ab, np.inf), stopped)
    guess = 1 - math.sqrt(1 - ab) * stopped  # xhat / (x_t / alpha) of the noise prediction
    assert np.allclose(1 - kept_noise(MODES, ab / (1 - ab), 1.7), guess)


# --- T3, T4, T5, T13, T14: sampling ------------------------------------------------------------


def test_shifted_data_shift_the_samples(generator):
    process, data = VP(), torch.randn(40, 5, generator=generator, dtype=torch.float64)
    shift = torch.tensor([3.0, -1.0, 0.0, 10.0, 0.5], dtype=torch.float64)
    times = torch.tensor(level_times(process, 30))
    noise = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    end = float(process.alpha(times[:1]))
    for sampler in ("ancestral", "ddim"):
        first, second = (
            sample(
                Linear.fit(process, rows),
                6,
                times,
                sampler,
                init=init,
                dtype=torch.float64,
                generator=torch.Generator().manual_seed(1),
            )
            for rows, init in ((data, noise), (data + shift, noise + end * shift))
        )
        assert torch.allclose(second, first + shift, atol=1e-9)


def test_null_mode_follows_the_noise_level_and_ends_at_zero():
    levels = ddpm_scales(50)
    path = variance_path(levels, np.zeros((50, 1)), "ancestral")
    assert np.allclose(path[:, 0], levels.sigma**2, rtol=1e-12)
    for sampler in ("ancestral", "ancestral-large", "ddim"):
        assert sampled_variance(levels, np.zeros((50, 1)), sampler)[0] == 0


@pytest.mark.parametrize("beta_max", [0.02, 0.01])
def test_many_steps_reach_the_limits_of_the_last_level(beta_max):
    """DDIM: lam/C_T. Ancestral: lam + ab_T lam^2/C_T^2 (1 - C_T), from unit variance."""
    theory = LinearTheory(MODES)
    first = ddpm_scales(1000, 1e-4, beta_max).alpha[0] ** 2
    gamma = np.geomspace(first / (1 - first), 1e10, 200_000)
    levels = Scales(np.sqrt(gamma / (1 + gamma)), np.sqrt(1 / (1 + gamma)))
    end = first * MODES + 1 - first
    ddim = theory.sampled_covariance(levels, "ddim", MODES, start=1.0)
    assert np.allclose(ddim, MODES / end, rtol=3e-4)
    for sampler in ("ancestral", "ancestral-large"):
        ddpm = theory.sampled_covariance(levels, sampler, MODES, start=1.0)
        limit = MODES + first * MODES**2 / end**2 * (1 - end)
        assert np.allclose(ddpm, limit, rtol=3e-4)


def test_reference_variances_of_the_thousand_step_sampler():
    theory = LinearTheory(MODES)
    expected = {
        (0.02, "ancestral-large"): [0, 0.01015, 0.9999, 24.886],
        (0.02, "ancestral"): [0, 0.00928, 0.9911, 24.856],
        (0.02, "ddim"): [0, 0.00967, 0.9963, 24.898],
        (0.01, "ancestral-large"): [0, 0.01008, 0.9999, 24.47],
    }
    for (beta_max, sampler), values in expected.items():
        levels = ddpm_scales(1000, 1e-4, beta_max)
        ours = theory.sampled_covariance(levels, sampler, MODES, start=1.0)
        assert np.allclose(ours, values, rtol=5e-4)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_sampled_covariance_equals_the_sampler_itself(sampler, generator):
    """200,000 draws of the real sampler: each variance within 4 standard errors."""
    spectrum, process = np.array([4.0, 1.0, 0.05]), VP()
    times = level_times(process, 8)
    predicted = LinearTheory(spectrum, process=process, ridge=0.1).sampled_covariance(
        times, sampler
    )
    model = denoiser(np.diag(spectrum), 0.1)
    points = sample(
        model,
        200_000,
        torch.tensor(times),
        sampler,
        shape=(3,),
        dtype=torch.float64,
        generator=generator,
    )
    assert np.allclose(points.var(0), predicted, rtol=4 * math.sqrt(2 / 200_000))


def test_closed_probability_flow_map():
    """x_t = sqrt((sigma_t^2 + lam)/(sigma_T^2 + lam)) x_T solves dx/dsigma = (x - D(x))/sigma."""
    lam, start, stop = np.array([0.01, 1.0, 9.0]), 20.0, 0.1
    path = solve_ivp(
        lambda sigma, x: sigma * x / (lam + sigma**2),
        (start, stop),
        np.ones(3),
        rtol=1e-10,
        atol=1e-12,
    )
    closed = np.sqrt((stop**2 + lam) / (start**2 + lam))
    assert np.allclose(path.y[:, -1], closed, rtol=1e-7)
    converged = edm_stopped_variance(lam, 1e4, start, stop)
    assert np.allclose(converged, start**2 * closed**2, rtol=1e-6)


def test_ten_levels_of_the_edm_list():
    expected = [80, 42.415, 21.109, 9.723, 4.066, 1.502, 0.470, 0.117, 0.020, 0.002]
    sigma = EDM(0.002, 80.0, 7.0).sigma(torch.linspace(1, 0, 10, dtype=torch.float64))
    assert np.allclose(sigma, expected, atol=6e-4)


# --- T11, T12: early stopping ------------------------------------------------------------------


def test_null_floor_constants_and_the_thousand_step_sampler():
    """DDPM (beta_t noise) and DDIM at T = 1000 within 4%; 16,000 fine steps within 1%."""
    assert null_floor(1.0, "ddim") == pytest.approx(0.2807, abs=5e-5)
    assert null_floor(1.0) == pytest.approx(0.3738, abs=5e-5)
    levels = ddpm_scales()
    for training_time in (10.0, 30.0):
        stopped = LinearTheory(MODES[2:], time=training_time)
        zero = np.zeros(1)
        ddpm = stopped.sampled_covariance(levels, "ancestral-large", zero)[0]
        ddim = stopped.sampled_covariance(levels, "ddim", zero)[0]
        assert ddpm == pytest.approx(null_floor(training_time), rel=0.04)
        assert ddim == pytest.approx(null_floor(training_time, "ddim"), rel=0.04)
    gamma = np.geomspace(1e-5, 1e7, 16_000)
    fine = Scales(np.sqrt(gamma / (1 + gamma)), np.sqrt(1 / (1 + gamma)))
    for sampler in ("ancestral", "ddim"):
        floor = LinearTheory(MODES[2:], time=100.0).sampled_covariance(fine, sampler, np.zeros(1))
        assert floor[0] == pytest.approx(null_floor(100.0, sampler), rel=0.01)


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_edm_closed_form_against_quadrature(start):
    training_time, high, low = 0.8, 30.0, 0.05
    for lam in (0.01, 1.0, 9.0):

        def slope(sigma, lam=lam):
            best = lam / (lam + sigma**2)
            weight = best + (start - best) * math.exp(-2 * training_time * (lam + sigma**2))
            return (1 - weight) / sigma

        log_ratio = quad(slope, low, high, epsabs=1e-13, limit=400)[0]
        closed = edm_stopped_variance(lam, training_time, high, low, start)
        assert closed == pytest.approx(high**2 * math.exp(-2 * log_ratio), rel=1e-9)


@pytest.mark.parametrize("n", [50, 200])
def test_best_stopping_time_is_worth_the_best_ridge(n):
    """d = 100, k = 1, through DDIM: the same KL within 10%; DDPM gains a little more."""
    theory, levels = LinearTheory(power_law(100, 1), n), ddpm_scales()
    ridge = theory.at(ridge=theory.optimal_ridge()).kl()
    best = theory.optimal_time(levels, "ddim")
    assert theory.at(time=best).kl(levels, "ddim") == pytest.approx(ridge, rel=0.1)
    stopped = theory.at(time=theory.optimal_time(levels, "ancestral-large"))
    assert 0.85 * ridge < stopped.kl(levels, "ancestral-large") < 1.0 * ridge


@pytest.mark.parametrize("n", [50, 200])
def test_stopped_losses_and_kl_against_simulation(n):
    d, training_time, gamma = 100, 2.0, np.array([0.1, 1.0, 10.0])
    spectrum, rng, levels = power_law(d, 1), np.random.default_rng(3), ddpm_scales(300)
    theory = LinearTheory(spectrum, n, time=training_time)
    rows = []
    for _ in range(24):
        covariance = draw(rng, spectrum, n)
        values, basis = np.linalg.eigh(covariance)
        kept = kept_noise(values.clip(min=0), gamma[:, None], training_time)
        through = ((1 - kept) ** 2).sum(1) / gamma
        overlap = (basis**2 * spectrum[:, None]).sum(0)
        train, test = (0.5 * ((kept**2 * v).sum(1) + through) for v in (values, overlap))
        rows.append([*train, *test, theory.kl_of_draw(covariance, None, levels)])
    rows = np.array(rows)
    curves = [c(gamma).rate for c in (theory.train_curve, theory.test_curve)]
    ours = np.concatenate([*curves, [theory.kl(levels)]])
    error = rows.std(0, ddof=1) / math.sqrt(len(rows))
    assert (abs(ours - rows.mean(0)) < 3 * error + 0.01 * ours).all()


# --- T6: exact in expectation --------------------------------------------------------------------


@pytest.mark.parametrize("n", [75, 100, 200, 500, 2000, 10000])
def test_expected_kl_of_the_table(n):
    table = {75: 0.8317, 100: 0.3635, 200: 0.1012, 500: 0.03039, 2000: 0.00665, 10000: 0.00129}
    assert round(float(expected_kl(n, 50)) / 50, 5) == pytest.approx(table[n], abs=6e-5)
    spectrum, rng = power_law(50, 1), np.random.default_rng(n)
    theory = LinearTheory(spectrum)
    draws = [theory.kl_of_draw(bartlett(rng, spectrum, n)) for _ in range(300)]
    error = np.std(draws, ddof=1) / math.sqrt(300)
    assert abs(np.mean(draws) - theory.expected_kl(n)) < 3 * error


@pytest.mark.parametrize("mean", ["known", "estimated"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_expected_kl_of_points_whatever_the_covariance(mean, direction):
    d, n, rng = 4, 11, np.random.default_rng(4)
    covariance = np.diag(power_law(d, 2))
    rows = []
    for _ in range(6000):
        points = rng.standard_normal((n, d)) * np.sqrt(np.diag(covariance))
        centre = points.mean(0) if mean == "estimated" else np.zeros(d)
        fitted = (points - centre).T @ (points - centre) / n
        pair = [(covariance, np.zeros(d)), (fitted, centre)]
        (first, a), (second, b) = pair if direction == "forward" else pair[::-1]
        rows.append(gaussian_kl(first, second, a, b))
    error = np.std(rows, ddof=1) / math.sqrt(len(rows))
    assert abs(np.mean(rows) - expected_kl(n, d, mean, direction)) < 3.5 * error


def test_kl_of_a_draw_ignores_linear_maps():
    rng = np.random.default_rng(5)
    first, second = draw(rng, np.ones(6), 20), draw(rng, np.ones(6), 20)
    A = rng.standard_normal((6, 6))
    assert gaussian_kl(A @ first @ A.T, A @ second @ A.T) == pytest.approx(
        gaussian_kl(first, second), rel=1e-9
    )
    assert gaussian_kl(first, draw(rng, np.ones(6), 4)) == math.inf
    turned = LinearTheory(np.ones(6)).kl_of_draw(A @ second @ A.T, true=A @ first @ A.T)
    assert turned == pytest.approx(gaussian_kl(first, second), rel=1e-9)


def test_kl_law_is_a_quarter_of_d_over_n_for_every_spectrum():
    """KL/d against d/N from N = 20 d: slope 1/4 within 3% after 1 + 5/3 g; spectra coincide."""
    d, rng = 50, np.random.default_rng(6)
    for n in (1000, 2000, 5000):
        g, means, errors = d / n, [], []
        for k in (0, 1, 2):
            spectrum = power_law(d, k)
            theory = LinearTheory(spectrum)
            draws = [theory.kl_of_draw(bartlett(rng, spectrum, n)) / d for _ in range(120)]
            means.append(np.mean(draws))
            errors.append(np.std(draws, ddof=1) / math.sqrt(120))
        slope = np.array(means) / g / (1 + 5 / 3 * g)
        assert np.allclose(slope, 0.25, rtol=0.03, atol=3 * max(errors) / g)
        assert np.ptp(means) < 4 * math.sqrt(2) * max(errors)
        assert float(expected_kl(n, d)) / d / g / (1 + 5 / 3 * g) == pytest.approx(0.25, rel=0.03)


def test_limit_of_many_dimensions():
    for direction in ("forward", "reverse"):
        exact = expected_kl(8000, 2000, direction=direction) / 2000
        assert exact == pytest.approx(float(limit_kl_per_dim(0.25, direction)), rel=2e-3)
    no_ridge = LinearTheory(power_law(40, 1), 160).kl() / 40
    assert no_ridge == pytest.approx(float(limit_kl_per_dim(0.25)), rel=1e-12)
    assert LinearTheory(power_law(40, 1), 40).kl() == math.inf


# --- T7, T8: deterministic equivalents ---------------------------------------------------------


@pytest.mark.parametrize(("n", "z"), [(100, 0.1), (200, 0.5), (600, 0.05)])
def test_traces_against_simulation(n, z):
    d, rng = 200, np.random.default_rng(7)
    spectrum = power_law(d, 1)
    rows = []
    for _ in range(16):
        S = draw(rng, spectrum, n)
        R = np.linalg.inv(S + z * np.eye(d))
        S2R2 = np.linalg.multi_dot([R, S, S, R])
        terms = (R, R * spectrum, R @ R, R @ R * spectrum, S @ R, S @ R @ R, S2R2)
        rows.append(
            [np.trace(m) / d for m in terms] + [np.linalg.slogdet(np.eye(d) + S / z)[1] / d]
        )
    traces = Traces(np.array(z), np.array(d / n), atoms(spectrum))
    names = ("r", "r_sigma", "r2", "r2_sigma", "s_r", "s_r2", "s2_r2", "logdet")
    ours = np.array([getattr(traces, name) for name in names])
    error = np.std(rows, axis=0, ddof=1) / 4
    assert (abs(ours - np.mean(rows, axis=0)) < 4 * error + 0.005 * ours).all()
    identity = (traces.kappa / z - 1) / traces.g
    assert traces.r_sigma == pytest.approx(float(identity), rel=1e-12)


def test_effective_ridge_solves_its_equation():
    spectrum = atoms(power_law(60, 1.3))
    z, g = np.geomspace(1e-12, 1e6, 40)[:, None], np.array([1e-6, 0.3, 1.0, 4.0])
    kappa = effective_ridge(z, g, spectrum)
    first = (spectrum.values / (spectrum.values + kappa[..., None])).mean(-1)
    assert np.allclose(kappa, z + g * kappa * first, rtol=1e-12)
    assert np.allclose(kappa[:, 0], z[:, 0], rtol=1e-3, atol=1e-5)  # many samples: kappa is z
    assert effective_ridge(np.array(0.0), 0.5, spectrum) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "ridge", "reference"),
    [
        (100, 0.1, (0.615, 0.232, 0.414)),
        (100, 1.0, (0.293, 0.394, 0.446)),
        (400, 0.1, (0.0944, 0.3011, 0.3505)),
        (200, 0.01, (1.913, 0.2712, 0.3865)),
    ],
)
def test_every_cell_within_two_percent_of_simulation(n, ridge, reference):
    """KL/d, training and test noise loss per dimension at d = 200, lam ~ 1/nu, ab = 1/2."""
    d, rng, gamma = 200, np.random.default_rng(8), np.array([1.0, 2.0])
    spectrum = power_law(d, 1)
    theory = LinearTheory(spectrum, n, ridge=ridge)
    rows = []
    for _ in range(20):
        covariance = draw(rng, spectrum, n)
        model = denoiser(covariance, ridge)
        losses = [2 * rate_on(model, 1.0, c)[0] for c in (covariance, np.diag(spectrum))]
        rows.append([theory.kl_of_draw(covariance), *losses])
    losses = [2 * c(gamma).rate[0] for c in (theory.train_curve, theory.test_curve)]
    ours = np.array([theory.kl(), *losses])
    error = np.std(rows, axis=0, ddof=1) / math.sqrt(len(rows))
    assert (abs(ours - np.mean(rows, axis=0)) < 0.02 * ours + 2 * error).all()
    assert np.allclose(ours / d, reference, rtol=2e-3)


@pytest.mark.parametrize("mean", ["known", "estimated"])
@pytest.mark.parametrize(("n", "ridge"), [(50, 0.1), (50, 1.0), (300, 0.0)])
def test_excess_area_is_the_kl(n, ridge, mean):
    """KL = int (test - oracle) dgamma: the losses and the KL are two routes to one number."""
    theory = LinearTheory(power_law(100, 1), n, ridge=ridge, mean=mean)
    u = np.geomspace(1e-7, 1e7, 1500)
    excess = theory.test_curve(u).area() - theory.oracle_curve(u).area()
    assert excess == pytest.approx(theory.kl(), rel=2e-4)


def test_excess_area_is_the_kl_of_one_draw():
    spectrum, u = power_law(10, 1), np.geomspace(1e-7, 1e7, 4000)
    covariance = draw(np.random.default_rng(9), spectrum, 30)
    gap = (
        rate_on(denoiser(covariance), u, np.diag(spectrum))
        - LinearTheory(spectrum).oracle_curve(u).rate
    )
    area = np.trapezoid(gap * u, np.log(u))
    assert area == pytest.approx(LinearTheory(spectrum).kl_of_draw(covariance), rel=1e-4)


def test_estimated_mean_against_points():
    """Losses and KL with the mean estimated: 60 draws of points at d = 60, 4 standard errors."""
    d, n, gamma, rng = 60, 40, np.array([0.3, 3.0]), np.random.default_rng(10)
    spectrum = power_law(d, 1)
    theory = LinearTheory(spectrum, n, ridge=0.2, mean="estimated")
    zero, true = torch.zeros(d).double(), torch.diag(torch.tensor(spectrum))
    rows = []
    for _ in range(60):
        points = torch.tensor(rng.standard_normal((n, d)) * np.sqrt(spectrum))
        model = Linear.fit(VP(), points, ridge=0.2)
        inside = torch.cov(points.T, correction=0)
        losses = [
            *model.exact_rate(gamma, points.mean(0), inside),
            *model.exact_rate(gamma, zero, true),
        ]
        rows.append([*losses, theory.kl_of_draw(inside, points.mean(0))])
    curves = [c(gamma).rate for c in (theory.train_curve, theory.test_curve)]
    ours = np.concatenate([*curves, [theory.kl()]])
    error = np.std(rows, axis=0, ddof=1) / math.sqrt(len(rows))
    assert (abs(ours - np.mean(rows, axis=0)) < 4 * error + 0.005 * ours).all()


@pytest.mark.parametrize("n", [100, 400])
def test_sample_measure_holds_smooth_functions(n):
    d, rng = 200, np.random.default_rng(11)
    spectrum = power_law(d, 1)
    measure = sample_measure(d / n, atoms(spectrum))
    functions = [lambda x: 1 / (x + 0.1), lambda x: np.log(x + 0.05), lambda x: np.exp(-5 * x)]
    rows = []
    for _ in range(24):
        values, basis = np.linalg.eigh(draw(rng, spectrum, n))
        overlap = (basis**2 * spectrum[:, None]).mean(0)
        rows.append([v for f in functions for v in (f(values).mean(), f(values) @ overlap)])
    nodes = measure.nodes
    ours = np.array([f(nodes) @ w for f in functions for w in (measure.mass, measure.overlap)])
    error = np.std(rows, axis=0, ddof=1) / math.sqrt(24)
    assert (abs(ours - np.mean(rows, axis=0)) < 4 * error + 0.006 * abs(ours)).all()


def test_many_atoms_are_compressed_without_loss():
    full = atoms(power_law(3000, 1.5))
    few = compress(full)
    assert len(few.values) < 500
    z, g = np.geomspace(1e-5, 1e3, 30), np.full(30, 0.7)
    for name in ("r", "r_sigma", "r2", "r2_sigma", "s_r", "logdet"):
        first, second = (getattr(Traces(z, g, a), name) for a in (full, few))
        assert np.allclose(first, second, rtol=1e-6)


# --- searches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "best"), [(25, 0.57), (50, 0.42), (100, 0.29), (200, 0.19)])
def test_optimal_ridge_against_a_fine_grid(n, best):
    """d = 100, k = 1; the references carry two digits and one draw's noise."""
    theory = LinearTheory(power_law(100, 1), n)
    found = theory.optimal_ridge()
    grid = [theory.at(ridge=c).kl() for c in np.geomspace(0.02, 3, 400)]
    assert theory.at(ridge=found).kl() <= min(grid) * (1 + 1e-9)
    assert found == pytest.approx(best, rel=0.05)
    assert theory.optimal_ridge("test", t=0.05) == pytest.approx(found, rel=0.15)


def test_critical_n_is_the_crossing():
    theory = LinearTheory(power_law(100, 1))
    n = theory.critical_n(0.01)
    assert theory.expected_kl(n) / 100 <= 0.01 < theory.expected_kl(n - 1) / 100
    fewer = theory.critical_n(0.1, ridge="optimal")
    assert fewer < theory.critical_n(0.1)
    fixed = theory.critical_n(0.1, ridge=0.2)
    assert theory.at(n=int(fixed), ridge=0.2).kl() / 100 <= 0.1
    assert theory.at(n=int(fixed) - 1, ridge=0.2).kl() / 100 > 0.1
    assert theory.critical_n(1e-3, ridge=0.2) == math.inf


def test_collapse_and_speciation():
    """Isotropic: t_C = 1/2 ln(1 + s2/(n^{2/d} - 1)); the published GMM values at n = 20,000."""
    for d, published in ((256, 1.2988), (1024, 1.9775), (4096, 2.6671)):
        found = collapse_time(20_000, Atoms(np.array([1.0]), np.array([float(d)])))
        assert found.time == pytest.approx(published, abs=6e-5)
        closed = 0.5 * math.log1p(1 / (20_000 ** (2 / d) - 1))
        assert found.time == pytest.approx(closed, rel=1e-9)
        assert found.sigma == pytest.approx(1 / math.sqrt(20_000 ** (2 / d) - 1), rel=1e-9)
    top = speciation_time(16.72)
    assert top.time == pytest.approx(1.408, abs=5e-4)
    assert top.sigma == pytest.approx(math.sqrt(15.72))
    assert speciation_time(0.5).time == 0.0


@pytest.mark.parametrize("d_over_n", [4.0, 1.0, 0.25])
def test_overlap_of_two_generators(d_over_n):
    d, rng = 200, np.random.default_rng(12)

    def root(n):
        values, basis = np.linalg.eigh(draw(rng, np.ones(d), n))
        return basis * np.sqrt(values.clip(min=0)) @ basis.T

    n = round(d / d_over_n)
    rows = []
    for _ in range(6):
        first, second = root(n), root(n)
        rows.append((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))
    error = np.std(rows, ddof=1) / math.sqrt(6)
    assert abs(seed_overlap(d_over_n) - np.mean(rows)) < 0.01 * seed_overlap(d_over_n) + 3 * error
    assert seed_overlap(1.0) == pytest.approx((8 / (3 * math.pi)) ** 2, rel=1e-8)


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 12), (20, 5, 9), (5000, 7)])
def test_spectrum_of_data_equals_a_dense_eigenproblem(shape):
    rng = np.random.default_rng(13)
    data = rng.standard_normal(shape).astype(np.float32) * 0.5 + 1000.0
    data.reshape(len(data), -1)[:, 2] = 7.0  # a dead pixel
    found = spectrum_of(torch.tensor(data))
    rows = data.reshape(len(data), -1).astype(np.float64)
    dense = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1][: len(found.values)]
    assert np.allclose(found.values, dense, rtol=1e-9, atol=1e-10)
    assert (found.constant, found.dim, found.error) == (1, rows.shape[1] - 1, 0.0)
    assert len(found.values) == min(rows.shape[0] - 1, rows.shape[1] - 1)


def test_randomised_spectrum_stays_within_its_stated_error():
    rng = np.random.default_rng(14)
    data = rng.standard_normal((400, 150)) * np.sqrt(power_law(150, 1))
    exact, rough = spectrum_of(data), spectrum_of(data, rank=40)
    assert len(rough.values) == len(exact.values)
    assert rough.values.sum() == pytest.approx(exact.values.sum(), rel=1e-9)
    assert np.abs(rough.values - exact.values).max() <= rough.error < 0.1 * exact.values[0]
    assert np.allclose(rough.values[:10], exact.values[:10], rtol=1e-4)


@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("n", [100, 400])
def test_population_spectrum_recovered_from_data(k, n):
    """From N = d/2 and 2 d points alone: KL within 8% and test losses within 5% of the truth."""
    rng, spectrum = np.random.default_rng(15), power_law(200, k)
    data = rng.standard_normal((n, 200)) * np.sqrt(spectrum)
    u = np.geomspace(1e-2, 1e2, 9)
    guess = LinearTheory(data, ridge=0.1, mean="estimated")
    truth = LinearTheory(spectrum, n, ridge=0.1, mean="estimated")
    assert guess.n == n
    assert guess.dim == 200
    assert guess.kl() == pytest.approx(truth.kl(), rel=0.08)
    assert np.allclose(guess.test_curve(u).rate, truth.test_curve(u).rate, rtol=0.05)
    assert population(spectrum_of(data)).dim == pytest.approx(200)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().data / 16)


@pytest.mark.parametrize("ridge", [0.01, 0.1])
@pytest.mark.parametrize("n", [50, 100, 400, 1200])
def test_digits_test_curve_within_three_percent(digits, n, ridge):
    """Predicted from all digits, and from the training rows alone, against held-out digits.

    12 splits, every level from sigma = 10 to .01, mean over splits. The ridge stands for dead and
    nearly dead pixels, where digits are far from Gaussian.
    """
    theory = LinearTheory(digits, n, ridge=ridge, mean="estimated")
    assert (theory.constant, theory.dim) == (3, 61)
    u, rng, rows = np.geomspace(1e-2, 1e4, 25), np.random.default_rng(16), []
    for _ in range(12):
        order = torch.tensor(rng.permutation(len(digits)))
        seen, held = digits[order[:n]], digits[order[n:]]
        model = Linear.fit(VP(), seen, ridge=ridge)
        train, test = (
            model.exact_rate(u, part.mean(0), torch.cov(part.T, correction=0))
            for part in (seen, held)
        )
        alone = LinearTheory(seen, ridge=ridge, mean="estimated").test_curve(u).rate
        rows.append([theory.train_curve(u).rate / train, theory.test_curve(u).rate / test])
        rows[-1].append(alone / test)
    assert np.allclose(np.mean(rows, axis=0), 1, atol=0.03)


def test_directions_without_variance_are_set_apart():
    """Rounding below zero is no variance; a ridge pays for the noise it lets through there."""
    values = torch.tensor([2.0, 1.0, -1e-17, 1e-18, 0.0], dtype=torch.float64)
    theory = LinearTheory(values, n=30, ridge=0.5)
    assert (theory.dim, theory.constant) == (2, 3)
    assert theory.kl() == LinearTheory([2.0, 1.0], n=30, ridge=0.5).kl()
    u = np.array([0.5, 4.0])
    extra = theory.test_curve(u).rate - LinearTheory([2.0, 1.0], 30, 0.5).test_curve(u).rate
    exact = [rate_on(denoiser(np.zeros((3, 3)), 0.5), g, np.zeros((3, 3)))[0] for g in u]
    assert np.allclose(extra, exact, rtol=1e-9)
    rows = np.random.default_rng(18).standard_normal((40, 3))
    dependent = LinearTheory(np.c_[rows, rows[:, :1] - rows[:, 1:2]])
    assert (dependent.dim, dependent.constant) == (3, 1)


@pytest.mark.slow
def test_spectrum_of_fifty_thousand_images_in_a_minute():
    """N = 50,000, d = 3,072: under 60 s of CPU and 2 GiB beyond the data."""
    spectrum = torch.tensor(power_law(3072, 1), dtype=torch.float32)
    data = torch.randn(50_000, 3072, generator=torch.Generator().manual_seed(0))
    data *= spectrum.sqrt()
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    theory = LinearTheory(data)
    assert time.process_time() - begin < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 1024**2
    assert theory.kl() == pytest.approx(float(expected_kl(50_000, 3072)), rel=0.02)


def test_few_rows_of_many_variables_still_give_a_law():
    """The recovered spectrum keeps the total variance, and matters of scale do not change it."""
    rng = np.random.default_rng(17)
    for n, d in ((3, 500), (10, 5000), (64, 64), (65, 64), (100, 1)):
        data = rng.standard_normal((n, d)) * np.sqrt(power_law(d, 1))
        found, scaled = population(spectrum_of(data)), population(spectrum_of(1000 * data))
        total = data.var(0, ddof=1).sum()
        assert found.dim == pytest.approx(d)
        assert found.values @ found.counts == pytest.approx(total, rel=0.1)
        assert scaled.values @ scaled.counts == pytest.approx(1e6 * total, rel=0.1)


def test_phase_diagram_agrees_with_single_cells_and_is_fast():
    spectrum = power_law(3072, 1)
    theory = LinearTheory(spectrum)
    n, ridge = np.geomspace(300, 1e5, 20), np.geomspace(1e-4, 1, 20)
    u = np.geomspace(1e-3, 1e3, 100)
    begin = time.process_time()
    diagram = theory.phase_diagram(n, ridge, u)
    assert time.process_time() - begin < 5
    cell = LinearTheory(spectrum, int(n[5]), ridge=float(ridge[7]))
    diagram = theory.phase_diagram(np.floor(n), ridge, u)
    assert np.allclose(diagram.train[5, 7], cell.train_curve(u).rate, rtol=1e-9)
    assert np.allclose(diagram.test[5, 7], cell.test_curve(u).rate, rtol=1e-9)
    assert diagram.kl[5, 7] == pytest.approx(cell.kl(), rel=1e-9)
    assert (diagram.gap > 0).all()
    assert diagram.plot() is not None
    import matplotlib.pyplot as plt

    plt.close("all")


def test_losses_by_process_time_and_by_prediction():
    process = VP()
    theory = LinearTheory(power_law(20, 1), 40, process=process)
    t = torch.tensor([0.1, 0.5, 0.9])
    gamma = process.clock(t).numpy()
    curve = theory.test_curve(gamma[::-1])
    assert np.allclose(theory.test_loss(t), curve.rate[::-1])
    assert np.allclose(theory.train_loss(t, "noise"), 2 * gamma * theory.train_loss(t))
    assert (theory.train_loss(t) < theory.oracle_loss(t)).all()
    assert (theory.oracle_loss(t) < theory.test_loss(t)).all()
    assert np.allclose(curve.t, t.numpy()[::-1], atol=1e-6)
    assert theory.train_curve().area() < theory.test_curve().area()


@pytest.mark.parametrize(
    "bad",
    [
        lambda: LinearTheory([-1.0, 1.0]),
        lambda: LinearTheory([1.0], n=0),
        lambda: LinearTheory([1.0], ridge=-1),
        lambda: LinearTheory([1.0], time=0),
        lambda: LinearTheory([1.0], n=5, mean="guessed"),
        lambda: LinearTheory([1.0]).kl(),
        lambda: LinearTheory([1.0], n=5).test_loss(0.5, "score"),
        lambda: LinearTheory([1.0], n=5).sampled_covariance([0.1, 0.5]),
        lambda: LinearTheory([1.0], n=5).sampled_covariance([0.5, 0.1], "heun"),
        lambda: LinearTheory([1.0]).kl_of_draw(np.eye(2)),
        lambda: LinearTheory([1.0], n=5).optimal_ridge("loss"),
        lambda: LinearTheory([1.0]).critical_n(0),
        lambda: LinearTheory(np.ones((5, 3))),
        lambda: LinearTheory(np.full((5, 3), np.nan)),
        lambda: spectrum_of(np.ones((1, 3))),
        lambda: expected_kl(10, 3, "sample"),
        lambda: null_floor(1.0, "heun"),
        lambda: collapse_time(1, atoms(np.ones(3))),
        lambda: seed_overlap(0.0),
    ],
)
def test_bad_input_is_one_clear_sentence(bad):
    with pytest.raises(InputError, match=r"\w+ .*\w"):
        bad()
