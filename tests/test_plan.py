import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TwoPoint, two_point_mmse
from reverie.curve import LossCurve
from reverie.denoisers import Linear
from reverie.errors import InputError
from reverie.plan import METHODS, gits_plan, plan_at, plan_steps, score_optimal_plan
from reverie.plan.align import TABLES
from reverie.plan.simulated import cheapest_path
from reverie.plan.staircase import best_knots
from reverie.plan.step_optimised import error_bound
from reverie.processes import EDM, VP

# path KL in nats of the two-point target, sigma 20 to .2, K = 5, 10, 20, 40, 80 (spec 1.7)
TABLE = {
    "loss-adaptive": (0.446, 0.184, 0.0836, 0.0397, 0.0194),
    "density": (0.586, 0.214, 0.0895, 0.0408, 0.0195),
    "karras": (2.394, 0.594, 0.235, 0.106, 0.0502),
    "cosine": (1.017, 0.302, 0.127, 0.0588, 0.0284),
    "linear": (2.835, 0.655, 0.218, 0.0945, 0.0444),
    "log-snr": (1.316, 0.445, 0.187, 0.0863, 0.0415),
    "entropic": (1.823, 0.863, 0.412, 0.197, 0.0947),
    "quadratic": (0.972, 0.331, 0.143, 0.0666, 0.0322),
}


@pytest.mark.parametrize("method", TABLE)
def test_two_point_table(method, two_point_curve):
    for steps, figure in zip((5, 10, 20, 40, 80), TABLE[method], strict=True):
        excess = plan_steps(two_point_curve, steps, method, clock="nats").excess
        assert abs(excess - figure) < 1.0 * 10 ** (math.floor(math.log10(figure)) - 2), steps


def test_loss_adaptive_levels_of_the_two_point_target(two_point_curve):
    published = [20, 1.782, 1.191, 0.919, 0.751, 0.631, 0.536, 0.456, 0.381, 0.304, 0.2]
    assert np.allclose(
        plan_steps(two_point_curve, 10, clock="nats").u ** -0.5, published, rtol=3e-3
    )


@pytest.mark.parametrize("factor", [1.0, 0.9])
def test_kl_identity_against_a_brute_force_skeleton(factor):
    """Sum over steps of E KL(true transition || sampler transition), by quadrature in 1-D, against
    the staircase identity (spec 1.3), with the right and a wrong denoiser."""
    gamma = np.array([0.01, 0.1, 0.5, 1, 2, 4, 8, 16])
    total = 0.0
    for now, then in itertools.pairwise(gamma):
        step = then - now
        y = np.linspace(-now - 12 * np.sqrt(now), now + 12 * np.sqrt(now), 1601)
        weight = 0.5 * sum(_normal(y, s * now, now) for s in (1, -1)) * (y[1] - y[0])
        m = np.tanh(y)
        width = step + 10 * np.sqrt(step)
        dz = np.linspace(-width, width, 2401)[None]
        up, down = (1 + m[:, None]) / 2, (1 - m[:, None]) / 2
        true = up * _normal(dz, step, step) + down * _normal(dz, -step, step)
        guess = factor * m[:, None]
        log_ratio = np.log(up * _ratio(dz, 1, guess, step) + down * _ratio(dz, -1, guess, step))
        inner = np.trapezoid(true * log_ratio, dz[0], axis=1)
        total += (weight * inner).sum()
    ideal = 0.5 * two_point_mmse(gamma)
    wrong = ideal + 0.5 * (1 - factor) ** 2 * (1 - two_point_mmse(gamma))
    dense = np.geomspace(gamma[0], gamma[-1], 3000)
    area = LossCurve(dense, 0.5 * two_point_mmse(dense)).area()
    staircase = (np.diff(gamma) * wrong[:-1]).sum()
    assert abs(total - (staircase - area)) < 1e-4
    assert abs(total - {1.0: 0.322406, 0.9: 0.392251}[factor]) < 1e-4  # the spec's own figures


