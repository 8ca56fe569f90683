import json
import math
import sys
from functools import partial

import numpy as np
import pytest
import torch

from reverie.auditing import audit, nearest, share_test, tail_test
from reverie.auditing.metrics.rates import ratio_hits
from reverie.auditing.nulls.rank_tests import holm, tail_order, wilson
from reverie.auditing.nulls.tail_null import TailNull, fewest_visible, ladder
from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.processes import EDM

quick = partial(audit, metrics=False)
swift = partial(audit, metrics=False, power=False)


def normal(n, d=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_equals_brute_force(offset):
    """Also far from the origin, where |x|^2 - 2xy + |y|^2 loses every digit in float32."""
    points, queries = normal(500, 6) + offset, normal(90, 6, seed=1) + offset
    distance, index = nearest(queries, points, 3)
    full = np.linalg.norm(queries[:, None] - points[None], axis=2)
    order = np.argsort(full, axis=1)[:, :3]
    assert np.array_equal(index, order)
    assert np.allclose(distance, np.take_along_axis(full, order, 1), rtol=1e-12)


def test_nearest_in_blocks_and_without_self(monkeypatch):
    from reverie.auditing.facts import neighbours, proposals

    points = normal(300, 4)
    whole = nearest(points, points, 5, skip_self=True)
    monkeypatch.setattr(neighbours, "NUMBERS", 1)  # 256 queries at a time
    monkeypatch.setattr(proposals, "SHORT", (37, 64, 2))
    parts = nearest(points, points, 5, skip_self=True)
    assert np.array_equal(whole[1], parts[1])
    assert (whole[0] > 0).all()
    assert nearest(points[:2], points[:2], 5, skip_self=True)[0].shape == (2, 1)


def test_tail_null_equals_simulation():
    """P(least p over the ladder <= x) against 20,000 random labellings (4 standard errors)."""
    rng = np.random.default_rng(0)
    members, others = 60, 40
    null = TailNull(members, others, (8, 15, 25))
    labels = np.arange(100) < members
    draws = np.array([null.least_p(rng.permutation(labels)) for _ in range(20_000)])
    for x in np.quantile(draws, [0.02, 0.1, 0.5]):
        exact = null.corrected(float(x))
        error = 4 * math.sqrt(exact * (1 - exact) / 20_000)
        assert abs((draws <= x * (1 + 1e-9)).mean() - exact) < error


def test_tail_null_by_enumeration():
    """All orders of 3 members and 3 others: 20 labellings, one ladder rung."""
    null = TailNull(3, 3, (2,))
    assert null.corrected(null.tails[2][2]) == pytest.approx(3 / 15)
    assert null.critical(0.05) == 0.0
    assert null.critical(0.21) == pytest.approx(0.2)


def test_critical_value_has_its_size():
    null = TailNull(500, 500, ladder(500, 500))
    x = null.critical(0.05)
    assert null.corrected(x) <= 0.05 < null.corrected(x * 3)


@pytest.mark.parametrize(
    ("members", "others", "fewest"), [(1000, 1000, 5), (4000, 1000, 14), (9000, 1000, 29)]
)
def test_fewest_copies_visible(members, others, fewest):
    assert fewest_visible(members, others) == fewest


@pytest.mark.slow
def test_type_one_error_of_tail_and_share():
    """Perfect generator, 400 replications at n = 200 + 200, m = 400, d = 4: the tail test is never
    above 5% by more than 2 s.e.; the share test within 3 s.e. (its null is a normal limit)."""
    rng = np.random.default_rng(0)
    member = np.arange(400) < 200
    rejected = np.zeros(2)
    for _ in range(400):
        pool, drawn = rng.standard_normal((2, 400, 4))
        spacing = nearest(pool, pool, 5, skip_self=True)[0][:, -1]
        to_samples = nearest(pool, drawn, 1)[0][:, 0]
        counts = np.bincount(nearest(drawn, pool, 1)[1][:, 0], minlength=400)
        rejected[0] += tail_test(to_samples / spacing, member).p_value <= 0.05
        rejected[1] += share_test(counts.astype(float), member).p_value <= 0.05
    error = math.sqrt(0.05 * 0.95 / 400)
    assert rejected[0] / 400 < 0.05 + 2 * error
    assert abs(rejected[1] / 400 - 0.05) < 3 * error


def test_share_test_variance_is_the_permutation_variance():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, 50).astype(float)
    member = np.arange(50) < 20
    draws = np.array([counts[rng.permutation(member)].sum() for _ in range(20_000)])
    above = (draws >= counts[member].sum()).mean()  # whole counts: equal sums count
    assert share_test(counts, member).p_value == pytest.approx(above, abs=0.014)  # 4 s.e.


