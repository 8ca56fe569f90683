"""What the audit promises: valid p-values, stated power, named records, and fits that do not copy.

Rates over R replications are held to k standard errors sqrt(p (1 - p) / R) of their target.
"""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from reverie.auditing import audit, share_test, tail_test
from reverie.auditing.facts.closeness import CommonSpace, closeness, nearest_counts
from reverie.auditing.judge import weigh
from reverie.auditing.nulls.cell_test import cell_table, cell_test, repeated_part
from reverie.auditing.nulls.rank_tests import (
    HONEST_ODDS,
    benjamini_hochberg,
    near_null,
    near_test,
    share_effect,
)
from reverie.auditing.nulls.saddlepoint import permutation_p
from reverie.auditing.nulls.tail_null import TailNull, fewest_visible, ladder, tail_null
from reverie.auditing.verdict import Row
from reverie.errors import InputError

quick = partial(audit, metrics=False, power=False)


def error(rate, replications):
    return math.sqrt(rate * (1 - rate) / replications)


# --- nulls -----------------------------------------------------------------------------------


def test_the_walk_at_even_odds_is_hypergeometric():
    null = TailNull(30, 20, (5, 9))
    assert np.allclose(null.tails[9], stats.hypergeom.sf(np.arange(-1, 9), 50, 30, 9), atol=1e-14)


def test_the_walk_at_other_odds_is_wallenius():
    """The urn's own law, by scipy's noncentral distribution."""
    null = TailNull(30, 20, (12,), odds=1.5)
    law = stats.nchypergeom_wallenius(50, 30, 12, 1.5)
    assert np.allclose(null.tails[12], law.sf(np.arange(-1, 12)), atol=1e-9)


def test_proportional_hazards_have_the_near_test_s_size():
    """Distances with a member's hazard HONEST_ODDS times a held-out row's: 5% + 2 s.e. at most."""
    rng, member = np.random.default_rng(0), np.arange(300) < 150
    rate = np.where(member, HONEST_ODDS, 1.0)
    rejected = np.mean(
        [near_test(rng.exponential(1 / rate), member).p_value <= 0.05 for _ in range(400)]
    )
    assert rejected < 0.05 + 2 * error(0.05, 400)


def test_too_few_near_rows_tell_nothing():
    assert near_null(100, 100, fewest_visible(100, 100, 0.05, HONEST_ODDS) - 1) is None
    assert near_test(np.ones(40), np.arange(40) < 20).p_value == 1


@pytest.mark.parametrize("sizes", [(1000, 1000), (4000, 1000), (200, 200), (900, 100)])
def test_the_ladder_brings_the_exact_size_near_its_level(sizes):
    """A single K of 10, 20 or 50 has size .011, .020 and .031 (spec 7)."""
    for k, size in ((10, 0.011), (20, 0.020), (50, 0.031)):
        assert tail_null(1000, 1000, (k,)).size(0.05) == pytest.approx(size, abs=1e-3)
    assert 0.047 < tail_null(*sizes, ladder(*sizes)).size(0.05) <= 0.05


