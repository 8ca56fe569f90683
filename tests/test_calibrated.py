"""Calibration against brute force, closed forms and the two guesses that it mixes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import nn

from reverie import as_denoiser, calibrate, measure, plan_steps, sample
from reverie.calibration import Calibrated, Mixing, Reference, mixing_of, reference_of
from reverie.calibration.mixing import shrunk
from reverie.denoisers import Denoiser, GaussianMixture, Linear, LowRankLinear, Moments
from reverie.errors import InputError
from reverie.processes import (
    EDM,
    VP,
    Brownian,
    Custom,
    LogRatios,
    Masking,
    ModalProcess,
    Rectified,
    Tabulated,
    Uniform,
)
from reverie.spaces import Sphere, Torus


class Wrong(Denoiser):
    """`model` misused: its guess of (f(x), g(t)), scaled, shifted, with amplified noise added."""

    def __init__(self, model, scale=1.0, shift=0.0, reverse=False, amplified=0.0):
        super().__init__()
        self.model, self.process = model, model.process
        self.scale, self.shift, self.reverse, self.amplified = scale, shift, reverse, amplified

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        time = sum(self.process.t_range) - t if self.reverse else t
        guess = self.scale * self.model(state, time) + self.shift
        return guess + self.amplified * sigma / alpha * torch.sin(3 * state + 1)


def mixture(process, dim, generator):
    """An exact denoiser of three Gaussians, and draws of it."""
    means = 2 * torch.randn(3, dim, generator=generator)
    weights, spread = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.3, 0.5, 0.2])
    covariances = spread[:, None, None] * torch.eye(dim)
    model = GaussianMixture(process, means, covariances, weights)

    def draw(n):
        kind = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, dim, generator=generator)
        return means[kind] + spread[kind].sqrt()[:, None] * noise

    return model, draw


MISTAKES = {
    "scaled": dict(scale=0.6),
    "wrong sign": dict(scale=-1.0),
    "shifted": dict(shift=3.0),
    "reversed": dict(reverse=True),
    "amplified": dict(amplified=0.2),
}


def at_or_below(calibration):
    """How far the mixed curve passes the lower of its parts, in units of the rate."""
    low = np.minimum(calibration.before.rate, calibration.reference.rate)
    return float(((calibration.after.rate - low) / np.maximum(low, 1e-300)).max())


# --- the promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["mode", "level"])
@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("process", [VP(), Rectified()], ids=["vp", "rectified"])
def test_never_worse_than_either_part(process, name, per, generator):
    model, draw = mixture(process, 3, generator)
    wrong = Wrong(model, **MISTAKES[name])
    calibrated = calibrate(wrong, draw(300), per=per, levels=8, generator=generator)
    found = calibrated.calibration
    assert at_or_below(found) < 1e-6  # of one sum in float64, where errors of 1e7 cancel
    assert (found.weights >= 0).all()
    assert (found.weights <= 1).all()
    # on fresh rows, noised alike, weights read off 150 rows lose to a part by chance only
    fresh = draw(800)
    curves = [
        measure(m, fresh, found.levels, generator=generator.manual_seed(5), keep_samples=True)
        for m in (calibrated, wrong, calibrated.reference)
    ]
    mixed, *parts = (c.per_sample for c in curves)
    for part in parts:
        gap = mixed - part
        z = gap.mean(0) / (gap.std(0, ddof=1) / np.sqrt(len(gap)) + 1e-12)
        tiny = gap.mean(0) < 2e-3 * part.mean(0)
        assert ((z < 4) | tiny).all()
        assert (z > 2).mean() < 0.35


@given(seed=st.integers(0, 2**20), scale=st.floats(-2, 2), noise=st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_promise_on_random_mixtures(seed, scale, noise):
    generator = torch.Generator().manual_seed(seed)
    model, draw = mixture(EDM(0.01, 20.0), 2, generator)
    wrong = Wrong(model, scale=scale, amplified=noise)
    found = calibrate(wrong, draw(40), levels=6, generator=generator).calibration
    assert at_or_below(found) < 1e-6


@given(best=st.floats(-2, 3), error=st.floats(0, 3))
def test_shrinkage_stays_between_the_better_guess_and_the_best(best, error):
    (value,) = shrunk(np.array([best]), np.array([error]))
    side, kept = (0.0 if best < 0.5 else 1.0), min(max(best, 0.0), 1.0)
    assert min(side, kept) - 1e-12 <= value <= max(side, kept) + 1e-12


class Velocity(nn.Module):
    """A small network that an outsider trained: dx/dt of the rectified process."""

    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, 48), nn.SiLU(), nn.Linear(48, dim))

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None].to(x)], 1))


@pytest.fixture(scope="module")
def trained():
    generator = torch.Generator().manual_seed(0)
    draw = mixture(Rectified(), 2, generator)[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Velocity(2)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(400):
        x, t = draw(128), torch.rand(128, generator=generator)
        noise = torch.randn(128, 2, generator=generator)
        state = torch.lerp(x, noise, t[:, None])
        loss = (network(state, t) - (noise - x)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval(), draw


@pytest.mark.parametrize("mistake", ["none", "velocity sign", "time direction", "scale"])
def test_trained_networks(trained, mistake, generator):
    network, draw = trained

    class Misread(nn.Module):
        def forward(self, x, t):
            value = network(x, 1 - t if mistake == "time direction" else t)
            return -value if mistake == "velocity sign" else value

    model = as_denoiser(Misread(), Rectified(), predicts="velocity")
    factor = 4.0 if mistake == "scale" else 1.0
    calibrated = calibrate(model, factor * draw(400), levels=16, generator=generator)
    found = calibrated.calibration
    assert at_or_below(found) < 1e-6
    if mistake != "none":
        assert found.drop > 5 * found.drop_stderr
    fresh = factor * draw(1000)
    curves = [
        measure(m, fresh, found.levels, generator=generator.manual_seed(5), keep_samples=True)
        for m in (calibrated, model, calibrated.reference)
    ]
    for part in curves[1:]:
        gap = curves[0].per_sample - part.per_sample
        error = gap.std(0, ddof=1) / np.sqrt(len(gap))
        # 200 rows read 48 weights: what they cost is of the order of the errors
        assert (gap.mean(0) < 2 * error + 0.01 * part.per_sample.mean(0)).mean() > 0.8
        assert (gap.mean(0) < 4 * error + 0.01 * part.per_sample.mean(0)).all()


def test_weights_are_least_squares_in_every_mode(generator):
    """Against lstsq on the same draws; with many rows shrinkage leaves them as they are."""
    process = VP()
    model, draw = mixture(process, 4, generator)
    wrong, rows, base = Wrong(model, scale=0.8), draw(4000), draw(2000)
    generator.manual_seed(3)
    calibrated = calibrate(wrong, rows, linear_rows=base, levels=[0.5, 3.0], generator=generator)
    found = calibrated.calibration
    generator.manual_seed(3)
    data = rows[torch.randperm(len(rows), generator=generator)]
    basis = Moments.fit(base).basis
    for level, time in enumerate(calibrated.times):
        weights = []
        for block in data.split(1024):
            pair = process.corrupt_pair(block, time, generator=generator)
            state, t = torch.cat(pair), torch.full((2 * len(block),), time)
            first = calibrated.reference(state, t).double()
            weights.append((torch.cat([block, block]) - first, wrong(state, t).double() - first))
        miss, move = (torch.cat(parts) @ basis for parts in zip(*weights, strict=True))
        for mode in range(4):
            ours = found.weights[level, mode]
            (theirs,) = np.linalg.lstsq(move[:, [mode]].numpy(), miss[:, mode].numpy())[0]
            error = found.stderr[level, mode]
            kept = abs(min(max(theirs, 0), 1) - ours)  # shrinkage moves it by error^2 / distance
            distance = min(abs(theirs), abs(1 - theirs))
            assert kept <= error**2 / max(distance, error) + 1e-6


def test_stderr_is_the_spread_of_the_weights(generator):
    model, draw = mixture(VP(), 2, generator)
    wrong = Wrong(model, scale=0.7)
    reference = reference_of(model.process, draw(4000))
    found = [
        calibrate(
            wrong, draw(200), reference=reference, per="level", levels=[1.0, 4.0],
            generator=generator,
        ).calibration
        for _ in range(40)
    ]  # fmt: skip
    weights = np.array([f.weights[:, 0] for f in found])
    errors = np.array([f.stderr[:, 0] for f in found])
    inside = (weights > 0.02) & (weights < 0.98)
    spread = np.array([w[i].std() for w, i in zip(weights.T, inside.T, strict=True)])
    # 40 draws tell a deviation to 11%; shrinkage adds to it where it acts
    np.testing.assert_allclose(spread / errors.mean(0), 1, atol=0.35)


def test_exact_model_is_left_alone(generator):
    model, draw = mixture(EDM(0.05, 20.0), 3, generator)
    found = calibrate(model, draw(2000), levels=16, generator=generator).calibration
    assert (found.weights >= 1 - 4 * found.stderr - 1e-9).all()
    assert abs(found.drop) < 4 * found.drop_stderr + 1e-3 * found.before.area()
    assert found.mean_weight[-8:].min() > 0.95


def test_linear_data_get_the_linear_guess(generator):
    rows = torch.randn(2000, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.2]) + 1
    process = VP()

    class Zero(Denoiser):
        def forward(self, state, t, condition=None):
            return torch.zeros_like(state)

    zero = Zero()
    zero.process = process
    calibrated = calibrate(zero, rows, levels=12, generator=generator)
    exact = Linear.fit(process, rows)
    state = process.corrupt(rows[:50], 0.4, generator=generator)
    t = torch.full((50,), 0.4)
    gap = (calibrated(state, t) - exact(state, t)).abs().mean() / exact(state, t).abs().mean()
    assert gap < 0.05  # 1,000 rows tell a mean to 3% of the deviation
    assert found_area(calibrated) == pytest.approx(
        float((exact.information(calibrated.calibration.levels[[0, -1]]) * [-1, 1]).sum()),
        rel=0.05,
    )


def found_area(calibrated):
    return calibrated.calibration.held_out.area()


def test_deployed_curve_is_the_one_promised(generator):
    model, draw = mixture(VP(), 3, generator)
    rows, base = draw(3000), draw(500)
    calibrated = calibrate(
        Wrong(model, amplified=0.3), rows, linear_rows=base, levels=10, generator=generator
    )
    after = calibrated.calibration.after
    again = measure(calibrated, rows, after.u, generator=generator)
    error = np.hypot(again.stderr, after.stderr)
    assert (np.abs(again.rate - after.rate) < 4 * error).all()


def test_cosine_table_plan_in_the_samples_clock_comes_true(generator):
    """A fixed error of .045 in the noise of an exact model on the cosine table; K = 10."""
    steps = torch.arange(1001, dtype=torch.float64) / 1000
    bar = torch.cos((steps + 0.008) / 1.008 * np.pi / 2).square()
    table = torch.cumprod(1 - (1 - bar[1:] / bar[:-1]).clamp(max=0.999), 0)

    class Noise(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x, index):
            return (1 - table[index]).sqrt().float()[:, None] * x + self.error

    model, exact = (
        as_denoiser(Noise(error), Tabulated(table), predicts="noise", time="index", steps=1000)
        for error in (0.045, 0.0)
    )
    rows = torch.randn(1000, 13, generator=generator)
    calibrated = calibrate(model, rows, generator=generator)
    raw = measure(model, rows[:300], generator=generator)
    plan = plan_steps(calibrated.calibration.after, 10, clock="samples")

    def drawn(denoiser, plan):
        noise = generator.manual_seed(0)
        x = sample(denoiser, 2000, plan, shape=(13,), generator=noise)
        return float(x.mean().abs()), float(x.std())

    assert drawn(model, plan_steps(raw, 10, clock="samples"))[0] > 0.5
    mean, std = drawn(calibrated, plan)
    assert mean < 0.05
    assert abs(std - drawn(exact, plan)[1]) < 0.03


# --- the linear guess of few modes ---------------------------------------------------------------


@pytest.mark.parametrize(
    "process",
    [
        VP(),
        ModalProcess(VP(), shape=(4,), spectrum=torch.tensor([1.0, 2.0, 0.5, 3.0])),
        ModalProcess(EDM(), shape=(4,), speed=[1.0, 0.9, 0.8, 0.7]),
    ],
    ids=["one level", "spectrum", "speeds"],
)
@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_low_rank_guess_is_gaussian_conditioning(process, rest, generator):
    """Against E[x | x_t] = m + C A (A C A + S^2)^-1 (x_t - A m) with full matrices."""
    basis = torch.linalg.qr(torch.randn(4, 2, generator=generator).double()).Q
    mean, spectrum = torch.randn(4, generator=generator).double(), torch.tensor([2.0, 0.5])
    moments = Moments(mean, basis, spectrum.double(), rest)
    state = torch.randn(6, 4, generator=generator).double()
    times = torch.tensor([0.3, 0.3, 0.6, 0.9, 0.9, 0.1], dtype=torch.float64)
    guess = LowRankLinear(process, moments)(state, times)
    outside = torch.eye(4, dtype=torch.float64) - basis @ basis.T
    covariance = basis * moments.spectrum @ basis.T + rest * outside
    for row in range(6):
        alpha, sigma = (v.expand(1, 4)[0] for v in process.scales(times[row], state))
        noised = alpha[:, None] * covariance * alpha + torch.diag(sigma.square())
        gain = covariance * alpha @ torch.linalg.inv(noised)
        expected = mean + gain @ (state[row] - alpha * mean)
        torch.testing.assert_close(guess[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(400, 6), (60, 5, 7)], ids=["tall", "wide"])
def test_moments_are_those_of_the_rows(shape, generator):
    rows = torch.randn(shape, generator=generator).double() * 2 + 1
    moments = Moments.fit(rows, modes=5)
    centred = rows.flatten(1) - rows.flatten(1).mean(0)
    covariance = centred.T @ centred / len(rows)
    kept = len(moments.spectrum)
    assert kept == min(5, shape[0] // 4)
    torch.testing.assert_close(moments.spectrum, torch.linalg.eigvalsh(covariance).flip(0)[:kept])
    assert moments.trace == pytest.approx(float(covariance.trace()))
    eye = torch.eye(kept, dtype=torch.float64)
    torch.testing.assert_close(moments.basis.T @ moments.basis, eye, rtol=0, atol=1e-10)
    drawn = moments.draw(40000, generator).flatten(1)
    along = drawn @ moments.basis
    torch.testing.assert_close(along.var(0), moments.spectrum, rtol=0.04, atol=0)  # 5 s.e.


def test_sketched_modes_are_the_leading_ones(generator):
    scale = torch.linspace(0, 6, 1100).neg().exp()
    rows = torch.randn(1100, 1100, generator=generator) * scale
    moments = Moments.fit(rows, modes=8)
    centred = (rows - rows.mean(0)).double()
    exact = torch.linalg.eigvalsh(centred.T @ centred / len(rows)).flip(0)[:8]
    torch.testing.assert_close(moments.spectrum, exact, rtol=1e-2, atol=0)


# --- other spaces --------------------------------------------------------------------------------


class Constant(Denoiser):
    """The same law of symbols at every site, whatever the state."""

    def __init__(self, process, law):
        super().__init__()
        self.process, self.law = process, torch.as_tensor(law)

    def forward(self, state, t, condition=None):
        return self.law.to(torch.float64).expand(*state.shape, len(self.law))


@pytest.mark.parametrize("process", [Masking(4, 6), Uniform(4, 6)], ids=["masking", "uniform"])
def test_symbols(process, generator):
    rows = (torch.rand(600, 6, generator=generator) ** 2 * 4).long()
    model = Constant(process, [0.1, 0.2, 0.3, 0.4])
    found = calibrate(model, rows, levels=6, generator=generator)
    assert at_or_below(found.calibration) < 1e-9
    state = process.corrupt(rows, 0.5, generator=generator)
    guess = found(state, torch.full((600,), 0.5))
    torch.testing.assert_close(guess.sum(-1), torch.ones(600, 6, dtype=guess.dtype))


def test_weight_of_symbols_is_the_best_cross_entropy(generator):
    """Masking: a model right in half of the sites; scipy's minimum on fresh draws."""
    process = Masking(3, 2)
    rows = torch.stack([torch.ones(4000), (torch.rand(4000, generator=generator) * 3)], 1).long()
    model = Constant(process, [0.1, 0.8, 0.1])
    calibrated = calibrate(model, rows, levels=[0.2, 0.5, 0.8], generator=generator)
    first = calibrated.reference.frequencies
    share = rows.double().new_tensor([0.1, 0.8, 0.1])

    def entropy(w):
        law = first + w * (share - first)
        return float(-law.log().gather(1, rows.T).mean())

    best = minimize_scalar(entropy, bounds=(0, 1), method="bounded").x
    assert np.abs(calibrated.calibration.weights[:, 0] - best).max() < 0.1


