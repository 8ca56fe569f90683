"""Plans that come true: one default, a guard, exact programs, ends, steps by drawing."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from reverie.auditing.metrics.fidelity import energy_distance
from reverie.calibration import calibrate
from reverie.curve import LossCurve, measure
from reverie.denoisers import Denoiser, GaussianMixture, as_denoiser
from reverie.errors import InputError
from reverie.plan import default_method, default_plan, plan_at, plan_steps, steps_needed
from reverie.plan.excess import variance_of
from reverie.processes import EDM, VP, Masking, ProductProcess, Tabulated
from reverie.runs.trust import trusted
from reverie.sampling import sample
from reverie.sampling.drawn_steps import paired_classifier, paired_energy, steps_by_drawing
from reverie.sampling.ends import choose_ends, quantum, start_cost
from reverie.theory import Facts, LinearTheory, certificates
from reverie.theory.bounds import geometric_steps


def gaussian_curve(spectrum, noisy, clean, levels=400, process=None):
    """Exact curve of Gaussian data between two sigmas."""
    u = np.geomspace(noisy**-2.0, clean**-2.0, levels)
    rate = 0.5 * (spectrum / (1 + u[:, None] * spectrum)).sum(1)
    return LossCurve(u, rate, dim=len(spectrum), process=process)


def gaussian_area(spectrum, curve):
    return 0.5 * np.log((1 + curve.u[-1] * spectrum) / (1 + curve.u[0] * spectrum)).sum()


# --- exact means exact ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [10, 50, 250, 1000, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_program_meets_the_closed_form_at_many_steps(steps):
    """d K/2 (r - 1 - log r), on a curve so fine that its interpolation is worth 1e-8."""
    curve = gaussian_curve(np.ones(192), 80.0, 0.002, 4000)
    r = ((1 + curve.u[-1]) / (1 + curve.u[0])) ** (1 / steps)
    optimum = 192 * steps / 2 * (r - 1 - math.log(r))
    plan = plan_steps(curve, steps, clock="nats")
    assert abs(plan.excess / optimum - 1) < 1e-6
    assert plan.excess <= plan_steps(curve, steps, "density").excess * (1 + 1e-5)
    assert (np.diff(plan.u) > 0).all()


def test_steps_needed_is_the_least_whose_own_plan_does():
    curve = gaussian_curve(np.ones(10), 30.0, 0.03, 60)
    for nats, steps in zip((20.0, 5.0, 2.0), steps_needed(curve, (20.0, 5.0, 2.0)), strict=True):
        assert plan_steps(curve, steps, clock="nats").excess <= nats
        assert plan_steps(curve, steps - 1, clock="nats").excess > nats
    assert steps_needed(curve, [1e-9], most=30) == [None]


@pytest.mark.parametrize("power", [0.0, 0.7, 1.7])
def test_the_quadrature_error_of_an_area_covers_it(power):
    spectrum = np.arange(1, 60.0) ** -power
    for ends, levels in itertools.product(((80, 0.002), (20, 0.2), (1e3, 1e-4)), (8, 12, 13, 32)):
        curve = gaussian_curve(spectrum, *ends, levels)
        assert abs(curve.area() - gaussian_area(spectrum, curve)) <= curve.area_error()
    fine = gaussian_curve(spectrum, 20, 0.2, 64)
    assert fine.area_error() < 1e-3 * fine.area()  # and it is no mere alarm


# --- one default ---------------------------------------------------------------------------------


def test_the_default_clock_is_samples_where_it_is_defined():
    assert [default_plan(p) for p in (None, VP(), EDM(), Masking(5, 8))] == [
        "samples", "samples", "samples", "nats",
    ]  # fmt: skip
    curve = gaussian_curve(np.ones(3), 20.0, 0.1, 60)
    for sampler in ("ancestral", "ddim"):
        assert plan_steps(curve, 5, sampler=sampler).clock == default_plan(curve, sampler)
    assert plan_steps(curve, 5).clock == "samples"
    assert plan_steps(curve, 5, "karras").clock == "nats"
    assert plan_steps(LossCurve(curve.u, curve.rate), 5).clock == "nats"  # no dimension
    share = np.linspace(0, 1, 20)
    assert plan_steps(LossCurve(share, 2 - share), 4).clock == "nats"


def test_solvers_of_second_order_have_a_plan_of_their_own():
    """Heun's: half even in information times sigma, half in log sigma. Where it is defined and
    unasked only."""
    curve = gaussian_curve(np.full(3, 4.0), 20.0, 0.01, 200)
    plan = plan_steps(curve, 8, sampler="heun")
    assert plan.method == default_method(curve, "heun") == "entropic-log-snr"
    assert plan_steps(curve, 8, sampler="dpm++2m").method == "log-snr"
    sigma = plan.u**-0.5
    # sigma rate du ~ sigma x sigma^2 / (sigma^2 + 4) x dsigma / sigma^3 ~ d arctan(sigma / 2)
    parts = (np.arctan(sigma / 2), np.log(sigma))
    place = sum((part[0] - part) / (part[0] - part[-1]) for part in parts) / 2
    assert np.allclose(place, np.linspace(0, 1, 9), atol=1e-3)
    assert plan_steps(curve, 8, sampler="heun", clock="samples").method == "loss-adaptive"
    assert plan_steps(curve, 8, "karras", sampler="heun").method == "karras"
    assert plan_steps(LossCurve(curve.u, curve.rate), 8, sampler="heun").method == "loss-adaptive"
    for process in (Masking(5, 8), ProductProcess(VP(shape=(2,)), Masking(3, 1))):
        assert default_method(process, "heun") == "loss-adaptive"


@pytest.mark.parametrize("sampler", ["heun", "dpm++2m"])
def test_the_plan_of_a_solver_of_second_order_comes_close_on_wide_ends(sampler):
    """A rare mode, exact denoiser: far closer than the program, level with the best rival."""
    law = GaussianMixture(
        EDM(0.002, 80.0), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.05**2),
        torch.tensor([0.9, 0.1]),
    )  # fmt: skip
    rows = law.draw(1500, torch.Generator().manual_seed(5))
    curve = measure(law, rows, 48, generator=torch.Generator().manual_seed(1))

    def distance(plan):
        noise = torch.Generator().manual_seed(7)
        drawn = sample(law, 1500, plan, sampler, shape=(1,), generator=noise)
        return energy_distance(drawn.double().numpy(), rows.double().numpy())

    own = distance(plan_steps(curve, 10, sampler=sampler))
    rivals = [distance(plan_steps(curve, 10, name)) for name in ("karras", "log-snr", "tangent")]
    assert own < min(rivals) + 2e-3  # about two errors of a distance between such sets
    assert own < 0.5 * distance(plan_steps(curve, 10, clock="samples"))


@pytest.mark.parametrize("noisy", [80.0, 2.0, 0.5])
def test_the_deviation_is_the_data_s_own_where_the_noisiest_level_is_not_pure_noise(noisy):
    curve = gaussian_curve(np.ones(10), noisy, 0.02, 200)
    assert abs(variance_of(curve) - 1) < 1e-6
    levels = plan_steps(curve, 10, "tangent").u ** -0.5
    law = np.tan(np.linspace(math.atan(noisy), math.atan(0.02), 11))
    assert np.allclose(levels, law, rtol=1e-5)
    told = plan_steps(curve, 6, "tangent", deviation=0.5).u ** -0.5
    assert np.allclose(told, plan_steps(curve, 6, "tangent", deviation=0.5).u ** -0.5)
    assert not np.allclose(told[1:-1], plan_steps(curve, 6, "tangent").u[1:-1] ** -0.5)


def cosine_model(error):
    """Exact for N(0, 1) but for an error in the noise, on the cosine beta table."""

    def kept(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [1 - min(1 - kept((i + 1) / 1000) / kept(i / 1000), 0.999) for i in range(1000)]
    table = torch.from_numpy(np.cumprod(betas))

    class Noise(torch.nn.Module):
        def forward(self, x, i):
            return (1 - table[i]).sqrt().float()[:, None] * x + error

    return as_denoiser(Noise(), Tabulated(table), predicts="noise", time="index", steps=1000)


@pytest.fixture(scope="module")
def cosine():
    """An error of .045, which the table amplifies up to 20,291 times."""
    model = cosine_model(0.045)
    rows = torch.randn(600, 13, generator=torch.Generator().manual_seed(0))
    curve = measure(model, rows, 32, generator=torch.Generator().manual_seed(0))
    return model, rows, curve


def test_a_broken_noisy_end_sets_no_clock_and_is_warned_of(cosine):
    _, _, curve = cosine
    assert curve.variance == pytest.approx(1, rel=0.05)
    assert variance_of(curve) == curve.variance
    plan = plan_steps(curve, 10)
    assert plan.clock == "nats"
    assert "worse than a guess of the mean" in plan.warning
    again = LossCurve.from_json(json.dumps(curve.to_json()), curve.process)
    assert again.variance == curve.variance


def test_a_plan_for_a_broken_model_is_for_the_calibrated_one_and_comes_true(cosine):
    model, rows, curve = cosine
    found = trusted(model, curve, rows)
    assert found.guard is not None
    assert not found.guard.ok
    known = found.calibration
    assert known is not None
    assert known.drop > 0
    assert any("nats per sample" in s for s in found.sentences())
    plan = plan_steps(found.curve, 10)
    assert plan.clock == "samples"
    assert plan.warning == ""
    drawn, right = (
        sample(m, 1500, plan, shape=(13,), generator=torch.Generator().manual_seed(0))
        for m in (found.denoiser, cosine_model(0.0))
    )
    # as good as the exact model on the same steps, but for the error itself
    assert abs(float(drawn.mean() - right.mean())) < 2 * 0.045
    assert abs(float(drawn.std() - right.std())) < 0.02
    assert 0.8 < float(right.std()) < 1  # ten ancestral steps lose variance
    left = trusted(model, curve, rows, calibrating=False)
    assert left.curve is curve
    assert left.calibrated is None
    assert "not trained on" in trusted(model, curve, rows, heldout=False).note
    assert json.loads(json.dumps(found.to_json()))["calibration"]["drop"] == known.drop


def test_a_good_model_is_left_alone():
    law = GaussianMixture(
        EDM(0.05, 40), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.01), torch.ones(2)
    )
    rows = law.draw(300, torch.Generator().manual_seed(0))
    curve = measure(law, rows, 24, generator=torch.Generator().manual_seed(0))
    found = trusted(law, curve, rows)
    assert found.curve is curve
    assert found.denoiser is law
    assert found.start is not None
    # |m|^2 is nearly 0 and C nearly 1: 1/2 (g - log(1 + g)) at g = 1/1600
    assert found.start.saved < 1e-4


# --- how many steps, by drawing ------------------------------------------------------------------


def test_paired_energy_is_the_energy_distance():
    """Against its definition by loops; 0 between equal pairs' laws; symbols by sites."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 2, generator=g), torch.randn(30, 2, generator=g) + 1
    total = 0.0
    for i, j in itertools.permutations(range(30), 2):
        total += float((a[i] - b[j]).norm() + (a[j] - b[i]).norm())
        total -= float((a[i] - a[j]).norm() + (b[i] - b[j]).norm())
    energy, stderr, p = paired_energy(a, b, generator=g)[:3]
    assert energy == pytest.approx(total / (30 * 29), rel=1e-5)
    assert p < 0.01
    assert stderr > 0
    same = torch.randint(4, (40, 6), generator=g)
    assert paired_energy(same, same, generator=g)[0] <= 0
    with pytest.raises(InputError, match="one shape"):
        paired_energy(a, b[:5])


