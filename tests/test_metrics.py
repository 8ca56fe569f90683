"""Calibrated metrics against prdc, hand computations, closed-form nulls and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.metrics.calibrated import _prdc_rows, calibrated_rates
from reverie.auditing.metrics.data_copying import copying_test, rank_z
from reverie.auditing.metrics.feature_metrics import fld, frechet_distance, kid, mmd2
from reverie.auditing.metrics.rates import (
    authentic,
    authenticity_limit,
    coverage_null,
    intrinsic_dimension,
    prdc,
    ratio_hits,
)
from reverie.errors import InputError


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def torus(n, d, seed):
    """Uniform rows in a unit cube."""
    return np.random.default_rng(seed).random((n, d))


# precision, recall, density, coverage


@pytest.mark.parametrize(("n", "m", "k"), [(300, 200, 5), (150, 260, 1), (60, 60, 3)])
@pytest.mark.filterwarnings("ignore")  # the package's own warnings about its 8 workers
def test_prdc_equals_the_package(n, m, k, monkeypatch):
    package = pytest.importorskip("prdc.prdc")
    pairs = package.sklearn.metrics.pairwise_distances  # it asks for 8 workers whatever the size
    monkeypatch.setattr(
        package.sklearn.metrics,
        "pairwise_distances",
        lambda x, y, metric, n_jobs: pairs(x, y, metric=metric),
    )
    real, drawn = normal(n, 6), 1.1 * normal(m, 6, seed=1)
    theirs = package.compute_prdc(real, drawn, k)
    assert prdc(real, drawn, k).means() == pytest.approx(theirs, abs=1e-12)


def test_prdc_by_hand():
    """Real 0, 1, 3 with k = 1: balls 1, 1, 2. Drawn .5, 2.5, 9: balls 2, 2, 6.5."""
    real, drawn = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.5], [9.0]])
    found = prdc(real, drawn, k=1)
    assert found.precision.tolist() == [True, True, False]
    assert found.density.tolist() == [2, 1, 0]  # .5 in the balls of 0 and 1; 2.5 in that of 3
    assert found.coverage.tolist() == [True, True, True]
    assert found.recall.tolist() == [True, True, True]
    assert not prdc(real, real + 1.0, k=1).coverage[0]  # at the distance of the ball: outside


def test_coverage_null_is_the_mean_of_coverage():
    """20 draws of N = 200, M = 150 (4 standard errors); precision is below its supposed 1."""
    found = [prdc(normal(200, 3, 2 * s), normal(150, 3, 2 * s + 1), 3).means() for s in range(20)]
    coverage = np.array([f["coverage"] for f in found])
    assert abs(coverage.mean() - coverage_null(200, 150, 3)) < 4 * coverage.std() / math.sqrt(20)
    density = np.array([f["density"] for f in found])
    assert abs(density.mean() - 1) < 4 * density.std() / math.sqrt(20)
    assert np.mean([f["precision"] for f in found]) < 0.97
    assert coverage_null(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)


# the 1/3 rule, dimension, authenticity


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_fresh_sample_passes_the_third_rule_with_chance_c_to_the_d(dim):
    """In the middle of a uniform cube the law is exact; 4 binomial standard errors."""
    real, drawn = torus(20_000, dim, 0), 0.2 + 0.6 * torus(3000, dim, 1)
    rate, law = ratio_hits(real, drawn).mean(), 3.0**-dim
    # samples near one another share neighbours: 3000 queries of 20,000 rows, a factor 1.5
    assert abs(rate - law) < 4 * 1.5 * math.sqrt(law * (1 - law) / 3000)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_intrinsic_dimension_of_a_flat_cube_in_ten_dimensions(dim):
    frame = np.linalg.qr(normal(10, dim))[0]
    real, queries = torus(20_000, dim, 0) @ frame.T, (0.2 + 0.6 * torus(1000, dim, 1)) @ frame.T
    # 9 log ratios of each query with deviation 1/d: 3% at three standard errors, and curvature
    assert intrinsic_dimension(queries, real) == pytest.approx(dim, rel=0.06)
    assert math.isnan(intrinsic_dimension(real[:5], real))


MUTUAL = {1: 2 / 3, 2: 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)), 3: 16 / 27}


@pytest.mark.parametrize("dim", MUTUAL)
def test_authenticity_null_is_not_a_half_and_wrong_indexing_hides_it(dim):
    limit = 1 - MUTUAL[dim]  # the chance of mutual nearest neighbours in the plane is classical
    assert authenticity_limit(dim) == pytest.approx(limit, rel=1e-12)
    real, drawn = torus(8000, dim, 2), 0.2 + 0.6 * torus(3000, dim, 3)
    error = 1.5 * math.sqrt(limit * (1 - limit) / 3000)
    assert abs(authentic(real, drawn).mean() - authenticity_limit(dim)) < 4 * error
    distance = nearest(drawn, real, 1)[0][:, 0]
    own = nearest(real, real, 1, skip_self=True)[0][:, 0]
    wrong = (own[: len(drawn)] < distance).mean()  # the sample's index in place of the row's
    assert abs(wrong - 0.5) < 4 * 1.5 * 0.5 / math.sqrt(3000)


def test_a_copycat_is_always_flagged_and_never_authentic():
    real = normal(400, 8)
    copies = real[np.random.default_rng(1).integers(400, size=300)]
    assert ratio_hits(real, copies).all()
    assert not authentic(real, copies).any()
    twice = np.repeat(
        real, 2, axis=0
    )  # duplicated rows: 0 / 0 is no evidence, and no authenticity
    assert not ratio_hits(twice, copies).any()
    assert not authentic(twice, copies).any()


# C_T


def test_rank_z_equals_scipy_with_its_tie_correction():
    rng = np.random.default_rng(0)
    for values in (rng.random(90), rng.integers(0, 4, 90).astype(float)):
        sample, test = values[:60] + 0.05, values[60:] + 0.05
        p = stats.mannwhitneyu(
            sample, test, alternative="less", method="asymptotic", use_continuity=False
        ).pvalue
        assert stats.norm.cdf(rank_z(sample, test)) == pytest.approx(p, rel=1e-9)
    assert rank_z(np.ones(30), np.ones(20)) == 0


def test_copying_statistic_has_deviation_root_sum_of_squared_weights():
    """Three far and equal cells: deviation .577, over 200 draws to 4 standard errors."""
    centre = 100 * np.eye(3)

    def draw(seed):
        rng = np.random.default_rng(seed)
        return [np.repeat(centre, n // 3, 0) + rng.standard_normal((n, 3)) for n in (90, 90, 120)]

    tests = [copying_test(*draw(seed)) for seed in range(200)]
    assert tests[0].deviation == pytest.approx(3**-0.5)
    values = np.array([test.value for test in tests])
    assert abs(values.std() - 3**-0.5) < 4 * 3**-0.5 / math.sqrt(400)
    assert abs(values.mean()) < 4 * 3**-0.5 / math.sqrt(200)
    assert 0.01 < np.mean([test.p_value < 0.05 for test in tests]) < 0.115  # 4 errors about .05


def test_copying_statistic_sees_copies_and_leaves_out_empty_cells():
    members, held = normal(300, 4), normal(300, 4, 1)
    assert copying_test(members, held, members + 1e-3).p_value < 1e-10
    assert copying_test(members, held, 2 * normal(300, 4, 2)).value > 3
    far = np.concatenate([members, members + 1000])
    test = copying_test(far, held, np.concatenate([normal(200, 4, 3), far]), cells=2)
    assert test.unused == 1  # no held-out row at 1000
    with pytest.raises(InputError, match="more samples"):
        copying_test(members, held, members[:10])


# features


def test_frechet_distance_of_gaussians_by_hand():
    """Diagonal covariances: |mu - mu'|^2 + sum (s - s')^2, on sets with exactly these moments."""
    rows = normal(500, 4)
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    s, t = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 2.0, 1.0, 0.0])
    expected = 4 * 0.3**2 + ((s - t) ** 2).sum()
    assert frechet_distance(white * s, white * t + 0.3) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-6)


def test_mmd_by_loops_and_kid_of_equal_and_of_other_laws():
    x, y = normal(7, 3), normal(5, 3, 1)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
        for z in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd2(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)
    value, error = kid(normal(2000, 5), normal(2000, 5, 1))
    assert abs(value) < 4 * error
    value, error = kid(normal(2000, 5), normal(2000, 5, 1) + 0.3)
    # E k(x, x') = E (x.x'/d + 1)^3 for N(mu, I): u = x.x'/d has mean |mu|^2/d and known moments
    rng = np.random.default_rng(5)
    a, b, c, e = rng.standard_normal((4, 400_000, 5))
    terms = ((a * b).sum(1) / 5 + 1) ** 3 + (((c + 0.3) * (e + 0.3)).sum(1) / 5 + 1) ** 3
    terms -= 2 * ((a * (c + 0.3)).sum(1) / 5 + 1) ** 3
    assert abs(value - terms.mean()) < 4 * math.hypot(error, terms.std() / math.sqrt(400_000))


def test_fld_gap_is_far_below_zero_for_copies_only():
    train, test, fresh = normal(400, 6), normal(400, 6, 1), normal(400, 6, 2)
    honest, copied = fld(train, test, fresh), fld(train, test, train + 1e-4)
    assert abs(honest.gap) < 4 * honest.gap_stderr + 10  # centres are fitted to training rows
    assert copied.gap < -200
    assert abs(honest.value) < 15  # samples as good as training rows
    assert fld(train, test, 3 + fresh).value > 15


def test_fld_does_not_depend_on_the_unit_of_a_column():
    train, test, fresh = normal(200, 3), normal(200, 3, 1), normal(200, 3, 2)
    unit = np.array([1.0, 1e3, 1e-3])
    plain, scaled = fld(train, test, fresh), fld(train * unit, test * unit, fresh * unit)
    assert plain.gap == pytest.approx(scaled.gap, abs=1e-6)


# all together


def by_name(rows):
    return {row.statistic: row for row in rows}


def test_calibrated_rates_of_a_fresh_sample_and_of_a_copycat():
    members, held = normal(500, 4), normal(500, 4, 1)
    fresh = by_name(calibrated_rates(members, held, normal(600, 4, 2)))
    copies = by_name(calibrated_rates(members, held, members + 1e-5))
    assert list(fresh) == [
        "1/3-ratio rate", "authenticity", "precision", "recall", "density", "coverage", "C_T",
        "Frechet gap (held-out - training)", "KID to held-out", "FLD gap",
    ]  # fmt: skip
    assert fresh["C_T"].p_value > 0.01
    assert copies["C_T"].p_value < 1e-10
    assert copies["1/3-ratio rate"].value == 1
    assert copies["authenticity"].value == 0
    assert copies["FLD gap"].value < -100 < fresh["FLD gap"].value
    for row in fresh.values():  # each held-out interval holds the samples' own difference of 0
        if "95%:" in row.detail:
            low, high = row.detail.split("95%: ")[1].rstrip(")").split(" to ")
            width = (float(high) - float(low)) / 2
            assert float(low) - width <= 0 <= float(high) + width  # four standard errors
        assert row.p_joint is None
        assert row.interval is not None


def test_calibrated_rates_of_few_rows_of_wide_rows_and_of_ties():
    few = calibrated_rates(normal(10, 3), normal(10, 3, 1), normal(10, 3, 2))
    assert [row.statistic for row in few][:2] == ["1/3-ratio rate", "authenticity"]
    wide = calibrated_rates(normal(60, 90), normal(60, 90, 1), normal(60, 90, 2))
    assert all(np.isfinite(row.value) for row in wide)
    rng = np.random.default_rng(0)
    cells = [rng.integers(0, 3, (80, 2)).astype(float) for _ in range(3)]
    assert all(np.isfinite(row.value) for row in calibrated_rates(*cells))


def test_intervals_of_the_difference_from_held_out_rows_hold_their_level():
    """Over 60 fresh draws, each 95% interval misses 0 at most as often as 4 errors allow."""
    misses = {}
    for seed in range(60):
        rows = np.split(normal(450, 3, seed), 3)
        found = by_name(_prdc_rows(*rows, np.random.default_rng(0)))
        for name, row in found.items():
            low, high = row.detail.split("95%: ")[1].rstrip(")").split(" to ")
            misses[name] = misses.get(name, 0) + (not float(low) <= 0 <= float(high))
    assert list(misses) == ["precision", "recall", "density", "coverage"]
    assert max(misses.values()) <= 60 * 0.05 + 4 * math.sqrt(60 * 0.05 * 0.95)