def test_site_marginals_are_bayes_rule(generator):
    process = Uniform(3, 4)
    rows = torch.randint(3, (500, 4), generator=generator)
    reference = reference_of(process, rows)
    state = process.corrupt(rows[:20], 0.6, generator=generator)
    t = torch.full((20,), 0.6, dtype=torch.float64)
    kernel = process.kernel(0.6)[0]
    for row in range(20):
        for site in range(4):
            joint = reference.frequencies[site] * kernel[:, state[row, site]]
            torch.testing.assert_close(
                reference(state, t)[row, site], joint / joint.sum(), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("space", [Sphere(2), Torus(2)], ids=str)
def test_manifolds(space, generator):
    process = Brownian(space)
    start = space.origin().expand(400, *space.shape).contiguous()
    rows = process.spread(start, torch.full((400,), 0.1).double(), generator=generator)

    class Nothing(Denoiser):
        def forward(self, state, t, condition=None):
            return torch.zeros_like(state)

    model = Nothing()
    model.process = process
    found = calibrate(model, rows, levels=8, generator=generator)
    assert at_or_below(found.calibration) < 1e-9
    assert found.calibration.drop > 0.5
    assert float(found.reference.dispersion) == pytest.approx(0.1, rel=0.35)
    uniform = space.uniform(400, generator=generator)
    assert reference_of(process, uniform).dispersion == float("inf")


def test_shares_in_log_ratios(generator):
    rows = torch.distributions.Dirichlet(torch.tensor([2.0, 5.0, 1.0])).sample((300,))

    class Zero(Denoiser):
        def forward(self, state, t, condition=None):
            return torch.zeros_like(state)

    model = Zero()
    model.process = LogRatios(3)
    found = calibrate(model, rows, levels=6, generator=generator)
    assert at_or_below(found.calibration) < 1e-6
    assert found.calibration.drop > 0


@pytest.mark.parametrize("per", ["mode", "level"])
def test_several_clocks(per, generator):
    process = ModalProcess(EDM(), shape=(4,), speed=[1.0, 0.9, 0.8, 0.8])
    rows = torch.randn(300, 4, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 0.2])

    class Half(Denoiser):
        def forward(self, state, t, condition=None):
            return 0.5 * state

    model = Half()
    model.process = process
    found = calibrate(model, rows, per=per, levels=8, generator=generator).calibration
    low = np.minimum(found.before.rate, found.reference.rate)
    if per == "mode":  # every clock for itself
        assert (found.after.rate <= low * (1 + 1e-9)).all()
    else:  # nats per e-fold of all clocks together
        total = [(c.u * c.rate).sum(1) for c in (found.after, found.before, found.reference)]
        assert (total[0] <= np.minimum(*total[1:]) * (1 + 1e-6)).all()