def test_swapping_the_labels_turns_the_share_test_round():
    """P(T >= t) + P(T <= t) = 1 + P(T = t), the last by 20,000 relabellings within 4 s.e."""
    rng = np.random.default_rng(1)
    counts, member = rng.poisson(2, 80).astype(float), np.arange(80) < 40
    p, q = share_test(counts, member).p_value, share_test(counts, ~member).p_value
    draws = np.array([counts[rng.permutation(member)].sum() for _ in range(20_000)])
    equal = (draws == counts[member].sum()).mean()
    assert p + q == pytest.approx(1 + equal, abs=0.006)


def test_ties_are_broken_at_random_with_a_seed():
    order = tail_order(np.zeros(40), seed=1)
    assert np.array_equal(order, tail_order(np.zeros(40), seed=1))
    assert not np.array_equal(order, tail_order(np.zeros(40), seed=2))


def test_holm_and_wilson():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    low, high = wilson(0, 100)
    assert low == 0
    assert high == pytest.approx(0.037, abs=1e-3)


def test_copies_are_found_and_named():
    """n = 1000, m = 2000, d = 8: ten copies (0.5%) with noise .05 give a verdict of copies."""
    train, holdout, samples = normal(1000), normal(1000, seed=1), normal(2000, seed=2)
    samples[:10] = train[100:110] + 0.05 * normal(10, seed=3)
    verdict = audit(train, holdout, samples)
    assert verdict.finding == "copies"
    assert verdict.p_value < 0.05
    named = {r.train_row for r in verdict.records if r.near_copy}
    assert named == set(range(100, 110))
    pairs = {(r.train_row, r.sample) for r in verdict.records}
    assert {(100 + k, k) for k in range(10)} <= pairs


def test_power_of_half_a_percent_of_copies():
    """At least .95 at 0.5% copies (spec 7 B), as the audit states and as 30 plantings show."""
    rng = np.random.default_rng(5)
    stated, found = [], 0
    for k in range(30):
        train, holdout = rng.standard_normal((2, 1000, 8))
        samples = rng.standard_normal((2000, 8))
        copied = rng.choice(1000, 10, replace=False)
        samples[:10] = train[copied] + 0.05 * rng.standard_normal((10, 8))
        if k == 0:
            power = quick(train, holdout, samples[10:]).power
            stated = [p.caught for p in power if p.copies == 10 and p.kind == "noise"]
        pool = np.concatenate([train, holdout])
        spacing = nearest(pool, pool, 5, skip_self=True)[0][:, -1]
        near = nearest(pool, samples, 1)[0][:, 0]
        found += tail_test(near / spacing, np.arange(2000) < 1000).p_value <= 0.05
    assert found / 30 >= 0.95
    assert stated
    assert stated[0] >= 0.95


def test_an_honest_generator_is_cleared():
    verdict = audit(normal(600), normal(600, seed=1), normal(1500, seed=2))
    assert verdict.finding == "none"
    assert "would have been seen four times in five" in verdict.headline
    assert "noise of 0.05 deviations a column at 0.00" in verdict.headline