def test_the_error_of_a_distance_is_its_spread_over_new_pairs():
    """A mean that moved far, where chance's own level adds little: 300 sets, known to 4%."""
    g = torch.Generator().manual_seed(3)
    found = []
    for _ in range(300):
        a = torch.randn(60, 2, generator=g)
        b = a + 0.3 * torch.randn(60, 2, generator=g) + 1.5
        found.append(paired_energy(a, b, 9, g))
    error = math.sqrt(np.mean([f.error**2 for f in found]))
    assert error == pytest.approx(np.std([f.energy for f in found]), rel=0.25)


def test_the_share_that_lies_as_high_is_a_p_value():
    """Independent sets of one law: 400 draws at .05 stand at 20 +- 3 x 4.4."""
    g = torch.Generator().manual_seed(1)
    hits = sum(
        paired_energy(torch.randn(24, 3, generator=g), torch.randn(24, 3, generator=g), 99, g)[2]
        <= 0.05
        for _ in range(400)
    )
    assert 7 <= hits <= 33


def test_more_draws_ask_for_more_steps_and_every_evaluation_is_counted():
    g = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(4, 3, generator=g, dtype=torch.float64)
    law = GaussianMixture(
        EDM(0.05, 40), centres, 0.1 * torch.eye(3).double().expand(4, 3, 3), torch.ones(4)
    )
    curve = measure(law, law.draw(400, g), 32, generator=g)
    few, many = (
        steps_by_drawing(law, curve, n, "ddim", shape=(3,), generator=g.manual_seed(0))
        for n in (40, 800)
    )
    assert few.steps is not None
    assert many.steps is not None
    assert few.steps < many.steps <= 40
    runs = {k for c in few.tried for k in (c.steps, 4 * c.steps)}
    assert few.evaluations == 40 * sum(k + 1 for k in runs)
    told = {c.steps: c.told for c in many.tried}
    assert not told[many.steps]
    assert told[many.steps - 1]
    assert "cannot be told" in str(many)
    none = steps_by_drawing(law, curve, 800, shape=(3,), most=1, generator=g)
    assert none.steps is None
    assert "can still be told" in str(none)
    for n in (2.5, 3):
        with pytest.raises(InputError, match="whole number"):
            steps_by_drawing(law, curve, n, shape=(3,))