# --- use -----------------------------------------------------------------------------------------


class Half(nn.Module):
    """A module with one parameter, whose type is that of the model."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, t, *condition):
        return self.scale * x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_works_in_the_models_precision(dtype, generator):
    model = as_denoiser(Half().to(dtype), VP(), predicts="noise")
    rows = torch.randn(60, 3, generator=generator)
    calibrated = calibrate(model, rows, levels=8, generator=generator)
    guess = calibrated(rows.to(dtype), torch.full((60,), 0.5, dtype=dtype))
    assert guess.dtype == dtype
    assert torch.isfinite(guess).all()
    plan = plan_steps(calibrated.calibration.after, 4)
    x = sample(calibrated, 20, plan, shape=(3,), dtype=dtype, generator=generator)
    assert x.dtype == dtype
    assert float(x.double().std()) < 2


def test_condition_reaches_the_model_row_by_row(generator):
    means = torch.tensor([-3.0, 3.0])

    class Told(nn.Module):
        def forward(self, x, t, label):
            return means[label][:, None].expand_as(x)

    labels = torch.randint(2, (400,), generator=generator)
    rows = means[labels][:, None] + 0.1 * torch.randn(400, 2, generator=generator)
    model = as_denoiser(Told(), VP())
    calibrated = calibrate(model, rows, condition=labels, levels=8, generator=generator)
    assert calibrated.calibration.mean_weight[0] > 0.95
    told = calibrated(torch.zeros(2, 2), torch.tensor(0.99), torch.tensor([0, 1]))
    assert float(told[0].mean()) < -2.5
    assert float(told[1].mean()) > 2.5


def test_infinite_guesses_have_no_say(generator):
    class Burst(Denoiser):
        def forward(self, state, t, condition=None):
            return torch.where(t.reshape(-1, 1) > 0.7, float("inf"), state)

    model = Burst()
    model.process = VP()
    rows = torch.randn(100, 2, generator=generator)
    calibrated = calibrate(model, rows, levels=12, generator=generator)
    assert torch.isfinite(calibrated(rows, torch.full((100,), 0.95))).all()
    assert "not finite" in str(calibrated.calibration)


def test_weights_between_levels_stay_between_their_neighbours(generator):
    model, draw = mixture(VP(), 2, generator)
    calibrated = calibrate(Wrong(model, amplified=0.5), draw(200), levels=6, generator=generator)
    times = torch.linspace(*calibrated.process.t_range, 200, dtype=torch.float64)
    weights = calibrated.weights_at(times).numpy()
    clock = calibrated.process.clock(times).log()
    right = torch.searchsorted(calibrated.axis, clock).clamp(1, 5)
    ends = np.stack([calibrated.table[right - 1], calibrated.table[right]])
    assert (weights >= ends.min(0) - 1e-12).all()
    assert (weights <= ends.max(0) + 1e-12).all()
    exact = calibrated.weights_at(torch.as_tensor(calibrated.times))
    torch.testing.assert_close(exact, calibrated.table, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gauss", "symbols", "sphere"])
def test_saved_and_loaded(kind, tmp_path, generator):
    if kind == "gauss":
        model, draw = mixture(VP(), 3, generator)
        model, rows = Wrong(model, amplified=0.3), draw(80)
    elif kind == "symbols":
        model = Constant(Masking(3, 4), [0.2, 0.3, 0.5])
        rows = torch.randint(3, (80, 4), generator=generator)
    else:
        model = Constant(Brownian(Sphere(2)), [0.0])
        model.forward = lambda state, t, condition=None: torch.zeros_like(state)
        rows = Sphere(2).uniform(80, generator=generator)
    calibrated = calibrate(model, rows, levels=5, generator=generator)
    calibrated.save_pretrained(tmp_path / "kept")
    again = Calibrated.from_pretrained(tmp_path / "kept", model)
    state, t = model.process.corrupt(rows, 0.4, generator=generator), torch.full((80,), 0.4)
    torch.testing.assert_close(again(state, t), calibrated(state, t), rtol=0, atol=0)
    assert str(again.calibration) == str(calibrated.calibration)
    json.dumps(again.calibration.to_json(), allow_nan=False)
    with pytest.raises(InputError, match="not an empty folder"):
        calibrated.save_pretrained(tmp_path / "kept")


def test_loading_refuses_another_schedule_and_damage(tmp_path, generator):
    model, draw = mixture(VP(), 2, generator)
    calibrate(model, draw(40), levels=4, generator=generator).save_pretrained(tmp_path / "a")
    other, _ = mixture(EDM(), 2, generator)
    with pytest.raises(InputError, match="another noise schedule"):
        Calibrated.from_pretrained(tmp_path / "a", other)
    (tmp_path / "a" / "calibration.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="damaged"):
        Calibrated.from_pretrained(tmp_path / "a", model)
    with pytest.raises(InputError, match="does not exist"):
        Calibrated.from_pretrained(tmp_path / "b", model)


def test_a_reference_that_is_never_saved_needs_no_tensors():
    class Bare(Reference):
        kind = "bare"

    try:
        with pytest.raises(InputError, match="'bare' cannot be saved"):
            Bare().tensors()
        with pytest.raises(InputError, match="'bare' cannot be loaded"):
            Bare.from_tensors(VP(), {})
    finally:
        Reference.kinds.pop("bare")


def test_a_process_of_ones_own_joins(generator):
    """A subclass with a reference and a rule of mixing registered for it."""

    class Own(Custom):
        pass

    class Nought(Reference):
        kind = "nought"

        def forward(self, state, t, condition=None):
            return torch.zeros_like(state)

        def tensors(self):
            return {}

    @reference_of.register
    def _(process: Own, rows, modes=64):
        made = Nought()
        made.process = process
        return made

    process = Own(lambda t: torch.ones_like(t), lambda t: 10 * t, (0.01, 1.0))
    try:
        model = as_denoiser(Half(), process)
        rows = torch.randn(60, 2, generator=generator)
        calibrated = calibrate(model, rows, levels=5, generator=generator)
        assert isinstance(calibrated.reference, Nought)
        assert isinstance(mixing_of(process, calibrated.reference), Mixing)
        assert at_or_below(calibrated.calibration) < 1e-6
    finally:
        Reference.kinds.pop("nought")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(per="row"), "per="),
        (dict(folds=1), "folds"),
        (dict(modes=0), "modes"),
        (dict(condition=torch.zeros(7)), "7 conditions"),
    ],
)
def test_bad_arguments(change, message, generator):
    model, draw = mixture(VP(), 2, generator)
    with pytest.raises(InputError, match=message):
        calibrate(model, draw(20), generator=generator, **change)


def test_too_few_rows(generator):
    model, draw = mixture(VP(), 2, generator)
    with pytest.raises(InputError, match="at least 4 rows"):
        calibrate(model, draw(3))
    found = calibrate(model, draw(4), levels=3, generator=generator).calibration
    assert at_or_below(found) < 1e-6
