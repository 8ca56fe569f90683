"""Closed forms beyond the linear theory, each against brute force, quadrature or Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch

from reverie.curve import measure
from reverie.denoisers import Denoiser, Linear, Memoriser
from reverie.errors import InputError
from reverie.processes import EDM, VE, VP
from reverie.sampling import sample
from reverie.theory import copying, creativity, hidden_gaussian, partial_memorisation, regimes
from reverie.theory import denoising_identities as identities
from reverie.theory.random_features import (
    RandomFeatures,
    feature_constants,
    memorisation_time,
    sample_bulk,
)
from reverie.theory.saddle import SaddlePoint, measured_traces

SIGMAS = [0.1, 0.5, 1.0, 3.0]
WIDTHS = torch.tensor([2, 1.5, 1, 0.7, 0.5, 0.3], dtype=torch.float64)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# --- hidden Gaussian structure ----------------------------------------------------------------


def test_t14_edm_ten_levels():
    published = [80, 42.415, 21.109, 9.723, 4.066, 1.502, 0.470, 0.117, 0.020, 0.002]
    assert np.allclose(hidden_gaussian.edm_sigmas(10), published, atol=6e-4, rtol=0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_t15_memoriser_distils_to_its_gaussian(generator, sigma):
    data = normal(generator, 12, 6) * WIDTHS + 1
    process, draws = VE(), 40_000
    memoriser, linear = Memoriser(process, data), Linear.fit(process, data)
    t = float(hidden_gaussian.times_of(process, [sigma])[0])
    exact = hidden_gaussian.gaussian_map(linear, t)
    fitted = hidden_gaussian.distil(memoriser, data, t, draws=draws, generator=generator)
    # standard error of least squares: (residual per draw) * trace of the inverse Gram matrix
    states = process.corrupt(data.repeat(200, 1), t, generator=generator)
    residual = (memoriser(states, torch.tensor(t)) - exact(states)).square().sum(1).mean()
    noised = linear.covariance() + sigma**2 * torch.eye(6)
    stderr = math.sqrt(float(residual * torch.linalg.inv(noised).trace()) / draws)
    assert fitted.weight_stderr == pytest.approx(stderr, rel=0.1)
    assert float((fitted.weight - exact.weight).norm()) < 4 * stderr
    fresh = normal(generator, 2000, 6) * WIDTHS + 1
    held_out = hidden_gaussian.distil(memoriser, fresh, t, draws=draws, generator=generator)
    assert float((held_out.weight - exact.weight).norm()) > 8 * stderr


def test_distil_recovers_an_affine_map_whatever_the_inputs(generator):
    data = normal(generator, 200, 6) * WIDTHS + 1
    process = VP()
    linear = Linear.fit(process, data)
    fitted = hidden_gaussian.distil(
        linear, normal(generator, 30, 6) - 3, 0.4, draws=500, generator=generator
    )
    exact = hidden_gaussian.gaussian_map(linear, 0.4)
    assert fitted.weight_error(exact) < 1e-9
    assert torch.allclose(fitted.bias, exact.bias, atol=1e-9)
    state = normal(generator, 5, 6)
    assert torch.allclose(exact(state), linear(state, torch.tensor(0.4)), atol=1e-10)


def test_t16_linearity_is_one_for_a_centred_affine_map(generator):
    data = normal(generator, 50, 6) * WIDTHS + 2
    process = VP()
    linear, memoriser = Linear.fit(process, data), Memoriser(process, data)
    t = [0.05, 0.3, 0.7]
    score = hidden_gaussian.linearity(linear, data, t, generator=generator)
    assert np.allclose(score.cosine.mean, 1, atol=1e-12)
    assert np.allclose(score.nmse.mean, 0, atol=1e-9)
    raw = hidden_gaussian.linearity(
        linear, data, t, centre=torch.zeros(6, dtype=torch.float64), generator=generator
    )
    assert (raw.cosine.mean < 1 - 1e-5).any()  # an affine map about the wrong centre is not linear
    copy = hidden_gaussian.linearity(memoriser, data, [0.05], generator=generator)
    assert copy.cosine.mean[0] < 0.98


def test_distance_of_two_shifted_gaussians(generator):
    process, mean = VE(), normal(generator, 6)
    basis, spectrum = torch.eye(6, dtype=torch.float64), WIDTHS.square()
    first, second = (Linear(process, m, spectrum, basis) for m in (mean, 0 * mean))
    t = hidden_gaussian.times_of(process, SIGMAS)
    measured = hidden_gaussian.distance(first, second, normal(generator, 10, 6), t)
    for sigma, value in zip(SIGMAS, measured.mean, strict=True):
        apart = sigma**2 / (spectrum + sigma**2) * mean
        assert value == pytest.approx(float(apart.square().mean().sqrt()), rel=1e-9)
    assert np.allclose(measured.stderr, 0, atol=1e-12)


def test_generalisation_score_of_a_copy_and_of_a_stranger():
    data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert hidden_gaussian.generalisation_score(data, data) == pytest.approx(0, abs=1e-12)
    assert hidden_gaussian.generalisation_score(torch.tensor([[4.0, 0.0]]), data) == 0.75


# --- dynamical regimes ------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 64, 4096])
def test_t17_cloning_at_speciation(dim):
    t = regimes.speciation_time([float(dim), 1.0])
    assert regimes.cloning_probability(t, math.sqrt(dim))[0] == pytest.approx(0.77520, abs=5e-6)


def test_cloning_against_clones(generator):
    t, separation, variance, draws = 0.9, 3.0, 0.6, 200_000
    decay = math.exp(-t)
    width = math.sqrt(1 - decay**2 + variance * decay**2)
    y = separation * decay + width * normal(generator, draws)
    plus = torch.sigmoid(2 * separation * decay * y / width**2)
    clones = torch.rand(2, draws, generator=generator, dtype=torch.float64) < plus
    same = (clones[0] == clones[1]).double()
    error = float(same.std()) / math.sqrt(draws)
    exact = regimes.cloning_probability(t, separation, variance)[0]
    assert abs(float(same.mean()) - exact) < 4 * error


def test_cloning_limits():
    near, far = regimes.cloning_probability([1e-3, 12.0], 8.0)
    assert near == pytest.approx(1, abs=1e-6)
    assert far == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "dim", "variance"), [(20_000, 256, 1.0), (20_000, 4096, 1.0), (50, 3, 0.2)]
)
def test_t18_collapse_root_is_the_closed_form(count, dim, variance):
    root = regimes.collapse_time(count, np.full(dim, variance))
    assert root == pytest.approx(regimes.isotropic_collapse_time(count, dim, variance), rel=1e-9)


def test_collapse_root_solves_its_equation_for_a_long_spectrum():
    spectrum = np.append(64 / np.arange(1, 65) ** 2.0, 0.0)
    sigma = regimes.collapse_sigma(2000, spectrum)
    assert 0.5 * np.log1p(spectrum / sigma**2).sum() == pytest.approx(math.log(2000), rel=1e-10)
    t = regimes.collapse_time(2000, spectrum)
    assert regimes.ve_sigma(t) == pytest.approx(sigma, rel=1e-10)
    assert regimes.gaussian_excess_entropy(2000, spectrum, t)[0] == pytest.approx(0, abs=1e-8)


def test_t18_excess_entropy_ends(generator):
    data = normal(generator, 500, 16)
    t_c = regimes.isotropic_collapse_time(500, 16)
    found = regimes.excess_entropy(
        data, [0.05, 0.2 * t_c, t_c, 2 * t_c, 5.0], draws=600, generator=generator
    )
    assert (found.nats >= 0).all()
    assert found.ratio[0] < 1e-6
    assert 0.05 < found.ratio[2] < 0.5  # a finite set still lacks nats at the collapse
    assert found.ratio[4] == pytest.approx(1, abs=0.01)
    assert t_c * 0.2 < found.crossing(0.2) < 2 * t_c


def test_excess_entropy_and_the_memorisers_curve_share_the_log_of_n(generator):
    """Missing nats plus the area of the memoriser's training curve are ln n (I-MMSE)."""
    data = normal(generator, 30, 4)
    process = VE(sigma_min=0.3, sigma_max=200.0)
    curve = measure(Memoriser(process, data), data.repeat(60, 1), 80, generator=generator)
    gamma = np.array([0.05, 0.3, 1.0])
    times = regimes.ou_time(np.sort(gamma**-0.5))
    missing = regimes.excess_entropy(data, times, draws=20_000, generator=generator)
    before = float(curve.u[0] * curve.rate[0])  # the flat tail below the first level
    areas = [before + curve.area(stop=float(g)) for g in sorted(gamma, reverse=True)]
    error = math.hypot(curve.area_stderr() or 0, float(missing.stderr.max()))
    assert np.abs(missing.nats + areas - math.log(30)).max() < 4 * error