def _normal(x, mean, var):
    return np.exp(-((x - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)


def _ratio(dz, x, guess, step):
    return np.exp(dz * (x - guess) - 0.5 * step * (x**2 - guess**2))


def test_a_wrong_denoiser_pays_more_than_its_excess(two_point_curve):
    """`excess` is against the model's own curve; path_kl adds the denoiser's share (spec 1.3)."""
    share = 0.5 * 0.01 * (1 - two_point_mmse(two_point_curve.u))
    model = LossCurve(two_point_curve.u, two_point_curve.rate + share, dim=1)
    plan = plan_steps(model, 10, clock="nats")
    assert plan.path_kl(two_point_curve) > plan.excess
    inner = plan.u[:-1]
    denoiser = (np.diff(plan.u) * 0.005 * (1 - two_point_mmse(inner))).sum()
    discretised = (np.diff(plan.u) * 0.5 * two_point_mmse(inner)).sum() - two_point_curve.area()
    assert abs(plan.path_kl(two_point_curve) - (denoiser + discretised)) < 1e-4


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_gaussian_optimum_is_geometric_in_one_plus_gamma(steps):
    """1 + gamma c^2 geometric, excess d K/2 (r - 1 - log r) (spec 1.5)."""
    c2, d = 0.49, 3
    u = np.geomspace(1 / 400, 400, 1200)
    curve = LossCurve(u, 0.5 * d * c2 / (1 + u * c2), dim=d)
    plan = plan_steps(curve, steps, clock="nats")
    ends = 1 + u[[0, -1]] * c2
    # the charge is flat at its minimum: knots are known less well than it is
    assert np.allclose(1 + plan.u * c2, np.geomspace(*ends, steps + 1), rtol=1.5e-2)
    r = (ends[1] / ends[0]) ** (1 / steps)
    assert abs(plan.excess / (0.5 * d * steps * (r - 1 - math.log(r))) - 1) < 1e-4


def test_tangent_law_is_optimal_for_gaussian_ddim():
    """Ratio of deviations cos^K(dtheta / K) = .91430770 for K = 12, c^2 = .49 (spec 6.6)."""
    c2, u = 0.49, np.geomspace(1 / 400, 400, 1500)
    curve = LossCurve(u, 0.5 * c2 / (1 + u * c2), dim=1)
    for method in ("tangent", "rescaled-entropic"):
        sigma = plan_steps(curve, 12, method, clock="nats").u ** -0.5
        gain = np.prod(
            [1 - (1 - s / t) * t**2 / (t**2 + c2) for t, s in itertools.pairwise(sigma)]
        )
        exact = math.sqrt((c2 + sigma[-1] ** 2) / (c2 + sigma[0] ** 2))
        # the variance read off sigma = 20 is c2 / (1 + c2/400): a relative 1e-3
        assert abs(gain / exact - 0.91430770) < 1e-5, method


curves = st.lists(st.floats(0, 5), min_size=4, max_size=30).map(
    lambda drops: np.cumsum(np.array(drops)[::-1])[::-1] + 1e-3
)


@settings(max_examples=30, deadline=None)
@given(rate=curves, steps=st.integers(1, 12))
def test_the_exact_program_is_never_beaten(rate, steps):
    u = np.geomspace(1e-2, 1e3, len(rate))
    curve = LossCurve(u, rate, dim=2)
    best = plan_steps(curve, steps, clock="nats")
    for plan in best.compare().values():
        assert best.excess <= plan.excess + 2e-3 * abs(plan.excess) + 1e-6, plan.method
    assert best.excess >= -1e-4 * max(1, best.staircase)


@settings(max_examples=60, deadline=None)
@given(rate=curves, steps=st.integers(1, 8), seed=st.integers(0, 10**6), columns=st.integers(1, 3))
def test_best_knots_equals_the_quadratic_program(rate, steps, seed, columns):
    steps = min(steps, len(rate) - 1)
    rng = np.random.default_rng(seed)
    clock = np.cumsum(rng.exponential(size=(len(rate), columns)), axis=0)
    rates = rate[:, None] * rng.uniform(0.5, 1, columns)
    cost = rates @ clock.T - (rates * clock).sum(1)[:, None]
    value = cost[0].copy()
    for _ in range(steps - 1):
        table = value[:, None] + np.where(np.tri(len(rate), dtype=bool), np.inf, cost)
        value = table.min(0)
    knots = best_knots(clock, rates, steps)
    assert len(knots) == steps + 1
    assert (np.diff(knots) > 0).all()
    found = sum(cost[i, j] for i, j in itertools.pairwise(knots))
    assert found <= value[-1] + 1e-9 * abs(value[-1]) + 1e-9


def test_refining_a_plan_lowers_its_charge(two_point_curve):
    for method in METHODS:
        charges = [
            plan_steps(two_point_curve, k, method, clock="nats").excess for k in (6, 12, 24)
        ]
        assert charges[0] > charges[1] > charges[2], method


@pytest.mark.parametrize(
    ("bins", "noise", "figure"), [(100, 0.05, 0.194), (100, 0.2, 0.215), (20, 0.2, 0.240)]
)
def test_noisy_losses_cost_little(bins, noise, figure, two_point_curve):
    """True charge of plans from noisy losses, median of 9 draws: at most the spec's figures (1.7)
    and a tenth of what they add to .184, and at most 1.35 times the optimum (6.11)."""
    rng, costs = np.random.default_rng(0), []
    u = np.geomspace(two_point_curve.u[0], two_point_curve.u[-1], bins)
    for _ in range(9):
        noisy = 0.5 * two_point_mmse(u) * (1 + noise * rng.standard_normal(bins))
        grid = plan_steps(LossCurve(u, noisy, dim=1), 10, clock="nats").u
        costs.append(
            (np.diff(grid) * 0.5 * two_point_mmse(grid[:-1])).sum() - two_point_curve.area()
        )
    best = plan_steps(two_point_curve, 10, clock="nats").excess
    assert np.median(costs) < figure + 0.1 * (figure - best)
    assert np.median(costs) < 1.35 * best


def test_t1_bound_holds(two_point_curve):
    """Geometric grid: excess <= kappa I(gamma_K) (spec T1)."""
    for steps in (5, 10, 20, 40, 80):
        kappa = (two_point_curve.u[-1] / two_point_curve.u[0]) ** (1 / steps) - 1
        assert plan_steps(two_point_curve, steps, "log-snr").excess <= kappa * math.log(2)


def test_the_samples_clock_is_the_same_program_in_another_charge(two_point_curve):
    nats, seen = (plan_steps(two_point_curve, 8, clock=c) for c in ("nats", "samples"))
    assert seen.excess > nats.excess
    for rival in seen.compare().values():
        assert seen.clock_excess <= rival.clock_excess * (1 + 1e-4)
    power = plan_steps(two_point_curve, 8, clock=np.log)
    assert power.clock == "custom"


def test_plan_times_and_ends(two_point_curve):
    plan = plan_steps(two_point_curve, 7, ends=(0.01, 10.0))
    assert np.allclose(plan.u[[0, -1]], [0.01, 10.0])
    again = EDM(0.2, 20).clock(torch.as_tensor(plan.times)).numpy()
    assert np.allclose(again, plan.u, rtol=1e-9)
    assert (np.diff(plan.times) < 0).all()
    assert json.loads(json.dumps(plan.to_json()))["steps"] == 7


def test_curves_with_several_clocks_have_plans():
    """Two clocks on Gaussian coordinates (the program itself is checked above)."""
    level = np.linspace(0, 6, 200)
    u = np.stack([np.exp(level), np.exp(1.5 * level - 2)], 1)
    curve = LossCurve(u, 0.5 * np.array([1.0, 4.0]) / (1 + u * np.array([1.0, 4.0])))
    rivals = plan_steps(curve, 6, clock="nats").compare()
    assert list(rivals) == ["loss-adaptive", "log-snr"]
    assert rivals["loss-adaptive"].excess > 0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(steps=0), "whole number"),
        (dict(method="best"), "choose one of"),
        (dict(clock="fid"), "choose one of"),
        (dict(ends=(10.0, 1.0)), "increase"),
        (dict(ends=(1e-9, 1.0)), "within"),
    ],
)
def test_bad_plans_get_one_sentence(kwargs, words, two_point_curve):
    with pytest.raises(InputError, match=words):
        plan_steps(two_point_curve, **kwargs)


