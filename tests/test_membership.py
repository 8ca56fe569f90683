"""Membership scores against closed forms: the memoriser, Gaussian laws, sklearn's AUC."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from reverie.auditing.model.copying import copying_distance
from reverie.auditing.model.detection import roc
from reverie.auditing.model.membership import (
    TABLE,
    TRUE_POSITIVES,
    half_collapse,
    level,
    membership_rocs,
    membership_rows,
)
from reverie.auditing.model.scores import SCORES, Query, flipd, score
from reverie.denoisers import Linear, Memoriser, Network, ResidualMLP
from reverie.errors import InputError
from reverie.processes import EDM, VP


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def memoriser():
    return Memoriser(EDM(0.01, 20), normal(200, 8))


# --- the ROC -------------------------------------------------------------------------------------


def test_auc_and_interval_against_sklearn_and_the_bootstrap():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    members, held = rng.normal(-0.7, 1, 300).round(1), rng.normal(0, 1, 200).round(1)  # with ties
    found = roc(members, held)
    labels = np.repeat([1, 0], [300, 200])
    expected = roc_auc_score(labels, -np.concatenate([members, held]))
    assert found.auc == pytest.approx(expected, abs=1e-12)
    draws = [
        roc_auc_score(labels, -np.concatenate([rng.choice(members, 300), rng.choice(held, 200)]))
        for _ in range(400)
    ]  # the bootstrap's deviation is known to 1 / sqrt(800) = 3.5%; DeLong agrees to O(1 / n)
    deviation = (found.interval[1] - found.interval[0]) / (2 * 1.96)
    assert deviation == pytest.approx(np.std(draws), rel=0.15)


def test_mann_whitney_is_exact_for_few_rows():
    assert roc([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]).p_value == pytest.approx(1 / 20)  # of 6 choose 3
    assert roc([1.0, 1.0], [1.0, 1.0]).p_value == 1.0


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(1)
    p = [roc(*rng.standard_normal((2, 60))).p_value for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_operating_point_by_hand():
    held = np.arange(1000.0)
    members = np.concatenate([np.full(40, -1.0), np.full(60, 2000.0)])
    found = roc(members, held)
    first, second = found.points
    assert (first.allowed, second.allowed) == (1, 10)
    assert second.hits == 40
    exact = stats.binomtest(40, 100).proportion_ci(0.95, "exact")
    assert second.interval == pytest.approx((exact.low, exact.high))
    above = stats.binomtest(10, 1000, alternative="less").proportion_ci(0.95, "exact").high
    assert second.most_fpr(0.05) == pytest.approx(above)
    low = stats.binomtest(40, 100, alternative="greater").proportion_ci(0.9875, "exact").low
    worst = stats.binomtest(1, 1000, alternative="less").proportion_ci(0.9875, "exact").high
    assert found.epsilon() == pytest.approx(math.log((low - 1e-5) / worst))
    assert found.epsilon(tests=5) < found.epsilon()


def test_epsilon_bound_holds_where_epsilon_is_known():
    """Two Laplace laws one apart: the likelihood ratio is at most e, so epsilon is 1."""
    rng = np.random.default_rng(2)
    bounds = [roc(rng.laplace(0, 1, 2000), rng.laplace(1, 1, 2000), (0.01, 0.1)).epsilon()
              for _ in range(200)]  # fmt: skip
    assert np.mean(np.array(bounds) > 1.0) <= 0.05
    assert np.max(bounds) > 0.6  # and it is no empty bound


def test_perfect_separation_has_an_interval_and_a_bound():
    found = roc(np.zeros(100), np.ones(100))
    assert found.auc == 1.0
    assert found.interval == (pytest.approx(0.025 ** (1 / 100)), 1.0)
    assert found.points[0].tpr == 1.0
    assert 0 < found.epsilon() < math.log(1 / 0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0], [1.0, 2.0]), "at least two"),
        (([1.0, math.nan], [1.0, 2.0]), "not finite"),
        (([1.0, 2.0], [1.0, 2.0], (0.0,)), "must lie"),
    ],
)
def test_bad_scores_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        roc(*arguments)


# --- the memoriser: a model that has kept every row ----------------------------------------------


def test_memoriser_scores_vanish_on_members_and_are_distances_elsewhere(memoriser):
    """Score norm 0 at a training row and d1 / sigma^2 at a fresh one, so sima = d1 / sigma."""
    train, fresh = memoriser.data, normal(50, 8, seed=1)
    spread = 0.02
    nearest = torch.cdist(fresh.double(), train.double()).min(1).values
    members = score("SimA", memoriser, train[:50], spread)
    assert members.max() < 1e-3
    assert torch.allclose(score("SimA", memoriser, fresh, spread), nearest / spread, rtol=1e-3)
    assert score("FLIPD", memoriser, train[:50], spread).max() < 1e-6
    assert score("loss", memoriser, train[:50], spread).max() < 1e-3


def test_memoriser_is_caught_by_every_score_of_the_table(memoriser):
    found = membership_rocs(memoriser, memoriser.data, normal(150, 8, seed=1))
    shown = {k: r.auc for k, r in found.items()}
    # the memoriser is flat around every point: the divergence differs at borders of its cells only
    assert all(shown[name] > (0.8 if name == "divergence" else 0.97) for name in TABLE), shown
    assert found["FLIPD"].epsilon(tests=4) > 1


@pytest.mark.parametrize("name", SCORES)
def test_a_model_that_never_saw_the_rows_tells_nothing(name):
    """The population's own Gaussian: AUC 1/2 within 3 standard errors, for every score."""
    law = Linear(EDM(0.02, 20), torch.zeros(6), torch.linspace(0.5, 2, 6), torch.eye(6))
    rows = normal(800, 6) * torch.linspace(0.5, 2, 6).sqrt()
    found = membership_rocs(law, rows[:400], rows[400:], names=(name,))[name]
    stderr = math.sqrt(801 / (12 * 400 * 400))  # of the Mann-Whitney share under the null
    assert abs(found.auc - 0.5) < 3 * stderr


