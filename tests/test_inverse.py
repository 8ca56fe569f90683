"""Inverse problems against closed forms: Gaussian data, mixtures, dense linear algebra."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from reverie.denoisers import Denoiser, GaussianMixture, Linear
from reverie.errors import InputError
from reverie.inverse import (
    METHODS,
    MMPS,
    TMPD,
    Inpainting,
    LinearMeasurement,
    Measurement,
    PiGDM,
    reconstruct,
)
from reverie.inverse.guided import in_modes
from reverie.inverse.krylov import gmres
from reverie.inverse.repaint import renoise
from reverie.inverse.twisted import effective_size, systematic
from reverie.processes import EDM, VP, Brownian, Custom, ModalProcess, Rectified
from reverie.spaces import Sphere

F64 = torch.float64
PROCESSES = [EDM(0.01, 20), VP(t_min=1e-3), Rectified()]
SPREADS = (0.05, 0.3, 1.0, 5.0)  # sigma / alpha


def randn(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=F64)


def gaussian_prior(generator, process, dim=8):
    root, mean = randn(generator, dim, dim) / math.sqrt(dim), randn(generator, 1, dim)
    return GaussianMixture(process, mean, (root @ root.T)[None], torch.ones(1))


def two_modes(process):
    means = torch.tensor([[-1.0, 0.5], [1.2, -0.3]], dtype=F64)
    covariances = torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.4, -0.1], [-0.1, 0.1]]], dtype=F64)
    return GaussianMixture(process, means, covariances, torch.tensor([0.3, 0.7]))


def conditional_mean(prior, matrix, noise, y, state, alpha, sigma):
    """E[x | x_t, y] of Gaussian data in information form: three precisions add up."""
    mean, precision = prior.means[0], torch.linalg.inv(prior.covariances[0])
    total = precision + torch.diag((alpha / sigma) ** 2) + matrix.T @ matrix / noise**2
    right = precision @ mean + state * alpha / sigma**2 + y @ matrix / noise**2
    return torch.linalg.solve(total, right.T).T


# --- measurements ----------------------------------------------------------------------------


def blur(x):
    return x[:, :, 1:] + 0.5 * x[:, :, :-1]


MASK = torch.tensor([[True, False, True], [False, False, True]])
LINEAR = {
    "matrix": LinearMeasurement(torch.arange(12.0).reshape(2, 6) - 5, 0.1, (2, 3)),
    "function": LinearMeasurement(blur, 0.1, (2, 3)),
    "mask": Inpainting(MASK, 0.1),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_the_adjoint_is_the_transpose(generator, kind):
    measurement = LINEAR[kind]
    x = randn(generator, 4, 2, 3)
    u = randn(generator, 4, *measurement.observed)
    forward = (measurement(x) * u).flatten(1).sum(1)
    backward = (x * measurement.adjoint(u)).flatten(1).sum(1)
    assert torch.allclose(forward, backward, atol=1e-12)
    dense = torch.func.jacrev(lambda p: measurement(p[None])[0])(x[0])
    assert measurement.gain(x[0]) == pytest.approx(float(dense.square().sum()) / measurement.size)


def test_products_with_the_jacobian_of_a_nonlinear_measurement(generator):
    """A(x) = sin(x_1 x_2), its Jacobian by hand."""
    measurement = Measurement(lambda x: torch.sin(x[:, :1] * x[:, 1:]), (2,), 0.1)
    x, v, u = randn(generator, 5, 2), randn(generator, 5, 2), randn(generator, 5, 1)
    jacobian = torch.cos(x[:, :1] * x[:, 1:]) * x.flip(1)
    tangent = measurement.tangent(x)
    assert torch.allclose(tangent.push(v), (jacobian * v).sum(1, keepdim=True))
    assert torch.allclose(tangent.pull(u), jacobian * u)


def test_likelihood_and_simulation_agree_with_the_normal_law(generator):
    noise = torch.tensor([0.1, 0.5], dtype=F64)
    measurement = LinearMeasurement(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), noise)
    x = randn(generator, 1, 2).expand(20_000, 2)
    y = measurement.simulate(x, generator)
    law = torch.distributions.Normal(measurement(x), noise.expand(20_000, 2))
    assert torch.allclose(measurement.log_prob(x, y), law.log_prob(y).sum(1))
    centred = (y - measurement(x)) / noise
    assert ((centred.std(0) - 1).abs() < 5 / math.sqrt(40_000)).all()


@pytest.mark.parametrize("iterations", [1, 3, 6, 20])
def test_gmres_against_a_dense_solve(generator, iterations):
    """The best residual in the Krylov space, by least squares on its vectors; exact at 6."""
    matrix = randn(generator, 6, 6) / 3 + torch.eye(6)
    right = torch.cat([randn(generator, 3, 6), torch.zeros(1, 6, dtype=F64)])
    found = gmres(lambda u: u @ matrix.T, right, iterations)
    powers = [right]
    for _ in range(min(iterations, 6) - 1):
        powers.append(powers[-1] @ matrix.T)
    space = torch.stack(powers, 2)[:3]
    weights = torch.linalg.lstsq(matrix @ space, right[:3, :, None]).solution
    assert torch.allclose(found[:3], (space @ weights)[:, :, 0], atol=1e-8)
    assert not found[3].any()


def test_gmres_stops_where_a_row_is_solved():
    matrix = torch.diag(torch.tensor([2.0, 2.0, 5.0], dtype=F64))
    right = torch.tensor([[1.0, 3.0, 0.0], [1.0, 0.0, 1.0]], dtype=F64)
    found = gmres(lambda u: u @ matrix, right, 3)
    assert torch.allclose(found, right / matrix.diagonal(), atol=1e-14)


# --- the mixture, by which everything below is judged -----------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
def test_the_mixture_denoiser_is_tweedies_formula(generator, process):
    prior, t = two_modes(process), torch.tensor(0.4, dtype=F64)
    state = randn(generator, 6, 2).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_density(state, t).sum(), state)
    alpha, sigma = process.scales(t, state)
    assert torch.allclose(prior(state, t), (state + sigma**2 * score) / alpha, atol=1e-8)


def test_one_gaussian_is_the_linear_denoiser(generator):
    process = PROCESSES[1]
    prior = gaussian_prior(generator, process, 4)
    linear = Linear(process, prior.means[0], prior.spectrum[0], prior.basis[0])
    state, t = randn(generator, 5, 4), torch.full((5,), 0.3, dtype=F64)
    assert torch.allclose(prior(state, t), linear(state, t), atol=1e-12)


def test_the_posterior_of_a_mixture_is_bayess_rule(generator):
    """log p(x | y) = log p(x) + log p(y | x) - log p(y), at a noise level of 1e-9."""
    prior = two_modes(EDM(1e-9, 1))
    matrix, y = torch.tensor([[1.0, 0.4]], dtype=F64), torch.tensor([0.3], dtype=F64)
    x = prior.draw(50, generator)
    likelihood = LinearMeasurement(matrix, 0.5).log_prob(x, y)
    wanted = prior.log_density(x, 0.0) + likelihood - prior.log_evidence(matrix, y, 0.5)
    found = prior.posterior(matrix, y, 0.5).log_density(x, 0.0)
    assert torch.allclose(found, wanted, atol=1e-8)


# --- guided guesses --------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.05, 0.5])
@pytest.mark.parametrize("process", PROCESSES)
def test_moment_matching_is_exact_for_gaussian_data(generator, process, noise):
    prior, matrix = gaussian_prior(generator, process), randn(generator, 3, 8)
    measurement = LinearMeasurement(matrix, noise)
    x = prior.draw(20, generator)
    y = measurement.simulate(x, generator)
    for spread in SPREADS:
        t = process.time(torch.tensor(spread**-2.0, dtype=F64)).clamp(*process.t_range)
        state = process.corrupt(x, t, generator=generator)
        levels = (level[0].expand(8) for level in process.scales(t, state))
        exact = conditional_mean(prior, matrix, noise, y, state, *levels)
        for given in (measurement, Measurement(lambda x: x @ matrix.T.to(x), (8,), noise)):
            assert (MMPS(prior, given)(state, t, y) - exact).abs().max() < 1e-10


def test_moment_matching_is_exact_where_coordinates_have_their_own_speeds(generator):
    speeds = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=F64)
    process = Custom(
        lambda t: torch.ones(len(t), 4, dtype=F64), lambda t: t[:, None] * speeds, shape=(4,)
    )
    law = gaussian_prior(generator, EDM(), 4)
    prior = Linear(process, law.means[0], law.spectrum[0], law.basis[0])
    matrix, y = randn(generator, 2, 4), randn(generator, 6, 2)
    state, t = randn(generator, 6, 4), torch.tensor(0.5, dtype=F64)
    exact = conditional_mean(law, matrix, 0.2, y, state, torch.ones(4, dtype=F64), 0.5 * speeds)
    found = MMPS(prior, LinearMeasurement(matrix, 0.2))(state, t, y)
    assert (found - exact).abs().max() < 1e-10


def test_moment_matching_is_exact_in_the_modes_of_a_basis(generator):
    """The noise is diagonal in cosines, not in coordinates: the same three precisions."""
    bands = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=F64)
    process = ModalProcess(EDM(0.01, 20), shape=(4,), basis="dct", speed=bands, t_range=(0, 0.5))
    law = gaussian_prior(generator, EDM(), 4)
    prior = Linear(process, law.means[0], law.spectrum[0], law.basis[0])
    matrix, y = randn(generator, 2, 4), randn(generator, 6, 2)
    t, eye = torch.tensor(0.3, dtype=F64), torch.eye(4, dtype=F64)
    state = process.corrupt(prior.mean + randn(generator, 6, 4), t, generator=generator)
    alpha, sigma = process.scales(t, eye[:1])
    by_state = in_modes(process, alpha / sigma**2, eye)
    seen = in_modes(process, (alpha / sigma) ** 2, eye)
    precision = torch.linalg.inv(law.covariances[0])
    right = precision @ law.means[0] + state @ by_state + y @ matrix / 0.2**2
    exact = torch.linalg.solve(precision + seen + matrix.T @ matrix / 0.2**2, right.T).T
    found = MMPS(prior, LinearMeasurement(matrix, 0.2))(state, t, y)
    assert (found - exact).abs().max() < 1e-10


@pytest.mark.parametrize("method", ["mmps", "pigdm", "tmpd"])
@pytest.mark.parametrize("nonlinear", [False, True])
def test_guided_guesses_against_dense_algebra(generator, method, nonlinear):
    """The definitions written with the full Jacobians of the denoiser and of A."""
    process, noise, t = PROCESSES[1], 0.3, torch.tensor(0.4, dtype=F64)
    prior, matrix = two_modes(process), randn(generator, 2, 2)

    def apply(x):
        return torch.tanh(x @ matrix.T.to(x)) if nonlinear else x @ matrix.T.to(x)

    measurement = Measurement(apply, (2,), noise)
    make = dict(
        mmps=MMPS(prior, measurement),
        pigdm=PiGDM(prior, measurement, 0.8),
        tmpd=TMPD(prior, measurement),
    )[method]
    state, y = randn(generator, 4, 2), randn(generator, 4, 2)
    alpha, sigma = (float(level) for level in process.scales(t, state[:1]))
    guided = make(state, t, y)
    for x_t, seen, found in zip(state, y, guided, strict=True):
        clean = prior(x_t[None], t)[0]
        by_state = torch.func.jacrev(lambda p: prior(p[None], t)[0])(x_t)
        outer = torch.func.jacrev(lambda p: apply(p[None])[0])(clean)
        tweedie = outer @ (sigma**2 / alpha * by_state.T) @ outer.T
        r2 = 0.64 * (sigma / alpha) ** 2 / (0.64 + (sigma / alpha) ** 2)
        variance = dict(
            mmps=tweedie,
            pigdm=r2 * outer @ outer.T,
            tmpd=torch.diag(tweedie.sum(1).clamp(min=0)),
        )[method] + noise**2 * torch.eye(2)
        inner = torch.linalg.solve(variance, seen - apply(clean[None])[0])
        wanted = clean + sigma**2 / alpha * by_state.T @ outer.T @ inner
        assert torch.allclose(found, wanted, atol=1e-9)


def test_pigdm_is_exact_for_isotropic_data_and_tmpd_for_one_number(generator):
    process, t = PROCESSES[0], torch.tensor(0.6, dtype=F64)
    ball = GaussianMixture(
        process, randn(generator, 1, 3), 0.49 * torch.eye(3, dtype=F64)[None], torch.ones(1)
    )
    state, y = randn(generator, 5, 3), randn(generator, 5, 2)
    two, one = randn(generator, 2, 3), randn(generator, 1, 3)
    levels = [level[0].expand(3) for level in process.scales(t, state)]
    found = PiGDM(ball, LinearMeasurement(two, 0.2), data_std=0.7)(state, t, y)
    assert torch.allclose(found, conditional_mean(ball, two, 0.2, y, state, *levels), atol=1e-10)
    prior = gaussian_prior(generator, process, 3)
    found = TMPD(prior, LinearMeasurement(one, 0.2))(state, t, y[:, :1])
    exact = conditional_mean(prior, one, 0.2, y[:, :1], state, *levels)
    assert torch.allclose(found, exact, atol=1e-10)


def test_a_guided_guess_can_be_differentiated(generator):
    """On Gaussian data it is affine in the state, with the Jacobian of the information form."""
    process, t = PROCESSES[1], torch.tensor(0.4, dtype=F64)
    prior, matrix = gaussian_prior(generator, process, 3), randn(generator, 2, 3)
    y = randn(generator, 2)
    guided = MMPS(prior, LinearMeasurement(matrix, 0.3))
    state = randn(generator, 1, 3)
    levels = [level[0].expand(3) for level in process.scales(t, state)]
    found = torch.autograd.functional.jacobian(lambda s: guided(s, t, y)[0], state)[:, 0]
    wanted = torch.func.jacrev(
        lambda s: conditional_mean(prior, matrix, 0.3, y[None], s[None], *levels)[0]
    )(state[0])
    assert torch.allclose(found, wanted, atol=1e-9)


def test_without_an_observation_the_guess_is_the_denoisers_own(generator):
    prior = two_modes(PROCESSES[0])
    state, t = randn(generator, 3, 2), torch.tensor(0.5, dtype=F64)
    assert torch.equal(
        MMPS(prior, LinearMeasurement(torch.eye(2), 1.0))(state, t), prior(state, t)
    )


# --- draws -----------------------------------------------------------------------------------


def test_draws_by_moment_matching_have_the_posteriors_moments(generator):
    """Mean and deviations within 5 standard errors, and the 2% that 100 steps leave."""
    n, noise = 4000, 0.3
    prior, matrix = gaussian_prior(generator, PROCESSES[0], 3), randn(generator, 2, 3)
    measurement = LinearMeasurement(matrix, noise)
    y = measurement.simulate(prior.draw(1, generator), generator)[0]
    exact = prior.posterior(matrix, y, noise)
    drawn = reconstruct(prior, measurement, y, n, generator=generator, dtype=F64).draws
    spread = exact.covariances[0].diagonal().sqrt()
    assert ((drawn.mean(0) - exact.means[0]).abs() < 5 * spread / math.sqrt(n) + 0.02).all()
    assert ((drawn.std(0) / spread - 1).abs() < 5 / math.sqrt(2 * n) + 0.02).all()


def test_only_exact_draws_have_misfit_one(generator):
    """(x, y) and (a draw of x given y, y) have one law, so that E |y - A x|^2 / m noise^2 = 1."""
    n = 2000
    prior, matrix = gaussian_prior(generator, PROCESSES[0], 3), randn(generator, 2, 3)
    measurement = LinearMeasurement(matrix, 0.3)
    y = measurement.simulate(prior.draw(n, generator), generator)
    mean, error = {}, {}
    for method, given in (("mmps", dict(sampler="dpm++2m")), ("dps", {})):
        found = reconstruct(
            prior,
            measurement,
            y,
            n,
            method=method,
            steps=60,
            generator=generator,
            dtype=F64,
            **given,
        ).misfit()
        mean[method], error[method] = float(found.mean()), float(found.std()) / math.sqrt(n)
    assert abs(mean["mmps"] - 1) < 5 * error["mmps"] + 0.02
    assert abs(mean["dps"] - 1) > 10 * error["dps"]


def test_dps_is_one_algorithm_whatever_the_process(generator):
    """The same gammas and the same noise give the same draws in VE and VP coordinates."""
    y = torch.tensor([0.3], dtype=F64)
    measurement = LinearMeasurement(torch.tensor([[1.0, 0.5]]), 0.3)
    gammas = torch.logspace(-2, 3, 21, dtype=F64)
    drawn = []
    for process in (EDM(0.01, 20), VP()):
        drawn.append(
            reconstruct(
                two_modes(process), measurement, y, 50, method="dps", plan=process.time(gammas),
                generator=torch.Generator().manual_seed(3), dtype=F64,
            ).draws
        )  # fmt: skip
    assert torch.allclose(*drawn, atol=1e-7)


def test_repaint_keeps_y_and_leaves_independent_coordinates_to_the_prior(generator):
    n, spread = 4000, torch.tensor([0.5, 0.8], dtype=F64)
    prior = GaussianMixture(
        PROCESSES[0], torch.tensor([[1.0, -2.0]]), torch.diag(spread**2)[None], torch.ones(1)
    )
    measurement, y = Inpainting(torch.tensor([True, False]), 0.1), torch.tensor([0.7], dtype=F64)
    drawn = reconstruct(
        prior, measurement, y, n, method="repaint", resamplings=2, steps=60,
        generator=generator, dtype=F64,
    ).draws  # fmt: skip
    assert (drawn[:, 0] == 0.7).all()
    assert abs(float(drawn[:, 1].mean()) + 2) < 5 * 0.8 / math.sqrt(n) + 0.02
    assert abs(float(drawn[:, 1].std()) / 0.8 - 1) < 5 / math.sqrt(2 * n) + 0.02


@pytest.mark.parametrize("process", PROCESSES)
def test_going_back_to_a_noisier_level_has_its_law(generator, process):
    x, n = torch.full((20_000, 1), 0.6, dtype=F64), 20_000
    s, t = torch.tensor(0.3, dtype=F64), torch.tensor(0.5, dtype=F64)
    state = renoise(process, process.corrupt(x, s, generator=generator), s, t, generator)
    alpha, sigma = (float(level) for level in process.scales(t, x[:1]))
    assert abs(float(state.mean()) - 0.6 * alpha) < 5 * sigma / math.sqrt(n)
    assert abs(float(state.std()) / sigma - 1) < 5 / math.sqrt(2 * n)


# --- particles -------------------------------------------------------------------------------


def chain_evidence(prior, matrix, noise, y, times):
    """log p(y) of the K-step model itself: its chain is linear in Gaussian noise."""
    process, dim = prior.process, prior.means.shape[1]
    eye = torch.eye(dim, dtype=F64)

    def gain(t):
        alpha, sigma = (float(level) for level in process.scales(t, eye[:1]))
        c = prior.covariances[0]
        return alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * eye)

    covariance = float(process.sigma(times[0])) ** 2 * eye
    for t, s in pairwise(times):
        kept, weight, spread = (float(c) for c in process.step(t, s))
        move = kept * eye + weight * gain(t)
        covariance = move @ covariance @ move.T + spread**2 * eye
    last = gain(times[-1])
    covariance = last @ covariance @ last.T
    variance = matrix @ covariance @ matrix.T + noise**2 * torch.eye(len(matrix))
    return torch.distributions.MultivariateNormal(torch.zeros(len(matrix), dtype=F64), variance)


def test_evidence_is_unbiased_for_the_steps_taken(generator):
    """Mean of exp(log_evidence) over 150 runs of 16 particles, within 4 standard errors.

    Eight steps are a nat from the continuous model, far more than that.
    """
    process, noise = EDM(0.05, 5), 0.4
    root = torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=F64)
    prior = GaussianMixture(process, torch.zeros(1, 2), (root @ root.T)[None], torch.ones(1))
    matrix, y = torch.tensor([[1.0, 0.5]], dtype=F64), torch.tensor([3.0], dtype=F64)
    times = torch.linspace(1, 0, 9, dtype=F64)
    goal = float(chain_evidence(prior, matrix, noise, y, times).log_prob(y))
    ratios = []
    for _ in range(150):
        found = reconstruct(
            prior, LinearMeasurement(matrix, noise), y, 1, method="twisted-smc", plan=times,
            particles=16, generator=generator, dtype=F64,
        ).particles  # fmt: skip
        ratios.append(math.exp(found.log_evidence - goal))
    error = np.std(ratios, ddof=1) / math.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * error
    assert abs(goal - prior.log_evidence(matrix, y, noise)) > 4 * error


def test_particles_converge_to_the_posterior_of_a_mixture(generator):
    """Weights of the modes, mean and evidence, within 5 standard errors at the least sample size
    and 2% for the 100 steps."""
    prior, noise = two_modes(PROCESSES[0]), 0.5
    matrix, y = torch.tensor([[1.0, 0.3]], dtype=F64), torch.tensor([0.1], dtype=F64)
    found = reconstruct(
        prior, LinearMeasurement(matrix, noise), y, 4000, method="twisted-smc",
        particles=8000, generator=generator, dtype=F64,
    )  # fmt: skip
    exact, particles = prior.posterior(matrix, y, noise), found.particles
    shares = exact.log_weights.exp()
    mean = shares @ exact.means
    deviation = (exact.draw(50_000, generator)).std(0)
    least = float(particles.ess.min())
    assert least > 500
    assert ((found.mean() - mean).abs() < 5 * deviation / math.sqrt(least) + 0.02).all()
    goal = prior.log_evidence(matrix, y, noise)
    assert abs(particles.log_evidence - goal) < 5 / math.sqrt(least) + 0.02
    assert particles.ancestors > 500
    assert float(particles.log_weights.logsumexp(0)) == pytest.approx(0, abs=1e-9)


def test_systematic_resampling_and_effective_size(generator):
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=F64)
    counts = torch.bincount(systematic(weights.log(), 1000, generator), minlength=4)
    assert ((counts - 1000 * weights).abs() <= 1).all()
    assert effective_size(weights.log() - 800) == pytest.approx(1 / 0.38)
    assert effective_size(torch.zeros(7)) == pytest.approx(7)


# --- the public call -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_and_repeats_itself(method):
    prior = two_modes(PROCESSES[1])
    measurement, y = Inpainting(torch.tensor([True, False]), 0.2), torch.tensor([0.4])
    first, again = (
        reconstruct(
            prior, measurement, y, 30, method=method, steps=12,
            generator=torch.Generator().manual_seed(5),
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.draws.shape == (30, 2)
    assert first.draws.dtype == torch.float32
    assert torch.isfinite(first.draws).all()
    assert torch.equal(first.draws, again.draws)
    low, high = first.interval(0.8)
    middle = first.draws.median(0).values
    assert ((low <= middle) & (middle <= high)).all()
    assert (first.particles is not None) == (method == "twisted-smc")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_coordinates_with_their_own_speeds(generator, method):
    """Two independent coordinates, one seen: its mean is the posterior's, the other's the prior's,
    within 5 standard errors and .1 (repaint and dps take y to be exact or nearly so)."""
    speeds, n = torch.tensor([1.0, 2.5], dtype=F64), 500
    process = Custom(
        lambda t: torch.ones(len(t), 2, dtype=F64),
        lambda t: 8 * t[:, None] ** 2 * speeds,
        t_range=(0.05, 1.0),
        shape=(2,),
    )
    mean, variance = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([1.0, 0.5], dtype=F64)
    prior = Linear(process, mean, variance, torch.eye(2, dtype=F64))
    measurement = Inpainting(torch.tensor([True, False]), 0.2)
    drawn = reconstruct(
        prior, measurement, torch.tensor([0.2], dtype=F64), n, method=method, steps=40,
        generator=generator, dtype=F64,
    ).draws.mean(0)  # fmt: skip
    seen = (1.0 + 0.2 / 0.2**2) / (1 + 1 / 0.2**2)
    assert abs(float(drawn[0]) - seen) < 5 * 0.2 / math.sqrt(n) + 0.1
    assert abs(float(drawn[1]) + 2) < 5 * 0.71 / math.sqrt(n) + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_but_repaint_takes_the_modes_of_a_basis(generator, method):
    """Gaussian data in cosines: the posterior mean, within 5 standard errors and .1."""
    speeds, n = torch.tensor([1.0, 1.3, 0.8, 1.2], dtype=F64), 500
    process = ModalProcess(EDM(0.01, 40), shape=(4,), basis="dct", speed=speeds, t_range=(0, 0.8))
    eye = torch.eye(4, dtype=F64)
    prior = Linear(process, torch.ones(4, dtype=F64), torch.ones(4, dtype=F64), eye)
    measurement = Inpainting(torch.tensor([True, False, False, True]), 0.2)
    y = torch.tensor([0.2, 1.5], dtype=F64)

    def draw():
        return reconstruct(
            prior, measurement, y, n, method=method, steps=50, generator=generator, dtype=F64
        ).draws.mean(0)

    if method == "repaint":
        with pytest.raises(InputError, match="modes of a basis"):
            draw()
        return
    seen = (1.0 + y / 0.2**2) / (1 + 1 / 0.2**2)
    exact = torch.stack([seen[0], eye[0, 0], eye[0, 0], seen[1]])
    assert ((draw() - exact).abs() < 5 / math.sqrt(n) + 0.1).all()


class Cut(Denoiser):
    """A denoiser that automatic differentiation does not pass through."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        return 0.5 * state.detach()