# --- more tables of the spec (1.5, 1.7, 1.8) --------------------------------------------------

WIDE_TABLE = {  # two-point target, sigma 80 to .002, K = 10 and 40
    "loss-adaptive": (0.217, 0.0415),
    "cosine": (0.381, 0.0700),
    "log-snr": (1.567, 0.221),
    "karras": (1.824, 0.231),
    "linear": (317, 0.129),
    "density": (1018, 62),
    "entropic": (9879, 2386),
}
IMAGE_TABLE = {  # bits per dimension, Gaussian with variances j^-1.7, d = 3072, mean .25
    0.002: {
        "loss-adaptive": (1.39, 0.423, 0.0787),
        "log-snr": (3.39, 0.944, 0.170),
        "karras": (10.1, 2.05, 0.329),
        "entropic": (11.8, 2.07, 0.183),
    },
    0.02: {
        "loss-adaptive": (0.211, 0.0675, 0.0128),
        "rescaled-entropic": (0.429, 0.136, 0.0257),
        "log-snr": (0.544, 0.168, 0.0313),
        "karras": (1.10, 0.303, 0.0538),
    },
}
MARGINAL = {  # nats at K = 10: what the samples' own law is off by
    "loss-adaptive": 0.0097,
    "density": 0.0152,
    "cosine": 0.0248,
    "log-snr": 0.0394,
    "karras": 0.0651,
    "entropic": 0.0717,
}