# --- each score against its closed form ----------------------------------------------------------


@pytest.mark.parametrize("process", [EDM(0.02, 20), VP()])
def test_scores_of_a_gaussian_law_in_any_process(process):
    """One-variance Gaussian: xhat = c y with c = 1 / (1 + s^2), whatever alpha and sigma are."""
    d, spread = 5, 0.7
    law = Linear(process, torch.zeros(d), torch.ones(d), torch.eye(d))
    x = normal(40, d)
    square = x.double().square().sum(1)
    c = 1 / (1 + spread**2)
    expected = (1 - c) / spread * square.sqrt()
    assert torch.allclose(score("SimA", law, x, spread), expected, rtol=1e-4)
    local = d * c + ((1 - c) / spread) ** 2 * square  # trace exact: d <= DRAWS
    assert torch.allclose(score("FLIPD", law, x, spread), local, rtol=1e-4)
    draws = torch.stack([
        score("loss", law, x, spread, torch.Generator().manual_seed(k)) for k in range(200)
    ])  # fmt: skip
    mean = ((1 - c) ** 2 * square + c**2 * spread**2 * d) / spread**2  # E|x - c (x + s e)|^2 / s^2
    error = draws.std(0) / math.sqrt(200)
    assert ((draws.mean(0) - mean).abs() < 4.5 * error).all()  # 40 rows at 4.5 standard errors


def test_proximal_scores_of_a_gaussian_law():
    d, spread, least = 3, 0.7, 0.02
    law = Linear(EDM(least, 20), torch.zeros(d), torch.ones(d), torch.eye(d))
    x = normal(20, d)

    def noise(y, s):
        return y * s / (1 + s * s)  # (y - y / (1 + s^2)) / s

    for name, size in (("PIA", None), ("PIAN", math.sqrt(2 / math.pi))):
        first = noise(x, least)
        if size is not None:
            first = first * size / first.abs().mean(1, keepdim=True)
        expected = (first - noise(x + spread * first, spread)).pow(4).sum(1).double()
        assert torch.allclose(score(name, law, x, spread), expected, rtol=1e-3)


def test_secmi_of_a_gaussian_law():
    """On a linear field a DDIM step s -> r multiplies y by (1 + s r) / (1 + s^2)."""
    spread, least = 0.7, 0.02
    law = Linear(EDM(least, 20), torch.zeros(3), torch.ones(3), torch.eye(3))
    x = normal(20, 3)
    levels = least * (spread / least) ** (np.arange(12) / 10)
    carried = np.prod([(1 + s * r) / (1 + s * s) for s, r in itertools.pairwise(levels[:11])])
    s, r = levels[10:12]
    there_and_back = (1 + s * r) ** 2 / ((1 + s * s) * (1 + r * r))
    expected = x.double().square().sum(1) * (carried * (there_and_back - 1)) ** 2
    assert torch.allclose(score("SecMI", law, x, spread), expected, rtol=2e-2)  # in float32


def test_flipd_is_the_rank_of_a_degenerate_gaussian():
    """Kamkari et al. 2024: at the mean of a rank-k Gaussian FLIPD tends to k as noise falls."""
    d, k = 20, 3
    basis = torch.linalg.qr(normal(d, d))[0][:, :k]
    law = Linear(EDM(0.01, 20), torch.zeros(d), torch.ones(k), basis)
    values = torch.stack([
        score("FLIPD", law, torch.zeros(1, d), 0.01, torch.Generator().manual_seed(s))
        for s in range(300)
    ])  # fmt: skip
    assert abs(values.mean() - k) < 4 * values.std() / math.sqrt(300)


