"""Diffusion on functions: grids, covariance operators, the neural operator, and their losses."""

import math

import numpy as np
import pytest
import torch

from reverie import Run, audit, fit, measure, plan_steps, sample
from reverie.auditing.finding import FINDINGS
from reverie.denoisers import (
    FourierNeuralOperator,
    Linear,
    Memoriser,
    Network,
    ResidualMLP,
    on_grid,
)
from reverie.denoisers.networks.operator import Waves
from reverie.errors import InputError
from reverie.objectives import Denoising, FunctionLoss, cameron_martin, sobolev
from reverie.objectives.functional import (
    excess_roughness,
    random_observations,
    spectral_cameron_martin,
)
from reverie.processes import (
    EDM,
    RBF,
    VP,
    Covariance,
    Exponential,
    FunctionNoise,
    Matern,
    PowerLaw,
    build,
    name_of,
)
from reverie.reproduce import functional
from reverie.reproduce.curve_scores import autocorrelation, curve_scores, statistics
from reverie.runs.config import FitConfig
from reverie.runs.trainer import Trainer
from reverie.spaces import Functions
from reverie.theory.functional import optimal_loss, posterior_covariance

UNIT = Functions.regular(32)


def gaussian(space, covariance, count, generator):
    """Draws (count, *shape) in float64 of a Gaussian function on the grid."""
    values, vectors = torch.linalg.eigh(covariance.on(space))
    noise = torch.randn(count, space.dim, generator=generator, dtype=torch.float64)
    return (noise * values.clamp(min=0).sqrt() @ vectors.T).reshape(-1, *space.shape)


def two_lines(space, count, generator):
    """Functions +-(10 x - 5) plus a Gaussian of RBF covariance, in units of their deviation."""
    noise = gaussian(space, RBF(0.1, 0.4), count, generator)
    sign = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    return ((noise + sign * (10 * space.points[:, 0] - 5)) / 2.955).float()


def small_network(process, **settings):
    torch.manual_seed(0)
    space = process.space
    settings = {"modes": 6, "width": 16, "depth": 2} | settings
    body = FourierNeuralOperator(space, **settings)  # type: ignore[arg-type]
    return Network(process, body)


def trained(process, data, steps, norm=None, observe=0, **settings):
    network = small_network(process, **settings)
    config = FitConfig(steps=steps, batch_size=64, lr=2e-3, check_every=10 * steps)
    trainer = Trainer(network, data, None, config)
    trainer.objective = Denoising(network, FunctionLoss(process, norm, observe))
    for _ in trainer.events():
        pass
    trainer.averaged().__enter__()
    return network.eval()


# --- grids ---------------------------------------------------------------------------------------


def test_quadrature_weights_are_the_cells_of_the_grid():
    ends = Functions.regular(5, ends=True)
    assert torch.allclose(ends.weights, torch.tensor([0.125, 0.25, 0.25, 0.25, 0.125]).double())
    own = Functions([0.1, 0.2, 0.7])
    assert torch.allclose(own.weights, torch.tensor([0.15, 0.3, 0.55]).double())
    kinds = [grid.uniform for grid in (own, ends, Functions.regular((4, 6)))]
    assert kinds == [False, False, True]