def matches(value, figure):
    """Equal to the digits that the table gives: one in its third, or two in its second."""
    return abs(value / figure - 1) < 8e-3


@pytest.fixture(scope="module")
def wide_curve():
    u = np.geomspace(80.0**-2, 0.002**-2, 1500)
    return LossCurve(u, 0.5 * two_point_mmse(u), process=EDM(0.002, 80), dim=1)


@pytest.mark.parametrize("method", WIDE_TABLE)
def test_wide_ends_table(method, wide_curve):
    for steps, figure in zip((10, 40), WIDE_TABLE[method], strict=True):
        assert matches(plan_steps(wide_curve, steps, method, clock="nats").excess, figure), steps


@pytest.mark.parametrize("sigma_min", IMAGE_TABLE)
def test_image_like_gaussian_table(sigma_min):
    lam = np.arange(1, 3073) ** -1.7
    lam *= 0.25 / lam.mean()
    u = np.geomspace(80.0**-2, sigma_min**-2, 900)
    rate = np.array([0.5 * (lam / (1 + g * lam)).sum() for g in u])
    curve = LossCurve(u, rate, dim=3072)
    for method, figures in IMAGE_TABLE[sigma_min].items():
        for steps, figure in zip((18, 50, 250), figures, strict=True):
            bits = plan_steps(curve, steps, method, clock="nats").excess / (3072 * math.log(2))
            assert matches(bits, figure), (method, steps)


def test_loss_adaptive_can_hurt_a_deterministic_sampler():
    """Gaussian, DDIM, K = 12, error of the deviation (spec 1.8)."""
    c2, u = 0.49, np.geomspace(1 / 400, 400, 1500)
    curve = LossCurve(u, 0.5 * c2 / (1 + u * c2), dim=1)
    figures = {"tangent": 0.0857, "rescaled-entropic": 0.0857, "cosine": 0.091,
               "log-snr": 0.117, "karras": 0.127, "loss-adaptive": 0.222}  # fmt: skip
    for method, figure in figures.items():
        sigma = plan_steps(curve, 12, method, clock="nats").u ** -0.5
        steps = [1 - (1 - s / t) * t**2 / (t**2 + c2) for t, s in itertools.pairwise(sigma)]
        exact = math.sqrt((c2 + sigma[-1] ** 2) / (c2 + sigma[0] ** 2))
        assert abs(1 - np.prod(steps) / exact - figure) < 6e-4, method


def test_the_law_of_the_samples_is_closer_than_their_path(two_point_curve):
    """Marginal KL of 10 steps, propagating the sampler's density on a grid (spec 1.7, 6.4)."""
    for method, figure in MARGINAL.items():
        plan = plan_steps(two_point_curve, 10, method, clock="nats")
        marginal = _marginal_kl(plan.u)
        assert marginal <= plan.excess
        assert abs(marginal - figure) < 1.5e-4, method