@pytest.mark.slow
def test_an_honest_gaussian_fit_is_never_called_copies():
    """Fitted on n = 200, d = 8: it may depend on its data, but it copies nothing (spec 7 C)."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        train, holdout = rng.standard_normal((2, 200, 8))
        drawn = rng.multivariate_normal(train.mean(0), np.cov(train.T), 2000)
        assert quick(train, holdout, drawn).finding != "copies"


def test_too_little_data_is_inconclusive():
    verdict = audit(normal(40), normal(10, seed=1), normal(60, seed=2))
    assert verdict.finding == "inconclusive"


def test_a_copycat_is_certain():
    train = normal(300)
    verdict = audit(train, normal(300, seed=1), train)
    assert verdict.finding == "copies"
    assert verdict.p_value < 1e-10
    rate = verdict.row("1/3-ratio rate")
    assert rate.value == 1.0
    assert float(rate.null.split()[2].rstrip("%;")) < 1  # of held-out rows in their place


def test_the_ratio_rule_has_its_null_rate():
    """P(d1/d2 < 1/3) = 3^-d for fresh samples (spec 2): d = 2, 3, within 4 standard errors plus
    the edge effect of a finite sample."""
    for d in (2, 3):
        rate = ratio_hits(normal(4000, d), normal(4000, d, 2)).mean()
        assert abs(rate - 3.0**-d) < 4 * math.sqrt(3.0**-d / 4000) + 0.1 * 3.0**-d


def test_the_leak_joins_the_verdict(generator):
    """The memoriser leaks, and exposes its rows even with honest samples."""
    train, holdout = normal(200, 3), normal(200, 3, 1)
    model = Memoriser(EDM(0.1, 20), torch.as_tensor(train, dtype=torch.float32))
    verdict = audit(train, holdout, normal(600, 3, 2), denoiser=model)
    assert verdict.leak is not None
    assert verdict.leak.low > 1
    assert verdict.finding == "exposes"
    assert verdict.to_json()["finding_v1"] == "dependence"


def test_shared_rows_are_kept_and_named_or_refused():
    train, holdout = normal(100), normal(100, seed=1)
    holdout[:20] = train[:20]
    verdict = audit(train, holdout, normal(200, seed=2))
    assert verdict.sizes["holdout"] == 100
    assert any("20 of 100 held-out rows" in line for line in verdict.sentences())
    with pytest.raises(InputError, match="stand verbatim"):
        audit(train, train, normal(200, seed=2))


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ((normal(100), normal(100, 7), normal(100)), "holdout has rows of shape"),
        ((normal(100), normal(100, seed=1), normal(100, 7)), "samples has rows of shape"),
        ((normal(5), normal(100, seed=1), normal(100)), "train has 5 row"),
        ((normal(100), np.full((50, 8), np.inf), normal(100)), "holdout: row 0, column 0"),
    ],
)
def test_bad_sets_get_one_sentence(sets, words):
    with pytest.raises(InputError, match=words):
        audit(*sets)


def test_verdict_as_json_and_html():
    verdict = audit(normal(100), normal(100, seed=1), normal(200, seed=2))
    data = json.loads(json.dumps(verdict.to_json()))
    assert data["finding"] == verdict.finding
    assert {"statistic", "null", "p_value", "interval"} <= set(data["table"][0])
    html = verdict.to_html()
    assert "What this audit cannot see" in html
    assert "<script" not in html
    assert "tail" in verdict.summary()


def test_audit_is_quick():
    """1,000 + 1,000 + 2,000 rows in 8 dimensions in under 2 s of processor time."""
    import time

    start = time.process_time()
    quick(normal(1000), normal(1000, seed=1), normal(2000, seed=2))
    assert time.process_time() - start < 4  # two threads at most: 2 s each


def test_nearest_never_loses_a_copy_among_tight_clusters():
    """Two clusters at +-1 with spread 1e-4 (float32 products cannot tell their points apart)."""
    rng = np.random.default_rng(0)
    for spread in (1e-3, 1e-5, 1e-10):
        points = np.sign(rng.standard_normal((800, 1))) + spread * rng.standard_normal((800, 3))
        distance, index = nearest(points, points, 1)
        assert (distance[:, 0] == 0).all()
        assert (index[:, 0] == np.arange(800)).all()
    heavy = np.exp(3 * rng.standard_normal((500, 4)))
    assert (nearest(heavy, heavy, 1)[0] == 0).all()


def test_copies_are_found_among_tight_clusters():
    rng = np.random.default_rng(0)
    pool = np.sign(rng.standard_normal((1000, 1))) + 1e-4 * rng.standard_normal((1000, 6))
    fresh = np.sign(rng.standard_normal((900, 1))) + 1e-4 * rng.standard_normal((900, 6))
    samples = np.concatenate([pool[:100], fresh])
    assert audit(pool[:500], pool[500:], samples).finding == "copies"


@pytest.mark.slow
def test_honest_generators_on_integer_tables_are_cleared():
    """Rows shared by the two splits do not turn an honest generator into a copying one: at most
    5% + 3 s.e. of 20 audits find anything."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(20):
        train, holdout, samples = (rng.binomial(12, 0.5, (n, 4)) for n in (200, 200, 600))
        found += swift(train, holdout, samples).finding in ("copies", "exposes", "leans", "unfair")
    assert found / 20 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 20)