def test_norms_are_those_of_functions_on_every_grid():
    """|sin 2 pi x|^2 = 1/2 and its slope's is 2 pi^2; half a cell is missing at each end."""
    generator = torch.Generator().manual_seed(0)
    irregular = Functions(torch.rand(400, generator=generator, dtype=torch.float64).sort().values)
    for space, tolerance in ((Functions.regular(400), 6e-3), (irregular, 2e-2)):
        wave = (2 * math.pi * space.points[:, 0]).sin()[None]
        assert float(space.square_norm(wave)) == pytest.approx(0.5, rel=tolerance)
        assert float(sobolev(space)(wave)) == pytest.approx(0.5 + 2 * math.pi**2, rel=tolerance)
    plane = Functions.regular((60, 80))
    x, y = plane.points.T.reshape(2, 60, 80)
    surface = ((math.pi * x).cos() * (2 * math.pi * y).cos())[None]
    assert float(plane.square_norm(surface)) == pytest.approx(0.25)
    assert float(plane.slopes(surface)) == pytest.approx(0.25 * 5 * math.pi**2, rel=2e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Functions([0.2, 1.4]), "scale the arguments"),
        (lambda: Functions([0.3, 0.2]), "must increase"),
        (lambda: Functions([0.3, 0.3]), "holds a point twice"),
        (lambda: Functions([0.3, 0.4], [0.5, 0.7]), "of sum 1"),
        (lambda: Functions.regular((4, 4), ends=True), "one-dimensional"),
        (lambda: Functions.regular(1), "at least two points"),
        (lambda: Functions(torch.rand(5, 2)).slopes(torch.rand(1, 5)), "regular grid"),
        (lambda: Matern(1.0, 0.1), "choose 0.5, 1.5 or 2.5"),
        (lambda: RBF(0.0), "must be positive"),
        (lambda: build("functions:kernel=cubic,shape=8"), "no covariance is called 'cubic'"),
        (lambda: build("functions:kernel=rbf"), "needs the shape of a point"),
        (lambda: build("functions:shape=8,sigma_max=9"), "belong to a schedule"),
        (lambda: name_of(FunctionNoise(Functions([0.1, 0.4]), RBF(0.1))), "on a regular grid"),
        (lambda: PowerLaw(0.9, axes=2), "finite trace"),
        (lambda: FourierNeuralOperator(Functions.regular(16), modes=10), "needs 20 points"),
        (lambda: excess_roughness(torch.rand(3, 32), UNIT, RBF(0.1)), "too coarse"),
        (lambda: random_observations(torch.rand(2, 4), 5, torch.Generator()), "at most all 4"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- covariance operators ------------------------------------------------------------------------


def test_exponential_kernel_eigenvalues_in_closed_form():
    """To 1e-5 against quadrature, which errs by O(h^2): two grids, extrapolated."""
    kernel = Exponential(0.1)
    coarse, fine = (
        Covariance.eigenpairs(kernel, Functions.regular(n), 20).values for n in (250, 500)
    )
    assert torch.allclose(kernel.eigenvalues(20), (4 * fine - coarse) / 3, rtol=0, atol=1e-5)
    known = torch.tensor([0.18708, 0.15605, 0.12115, 0.09132], dtype=torch.float64)
    assert torch.allclose(kernel.eigenvalues(4), known, rtol=0, atol=1e-5)
    # the tail beyond m is about 2 / (pi^2 l m) (variance 1)
    assert float(kernel.eigenvalues(10**4).sum()) == pytest.approx(1 - 2.026e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("kernel", "modes", "tolerance"),
    [(Exponential(0.1, 2.0), 300, 0.03), (PowerLaw(1.5, 3.0, 2.0), 256, 1e-10)],
)
def test_eigenpairs_sum_to_the_kernel(kernel, modes, tolerance):
    """Mercer: sum_k lambda_k phi_k(x) phi_k(y) = k(x, y); orthonormal up to quadrature error."""
    space = Functions.regular(300)
    values, functions = kernel.eigenpairs(space, modes)
    gram = (functions[:20] * space.weights) @ functions[:20].T
    assert torch.allclose(gram, torch.eye(20, dtype=torch.float64), atol=1e-2)
    built = functions.T * values @ functions
    assert float((built - kernel.on(space)).abs().max()) < tolerance
    assert (values.diff() <= 0).all()


def test_nystrom_eigenpairs_on_an_irregular_grid():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(600, generator=generator, dtype=torch.float64).sort().values
    space, kernel = Functions(points), Exponential(0.1)
    own = Covariance.eigenpairs(kernel, space, 4)
    exact = kernel.eigenpairs(space, 4)
    assert torch.allclose(own.values, exact.values, rtol=1e-2)
    overlap = (own.functions * space.weights) @ exact.functions.T
    assert torch.allclose(overlap.abs(), torch.eye(4, dtype=torch.float64), atol=0.02)


def test_matern_kernels_against_bessel_functions():
    from scipy.special import gamma, kv

    distance = np.linspace(0.01, 1, 7)
    for nu in (0.5, 1.5, 2.5):
        scaled = np.sqrt(2 * nu) * distance / 0.3
        exact = 2 ** (1 - nu) / gamma(nu) * scaled**nu * kv(nu, scaled)
        ours = Matern(nu, 0.3)(torch.zeros(1, 1).double(), torch.as_tensor(distance)[:, None])
        assert np.allclose(ours[0], exact)


def test_noise_of_the_process_has_the_kernel_on_every_grid(generator):
    """Empirical covariance of 20,000 draws: entries within 5 standard errors."""
    plane = Functions.regular((4, 3))
    for space in (UNIT, Functions([0.1, 0.15, 0.7, 0.9]), plane):
        process = FunctionNoise(space, Matern(1.5, 0.3), VP())
        x = torch.zeros(20_000, *space.shape, dtype=torch.float64)
        t = process.time(1.0)  # sigma^2 = 1/2
        noise = process.corrupt(x, t, generator=generator).flatten(1)
        target = 0.5 * Matern(1.5, 0.3).on(space)
        scale = (target.square() + target.diagonal()[:, None] * target.diagonal()).sqrt()
        error = (noise.T @ noise / len(noise) - target).abs()
        assert (error < 5 * scale / len(noise) ** 0.5).all()


# --- the discretisation table --------------------------------------------------------------------

POINTS = (32, 64, 128, 256, 512)
TABLE = {  # Tr(C^-1 E) of data of each kernel, noise exponential of length .1, gamma = 1
    "rbf": (RBF(0.1), [5.154, 5.219, 5.235, 5.238, 5.239]),
    "matern-3/2": (Matern(1.5, 0.1), [9.20, 10.94, 12.00, 12.59, 12.91]),
    "matern-1/2": (Matern(0.5, 0.1), [16.0, 32.0, 64.0, 128.0, 256.0]),
}


@pytest.mark.parametrize("name", TABLE)
def test_discretisation_table(name):
    kernel, published = TABLE[name]
    grids = [Functions.regular(n, ends=True) for n in POINTS]
    both = np.array([optimal_loss(kernel, Exponential(0.1), grid) for grid in grids])
    assert np.allclose(both[:, 1], published, atol=6e-3)
    steps = np.abs(np.diff(both[:, 0]))
    assert (steps[1:] < 0.35 * steps[:-1] + 1e-9).all()  # L2 converges for all, at least as h
    grows = both[:, 1] / np.array(POINTS) * 2
    assert np.allclose(grows, 1, atol=1e-9) == (name == "matern-1/2")


def test_optimal_loss_is_the_measured_rate_of_the_exact_denoiser(generator):
    """The curve of the Gaussian posterior mean, at gamma = 1, within 4 standard errors."""
    space, kernel = Functions.regular(16), Matern(1.5, 0.2)
    process = FunctionNoise(space, Exponential(0.1), EDM(0.05, 20))
    values, basis = torch.linalg.eigh(kernel.on(space))
    exact = Linear(process, torch.zeros(16).double(), values, basis)
    data = gaussian(space, kernel, 4000, generator)
    curve = measure(exact, data, [0.5, 1.0, 2.0], generator=generator)
    _, loss = optimal_loss(kernel, Exponential(0.1), space)
    assert curve.stderr is not None
    assert abs(curve.rate[1] - 0.5 * loss) < 4 * curve.stderr[1]


def test_optimal_loss_is_the_trace_of_the_posterior():
    space = Functions.regular(20)
    data, noise = Matern(2.5, 0.2).on(space), Exponential(0.3).on(space)
    error = posterior_covariance(data, noise, 2.0)
    square, norm = optimal_loss(Matern(2.5, 0.2), Exponential(0.3), space, 2.0)
    assert square == pytest.approx(float((space.weights * error.diagonal()).sum()))
    assert norm == pytest.approx(float(torch.linalg.solve(noise, error).trace()))
    inverse = torch.linalg.inv(torch.linalg.inv(data) + 2.0 * torch.linalg.inv(noise))
    assert torch.allclose(error, inverse, atol=1e-8)


# --- losses --------------------------------------------------------------------------------------


def test_cameron_martin_norm_is_the_rate_and_the_quadratic_form(generator):
    process = FunctionNoise(UNIT, Exponential(0.1))
    x, guess = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64)
    form = ((x - guess) @ torch.linalg.inv(Exponential(0.1).on(UNIT)) * (x - guess)).sum(1)
    assert torch.allclose(cameron_martin(process)(x - guess), form)
    rate = process.rate(guess, x, x, 0.5)
    assert torch.allclose(2 * rate, form)