def test_the_randomised_p_value_is_uniform():
    """Exactly: P(p <= x) = x, by the attained values and their chances, 2,000 draws of u each."""
    null = TailNull(6, 4, (3, 5))
    labels = np.arange(10) < 6
    rng = np.random.default_rng(0)
    p = [null.randomised(null.least_p(rng.permutation(labels)), rng.random()) for _ in range(4000)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_saddlepoint_against_relabelling():
    """Skewed scores, a fifth of them members: within 4 s.e. of 40,000 draws, where a normal limit
    is off by a factor of two."""
    rng = np.random.default_rng(0)
    scores = np.floor(3 * rng.pareto(1.5, 200)) + rng.poisson(1, 200)
    member = np.arange(200) < 40
    draws = [rng.permutation(member) for _ in range(40_000)]
    values = np.array([scores[d].sum() for d in draws])
    order = np.argsort(values)
    for tail in (0.05, 0.01, 0.002):
        place = order[int((1 - tail) * len(values))]
        exact = (values >= values[place]).mean()
        slack = 4 * error(exact, 40_000) + 0.1 * exact
        assert abs(permutation_p(scores, draws[place]) - exact) < slack


def test_swapping_labels_swaps_the_saddlepoint_tail():
    scores = np.random.default_rng(0).normal(size=300)
    member = np.arange(300) < 100
    assert permutation_p(scores, member) + permutation_p(-scores, member) == pytest.approx(
        1, abs=2e-3
    )


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(0).random(50) ** 3
    assert np.allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


# --- type-I error ----------------------------------------------------------------------------


def discrete(rng, n, law):
    """(n, 3) of codes 0..5: a mixture of three products, so that columns depend."""
    part = rng.integers(3, size=n)
    u = rng.random((n, 3))
    return np.stack([(u[:, [c]] > law[c, part].cumsum(1)[:, :-1]).sum(1) for c in range(3)], 1)


def draw(kind, rng):
    if kind == "heavy":
        return lambda n: rng.standard_t(1.5, (n, 8))
    if kind == "discrete":
        law = rng.dirichlet(np.ones(6), (3, 3))
        return lambda n: discrete(rng, n, law).astype(float)
    return lambda n: rng.standard_normal((n, kind))


def space(train, holdout, drawn, is_discrete=False):
    cells = None
    if is_discrete:
        codes = np.concatenate([train, holdout, drawn]).astype(int) @ [36, 6, 1]
        cells = tuple(np.split(codes, np.cumsum([len(train), len(holdout)])))
    return CommonSpace(train, holdout, drawn, None, cells)


def sizes_of(kind, members, others, m, replications, seed=0):
    """Rejection rates at 5% of the tail, randomised tail, share and cell tests."""
    rng, rejected = np.random.default_rng(seed), []
    for k in range(replications):
        sample = draw(kind, rng)
        data = space(sample(members), sample(others), sample(m), kind == "discrete")
        close = closeness(data)
        p = [
            tail_test(close.unit_ratio(-1), close.is_member, k).p_value,
            tail_test(close.unit_ratio(-1), close.is_member, k, randomised=True).p_value,
            share_test(close.counts, close.is_member).p_value,
        ]
        if data.cells is not None:
            p.append(cell_test(cell_table(data.cells), close.unit, close.is_member).p_value)
        rejected.append(p)
    return (np.array(rejected) <= 0.05).mean(0)


def check_sizes(kind, members, others, m, replications):
    """Share, randomised tail and cells within 2 s.e. of 5%; tail not above its exact size by 2."""
    tail, *rest = sizes_of(kind, members, others, m, replications)
    size = tail_null(members, others, ladder(members, others)).size(0.05)
    assert tail <= size + 2 * error(0.05, replications)
    assert np.abs(np.array(rest) - 0.05).max() <= 2 * error(0.05, replications), rest


@pytest.mark.parametrize(
    ("kind", "members", "others", "m"),
    [
        (2, 100, 100, 400),
        ("heavy", 150, 50, 400),
        pytest.param("discrete", 150, 150, 600, marks=pytest.mark.slow),
    ],
)
def test_type_one_error_on_small_sets(kind, members, others, m):
    check_sizes(kind, members, others, m, 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "members", "others", "m"),
    [
        (2, 1000, 1000, 2000),
        (8, 1000, 1000, 2000),
        (32, 1000, 1000, 2000),
        (2, 1000, 1000, 50_000),
        (8, 1000, 1000, 50_000),
        (32, 1000, 1000, 50_000),
        ("heavy", 1000, 1000, 2000),
        ("discrete", 1000, 1000, 2000),
        ("discrete", 1000, 1000, 50_000),
        (8, 4000, 1000, 2000),
    ],
)
def test_type_one_error_at_full_size(kind, members, others, m):
    check_sizes(kind, members, others, m, 400)


def test_ties_of_any_size_are_split_whole():
    """Every pool row equal: each holds the same share of every sample, with and without codes."""
    pool, drawn = np.zeros((60, 2)), np.zeros((10, 2))
    codes = np.zeros(70, int)
    for cells in (None, (codes[:20], codes[20:60], codes[60:])):
        counts = nearest_counts(CommonSpace(pool[:20], pool[20:], drawn, None, cells))
        assert np.allclose(counts, 10 / 60)


