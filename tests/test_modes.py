"""Noise per mode of a basis: against matrices, closed forms, and the plain process it contains."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from reverie.auditing.model.scores import SCORES, score
from reverie.curve import measure
from reverie.denoisers import Linear, Memoriser, Network, ResidualMLP, convert
from reverie.denoisers.conversions import PREDICTIONS
from reverie.errors import InputError
from reverie.information.flow import flow_density
from reverie.plan import plan_steps
from reverie.processes import EDM, VE, VP, Cosine, ModalProcess, Rectified, build, name_of
from reverie.runs.fitting import fit
from reverie.sampling import SAMPLERS, sample
from reverie.spaces import KarhunenLoeve, basis_named

KIND = torch.float64
SHAPE = (1, 4, 4)
BASES = ("identity", "dct", "fourier", "haar", "haar/1", "db2/2")


def modal(basis="haar", **settings):
    """Three speeds and three noise variances, one for each scale of Haar on 4 x 4."""
    settings = {"speed": [1.0, 1.2, 1.3], "spectrum": [1.0, 0.5, 0.3]} | settings
    return ModalProcess(VE(0.05, 20.0), shape=SHAPE, basis=basis, **settings)


def field(n, generator):
    """Correlated Gaussian rows (n, 1, 4, 4)."""
    x = torch.randn(n, *SHAPE, dtype=KIND, generator=generator)
    return x + 0.8 * x.roll(1, 2) + 0.5 * x.roll(1, 3)


def matrix(process):
    """B: its rows are the modes, (d, d)."""
    eye = torch.eye(16, dtype=KIND).reshape(16, *SHAPE)
    return process.to_modes(eye).flatten(1).T


def levels(process, t):
    like = torch.zeros(1, *SHAPE, dtype=KIND)
    return (level.expand(1, *SHAPE).flatten() for level in process.scales(t, like))


# --- bases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (4, 8), (3, 8, 16)])
@pytest.mark.parametrize("name", ["identity", "dct", "fourier", "haar", "db4/2"])
def test_bases_preserve_norms_and_invert(name, shape, generator):
    basis = basis_named(name, shape)
    x = torch.randn(5, *shape, dtype=KIND, generator=generator)
    modes = basis.to_modes(x)
    assert modes.shape == x.shape
    assert torch.allclose(modes.square().flatten(1).sum(1), x.square().flatten(1).sum(1))
    assert torch.allclose(basis.from_modes(modes), x, atol=1e-12)
    assert basis.bands.shape == shape
    assert basis.bands.unique().tolist() == list(range(basis.count))


def test_cosines_are_scipys_and_fourier_separates_frequencies(generator):
    x = torch.randn(3, 2, 6, 8, dtype=KIND, generator=generator)
    expected = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    assert np.allclose(basis_named("dct", (2, 6, 8)).to_modes(x), expected)
    wave = torch.cos(2 * math.pi * 3 * torch.arange(16, dtype=KIND) / 16 + 0.4)
    basis = basis_named("fourier", (16,))
    modes = basis.to_modes(wave[None])[0]
    assert torch.allclose(modes[basis.bands != 2], torch.zeros(12, dtype=KIND), atol=1e-12)
    assert modes[5:7].square().sum() == pytest.approx(8)


def test_karhunen_loeve_decorrelates_the_data(generator):
    x = field(50, generator)
    basis = KarhunenLoeve.of(x)
    modes = (basis.to_modes(x) - basis.to_modes(x.mean(0, keepdim=True))).flatten(1)
    found = modes.T @ modes / len(x)
    assert torch.allclose(found, torch.diag(basis.spectrum.flatten()), atol=1e-12)
    assert (basis.spectrum.flatten().diff() <= 0).all()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("haar/3", (4, 4), "halves 2 times"),
        ("haar", (5,), "halves 0 times"),
        ("haar/x", (8,), "whole number"),
        ("dct", (), "at least one axis"),
    ],
)
def test_bases_that_do_not_fit(name, shape, message):
    with pytest.raises(InputError, match=message):
        basis_named(name, shape)


# --- the process ----------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [VP(), EDM(), Rectified(), Cosine()])
def test_equal_speeds_are_the_standard_model(plain, generator):
    """To the last bits: levels, clock, its inverse, noising, kernel, reversal and rate."""
    same = ModalProcess(plain, shape=(3,))
    ones = ModalProcess(plain, shape=(3,), spectrum=torch.ones(3), speed=[1.0, 1.0, 1.0])
    x, z, guess = torch.randn(3, 6, 3, dtype=KIND, generator=generator)
    t, s = torch.full((6,), 0.6, dtype=KIND), torch.full((6,), 0.3, dtype=KIND)
    for process in (same, ones):
        state = plain.corrupt(x, t, end=z)
        pairs = [
            (process.corrupt(x, t, end=z), state),
            (process.clock(t), plain.clock(t)),
            (process.time(plain.clock(t)), plain.time(plain.clock(t))),
            (process.log_kernel(state, x, t), plain.log_kernel(state, x, t)),
            (process.rate(guess, x, state, t), plain.rate(guess, x, state, t)),
        ]
        draws = [
            p.reverse(guess, state, t, s, generator=torch.Generator().manual_seed(1))
            for p in (process, plain)
        ]
        priors = [
            p.sample_prior(4, shape=(3,), generator=torch.Generator().manual_seed(1), dtype=KIND)
            for p in (process, plain)
        ]
        for ours, theirs in [*pairs, tuple(draws), tuple(priors)]:
            assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_speeds_sample_like_the_standard_model(sampler, generator):
    if sampler == "ode":
        pytest.importorskip("torchdiffeq")
    x = field(30, generator)
    plain = VE(0.05, 20)
    process = ModalProcess(plain, shape=SHAPE, spectrum=[1.0] * 16)
    times = torch.linspace(1, 0, 9, dtype=KIND)
    ours, theirs = (
        sample(
            Memoriser(p, x), 5, times, sampler, shape=SHAPE, dtype=KIND,
            generator=torch.Generator().manual_seed(2),
        )
        for p in (process, plain)
    )  # fmt: skip
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm++2m", "dpm++2s", "unipc-3", "ode"])
def test_a_rotation_changes_nothing_for_equal_speeds(sampler, generator):
    """Deterministic solvers give the same points in every orthonormal basis."""
    if sampler == "ode":
        pytest.importorskip("torchdiffeq")
    x, start = field(30, generator), 20 * torch.randn(5, *SHAPE, dtype=KIND, generator=generator)
    times = torch.linspace(1, 0, 9, dtype=KIND)
    found = [
        sample(
            Linear.fit(ModalProcess(VE(0.05, 20), shape=SHAPE, basis=b, spectrum=[1.0] * n), x),
            5, times, sampler, init=start,
        )
        for b, n in (("identity", 16), ("haar", 3), ("dct", 3))
    ]  # fmt: skip
    tolerance = 1e-3 if sampler == "ode" else 1e-8  # its own steps are as fine as 1e-5
    assert torch.allclose(found[0], found[1], atol=tolerance)
    assert torch.allclose(found[0], found[2], atol=tolerance)


def test_log_kernel_is_the_gaussian_density_of_the_matrices(generator):
    process = modal()
    x, state = field(4, generator), field(3, generator)
    alpha, sigma = levels(process, 0.4)
    basis = matrix(process)
    law = torch.distributions.MultivariateNormal(
        (x.flatten(1) @ basis.T * alpha) @ basis, basis.T @ torch.diag(sigma**2) @ basis
    )
    expected = law.log_prob(state.flatten(1)[:, None])
    assert torch.allclose(process.log_kernel(state, x, 0.4), expected)


def test_clock_has_one_column_a_speed_and_the_spectrum_weighs_the_rate(generator):
    process = modal(speed=[1.0, 1.0, 1.3])
    assert process.columns == 2
    t = torch.tensor([0.3, 0.6], dtype=KIND)
    clock = process.clock(t)
    schedule = process.schedule
    assert torch.allclose(clock, torch.stack([schedule.clock(t), schedule.clock(1.3 * t)], 1))
    assert torch.allclose(process.time(clock), t, atol=1e-12)
    x, guess = field(2, generator), field(2, generator)
    modes = process.to_modes(x - guess).square() / process.variance
    fine = process.basis.bands == 2
    expected = 0.5 * torch.stack([modes[:, ~fine].sum(1), modes[:, fine].sum(1)], 1)
    assert torch.allclose(process.rate(guess, x, x, t), expected)


def test_a_step_is_charged_its_kl(generator):
    """Clock times rate, over the columns, against the KL of the two Gaussian reverse kernels."""
    process = modal()
    x, guess, state = field(3, generator), field(3, generator), field(3, generator)
    t, s = 0.7, 0.4
    basis = matrix(process)
    _, moved, noise = (c.flatten() for c in process.step(t, s))
    covariance = basis.T @ torch.diag(noise**2) @ basis
    mean = basis.T @ torch.diag(moved) @ basis
    apart = (x - guess).flatten(1) @ mean.T
    expected = 0.5 * (apart * torch.linalg.solve(covariance, apart.T).T).sum(1)
    found = process.charge(lambda *_: guess, x, state, t, s)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("basis", ["identity", "haar"])
def test_linear_score_matching_returns_the_exact_score(basis, generator):
    """Least squares on 400,000 draws: -(A S A + sigma^2)^-1 to 1e-3, near 2.5 standard errors."""
    n, dim = 400_000, 4
    speed = [1.0, 1.05, 1.1, 1.0] if basis == "identity" else [1.0, 1.05, 1.1]
    process = ModalProcess(VE(0.5, 2.5), shape=(dim,), basis=basis, speed=speed)
    root = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.8, 0, 0], [0.2, 0.3, 0.6, 0], [0, 0.4, 0, 0.9]])
    x = torch.randn(n, dim, dtype=KIND, generator=generator) @ root.double().T
    t = 0.75
    state = process.corrupt(x, t, generator=generator)
    fitted = torch.linalg.lstsq(state, x).solution.T
    _, sigma = (v.flatten() for v in process.scales(t, x[:1]))
    rows = process.to_modes(torch.eye(dim, dtype=KIND)).T
    noise = rows.T @ torch.diag(sigma**2) @ rows
    exact = -torch.linalg.inv(root.double() @ root.double().T + noise)
    score = torch.linalg.solve(noise, fitted - torch.eye(dim, dtype=KIND))
    assert (score - exact).abs().max() < 1e-3
    law = Linear(process, torch.zeros(dim, dtype=KIND), *torch.linalg.eigh(root @ root.T))
    guess = law(state[:9], torch.tensor(t))
    assert torch.allclose(guess, state[:9] @ (noise @ exact + torch.eye(dim)).T, atol=1e-6)


def test_the_area_of_the_ideal_curve_is_information(generator):
    """I(x; x_t) between two levels, 1/2 log det (1 + A S A / sigma^2), from the exact denoiser."""
    process = modal()
    x = field(2000, generator)
    law = Linear.fit(process, x)
    curve = measure(law, x, 32, generator=generator)
    basis = matrix(process)
    inside = basis @ law.covariance() @ basis.T
    ends = []
    for t in process.t_range:
        alpha, sigma = levels(process, t)
        ratio = alpha / sigma
        ends.append(0.5 * torch.logdet(torch.eye(16) + ratio[:, None] * inside * ratio))
    assert curve.u.shape == (32, 3)
    # 4 standard errors of 2000 rows and the interpolation of 32 levels stay below 1%
    assert curve.area() == pytest.approx(float(ends[0] - ends[1]), rel=0.01)


@pytest.fixture(scope="module")
def planned():
    generator = torch.Generator().manual_seed(0)
    process, x = modal(), field(400, generator)
    law = Linear.fit(process, x)
    return process, x, law, measure(law, x, 32, generator=generator)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_reaches_the_law(planned, sampler):
    """Exact denoiser, 80 steps: the covariance within 5 standard errors and the last level."""
    if sampler == "ode":
        pytest.importorskip("torchdiffeq")
    _, _, law, _ = planned
    n, generator = 1000, torch.Generator().manual_seed(3)
    times = torch.linspace(1, 0, 81, dtype=KIND)
    drawn = sample(law, n, times, sampler, generator=generator, dtype=KIND).flatten(1)
    expected = law.covariance()
    scale = expected.diag()
    tolerance = 5 * torch.sqrt((torch.outer(scale, scale) + expected**2) / n)
    if sampler in ("heun", "exponential-euler"):  # of low order in sigma/alpha
        tolerance = tolerance + 0.05
    if sampler == "predictor-corrector":  # Langevin steps of finite size widen the law
        tolerance = tolerance + 0.1 * torch.sqrt(torch.outer(scale, scale))
    assert (torch.abs(drawn.T.cov() - expected) < tolerance + 0.05**2).all()


def test_the_loss_adaptive_plan_is_the_cheapest(planned):
    process, _, _, curve = planned
    plan = plan_steps(curve, 10)
    assert plan.u.shape == (11, 3)
    assert 0 < plan.excess < plan_steps(curve, 10, method="log-snr").excess
    assert np.allclose(process.clock(torch.as_tensor(plan.times)), plan.u, rtol=0.02)


def test_a_curve_of_many_clocks_is_drawn_with_its_area(planned):
    from reverie.report.figures import curves_figure

    *_, curve = planned
    place, height = curve.per_fold
    drawn = np.trapezoid(height, np.log(place))
    assert drawn == pytest.approx(float((curve.weights * curve.rate).sum()))
    assert drawn == pytest.approx(curve.area(), rel=0.04)  # trapezia of 32 levels
    assert "<svg" in curves_figure({"train": curve, "holdout": curve})


def test_likelihood_is_the_noised_laws_density(planned):
    pytest.importorskip("torchdiffeq")
    process, x, law, _ = planned
    alpha, sigma = levels(process, process.t_range[0])
    basis = matrix(process)
    covariance = law.covariance() + basis.T @ torch.diag((sigma / alpha) ** 2) @ basis
    exact = torch.distributions.MultivariateNormal(law.mean.flatten(), covariance)
    found = flow_density(law, x[:2], probes=None, tolerance=1e-4)
    # the prior N(0, s_T^2) misses the data's variance at s_T > 11: 1/2 sum lam / s_T^2 nats
    assert torch.allclose(found.nats, exact.log_prob(x[:2].flatten(1)), atol=0.1)


def test_memoriser_equals_brute_force(generator):
    process, x = modal("db2/2"), field(7, generator)
    state = process.corrupt(x, 0.3, generator=generator)
    weights = process.log_kernel(state, x, 0.3).softmax(1)
    expected = (weights @ x.flatten(1)).reshape(x.shape)
    assert torch.allclose(Memoriser(process, x, chunk=3)(state, torch.tensor(0.3)), expected)


@pytest.mark.parametrize("source", PREDICTIONS)
def test_conversions_round_trip_in_modes(source, generator):
    process = modal("dct")
    clean, noise = field(3, generator), field(3, generator)
    t = torch.tensor(0.4, dtype=KIND)
    state = process.corrupt(clean, t, end=noise)
    value = convert(clean, state, t, process, "clean", source)
    assert torch.allclose(convert(value, state, t, process, source, "noise"), noise)


@pytest.mark.parametrize("name", SCORES)
def test_membership_scores_tell_training_rows(planned, name):
    process, x, _, _ = planned
    other = field(60, torch.Generator().manual_seed(9))
    model, generator = Memoriser(process, x[:60]), torch.Generator().manual_seed(1)
    inside, outside = (score(name, model, rows, 0.3, generator) for rows in (x[:60], other))
    # a memoriser is flat around most points, so that many a divergence is -1 on both sides
    least = 0.6 if name == "divergence" else 0.8
    assert (inside[:, None] < outside).double().mean() > least


def test_a_network_is_trained_in_modes_and_rebuilt_from_its_run(tmp_path, generator):
    from reverie.runs import Run

    x = field(64, generator).float().numpy()
    process = modal()
    run = fit(
        x, process=process, out=tmp_path / "run", steps=20, check_every=20, width=16, depth=1
    )
    again = Run.load(tmp_path / "run")
    assert name_of(again.process) == name_of(process)
    points = again.train_points()[:5]
    t = torch.tensor(0.5)
    assert torch.equal(again.denoiser(points, t), run.denoiser(points, t))


def test_the_loss_of_a_network_is_taken_in_modes(generator):
    """At its start the body gives 0: the weighted error of c_skip y in closed form."""
    process = modal()
    network = Network(process, ResidualMLP(SHAPE, 8, 1))
    x = field(3, generator).float()
    t = torch.full((3,), 0.5)
    state = process.corrupt(x, t, generator=generator)
    alpha, sigma = process.scales(t, x)
    view = process.to_modes(state) / alpha
    expected = process.from_modes(view / (1 + (sigma / alpha) ** 2))
    assert torch.allclose(network(state, t), expected, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        "modes:schedule=vp,basis=dct,shape=8",
        "modes:schedule=edm,basis=haar/2,shape=3x4x8,speed=1/1.5/2,spectrum=2/1/.5,sigma_max=20",
        "modes:schedule=rectified,basis=identity,shape=2,speed=1/.5,to=.9",
    ],
)
def test_a_spec_rebuilds_its_process(spec):
    process = build(spec)
    again = build(name_of(process))
    t = torch.linspace(*process.t_range, 5, dtype=KIND)
    assert name_of(again) == name_of(process)
    assert torch.equal(again.alpha(t), process.alpha(t))
    assert torch.equal(again.clock(t), process.clock(t))


def test_what_a_modal_process_refuses():
    ve = VE()
    refused = [
        (lambda: ModalProcess(ve, shape=(4,), speed=[1, 2]), "4 bands"),
        (lambda: ModalProcess(ve, shape=(2,), speed=[1, -1]), "positive"),
        (lambda: ModalProcess(ve, shape=(4,), basis=basis_named("dct", (8,))), "points"),
        (lambda: ModalProcess(modal(), shape=SHAPE), "one clock"),
        (lambda: ModalProcess(Cosine(), shape=(2,), speed=[1, 2.5]), "lower the speeds"),
        (lambda: build("modes:basis=haar"), "shape of a point"),
        (lambda: build("modes:shape=4xx"), "form 8x8"),
        (lambda: build("modes:shape=2,speed=1/fast"), "key=number"),
        (lambda: name_of(ModalProcess(ve, shape=(2,), speed=torch.ones(2))), "per mode"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
    data = torch.randn(5, 2)
    with pytest.raises(InputError, match="without a name"):
        name_of(ModalProcess(ve, shape=(2,), basis=KarhunenLoeve.of(data)))