def test_a_paired_classifier_keeps_its_level_and_sees_a_change_of_spread():
    """One law, pairs that share noise: p below .2 in a fifth of the runs at most (4 s.e. of 30).
    Another spread of one of 80 columns, which the distance of whole points hardly feels."""
    g = torch.Generator().manual_seed(0)
    low = 0
    for seed in range(30):
        shared = torch.randn(120, 3, generator=g)
        a, b = (0.6 * shared + 0.8 * torch.randn(120, 3, generator=g) for _ in range(2))
        low += paired_classifier(a, b, seed).p_value < 0.2
    assert low <= 30 * 0.2 + 4 * math.sqrt(30 * 0.2 * 0.8)
    a, b = (torch.randn(600, 80, generator=g) for _ in range(2))
    a[:, 5] *= 4
    b[:, 5] *= 4 * 2.5
    found = paired_classifier(a, b)
    assert found.p_value < 1e-4
    assert found.count == 600
    symbols = torch.randint(3, (200, 4), generator=g)
    assert paired_classifier(symbols, (symbols + 1) % 2).accuracy > 0.6
    with pytest.raises(InputError, match="two sets of one shape"):
        paired_classifier(a, b[:5])


# --- ends ----------------------------------------------------------------------------------------


def test_ends_of_pixels_are_what_noise_costs_and_their_grid():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, (500, 9))
    rows = torch.from_numpy((pixels / 8 - 1).astype(np.float32))
    ends = choose_ends(rows)
    assert quantum(rows) == pytest.approx(1 / 8, rel=1e-5)
    assert ends.sigma_min == pytest.approx(1 / 8 / math.sqrt(12), rel=1e-5)
    values = np.linalg.eigvalsh(np.cov(rows.T.double().numpy(), bias=True))
    mean = float(rows.double().mean(0).square().sum())
    assert start_cost(ends.sigma_max, values, mean) <= 0.05
    x = rows.double().numpy()
    pairs = (x @ x.T)[~np.eye(500, dtype=bool)]
    bound = math.log(np.exp(pairs / ends.sigma_max**2).mean())
    assert bound == pytest.approx(0.05, rel=1e-6)
    assert all(word in " ".join(ends.sentences()) for word in ("grid", "noise alone", "P_std"))
    assert json.loads(json.dumps(ends.to_json()))["reasons"]