def test_a_discrete_table_measures_as_rows_one_by_one():
    rng = np.random.default_rng(0)
    train, holdout, drawn = (rng.integers(0, 5, (n, 3)).astype(float) for n in (150, 120, 90))
    quick, slow = (closeness(space(train, holdout, drawn, flag)) for flag in (True, False))
    assert np.array_equal(quick.to_samples, slow.to_samples)
    assert np.array_equal(quick.spacing, slow.spacing)
    assert np.allclose(quick.counts, slow.counts)


# --- groups ----------------------------------------------------------------------------------


def people(rng, count, rows=6, spread=0.05):
    """Rows of `count` persons, each a tight cloud, and their ids."""
    centre = rng.standard_normal((count, 4))
    ids = np.repeat(np.arange(count), rows)
    return centre[ids] + spread * rng.standard_normal((len(ids), 4)), ids


def test_groups_keep_the_size_where_rows_do_not():
    """A perfect generator of persons: by rows the share test rejects far too often (six rows of a
    person move together), by groups both tests keep 5% within 3 s.e."""
    rng, replications = np.random.default_rng(0), 100
    by_row, by_group = [], []
    for _ in range(replications):
        (train, a), (holdout, b), (drawn, _) = people(rng, 60), people(rng, 60), people(rng, 40)
        for ids, into in ((None, by_row), ((a, b + 60), by_group)):
            close = closeness(CommonSpace(train, holdout, drawn, ids))
            tail = tail_test(close.unit_ratio(-1), close.is_member).p_value
            into.append([tail, share_test(close.counts, close.is_member).p_value])
    rows, groups = ((np.array(p) <= 0.05).mean(0) for p in (by_row, by_group))
    assert rows.max() > 0.12
    assert groups[0] < 0.05 + 3 * error(0.05, replications)
    assert abs(groups[1] - 0.05) < 3 * error(0.05, replications)