def test_bad_problems_get_one_sentence():
    prior, mask = two_modes(EDM()), torch.tensor([True, False])
    measurement, y = Inpainting(mask, 0.2), torch.tensor([0.4])
    with pytest.raises(InputError, match="positive standard deviation"):
        Inpainting(mask, 0.0)
    with pytest.raises(InputError, match=r"noise has shape \(3,\)"):
        Inpainting(mask, torch.ones(3))
    with pytest.raises(InputError, match="must be of bool"):
        Inpainting(mask.float(), 0.1)
    with pytest.raises(InputError, match="observes nothing"):
        Inpainting(~torch.ones(2, dtype=torch.bool), 0.1)
    with pytest.raises(InputError, match="has 3 columns, but points of shape"):
        LinearMeasurement(torch.ones(2, 3), 0.1, (2, 2))
    with pytest.raises(InputError, match="must be finite"):
        LinearMeasurement(torch.full((2, 3), torch.nan), 0.1)
    with pytest.raises(InputError, match="not linear"):
        LinearMeasurement(torch.tanh, 0.1, (2,))
    with pytest.raises(InputError, match=r"cannot be taken of points of shape \(2,\)"):
        Measurement(lambda x: x @ torch.ones(3, 1), (2,), 0.1)
    with pytest.raises(InputError, match="needs shape"):
        LinearMeasurement(torch.tanh, 0.1)
    with pytest.raises(InputError, match="one row of numbers for each point"):
        Measurement(lambda x: x.sum(1), (2,), 0.1)
    with pytest.raises(InputError, match=r"y has shape \(2,\); this measurement gives \(1,\)"):
        reconstruct(prior, measurement, torch.zeros(2), 5)
    with pytest.raises(InputError, match="1 values that are not finite"):
        reconstruct(prior, measurement, torch.tensor([torch.nan]), 5)
    wide = Inpainting(torch.tensor([True, False, True]), 0.1)
    with pytest.raises(InputError, match=r"takes no points of shape \(3,\)"):
        reconstruct(prior, wide, torch.zeros(2), 5)
    fixed = two_modes(EDM(shape=(2,)))
    with pytest.raises(InputError, match=r"points of shape \(3,\), but the denoiser's of \(2,\)"):
        reconstruct(fixed, wide, torch.zeros(2), 5)
    with pytest.raises(InputError, match="no method is called 'ddrm'"):
        reconstruct(prior, measurement, y, 5, method="ddrm")
    with pytest.raises(InputError, match="mmps takes no resamplings; it belongs to repaint"):
        reconstruct(prior, measurement, y, 5, resamplings=3)
    with pytest.raises(InputError, match="at least 1"):
        reconstruct(prior, measurement, y, 0)
    with pytest.raises(InputError, match="needs an Inpainting"):
        reconstruct(prior, LinearMeasurement(torch.ones(1, 2), 0.1), y, 5, method="repaint")
    many = torch.arange(5.0)[:, None]
    with pytest.raises(InputError, match="one observation at a time"):
        reconstruct(prior, measurement, many, 5, method="twisted-smc")
    with pytest.raises(InputError, match="cannot be differentiated"):
        reconstruct(Cut(EDM()), measurement, y, 5)
    on_sphere = Cut(Brownian(Sphere(2)))
    with pytest.raises(InputError, match="an inverse problem needs Gaussian noise"):
        reconstruct(on_sphere, measurement, y, 5)


@pytest.mark.slow
def test_the_study_runs_and_its_exact_rows_are_exact(tmp_path, monkeypatch):
    """Small: the rows that have a right value are within 4 standard errors of it."""
    from reverie.reproduce import inverse_digits, inverse_problems

    monkeypatch.setattr(inverse_digits, "FIT_STEPS", 60)
    rows = inverse_problems.inverse_mixture.gaussian_rows(0)
    assert max(row.ours for row in rows if row.quantity.endswith("mmps")) < 1e-10
    rows = inverse_problems.inverse_mixture.mixture_rows(tmp_path, 0, 30)
    by_name = {row.quantity: row for row in rows}
    for reading in ("energy distance to the posterior", "coverage of 90% intervals", "misfit"):
        for name in ("the posterior's own denoiser", "twisted-smc"):
            row = by_name[f"mixture: {reading}, {name}"]
            assert abs(row.ours - row.reference) < 4 * row.stderr + 0.01
    inverse_digits.digits_rows(tmp_path, 0, 2)
    assert len(list(tmp_path.glob("*.png"))) == 2