def test_last_switches_of_paths_written_by_hand():
    data = torch.tensor([[0.0], [4.0]])
    paths = [torch.tensor(x)[:, None] for x in ([0.1, 1.0, 0.3], [0.1, 1.0, 0.3], [0.1, 1.0, 3.9])]
    switches = regimes.last_switches(paths, data, [1.0, 0.5, 0.0])
    # the middle between the shrunk points is at 2 e^-t: .74, 1.21, 2
    assert switches.tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(InputError):
        regimes.last_switches(paths, data, [1.0, 0.5])


def test_paths_of_the_memoriser_settle_near_the_collapse(generator):
    data = normal(generator, 300, 24)
    process, t_c = VP(), regimes.isotropic_collapse_time(300, 24)
    grid = np.linspace(4 * t_c, 0.02, 120)
    times = process.time(torch.as_tensor(regimes.ve_sigma(grid)) ** -2)
    start = process.sample_prior(200, shape=(24,), generator=generator, dtype=torch.float64)
    states = sample.states(Memoriser(process, data), 200, times, init=start, generator=generator)
    path = [start, *list(states)[:-1]]
    switches = regimes.last_switches(path, data, grid)
    assert 0.5 * t_c < switches.mean() < 1.5 * t_c


def test_regimes_refuse_what_has_no_answer(generator):
    with pytest.raises(InputError):
        regimes.speciation_time([0.5, 1.0])
    with pytest.raises(InputError):
        regimes.collapse_time(1, [1.0])
    with pytest.raises(InputError):
        regimes.collapse_time(10, [0.0])
    with pytest.raises(InputError):
        regimes.excess_entropy(normal(generator, 5, 2), [0.5, 0.1])