def _marginal_kl(gamma):
    def grid(g):
        half = g + 9 * math.sqrt(g)
        return np.linspace(-half, half, 1501)

    y = grid(gamma[0])
    law = _normal(y, 0.0, gamma[0])  # the sampler starts from N(0, gamma_0)
    for now, then in itertools.pairwise(gamma):
        z = grid(then)
        kernel = _normal(z[:, None], y + (then - now) * np.tanh(y), then - now)
        y, law = z, kernel @ law * (y[1] - y[0])
    true = 0.5 * (_normal(y, gamma[-1], gamma[-1]) + _normal(y, -gamma[-1], gamma[-1]))
    return np.trapezoid(true * (np.log(true + 1e-300) - np.log(law + 1e-300)), y)


def test_path_kl_by_simulation(generator):
    """Girsanov: 1/2 int E|m(Y_g) - m(Y_k)|^2 dg along true paths = .3224 (spec 6.3)."""
    gamma, n = np.array([0.01, 0.1, 0.5, 1, 2, 4, 8, 16]), 60_000
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], n)
    total = np.zeros(n)
    for now, then in itertools.pairwise(gamma):
        y = now * x + math.sqrt(now) * rng.standard_normal(n)
        later = rng.uniform(0, then - now, n)
        ahead = y + later * x + np.sqrt(later) * rng.standard_normal(n)
        total += 0.5 * (then - now) * (np.tanh(ahead) - np.tanh(y)) ** 2
    assert abs(total.mean() - 0.322406) < 4 * total.std() / math.sqrt(n)


# --- the schedules that search, or ask the model ----------------------------------------------


@settings(max_examples=25, deadline=None)
@given(rate=curves, steps=st.integers(1, 30))
def test_align_your_steps_searches_for_the_exact_program(rate, steps):
    """The same objective: never below the optimum, and at it where no step can move alone."""
    curve = LossCurve(np.geomspace(1e-2, 1e3, len(rate)), rate, dim=2)
    best, found = (
        plan_steps(curve, steps, m, clock="nats") for m in ("loss-adaptive", "align-your-steps")
    )
    assert found.excess >= best.excess - 2e-3 * abs(best.excess) - 1e-6
    start = plan_steps(curve, steps, "log-snr")
    assert steps > 10 or found.excess <= start.excess * (1 + 1e-9) + 1e-9


def test_align_your_steps_is_near_the_optimum(two_point_curve):
    for steps in (5, 10, 20, 40):
        best, found = (
            plan_steps(two_point_curve, steps, m, clock="nats").excess
            for m in ("loss-adaptive", "align-your-steps")
        )
        assert found < 1.05 * best


@pytest.mark.parametrize("name", TABLES)
def test_published_tables(name):
    """On the table's own ends ten steps are the published levels; twenty contain them."""
    table = np.array(TABLES[name])
    u = np.geomspace(table[0] ** -2, table[-1] ** -2, 200)
    curve = LossCurve(u, 1 / (1 + u), dim=2)
    assert np.allclose(plan_steps(curve, 10, name).u ** -0.5, table, rtol=1e-9)
    finer = plan_steps(curve, 20, name).u ** -0.5
    assert np.allclose(finer[::2], table, rtol=1e-9)
    assert np.allclose(finer[1::2], np.sqrt(table[1:] * table[:-1]), rtol=1e-9)


@pytest.mark.slow
def test_published_tables_are_those_of_diffusers():
    schedules = pytest.importorskip("diffusers.schedulers").AysSchedules
    for name, key in (
        ("ays-sd", "StableDiffusionSigmas"),
        ("ays-sdxl", "StableDiffusionXLSigmas"),
        ("ays-svd", "StableDiffusionVideoSigmas"),
    ):
        assert np.allclose(TABLES[name][:-1], schedules[key][:-1])