def test_columns_are_matched_by_name():
    from reverie.data import Dataset

    train, holdout = normal(150, 3), normal(150, 3, 1)
    samples = Dataset(train[:, [2, 0, 1]], "table", "g", columns=("c", "a", "b"))
    tables = [Dataset(x, "table", "x", columns=("a", "b", "c")) for x in (train, holdout)]
    assert audit(*tables, samples).finding == "copies"
    other = Dataset(train, "table", "g", columns=("a", "b", "z"))
    with pytest.raises(InputError, match="other columns: c, z"):
        audit(*tables, other)


def test_shared_rows_are_seen_across_types():
    train = normal(100)
    with pytest.raises(InputError, match="stand verbatim"):
        audit(train, train.astype(np.float32), normal(200, seed=2))


def test_certain_p_values_keep_their_digits():
    null = TailNull(1000, 1000, ladder(1000, 1000))
    least = null.least_p(np.ones(2000, bool))
    assert 0 < null.corrected(least) < 1e-40


def test_images_reach_a_denoiser_as_the_user_gave_them():
    """(n, H, W, C) arrays are channel-last for the denoiser too."""
    from reverie.denoisers import Denoiser

    class Shaped(Denoiser):
        def __init__(self):
            super().__init__()
            self.process = EDM(0.1, 20)

        def forward(self, state, t, condition=None):
            assert state.shape[1:] == (4, 5, 3)
            return 0 * state

    rng = np.random.default_rng(0)
    sets = (rng.integers(0, 256, (40, 4, 5, 3)).astype(np.uint8) for _ in range(3))
    assert audit(*sets, denoiser=Shaped()).leak is not None


def neighbour_cases():
    rng = np.random.default_rng(3)
    cells = rng.integers(0, 6, (900, 3)).astype(float)  # ties and duplicates everywhere
    far = 1e4 + rng.standard_normal((700, 20))  # products cancel
    pairs = np.repeat(rng.standard_normal((400, 30)), 2, 0) + 1e-9 * rng.standard_normal((800, 30))
    wide = rng.standard_normal((500, 200)).astype(np.float32)
    return {"ties": cells, "far": far, "near duplicates": pairs, "wide float32": wide}


@pytest.mark.parametrize("backend", ["own", "faiss"])
@pytest.mark.parametrize("name", neighbour_cases())
@pytest.mark.parametrize("skip_self", [False, True])
def test_nearest_is_exact_whatever_the_case_and_the_backend(name, backend, skip_self):
    if backend == "faiss":
        pytest.importorskip("faiss")
    points = neighbour_cases()[name]
    square = np.zeros((len(points), len(points)))
    for column in points.astype(np.float64).T:  # differences, so that nothing cancels
        square += (column[:, None] - column[None]) ** 2
    if skip_self:
        np.fill_diagonal(square, np.inf)
    distance, index = nearest(points, points, 6, skip_self=skip_self, backend=backend)
    expected = np.sqrt(np.sort(square, axis=1)[:, :6])
    np.testing.assert_allclose(distance, expected, rtol=1e-12, atol=1e-14)
    if name == "ties":  # whole numbers: equal distances are equal, and go to the lower index
        assert (index == np.argsort(square, axis=1, kind="stable")[:, :6]).all()


def test_nearest_reports_progress_and_names_unknown_backends(monkeypatch):
    from reverie.auditing.facts import neighbours

    monkeypatch.setattr(neighbours, "NUMBERS", 1)
    points, seen = np.random.default_rng(0).standard_normal((600, 2)), []
    nearest(points, points, 1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]
    with pytest.raises(InputError, match="own, faiss"):
        nearest(points, points, 1, backend="annoy")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install"):
        nearest(points, points, 1, backend="faiss")