def test_flipd_identity_for_the_memoriser(memoriser):
    """Sum of w_i |x_i - x|^2 / s^2 equals d + s^2 (tr grad score + |score|^2), by differences."""
    x, spread, step = normal(10, 8, seed=3).double(), 0.9, 1e-4
    exact = Memoriser(EDM(0.01, 20), memoriser.data.double())
    t = exact.process.time(spread**-2.0)
    found = flipd(Query(exact, t[0]), x)
    trace = torch.zeros(10, dtype=torch.float64)
    for j in range(8):
        shift = torch.zeros(8, dtype=torch.float64)
        shift[j] = step
        trace += (exact(x + shift, t) - exact(x - shift, t))[:, j] / (2 * step)
    grad = (exact(x, t) - x) / spread**2
    definition = 8 + spread**2 * ((trace - 8) / spread**2 + grad.square().sum(1))
    assert torch.allclose(found, definition, rtol=1e-6)


def test_flipd_of_a_network_is_its_jacobian():
    network = Network(EDM(0.02, 20), ResidualMLP((12,), 16, 1)).double().eval()
    torch.nn.init.normal_(network.body.leave.weight, generator=torch.Generator().manual_seed(0))
    x, t = normal(1, 12).double(), network.process.time(4.0)
    jacobian = torch.func.jacrev(lambda y: network(y[None], t)[0])(x[0])
    expected = jacobian.trace() + (network(x, t) - x).square().sum() * 4
    expected = expected.detach()
    values = torch.stack([
        flipd(Query(network, t[0]), x, torch.Generator().manual_seed(s)) for s in range(100)
    ])  # fmt: skip
    assert abs(values.mean() - expected) < 4 * values.std() / 10
    assert flipd(Query(network, t[0]), x, probes=12).item() == pytest.approx(
        expected.item(), rel=1e-9
    )


# --- the level, the rows of the table, bad input -------------------------------------------------


def test_half_collapse_by_brute_force():
    rows = normal(400, 3, seed=5)  # half_collapse draws its noise with seed 0
    process = EDM(0.02, 20)
    spread = half_collapse(process, rows)
    noise = normal(400, 3, seed=9)
    square = torch.cdist((rows + spread * noise).double(), rows.double()).square()
    weight = (-square / (2 * spread**2)).softmax(1).diagonal().mean()
    assert abs(float(weight) - 0.5) < 0.06  # other noise, interpolated levels
    assert level(process, rows) == pytest.approx(spread / 4)
    assert spread == half_collapse(process, rows)


def test_rows_of_the_table(memoriser):
    rows = membership_rows(memoriser, memoriser.data, normal(100, 8, seed=1))
    assert [row.statistic for row in rows][-1] == "epsilon lower bound"
    assert len(rows) == len(TABLE) + 2
    caught = rows[-2]
    assert caught.statistic == TRUE_POSITIVES
    assert caught.value > 0.5
    for row in rows[:-2]:
        assert row.p_value is not None
        assert row.p_value < 1e-6
        assert row.interval is not None
        assert row.interval[0] <= row.value <= row.interval[1]
        assert "1.0% false positives" in row.detail
    assert rows[-1].value > 0
    json.dumps(membership_rocs(memoriser, memoriser.data, normal(90, 8))["loss"].to_json())


def test_bad_input_has_one_sentence(memoriser):
    with pytest.raises(InputError, match="choose loss"):
        score("gap", memoriser, memoriser.data, 0.1)
    with pytest.raises(InputError, match="covers sigma/alpha"):
        score("loss", memoriser, memoriser.data, 100.0)


# --- distance to the memoriser -------------------------------------------------------------------


def test_distance_of_the_memoriser_to_itself_is_zero(memoriser):
    found = copying_distance(memoriser, memoriser.data, normal(40, 8, seed=1), levels=6, rows=30)
    assert set(found.mean) == {"train", "holdout", "sampler"}
    assert all(np.all(v == 0) for v in found.mean.values())


def test_distance_of_a_gaussian_to_the_memoriser_of_two_points():
    """Points +-1 and the guess 0: e* = y / s less tanh(y / s^2) / s, so Delta = E tanh^2 / s^2."""
    process = EDM(0.1, 20)
    law = Linear(process, torch.zeros(1), torch.zeros(1), torch.eye(1))
    rows = torch.tensor([[1.0], [-1.0]]).repeat(1000, 1)
    found = copying_distance(law, rows, levels=5, rows=2000)
    z = np.linspace(-9, 9, 4001)
    for s, mean, error in zip(found.spread, found.mean["train"], found.stderr["train"]):  # noqa: B905
        exact = np.trapezoid(stats.norm.pdf(z) * np.tanh((1 + s * z) / s**2) ** 2, z) / s**2
        assert abs(mean - exact) < 4 * error + 1e-4 * exact
    assert set(found.mean) == {"train", "sampler"}
    # the sampler's states of "always 0" shrink with the noise: its tanh stays below the rows'
    assert found.mean["sampler"][-1] <= found.mean["train"][-1]
    json.dumps(found.to_json())
    axes = found.figure().axes[0]
    assert "noise level" in axes.get_xlabel()
    assert "per coordinate" in axes.get_ylabel()