def test_error_bound_against_quadrature():
    """The objective of Xue et al. from its definition, Lagrange polynomials under quad."""
    from scipy.integrate import quad

    levels = np.array([-3.0, -1.9, -1.0, 0.2, 0.9, 2.0, 3.0])
    count = len(levels) - 1
    error = np.exp(-levels) / np.sqrt(1 + np.exp(2 * levels))
    total, late = 0.0, np.zeros(count)
    for step in range(count):
        order = min(3, step + 1, count - step)
        past = list(range(step - order + 1, step + 1))
        terms = []
        for j in past:
            others = [levels[i] for i in past if i != j]

            def integrand(x, j=j, others=others):
                return math.exp(x) * math.prod((x - o) / (levels[j] - o) for o in others)

            terms.append(error[j] * quad(integrand, levels[step], levels[step + 1])[0])
        if step < 3 or order == 1:
            total += math.hypot(*terms)
        else:
            late[past] += terms
    expected = total + np.abs(late).sum()
    assert abs(float(error_bound(torch.from_numpy(levels))) - expected) < 1e-9


def test_step_optimised_finds_the_minimum(two_point_curve):
    """Brute force at K = 2 and 3; never above its two starts."""
    low, high = 0.5 * two_point_curve.axis[[0, -1]]

    def bound(levels):
        return float(error_bound(torch.from_numpy(np.asarray(levels))))

    inner = np.linspace(low, high, 62)[1:-1]
    two = min(bound([low, a, high]) for a in inner)
    three = min(bound([low, a, b, high]) for a, b in itertools.combinations(inner, 2))
    for steps, least in ((2, two), (3, three)):
        found = plan_steps(two_point_curve, steps, "step-optimised")
        assert bound(0.5 * np.log(found.u)) <= least * (1 + 1e-6)
    for steps in (6, 15):
        ours = bound(0.5 * np.log(plan_steps(two_point_curve, steps, "step-optimised").u))
        for start in ("log-snr", "linear"):
            assert ours <= bound(0.5 * np.log(plan_steps(two_point_curve, steps, start).u))


def _gaussian_model(process, c2, dim=3):
    denoiser = Linear(
        process, torch.zeros(dim, dtype=torch.float64), torch.full((dim,), c2),
        torch.eye(dim, dtype=torch.float64),
    )  # fmt: skip
    ends = process.clock(torch.tensor(process.t_range[::-1])).numpy()
    u = np.geomspace(*ends, 600)
    return denoiser, LossCurve(u, denoiser.exact_rate(u), process=process, dim=dim)


@pytest.mark.parametrize("process", [EDM(0.05, 20), VP()])
def test_score_optimal_of_a_gaussian(process, generator):
    """Cost s^2 / (c^2 + s^2)^(3/2) ds: its integral asinh(s/c) - s / sqrt(c^2 + s^2) is cut into
    equal parts, both from the curve and by asking the denoiser."""
    c2 = 0.49
    denoiser, curve = _gaussian_model(process, c2)
    data = math.sqrt(c2) * torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    read = plan_steps(curve, 8, "score-optimal")
    asked = score_optimal_plan(denoiser, data, curve, 8, nodes=257, generator=generator)
    for plan, tolerance in ((read, 2e-3), (asked, 2e-2)):  # the second is Monte Carlo
        s = plan.u**-0.5
        parts = -np.diff(np.arcsinh(s / math.sqrt(c2)) - s / np.sqrt(c2 + s**2))
        assert np.allclose(parts, parts.mean(), rtol=tolerance), plan.method
    half = score_optimal_plan(
        denoiser, data, curve, 8, blend=0.5, previous=plan_steps(curve, 8, "log-snr"),
        nodes=33, generator=generator,
    )  # fmt: skip
    assert (np.diff(half.u) > 0).all()
    with pytest.raises(InputError, match="blend"):
        score_optimal_plan(denoiser, data, curve, 8, blend=0.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 4), later=st.floats(0.5, 2))
def test_cheapest_path_against_brute_force(seed, steps, later):
    cost = np.random.default_rng(seed).exponential(size=(8, 8))

    def price(path):
        return sum(later**k * cost[a, b] for k, (a, b) in enumerate(itertools.pairwise(path)))

    least = min(price((0, *inner, 7)) for inner in itertools.combinations(range(1, 7), steps - 1))
    path = cheapest_path(cost, steps, later)
    assert len(path) == steps + 1
    assert abs(price(path) - least) < 1e-12