def test_a_person_is_caught_by_one_copied_row():
    rng = np.random.default_rng(0)
    (train, a), (holdout, b) = people(rng, 100, spread=0.4), people(rng, 100, spread=0.4)
    drawn = people(rng, 100, spread=0.4)[0]
    drawn[:15] = train[:90:6]
    verdict = audit(train, holdout, drawn, groups=(a, b + 100))
    assert verdict.finding == "copies"
    assert verdict.sizes["train_groups"] == 100
    assert {r.train_row for r in verdict.records if r.named} >= set(range(0, 90, 6))
    assert len({r.train_row // 6 for r in verdict.records}) == len(verdict.records)


def test_groups_are_checked():
    rng = np.random.default_rng(0)
    train, holdout = rng.standard_normal((2, 40, 2))
    ids = np.arange(40) // 2
    with pytest.raises(InputError, match="stand in both train and holdout"):
        audit(train, holdout, train, groups=(ids, ids))
    with pytest.raises(InputError, match="its rows 40"):
        audit(train, holdout, train, groups=(ids, ids[:39]))
    with pytest.raises(InputError, match="2 group"):
        audit(train, holdout, train, groups=(ids, 100 + np.arange(40) % 2))


# --- dependence is not copying ---------------------------------------------------------------


def gaussian_fit(rng, n, d, m=5000):
    train, holdout = rng.standard_normal((2, n, d))
    return train, holdout, rng.multivariate_normal(train.mean(0), np.cov(train.T), m)


def check_honest_fits(d, share, replications):
    """Share of spec 7 C within 4 s.e.; never copies; dependence stated with its size."""
    rng, excess, covered, said = np.random.default_rng(1), [], 0, 0
    for _ in range(replications):
        verdict = quick(*gaussian_fit(rng, 200, d))
        assert verdict.finding != "copies"
        e = verdict.effect
        excess.append(e.excess)
        covered += e.low <= share - 0.5 <= e.high
        said += verdict.finding == "leans"
        if verdict.finding == "leans":
            assert "as is usual for models with few data" in verdict.headline
            assert f"{100 * e.excess:.1f} percentage points more" in verdict.headline
    spread = np.std(excess) / math.sqrt(replications)
    assert abs(np.mean(excess) + 0.5 - share) < 4 * spread
    assert covered / replications > 0.95 - 3 * error(0.95, replications)
    assert said / replications > 0.2


@pytest.mark.parametrize(
    ("d", "share"), [(8, 0.533), pytest.param(16, 0.559, marks=pytest.mark.slow)]
)
def test_an_honest_gaussian_fit_depends_but_never_copies(d, share):
    check_honest_fits(d, share, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "share"), [(8, 0.533), (16, 0.559)])
def test_a_hundred_honest_gaussian_fits(d, share):
    check_honest_fits(d, share, 100)


def test_smoothing_down_to_the_spacing_turns_dependence_into_copies():
    """A kernel fit in d = 8: wide kernels depend, narrow ones reproduce their rows."""
    rng = np.random.default_rng(0)
    train, holdout = rng.standard_normal((2, 300, 8))
    found = []
    for width in (0.8, 0.1):
        noise = width * rng.standard_normal((2000, 8))
        found.append(quick(train, holdout, train[rng.integers(300, size=2000)] + noise).finding)
    assert found == ["leans", "copies"]


def test_equivalence_needs_data_and_a_small_excess():
    member = np.arange(2000) < 1000
    even = np.ones(2000)
    even[::2] = 3.0
    effect = share_effect(even, member, 0.05)
    assert effect.excess == pytest.approx(0)
    assert effect.place == "within"
    assert share_effect(np.where(member, 3.0, 1.0) + even, member, 0.05).place == "beyond"
    assert share_effect(even[990:1010], member[990:1010], 0.05).place == "unsure"


# --- tables of few cells ---------------------------------------------------------------------


def cell_sets(rng, generator, n=1000, m=2000):
    law = rng.dirichlet(np.ones(6), (3, 3))
    train, holdout = discrete(rng, n, law), discrete(rng, n, law)
    if generator == "copycat":
        drawn = train[rng.integers(n, size=m)]
    elif generator == "columns":
        drawn = np.stack([rng.choice(train[:, c], m) for c in range(3)], 1)
    else:  # a histogram smoothed by ten rows per cell: a third of it is the table
        own = rng.random(m) < n / (n + 10 * 216)
        drawn = np.where(
            own[:, None], train[rng.integers(n, size=m)], rng.integers(6, size=(m, 3))
        )
    return train, holdout, drawn


def test_a_copycat_of_few_cells_is_found_by_its_counts():
    """Its share looks like that of an honest Gaussian fit; p < 1e-6 in each of 4 tables."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        verdict = quick(*cell_sets(rng, "copycat"))
        row = verdict.row("cell counts")
        assert verdict.finding == "leans"  # whose records they are, counts do not tell
        assert "repeat" in " ".join(verdict.sentences())
        assert row.p_value < 1e-6
        assert abs(row.value - 1) < 4 * (row.interval[1] - row.value) / 1.96
        assert verdict.row("share").value < 0.58
    assert any("accidents" in line for line in verdict.sentences())


@pytest.mark.parametrize("generator", ["columns", "smoothed"])
def test_honest_models_of_few_cells_are_at_most_dependent(generator):
    rng = np.random.default_rng(1)
    for _ in range(3):
        assert quick(*cell_sets(rng, generator)).finding != "copies"


def test_the_repeated_part_by_hand():
    """Two cells of two rows: members 2 and 0, samples all in the first: all repeated."""
    slope, _ = repeated_part(np.array([5, 0]), np.array([2, 2]), np.array([2, 0]))
    assert slope == pytest.approx(1)
    assert repeated_part(np.array([4, 4]), np.array([2, 2]), np.array([2, 0]))[0] == 0


# --- power and named records -----------------------------------------------------------------


def planted(rng, copies, n=1000, m=2000, d=8):
    train, holdout = rng.standard_normal((2, n, d))
    samples = rng.standard_normal((m, d))
    chosen = rng.choice(n, copies, replace=False)
    samples[:copies] = train[chosen] + 0.05 * rng.standard_normal((copies, d))
    return train, holdout, samples


def check_power(copies, share, n, m, audits, plantings):
    """The stated rate, averaged over `audits` honest data sets, against fresh plantings."""
    rng, stated = np.random.default_rng(2), []
    for _ in range(audits):
        power = {p.copies: p for p in audit(*planted(rng, 0, n, m)).power}
        stated.append(power[copies].caught)
        assert power[copies].share == pytest.approx(share)
    caught = np.mean(
        [quick(*planted(rng, copies, n, m)).finding == "copies" for _ in range(plantings)]
    )
    spread = math.hypot(
        np.std(stated, ddof=1) / math.sqrt(audits), error(max(caught, 1 / plantings), plantings)
    )
    assert abs(np.mean(stated) - caught) < 3 * spread
    return caught


@pytest.mark.slow
def test_half_a_percent_of_copies_is_caught():
    """n = 1000, m = 2000, d = 8, noise .05: ten copies, as stated and in 6 fresh plantings."""
    rng = np.random.default_rng(3)
    power = {p.copies: p for p in audit(*planted(rng, 0)).power}
    assert power[10].caught >= 0.95
    found = [quick(*planted(rng, 10)).finding == "copies" for _ in range(6)]
    assert all(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copies", "share", "n", "m"), [(5, 0.0025, 1000, 2000), (10, 0.005, 1000, 2000)]
)
def test_the_stated_catch_rate_is_that_of_fresh_plantings(copies, share, n, m):
    caught = check_power(copies, share, n, m, 40, 200)
    assert caught >= 0.95 or copies < 10


def digit_sets(rng, copies):
    """450 digits to train, 450 held out, a kernel fit of the other 897 with planted copies."""
    x = load_digits().data[rng.permutation(1797)]
    train, holdout, rest = x[:450], x[450:900], x[900:]
    samples = rest[rng.integers(897, size=2000)] + 0.3 * x.std(0) * rng.standard_normal((2000, 64))
    chosen = rng.choice(450, copies, replace=False)
    places = rng.choice(2000, copies, replace=False)
    samples[places] = train[chosen] + 0.05 * x.std(0) * rng.standard_normal((copies, 64))
    return (train, holdout, samples), chosen, places


def test_planted_digits_are_named():
    """Of 20 planted copies in 2000 samples at least 19 are named; over 4 plantings the mean
    false discovery rate is under 10% (the level of the procedure), and the samples are listed."""
    rng, false = np.random.default_rng(0), []
    for _ in range(4):
        sets, chosen, places = digit_sets(rng, 20)
        verdict = quick(*sets)
        named = {r.train_row for r in verdict.records if r.named}
        assert verdict.finding == "copies"
        assert len(named & set(chosen)) >= 19
        assert len(set(verdict.flagged_samples) & set(places)) >= 19
        false.append(len(named - set(chosen)) / len(named))
    assert np.mean(false) < 0.1


def test_no_single_record_is_named_beyond_the_resolution():
    """Five copies among 2000 training and 100 held-out rows: flagged, but none can be named."""
    rng = np.random.default_rng(0)
    train, holdout, samples = (rng.standard_normal((n, 8)) for n in (2000, 100, 1500))
    samples[:5] = train[:5]
    verdict = quick(train, holdout, samples)
    assert not any(r.named for r in verdict.records)
    assert {r.train_row for r in verdict.records[:5]} == set(range(5))


# --- the verdict -----------------------------------------------------------------------------


def test_lines_of_others_join_the_correction():
    rng = np.random.default_rng(0)
    train, holdout, drawn = rng.standard_normal((3, 200, 4))
    lines = [
        Row("auc", 0.9, "exchangeable", None, 1e-5, None, 400, section="membership"),
        Row("precision", 0.8, "of held-out rows: .8", None, None, None, 200, section="metrics"),
    ]
    verdict = weigh(CommonSpace(train, holdout, drawn), extra=lines)
    assert verdict.row("auc").p_joint == pytest.approx(3e-5)
    assert verdict.row("precision").p_joint is None
    assert verdict.finding == "leans"
    assert verdict.p_joint == pytest.approx(3e-5)
    assert list(verdict.sections()) == ["tests", "membership", "metrics", "fidelity"]
    html = verdict.to_html()
    assert "Membership" in html
    assert "How to cite" in html


def test_near_copies_are_asked_after_the_tail_test():
    rng = np.random.default_rng(0)
    verdict = quick(*planted(rng, 12))
    tail, near = verdict.row("tail"), verdict.row("near-copies")
    assert near.p_joint == max(tail.p_joint, near.p_value)


def test_features_are_what_is_compared():
    """Copies hidden by noise in other columns show in the features."""
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((n, 8)) for n in (300, 300, 600)]
    sets[2][:30, :4] = sets[0][:30, :4]
    assert audit(*sets, features=lambda x: x[:, :4]).finding == "copies"
    with pytest.raises(InputError, match="one row for each"):
        audit(*sets, features=lambda x: x[:5])


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("tol", -0.1)])
def test_levels_are_checked(name, value):
    x = np.random.default_rng(0).standard_normal((40, 2))
    with pytest.raises(InputError, match=name):
        audit(x, x + 1, x, **{name: value})


# --- real data -------------------------------------------------------------------------------


def adult(path, rng, rows):
    """Adult census rows: numeric columns in deviations, one-hot codes over sqrt(2)."""
    import gzip

    lines = gzip.decompress(path.read_bytes()).decode().strip().split("\n")
    cells = np.array([line.split(", ") for line in lines if line])
    cells = np.unique(cells[rng.choice(len(cells), rows, replace=False)], axis=0)
    cells = cells[rng.permutation(len(cells))]
    parts, numeric = [], [0, 2, 4, 10, 11, 12]
    for c in range(cells.shape[1]):
        if c in numeric:
            value = cells[:, c].astype(float)
            parts.append((value / value.std())[:, None])
        else:
            parts.append((np.unique(cells[:, c]) == cells[:, [c]]) / math.sqrt(2))
    return np.concatenate(parts, 1).astype(float), len(numeric)


@pytest.mark.parametrize(
    ("generator", "found"),
    [
        pytest.param("bootstrap", True, marks=pytest.mark.slow),
        ("noisy", True),
        pytest.param("copula", False, marks=pytest.mark.slow),
        pytest.param("fresh", False, marks=pytest.mark.slow),
    ],
)
def test_adult(real_data, generator, found):
    """Copies and noisy resampling are copies; a Gaussian copula and unseen rows are not."""
    rng = np.random.default_rng(0)
    x, _ = adult(real_data("adult/adult.data.gz"), rng, 3600)
    train, holdout, rest = x[:1000], x[1000:2000], x[2000:]
    numbers = x.std(0) > 0.99
    if generator == "fresh":
        drawn = rest
    elif generator == "copula":
        drawn = copula(rng, train, 1500)
    else:
        drawn = train[rng.integers(1000, size=1500)]
        if generator == "noisy":
            drawn = drawn + 0.1 * numbers * rng.standard_normal(drawn.shape)
    verdict = weigh(CommonSpace(train, holdout, drawn))
    assert (verdict.finding == "copies") == found


def copula(rng, train, m):
    """Normal scores of every column with their correlation, mapped back by the quantiles."""
    n, d = train.shape
    shaken = train + 1e-9 * rng.standard_normal(train.shape)
    scores = stats.norm.ppf((shaken.argsort(0).argsort(0) + 0.5) / n)
    z = rng.multivariate_normal(np.zeros(d), np.corrcoef(scores.T), m, method="eigh")
    places = np.minimum((stats.norm.cdf(z) * n).astype(int), n - 1)
    return np.take_along_axis(np.sort(train, 0), places, 0)


def test_copies_of_rows_that_stand_twice_are_copies():
    """The nearest pool row of a repeated row is the nearest that differs, not its own twin."""
    rng = np.random.default_rng(0)
    train, holdout, samples = (rng.standard_normal((n, 8)) for n in (1000, 1000, 2000))
    train = np.concatenate([train, train[:100]])
    samples[:60] = train[:60]
    verdict = quick(train, holdout, samples)
    assert verdict.finding == "copies"
    assert set(range(60)) <= set(verdict.flagged_samples)


def test_a_dependence_that_the_samples_do_not_show_is_said_so():
    rng = np.random.default_rng(0)
    train, holdout, drawn = rng.standard_normal((3, 200, 4))
    line = Row("auc", 0.9, "exchangeable", None, 1e-5, None, 400, section="membership")
    verdict = weigh(CommonSpace(train, holdout, drawn), extra=[line], metrics=False)
    assert verdict.finding == "leans"
    assert "its samples show nothing" in verdict.headline
    assert "auc" in verdict.headline