def test_training_levels_of_an_isotropic_gaussian_are_logistic():
    """h = c^2 / (c^2 + s^2), so that log sigma has a logistic law, cut at the ends."""
    c = 0.5

    def law(ends):
        s = np.geomspace(ends.sigma_min, ends.sigma_max, 20_001)
        weight = np.abs(np.diff(c**2 / (c**2 + s**2)))
        place = np.log(s[1:])
        mean = (weight * place).sum() / weight.sum()
        return mean, math.sqrt((weight * (place - mean) ** 2).sum() / weight.sum())

    rows = c * torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    ends = choose_ends(rows)
    assert quantum(rows) is None
    read = choose_ends(gaussian_curve(np.full(4, c**2), 40.0, 0.01, 400))
    for found in (ends, read):  # 4,000 rows know c to a percent
        assert np.allclose((found.p_mean, found.p_std), law(found), atol=0.02)
    # KL of N(0, c^2 + s^2) from N(0, s^2), in four columns; the bound is about twice that
    assert start_cost(read.sigma_max, np.full(4, c**2), 0.0) == pytest.approx(0.05, rel=1e-6)
    assert read.sigma_max < ends.sigma_max < 2 * read.sigma_max
    with pytest.raises(InputError, match="do not vary"):
        choose_ends(torch.ones(5, 2))


# --- ridge, certificates, and what is refused ----------------------------------------------------


def test_the_best_ridge_is_never_worse_than_none():
    """Nearly redundant columns: a search above 1e-9 of the top cost .745 nats for .002."""
    for spectrum, n in (([1.0, 1e-10], 300), ([1.0, 1e-14], 300), ([1.0, 0.8], 100_000)):
        theory = LinearTheory(np.array(spectrum), n=n)
        best = theory.at(ridge=theory.optimal_ridge()).kl()
        assert best <= theory.at(ridge=0.0).kl() * (1 + 1e-9)
        for budget in (0.1, 0.01):
            assert theory.critical_n(budget, "best") <= theory.critical_n(budget, 0.0)