def test_spectral_cameron_martin_norm_converges_to_the_grid_s():
    """Of exp(-10|x - .3|), a member: k(., .3), whose squared norm is k(.3, .3) = 1."""
    space, kernel = Functions.regular(500), Exponential(0.1)
    member = kernel(torch.tensor([[0.3]]).double(), space.points)
    whole = cameron_martin(FunctionNoise(space, kernel))(member)
    assert float(whole) == pytest.approx(1, abs=0.02)
    # the norm beyond m terms is sum phi_k(.3)^2 lambda_k, about 2 / (pi^2 l m)
    part = spectral_cameron_martin(space, kernel, 100)(member)
    assert float(part) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("data", "noise", "rough"),
    [
        (RBF(0.1), Exponential(0.1), False),
        (Matern(2.5, 0.1), Exponential(0.1), False),
        (Matern(1.5, 0.1), Exponential(0.1), False),
        (Exponential(0.1), Exponential(0.1), True),
        (Matern(2.5, 0.1), Matern(1.5, 0.1), False),
        (Matern(1.5, 0.1), Matern(1.5, 0.1), True),
        (Exponential(0.1), Matern(1.5, 0.1), True),
    ],
)
def test_smoothness_check_tells_the_converging_rows_from_the_diverging(data, noise, rough):
    """Sobolev orders nu + 1/2: the norm is finite for nu_data > nu_noise + 1/2."""
    space = Functions.regular(128)
    draws = gaussian(space, data, 100, torch.Generator().manual_seed(1))
    growth = excess_roughness(draws, space, noise)
    assert (growth >= 1) == rough
    process = FunctionNoise(space, noise)
    if rough:
        with pytest.warns(UserWarning, match="rougher than the noise"):
            cameron_martin(process, draws)
    else:
        cameron_martin(process, draws)