# --- random features --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "b", "v2", "s2"),
    [(0.01, 0.085233, 0.025542, 1.874e-3), (0.1, 0.257884, 0.013841, 0.013569)],
)
def test_t19_tanh_constants(t, b, v2, s2):
    found = feature_constants(t)
    assert found.a == pytest.approx(0.605706, abs=1e-6)
    assert (found.b, found.v2) == pytest.approx((b, v2), abs=1e-6)
    assert found.s2 == pytest.approx(s2, rel=5e-4)


def test_feature_constants_against_another_quadrature():
    """Total second moment, and a = E[act'(Gam z)], by adaptive quadrature; scale 1.3."""
    found = feature_constants(0.3, scale=1.3)
    spread = math.sqrt(1.3**2 * math.exp(-0.6) + found.delta)

    def expect(f):
        def weighted(z):
            return f(spread * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return scipy.integrate.quad(weighted, -12, 12, epsabs=1e-12)[0]

    assert found.a == pytest.approx(expect(lambda h: 1 - math.tanh(h) ** 2), rel=1e-8)
    assert found.b == pytest.approx(math.sqrt(found.delta) * found.a, rel=1e-8)
    total = found.a**2 * 1.3**2 * math.exp(-0.6) + found.v2 + found.b**2 + found.s2
    assert total == pytest.approx(expect(lambda h: math.tanh(h) ** 2), rel=1e-8)


def test_t19_spectrum_counts(generator):
    dim, psi_n, psi_p = 20, 8, 64
    constants = feature_constants(0.01)
    model = RandomFeatures.draw(
        constants, psi_p * dim, psi_n * dim, np.ones(dim), generator=generator
    )
    groups = model.groups()
    counts = [len(values) for values in groups.values()]
    assert counts == [(psi_p - psi_n - 1) * dim, dim, (psi_n - 1) * dim, dim]
    assert np.allclose(groups["null"], constants.s2, rtol=1e-8)
    low, high = sample_bulk(constants, psi_n, psi_p)
    assert groups["soft"].min() > 1.2 * constants.s2
    assert groups["soft"].max() < 0.3 * low
    assert groups["sample"].min() > 0.9 * low
    assert groups["sample"].max() < 1.1 * high
    assert groups["population"].min() > 10 * high


def test_losses_at_infinity_and_on_the_way(generator):
    """Against a linear solve and the matrix exponential of the flow."""
    constants, spectrum = feature_constants(0.1), np.array([1.6, 1.2, 0.8, 0.4])
    model = RandomFeatures.draw(constants, 12, 9, spectrum, generator=generator)
    gram, fresh = model.gram.numpy(), model.population_gram.numpy()
    seen = constants.b / 2 * model.weight.numpy()
    delta = constants.delta

    def losses(a):  # a = A / sqrt(p)
        linear = 2 * math.sqrt(delta) / 4 * np.trace(a @ seen)
        return [1 + linear + delta / 4 * np.trace(a @ m @ a.T) for m in (gram, fresh)]

    best = -(seen.T @ np.linalg.inv(gram)) / math.sqrt(delta)
    tau = 7.0
    partly = best @ (np.eye(12) - scipy.linalg.expm(-2 * delta * tau * 4 / 12 * gram))
    train, test = model.losses([0, tau, np.inf])
    assert [train[0], test[0]] == [1, 1]
    assert [train[1], test[1]] == pytest.approx(losses(partly), rel=1e-9)
    assert [train[2], test[2]] == pytest.approx(losses(best), rel=1e-9)
    oracle = math.exp(-0.2) * (spectrum / (spectrum * math.exp(-0.2) + delta)).mean()
    assert model.oracle() == pytest.approx(oracle)


def test_gaussian_equivalence_with_real_tanh_features(generator):
    """Train and test loss of actual features on noised points, within finite-size 4 percent."""
    dim, features, count, copies, t = 60, 120, 180, 150, 0.1
    constants = feature_constants(t)
    decay, spread = math.exp(-t), math.sqrt(constants.delta)
    actual, equivalent = [], []
    for _ in range(3):
        weight = normal(generator, features, dim)
        moments = []
        for data in (normal(generator, count, dim), normal(generator, 6000, dim)):
            rows = data.repeat(max(1, copies * count // len(data)), 1)
            noise = normal(generator, *rows.shape)
            hidden = torch.tanh((decay * rows + spread * noise) @ weight.T / math.sqrt(dim))
            moments.append((hidden.T @ hidden / len(rows), hidden.T @ noise / len(rows)))
        (gram, seen), (fresh, fresh_seen) = moments
        best = torch.linalg.solve(gram, seen)
        test = 1 - 2 / dim * (best * fresh_seen).sum() + (best * (fresh @ best)).sum() / dim
        actual.append([1 - float((seen * best).sum()) / dim, float(test)])
        model = RandomFeatures.draw(constants, features, count, np.ones(dim), generator=generator)
        equivalent.append([float(v[0]) for v in model.losses([np.inf])])
    assert np.mean(actual, 0) == pytest.approx(np.mean(equivalent, 0), rel=0.04)


def test_memorisation_time_grows_like_n():
    constants = feature_constants(0.1)
    times = [memorisation_time(constants, n, 4096) for n in (16, 32, 64)]
    assert np.diff(np.log2(times)) == pytest.approx([1, 1], abs=0.25)


def test_t20_saddle_point_against_simulation(generator):
    dim, psi_n, psi_p, draws = 60, 3, 4, 6
    spectrum = np.linspace(0.2, 1.8, dim)
    saddle = SaddlePoint(feature_constants(0.1), psi_n, psi_p, spectrum)
    models = [
        RandomFeatures.draw(
            saddle.constants, psi_p * dim, psi_n * dim, spectrum, generator=generator
        )
        for _ in range(draws)
    ]
    for z in (-0.1 + 0j, 0.3 + 0.2j, 2 + 0.5j):
        exact = saddle.solve(z)
        assert np.abs(saddle.residuals(z, exact)).max() < 1e-9
        for name in ("q", "r", "s"):
            found = np.array([getattr(measured_traces(m, z), name) for m in models])
            error = found.std(ddof=1) / math.sqrt(draws)
            goal = getattr(exact, name)
            assert abs(found.mean() - goal) < 4 * error + abs(goal) / dim  # bias is O(1/d)


def test_saddle_density_holds_the_share_of_each_group():
    saddle = SaddlePoint(feature_constants(0.01), 8, 64, np.ones(1))
    x = np.geomspace(2.5e-3, 200, 1500)
    density = saddle.density(x, width=3e-4)
    for low, high, mass in ((0.0028, 0.05, 1), (0.05, 0.6, 7), (5, 200, 1)):
        inside = (x > low) & (x < high)
        found = 64 * np.trapezoid(density[inside], np.log(x[inside]))
        assert found == pytest.approx(mass, rel=0.1)


# --- score machines ---------------------------------------------------------------------------


@pytest.fixture
def images(generator):
    return normal(generator, 6, 2, 5, 5)


@pytest.fixture
def noised(generator):
    return normal(generator, 3, 2, 5, 5), torch.tensor([0.2, 0.35, 0.5], dtype=torch.float64)


def test_t21_windows_that_cover_the_image(images, noised):
    process = EDM()
    state, t = noised
    copy = Memoriser(process, images)(state, t)
    orbit = torch.cat([images.roll((a, b), (2, 3)) for a in range(5) for b in range(5)])
    for machine in (
        creativity.ideal(process, images),
        creativity.local(process, images, 5),
        creativity.local(process, images, 9, "zero"),
        creativity.equivariant_local(process, images, 9, "zero"),  # every border is its own
    ):
        assert torch.allclose(machine(state, t), copy, atol=1e-12)
    shifted = Memoriser(process, orbit)(state, t)
    for machine in (
        creativity.equivariant(process, images),
        creativity.equivariant_local(process, images, 5),
    ):
        assert torch.allclose(machine(state, t), shifted, atol=1e-12)


def test_t21_shifts(images, noised):
    process = VP()
    state, t = noised

    def apart(machine):
        moved = machine(state.roll((2, 1), (2, 3)), t)
        return float((moved - machine(state, t).roll((2, 1), (2, 3))).abs().max())

    assert apart(creativity.equivariant_local(process, images, 3)) < 1e-12
    assert apart(creativity.equivariant(process, images)) < 1e-12
    assert apart(creativity.local(process, images, 3)) > 0.01
    assert apart(creativity.equivariant_local(process, images, 3, "zero")) > 0.01


@pytest.mark.parametrize("boundary", creativity.BOUNDARIES)
def test_equivariant_local_against_a_list_of_patches(generator, boundary):
    data, state = normal(generator, 3, 1, 4, 5), normal(generator, 2, 1, 4, 5)
    process, t = VP(), torch.tensor([0.3, 0.5], dtype=torch.float64)
    machine = creativity.equivariant_local(process, data, 3, boundary)
    machine.chunk = 1  # one candidate at a time: the stream itself is under test
    guess = machine(state, t)
    alpha, sigma = (v.flatten() for v in process.scales(t, state))

    def cut(image, i, j):  # patch, with nan where it leaves the frame
        out = torch.full((3, 3), torch.nan, dtype=torch.float64)
        for a in range(3):
            for b in range(3):
                row, column = i + a - 1, j + b - 1
                if boundary == "circular":
                    out[a, b] = image[row % 4, column % 5]
                elif 0 <= row < 4 and 0 <= column < 5:
                    out[a, b] = image[row, column]
        return out

    places = [(i, j) for i in range(4) for j in range(5)]
    patches = [(cut(x[0], i, j), x[0, i, j]) for x in data for i, j in places]
    for k in range(2):
        for i, j in places:
            own = cut(state[k, 0] / alpha[k], i, j)
            match = [p for p in patches if torch.equal(p[0].isnan(), own.isnan())]
            square = torch.stack([(p - own).square().nansum() for p, _ in match])
            weights = torch.softmax(-square * (alpha[k] / sigma[k]) ** 2 / 2, 0)
            mean = (weights * torch.stack([centre for _, centre in match])).sum()
            assert float(guess[k, 0, i, j]) == pytest.approx(float(mean), abs=1e-12)


def test_black_and_white_pixels_follow_their_patch_majority(generator):
    """At vanishing noise each pixel is the centre of the closest patch (Kamb & Ganguli)."""
    data = torch.stack([torch.ones(1, 8, 8), -torch.ones(1, 8, 8)]).double()
    state = normal(generator, 4, 1, 8, 8)
    machine = creativity.equivariant_local(EDM(), data, 3)
    wrapped = torch.nn.functional.pad(state, (1, 1, 1, 1), mode="circular")
    majority = torch.nn.functional.avg_pool2d(wrapped, 3, 1).sign()
    assert torch.equal(machine(state, torch.zeros(4)), majority)


def test_patch_side_may_follow_the_noise_and_is_found_again(generator, images):
    process = EDM()
    wide = creativity.local(process, images, lambda spread: 5 if spread > 1 else 3)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    state = normal(generator, 2, 2, 5, 5)
    for k, side in enumerate((3, 5)):
        fixed = creativity.local(process, images, side)
        assert torch.equal(wide(state, t)[k], fixed(state, t)[k])
    states = [process.corrupt(images, float(s), generator=generator) for s in t]
    sides = creativity.calibrate_patch(
        wide, lambda side: creativity.local(process, images, side), states, t.tolist(), [1, 3, 5]
    )
    assert sides == [3, 5]


def test_score_machines_refuse_bad_input(images):
    for arguments in (dict(patch=2), dict(patch=3, boundary="mirror")):
        with pytest.raises(InputError):
            creativity.ScoreMachine(EDM(), images, **arguments)
    with pytest.raises(InputError):
        creativity.ScoreMachine(EDM(), images, equivariant=True, boundary="zero")
    with pytest.raises(InputError):
        creativity.ideal(EDM(), images.flatten(1))


# --- identities of denoising ------------------------------------------------------------------


class Mixture(Denoiser):
    """Exact denoiser of an even mixture of Gaussians of variance .25; `factor` spoils it."""

    def __init__(self, process, centres, factor=1.0):
        super().__init__()
        self.process, self.centres, self.factor = process, centres, factor

    def draw(self, n, generator):
        rows = torch.randint(len(self.centres), (n,), generator=generator)
        return self.centres[rows] + 0.5 * normal(generator, n, self.centres.shape[1])

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        width = 0.25 * alpha**2 + sigma**2
        apart = state[:, None] - alpha[:, None] * self.centres
        weights = torch.softmax(-apart.square().sum(2) / (2 * width), 1)
        own = self.centres + (0.25 * alpha / width)[:, None] * apart
        return self.factor * (weights[:, :, None] * own).sum(1)


@pytest.mark.parametrize(("process", "t"), [(VP(), 0.35), (VE(), 0.55)])
def test_t22_jacobian_error_and_sure(generator, process, t):
    exact = Mixture(process, 2 * normal(generator, 3, 3))
    clean = exact.draw(4000, generator)
    state = process.corrupt(clean, t, generator=generator)
    matrices = identities.jacobian(exact, state, t)
    assert float(identities.asymmetry(matrices).max()) < 1e-10
    assert float(identities.least_eigenvalue(matrices).min()) > -1e-10
    given = torch.full((4000,), t, dtype=torch.float64)

    def agrees(difference):
        return abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(4000)

    square = (exact(state, given) - clean).square().sum(1)
    assert agrees(square - identities.posterior_variance(exact, process, state, t))
    assert agrees(square - identities.sure(exact, process, state, t))
    wrong = Mixture(process, exact.centres, factor=0.7)
    square = (wrong(state, given) - clean).square().sum(1)
    assert agrees(square - identities.sure(wrong, process, state, t))
    assert not agrees(square - identities.posterior_variance(wrong, process, state, t))


def test_memorisers_jacobian_is_the_posterior_covariance(generator):
    data, process, t = normal(generator, 5, 1, 1, 3), VP(), torch.tensor(0.4).double()
    state = normal(generator, 4, 1, 1, 3)
    memoriser = creativity.ideal(process, data)
    weights = torch.softmax(process.log_kernel(state, data, t), 1)
    centred = (data[None] - memoriser(state, t)[:, None]).flatten(2)
    covariance = torch.einsum("bn,bni,bnj->bij", weights, centred, centred)
    alpha, sigma = (float(v) for v in process.scales(t, state[:1]))
    found = identities.jacobian(memoriser, state, t) * sigma**2 / alpha
    assert torch.allclose(found, covariance, atol=1e-10)


@pytest.mark.parametrize("a", [1.0, 2.0, 3.0, 5.0])
def test_term_oracle_slopes(a):
    k = np.arange(1, 400_001)
    sigma = np.geomspace(1e-4, 1e-3, 5) ** min(1.0, (a + 1) / 4)
    error = identities.term_oracle(k ** (-(a + 1) / 2), sigma)
    slope = np.polyfit(2 * np.log(sigma), np.log(error), 1)[0]
    assert slope == pytest.approx(a / (a + 1), rel=0.03)
    assert identities.term_oracle([5, 5, 5, 0], 0.1) == pytest.approx(0.03)


# --- copying ----------------------------------------------------------------------------------


def test_t23_bounded_score_errors_still_memorise(generator):
    data, bandwidth, n = normal(generator, 8, 4), 0.3, 1000
    process = VE(1e-8, 80.0)
    memoriser = Memoriser(process, data)
    times = copying.geometric_times(process, 80.0, 1e-8, 300)

    def run(denoiser, sampler):
        states = list(
            sample.states(
                denoiser, n, times, sampler, shape=(4,), generator=generator, dtype=torch.float64
            )
        )
        near, index = copying.nearest_two(states[-2], data)  # before the last denoise
        return float(near[:, 0].median()), torch.bincount(index, minlength=8) / n

    bounded = copying.PerturbedScore(memoriser, lambda x, t: 2 * torch.sin(3 * x))
    for sampler in ("ancestral", "ddim"):
        distance, weights = run(bounded, sampler)
        assert distance < 1e-6
        # the support stays and the weights move: 1/8 each would be within 4 standard errors
        assert float((weights - 1 / 8).abs().max()) > 4 * math.sqrt(1 / 8 * 7 / 8 / n)
        distance, weights = run(memoriser, sampler)
        assert distance < 1e-6
        assert float((weights - 1 / 8).abs().max()) < 4 * math.sqrt(1 / 8 * 7 / 8 / n)
    distance, _ = run(copying.Smoothed(memoriser, bandwidth), "ancestral")
    # a chi law with 4 degrees of freedom, shortened where clusters overlap
    assert 0.8 * bandwidth * math.sqrt(3.357) < distance < 1.05 * bandwidth * math.sqrt(3.357)


@pytest.mark.parametrize("dim", [2, 4])
def test_t24_null_rate_of_the_ratio_test(generator, dim):
    """Points uniform in a ball about the sample: the ratio to the power d is uniform."""
    trials, hits = 3000, 0.0
    for _ in range(trials):
        direction = torch.nn.functional.normalize(normal(generator, 20, dim), dim=1)
        radius = torch.rand(20, 1, generator=generator, dtype=torch.float64) ** (1 / dim)
        hits += copying.copied_share(torch.zeros(1, dim), direction * radius)
    rate = copying.null_copied_share(dim)
    assert abs(hits / trials - rate) < 4 * math.sqrt(rate * (1 - rate) / trials)


@pytest.mark.parametrize("snr", [1.0, 4.0])
def test_generalising_excess_over_the_memoriser(generator, snr):
    """The true mixture's denoiser on its training set, against the closed form."""
    dim, count = 50, 200
    centres = math.sqrt(dim) * torch.nn.functional.normalize(normal(generator, 12, dim), dim=1)
    data = centres[torch.randint(12, (count,), generator=generator)]
    data = data + normal(generator, count, dim)
    process = EDM(0.05, 80)
    t = process.time(snr)
    state = process.corrupt(data.repeat(20, 1), t, generator=generator)
    logits = -(state[:, None] - centres).square().sum(2) / (2 * (1 + 1 / snr))
    centre = torch.softmax(logits, 1) @ centres
    guess = centre + (state - centre) * snr / (1 + snr)
    clean = data.repeat(20, 1)
    copied = Memoriser(process, data)(state, t)
    gap = (guess - clean).square().sum(1) - (copied - clean).square().sum(1)
    by_point = gap.reshape(20, count).mean(0)  # the finite training set is the larger error
    error = float(by_point.std()) / math.sqrt(count)
    exact = partial_memorisation.generalising_excess([snr], dim)[0]
    assert abs(float(by_point.mean()) - exact) < 4 * error


def test_partial_excess_against_the_nearest_kept_point(generator):
    """Without noise a forgotten point is mistaken for its nearest neighbour in memory."""
    data, process = normal(generator, 40, 12), VE(1e-3, 10.0)
    excess, error = partial_memorisation.partial_excess(
        process, data, 25, 0.0, generator=generator
    )
    near = torch.cdist(data[25:], data[:25]).amin(1).square().sum() / 40
    assert excess == pytest.approx(float(near), abs=4 * error + 1e-6)
    whole, _ = partial_memorisation.partial_excess(process, data, 40, 0.5, generator=generator)
    assert whole == 0


def test_crossover_balances_the_two_losses():
    snr, weights = np.array([0.5, 2.0, 8.0]), np.array([1.0, 2.0, 1.0])
    share = partial_memorisation.crossover_share(snr, weights, 0.7, constant=1.5)
    general = weights @ partial_memorisation.generalising_excess(snr, 9, 0.7) / weights.sum()
    assert 1.5 * 9 * 0.7 * (1 - share) == pytest.approx(general)