def test_gits_beats_karras_at_following_the_flow(generator):
    """DDIM error of the deviation on a Gaussian, whose flow is known."""
    denoiser, curve = _gaussian_model(EDM(0.05, 20), 0.49)
    plan = gits_plan(denoiser, curve, 6, shape=(3,), n=64, generator=generator)
    assert plan.method == "gits"

    def error(u):
        sigma = u**-0.5
        steps = [1 - (1 - s / t) * t**2 / (t**2 + 0.49) for t, s in itertools.pairwise(sigma)]
        exact = math.sqrt((0.49 + sigma[-1] ** 2) / (0.49 + sigma[0] ** 2))
        return abs(1 - np.prod(steps) / exact)

    assert error(plan.u) < error(plan_steps(curve, 6, "karras").u)
    with pytest.raises(InputError, match="61 levels"):
        gits_plan(denoiser, curve, 61, shape=(3,))


def test_gits_on_a_real_mixture(two_point_curve, generator):
    """The two-point denoiser: all jumps stay finite, the ends are kept."""
    plan = gits_plan(
        TwoPoint(EDM(0.2, 20)), two_point_curve, 8, shape=(1,), n=128, generator=generator
    )
    assert np.allclose(plan.u[[0, -1]], two_point_curve.u[[0, -1]])
    assert plan.excess < 10 * plan_steps(two_point_curve, 8, clock="nats").excess


# --- what a plan says of itself ---------------------------------------------------------------


def test_every_plan_carries_both_charges(two_point_curve):
    for plan in plan_steps(two_point_curve, 8, clock="nats").compare().values():
        assert set(plan.excesses) == {"nats", "samples"}
        assert plan.excesses["nats"] == plan.excess
        rate = two_point_curve.rate  # c^2: between the variance and the scale of half the guess
        read = 2 * rate[0] / (1 - 2 * rate[0] * two_point_curve.u[0])
        half = np.exp(np.interp(-read / 4, -rate, np.log(two_point_curve.u)))
        variance = np.sqrt(read / half)
        clock = -np.arctan(1 / np.sqrt(plan.u * variance))
        stairs = (np.diff(clock) * two_point_curve(plan.u[:-1])).sum()
        dense = np.geomspace(plan.u[0], plan.u[-1], 20_001)
        area = np.trapezoid(two_point_curve(dense), -np.arctan(1 / np.sqrt(dense * variance)))
        assert abs(plan.excesses["samples"] - (stairs - area)) < 1e-5
    seen = plan_steps(two_point_curve, 8, clock="samples")
    assert seen.excesses["samples"] == seen.clock_excess
    unknown = LossCurve(two_point_curve.u, two_point_curve.rate)
    assert set(plan_steps(unknown, 4).excesses) == {"nats"}
    assert "tangent" not in plan_steps(unknown, 4).compare()


def test_the_density_plan_warns_where_it_jumps_a_dead_zone(two_point_curve, wide_curve):
    assert "jumps over a zone" in plan_steps(wide_curve, 10, "density").warning
    assert plan_steps(two_point_curve, 10, "density").warning == ""
    assert plan_steps(wide_curve, 10, "karras").warning == ""


def test_a_clock_from_zero_has_the_plans_of_a_share():
    """A share of revealed sites starts at 0, where schedules in log gamma are not."""
    u = np.linspace(0, 1, 40)
    plan = plan_steps(LossCurve(u, 2 - u), 4)
    rivals = plan.compare()
    assert set(rivals) == {"loss-adaptive", "linear", "cosine", "entropic", "density"}
    assert abs(rivals["linear"].excess - plan.excess) < 1e-4
    assert np.allclose(plan.u, np.linspace(0, 1, 5), atol=2e-3)  # a line is cut evenly
    assert set(plan.excesses) == {"nats"}


def test_a_plan_of_ones_own(two_point_curve):
    same = plan_steps(two_point_curve, 6, "cosine")
    own = plan_at(two_point_curve, same.u, "mine")
    assert abs(own.excess - same.excess) < 1e-9
    assert "mine" in own.compare()
    for levels in ([1.0], [2.0, 1.0], [1e-9, 1.0]):
        with pytest.raises(InputError, match=r"increasing|within"):
            plan_at(two_point_curve, np.array(levels), "mine")