# --- the operator --------------------------------------------------------------------------------


def test_fast_transform_and_quadrature_agree():
    generator = torch.Generator().manual_seed(0)
    for shape, modes in ((24, 7), ((12, 15), 4)):
        space, sums = Functions.regular(shape), Functions.regular(shape)
        sums.uniform = False
        fast, slow = Waves(space, modes), Waves(sums, modes)
        h = torch.randn(2, *space.shape, 3, generator=generator)
        mix = torch.randn(fast.count, 3, 3, generator=generator, dtype=torch.complex64)
        one, two = (
            w.synthesise(torch.einsum("bmi,mio->bmo", w.analyse(h), mix)) for w in (fast, slow)
        )
        assert torch.allclose(one, two, atol=1e-5)


def test_spectral_layer_is_the_same_function_on_every_grid():
    """A band-limited input: midpoints of n cells are among those of 3 n."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(2, 5, generator=generator)

    def wave(space):
        angle = 2 * math.pi * space.points[:, 0].float() * torch.arange(5)[:, None]
        return (coefficients[:1] @ angle.cos() + coefficients[1:] @ angle.sin())[..., None]

    mix = torch.randn(8, 1, 1, generator=generator, dtype=torch.complex64)
    coarse, fine = (Functions.regular(n) for n in (16, 48))
    values = [
        layer.synthesise(torch.einsum("bmi,mio->bmo", layer.analyse(wave(space)), mix))
        for space in (coarse, fine)
        for layer in [Waves(space, 8)]
    ]
    assert torch.allclose(values[0], values[1][:, 1::3], atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Functions.regular(64), Functions.regular(192)),
        (Functions.regular(64), Functions.regular(193, ends=True)),
        (Functions.regular((16, 16)), Functions.regular((48, 48))),
    ],
)
def test_operator_is_one_map_on_all_grids(first, second):
    """Smooth input: the output on a finer grid, read at the shared points, within aliasing."""
    torch.manual_seed(0)
    operator = FourierNeuralOperator(first, modes=5, width=8, depth=2)
    for parameter in operator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    outputs = []
    for space in (first, second):
        wave = (2 * math.pi * space.points).cos().prod(1).float().reshape(1, *space.shape)
        outputs.append(operator.on(space)(wave, torch.zeros(1)).detach())
    shared = outputs[1][(slice(None), *[slice(1, None, 3)] * first.axes)]
    if second.uniform:
        assert torch.allclose(outputs[0], shared, atol=0.02 * float(outputs[0].abs().max()))
    else:
        means = [s.inner(o, o) for s, o in zip((first, second), outputs, strict=True)]
        assert float(means[0]) == pytest.approx(float(means[1]), rel=0.02)


def test_operator_refuses_another_grid_and_unasked_conditions():
    operator = FourierNeuralOperator(UNIT, modes=4, width=8, depth=1)
    with pytest.raises(InputError, match=r"operator\.on"):
        operator(torch.zeros(1, 64), torch.zeros(1))
    with pytest.raises(InputError, match="observations=True"):
        operator(torch.zeros(1, 32), torch.zeros(1), torch.zeros(1, 32))
    with pytest.raises(InputError, match="of 1 arguments, not 2"):
        operator.on(Functions.regular((8, 8)))
    process = FunctionNoise(UNIT, RBF(0.1))
    with pytest.raises(InputError, match="only a FourierNeuralOperator"):
        on_grid(Network(process, ResidualMLP((32,), 8, 1)), process)


def test_condition_reaches_the_operator_and_nan_is_no_condition():
    torch.manual_seed(0)
    operator = FourierNeuralOperator(UNIT, modes=4, width=8, depth=1, observations=True)
    for parameter in operator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, level = torch.randn(2, 32), torch.zeros(2)
    none = torch.full_like(x, math.nan)
    some = none.clone()
    some[:, 3] = 1.0
    assert torch.equal(operator(x, level), operator(x, level, none))
    assert not torch.allclose(operator(x, level), operator(x, level, some))


def test_random_observations_are_the_functions_own_points(generator):
    x = torch.randn(3000, 12, generator=generator)
    told = random_observations(x, 4, generator)
    seen = ~told.isnan()
    assert torch.equal(told[seen], x[seen])
    counts = torch.bincount(seen.sum(1), minlength=5)
    assert len(counts) == 5
    assert (abs(counts - 600) < 5 * 600**0.5).all()


# --- the whole library on a function process -----------------------------------------------------


@pytest.mark.slow
def test_fit_measure_plan_sample_and_audit_work_as_on_any_process(generator):
    process = FunctionNoise(UNIT, Exponential(0.1))
    data = two_lines(UNIT, 600, generator)
    train, held = data[:400], data[400:]
    network = small_network(process)
    trainer = Trainer(network, train, held, FitConfig(steps=60, batch_size=32, check_every=60))
    rows = [event.row for event in trainer.events() if event.row]
    assert math.isfinite(rows[-1]["leak"])
    with trainer.averaged():
        curve = measure(network, held[:64], 16, generator=generator)
        plan = plan_steps(curve, steps=8)
        for sampler in ("ancestral", "heun", "dpm++2m"):
            drawn = sample(network, 40, plan, sampler, generator=generator)
            assert drawn.shape == (40, 32)
            assert torch.isfinite(drawn).all()
        verdict = audit(train, held, drawn, denoiser=network)
    assert verdict.finding in FINDINGS
    assert audit(train, held, train[:40]).finding == "copies"
    exact = measure(Memoriser(process, train), train[:100], 32, generator=generator)
    assert exact.area() == pytest.approx(math.log(400), abs=4 * (exact.area_stderr() or 0) + 0.05)


@pytest.mark.parametrize("kernel", ["rbf", "exponential", "matern-1/2", "matern-5/2"])
def test_name_of_the_process_builds_it_again(kernel):
    process = build(f"functions:kernel={kernel},length=0.3,variance=2,shape=4x5,schedule=vp")
    again = build(name_of(process))
    assert isinstance(process, FunctionNoise)
    assert isinstance(again, FunctionNoise)
    assert type(again.schedule) is VP
    assert again.space.shape == (4, 5)
    assert torch.equal(again.covariance.on(again.space), process.covariance.on(process.space))
    assert type(build("functions:", shape=(8,)).schedule) is EDM


def test_a_run_directory_keeps_the_process(tmp_path, generator):
    data = two_lines(UNIT, 60, generator).numpy()
    fit(data, process="functions:shape=32,length=0.2", out=tmp_path / "run",
        steps=4, check_every=4, width=8, depth=1, batch_size=8)  # fmt: skip
    process = Run.load(tmp_path / "run").denoiser.process
    assert isinstance(process, FunctionNoise)
    assert process.spec()["length"] == "0.2"


def test_exact_denoiser_samples_its_gaussian(generator):
    """Heun with the posterior mean: the covariance on an irregular grid, 4,000 draws."""
    space, kernel = Functions([0.05, 0.2, 0.3, 0.6, 0.65, 0.9]), Matern(1.5, 0.3)
    process = FunctionNoise(space, Exponential(0.1), EDM(0.01, 40))
    values, basis = torch.linalg.eigh(kernel.on(space))
    exact = Linear(process, torch.zeros(6).double(), values, basis)
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    drawn = sample(exact, 4000, times, "heun", generator=generator, dtype=torch.float64)
    error = (drawn.T @ drawn / 4000 - kernel.on(space)).abs()
    assert float(error.max()) < 5 * math.sqrt(2 / 4000)


def test_a_network_s_scalings_are_the_same_on_every_grid():
    process, t = FunctionNoise(UNIT, Exponential(0.1)), torch.tensor([0.2, 0.7])
    finer = process.on(Functions.regular(96))
    coarse = process.network_scales(t, torch.zeros(2, 32))
    fine = finer.network_scales(t, torch.zeros(2, 96))
    assert torch.allclose(torch.stack(coarse), torch.stack(fine), rtol=1e-5)
    assert torch.allclose(coarse[1].flatten(), process.schedule.sigma(t.double()).float())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l2", "sobolev", "cameron-martin"])
def test_every_norm_trains_towards_the_same_guess(name, generator):
    """Smooth data, rough noise, no training bias: the L2 error nears the least one for all."""
    space, kernel = Functions.regular(64), RBF(0.2)
    noise = Exponential(0.1) if name != "sobolev" else Matern(1.5, 0.1)
    process = FunctionNoise(space, noise, EDM(0.05, 20))
    data = gaussian(space, kernel, 4000, generator).float()
    norm = {
        "l2": space.square_norm,
        "sobolev": sobolev(space),
        "cameron-martin": cameron_martin(process, data),
    }[name]
    network = trained(process, data, 400, norm)
    fresh = gaussian(space, kernel, 1000, generator).float()
    t = process.time(1.0)
    state = process.corrupt(fresh, t, generator=generator)
    with torch.no_grad():
        loss = float(space.square_norm(network(state, t.expand(1000)) - fresh).mean())
    least, _ = optimal_loss(kernel, noise, space)
    assert least < loss < 1.35 * least


def l2_error(network, process, sigma, generator):
    """Mean L2 denoising error on 1,500 fresh functions of two lines, and its standard error."""
    x, t = two_lines(process.space, 1500, generator), process.time(sigma**-2)
    with torch.no_grad():
        guess = on_grid(network, process)(
            process.corrupt(x, t, generator=generator), t.expand(len(x))
        )
    loss = process.space.square_norm(guess - x)
    return float(loss.mean()), float(loss.std()) / len(x) ** 0.5


@pytest.mark.slow
def test_operator_trained_at_64_points_loses_nothing_at_256(generator):
    """L2 denoising error at three noise levels: no more at 256 than at 64, 3 standard errors."""
    process = FunctionNoise(Functions.regular(64), Exponential(0.1))
    data = two_lines(process.space, 4000, generator)
    network = trained(process, data, 800, modes=12, width=32, depth=3)
    for sigma in (0.1, 0.3, 1.0):
        (coarse, first), (fine, second) = (
            l2_error(network, process.on(Functions.regular(points)), sigma, generator)
            for points in (64, 256)
        )
        assert fine - coarse < 3 * math.hypot(first, second), (sigma, coarse, fine)


@pytest.mark.slow
def test_operator_trains_on_an_irregular_grid_and_reads_on_a_regular_one(generator):
    """A Gaussian of one gap and one cluster of points: near the least error on both grids."""
    kernel, noise = RBF(0.2), Exponential(0.1)
    scattered = torch.rand(40, generator=generator, dtype=torch.float64).sqrt().sort().values
    process = FunctionNoise(Functions(scattered), noise, EDM(0.05, 20))
    data = gaussian(process.space, kernel, 4000, generator).float()
    network = trained(process, data, 400)
    for space in (process.space, Functions.regular(100)):
        own = process.on(space)
        x, t = gaussian(space, kernel, 1000, generator).float(), own.time(1.0)
        with torch.no_grad():
            guess = on_grid(network, own)(own.corrupt(x, t, generator=generator), t.expand(1000))
        least, _ = optimal_loss(kernel, noise, space)
        assert least < float(space.square_norm(guess - x).mean()) < 1.6 * least


@pytest.mark.slow
def test_conditioning_on_observed_points_is_gaussian_regression(generator):
    """Data of a Gaussian process: mean and deviation of samples given five of its values."""
    space, kernel = UNIT, RBF(0.2)
    process = FunctionNoise(space, Exponential(0.1))
    data = gaussian(space, kernel, 4000, generator).float()
    network = small_network(process, modes=8, width=32, depth=3, observations=True)
    objective = FunctionLoss(process, observe=8)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(1500):
        x = data[torch.randint(4000, (64,), generator=generator)]
        t = process.time((torch.randn(64, generator=generator) * 3).exp().double())
        t = t.clamp(*process.t_range)
        drawn = objective.draw(torch.arange(64), x, t, generator)
        guess = network(drawn.state, t.float(), drawn.condition)
        loss = drawn.loss(guess, network.loss_weight(t, x)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / 1500)
        optimiser.step()
    truth = gaussian(space, kernel, 1, generator).float()
    seen = torch.tensor([2, 9, 15, 22, 30])
    told = torch.full((400, 32), math.nan)
    told[:, seen] = truth[0, seen]
    times = torch.linspace(1, 0, 31, dtype=torch.float64)
    drawn = sample(network.eval(), 400, times, generator=generator, condition=told)
    cov = kernel.on(space)
    gain = cov[:, seen] @ torch.linalg.inv(cov[seen][:, seen] + 1e-6 * torch.eye(5))
    mean = (gain @ truth[0, seen].double()).float()
    left = (cov - gain @ cov[seen]).diagonal().clamp(min=0).sqrt().float()
    assert float((drawn.mean(0) - mean).abs().max()) < 0.25
    assert float((drawn.std(0) - left).abs().max()) < 0.2
    unconditional = sample(network, 400, times, generator=generator).std(0)
    assert float(drawn.std(0).mean()) < 0.6 * float(unconditional.mean())


def test_surfaces_train_and_sample(generator):
    """Two arguments: power-law noise, a few steps, and samples on a finer grid."""
    space = Functions.regular((12, 14))
    process = FunctionNoise(space, PowerLaw(2.0, axes=2))
    data = gaussian(space, RBF(0.3), 50, generator).float()
    network = trained(process, data, 5, modes=4, width=8)
    finer = process.on(Functions.regular((24, 28)))
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    drawn = sample(on_grid(network, finer), 3, times, "heun", generator=generator)
    assert drawn.shape == (3, 24, 28)
    assert torch.isfinite(drawn).all()


# --- real curves ---------------------------------------------------------------------------------


def test_statistics_of_curves_against_scipy():
    from scipy import stats

    curves = np.random.default_rng(0).gamma(2.0, size=(400, 30))
    ours = statistics(curves)
    assert np.allclose(ours["skewness"], stats.skew(curves))
    assert np.allclose(ours["kurtosis"], stats.kurtosis(curves))
    centred = curves[0] - curves[0].mean()
    lags = np.correlate(centred, centred, "full")[29:] / (centred @ centred)
    assert np.allclose(autocorrelation(curves[:1]), lags)
    assert max(curve_scores(curves, curves).values()) == 0


@pytest.mark.slow
def test_reproduction_with_short_fits(tmp_path, monkeypatch, real_data):
    """The Gaussian rows of the temperatures against a draw made elsewhere, 4 spreads."""
    real_data("functional/functional.npz")
    real_data("esl/esl.npz")
    whole = functional.fit
    monkeypatch.setattr(functional, "DRAWS", 80)
    monkeypatch.setattr(functional, "SIGMAS", (0.5,))
    monkeypatch.setattr(
        functional, "fit", lambda p, x, steps, *rest, **key: whole(p, x, 30, *rest, **key)
    )
    table = functional.run(tmp_path)
    files = {"functional.png", "functional_curves.png", "table.json", "table.txt"}
    assert files == {path.name for path in tmp_path.iterdir()}
    known = [row for row in table["rows"] if "Gaussian" in row["quantity"] and row["reference"]]
    assert len(known) == 4
    for row in known:
        assert abs(row["ours"] - row["reference"]) < 4 * row["stderr"]