def redundant_tables():
    """Spectra of standardised tables with columns that others nearly determine."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 5))
    tables = {
        "a rounded sum": np.c_[x, np.round(x[:, 0] + x[:, 1], 4)],
        "a noisy sum": np.c_[x, x[:, 0] + x[:, 1] + 0.01 * rng.standard_normal(600)],
        "a noisy copy": np.c_[x, x[:, 0] + 0.1 * rng.standard_normal(600)],
        "three rounded": np.c_[x, np.round(x[:, :3] @ rng.standard_normal((3, 3)), 3)],
    }
    for name, table in tables.items():
        yield name, np.linalg.eigvalsh(np.corrcoef(table.T))[::-1]


def simulated_kl(spectrum, n, ridges, repeats=40):
    """Mean KL (R,) in nats over draws of n rows with estimated mean, whatever the theory says."""
    rng, total = np.random.default_rng(1), np.zeros(len(ridges))
    for _ in range(repeats):
        rows = rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)
        mean = rows.mean(0)
        values, basis = np.linalg.eigh((rows - mean).T @ (rows - mean) / n)
        second = (basis**2 * spectrum[:, None]).sum(0) + (mean @ basis) ** 2
        fitted = values.clip(min=0) + ridges[:, None]
        total += 0.5 * (second / fitted - 1 + np.log(fitted)).sum(1)
    return total / repeats - 0.5 * np.log(spectrum).sum()


@pytest.mark.parametrize(("name", "spectrum"), list(redundant_tables()))
def test_the_best_ridge_is_the_best_of_a_fine_grid(name, spectrum):
    """At most 1% above it, none included, by draws; and so is the number of rows it asks for."""
    grid = np.concatenate([[0], np.geomspace(1e-3 * spectrum[-1], 10 * spectrum[0], 50)])
    for n in (30, 300):
        best = LinearTheory(spectrum, n=n, mean="estimated").optimal_ridge()
        found = simulated_kl(spectrum, n, np.concatenate([[best], grid]))
        assert found[0] <= 1.01 * found[1:].min(), (name, n)
    theory, dim = LinearTheory(spectrum, n=300), len(spectrum)
    for budget in (0.1, 0.01):
        n = int(theory.critical_n(budget, "best"))
        for count, within in ((n, True), (n - 1, False)):
            there = theory.at(n=count)
            least = min(there.at(ridge=float(c)).kl() for c in grid[1:])
            assert (min(least, there.expected_kl()) / dim <= budget * (1 + 1e-4)) == within


def test_orders_without_a_constant_report_no_steps():
    curve = gaussian_curve(np.ones(20), 30.0, 0.03, 100)
    facts = Facts(second_moment=20.0, lipschitz=1.0, fisher=2.0, intrinsic_dim=3.0)
    found = certificates(curve, 10, 5.0, facts)
    assert all(c.steps is None for c in found if c.tag == "order")
    assert geometric_steps(5.0, math.log(1e6), 100.0) > 1


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (lambda u: -u, "must increase"),
        (lambda u: np.where(u > 1, np.nan, u), "not finite"),
        (lambda u: np.zeros_like(u), "must increase"),
    ],
)
def test_clocks_that_do_not_increase_are_refused(clock, words):
    with pytest.raises(InputError, match=words):
        plan_steps(gaussian_curve(np.ones(2), 20.0, 0.1, 40), 4, clock=clock)


def test_odd_numbers_are_refused_in_one_sentence():
    curve = gaussian_curve(np.ones(2), 20.0, 0.1, 40)
    for call in (
        lambda: plan_steps(curve, 2.5),
        lambda: LinearTheory([1.0, 0.5], n=2.5),
        lambda: plan_at(curve, np.array([0.1, np.nan, 1.0]), "mine"),
        lambda: plan_steps(curve, 3, deviation=-1.0),
        lambda: steps_needed(curve, [-1.0]),
        lambda: LinearTheory([1.0, 0.5]).critical_n(0.1, "worst"),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("steps", [3, 10, 40])
def test_align_your_steps_keeps_its_levels_apart_on_flat_curves(steps):
    u = np.geomspace(1e-2, 1e2, 30)
    for rate in (np.full(30, 2.0), np.where(u < 1, 2.0, 1e-9), np.full(30, 1e-300)):
        plan = plan_steps(LossCurve(u, rate, dim=2), steps, "align-your-steps")
        assert (np.diff(plan.u) > 0).all()


def test_calibration_and_denoiser_are_one_type(cosine):
    model, rows, _ = cosine
    assert isinstance(calibrate(model, rows[:40], levels=4), Denoiser)
