"""The common space of an audit and its costs: times, text, no-data, wide rows, hubs, intervals."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy import linalg, stats

from reverie.auditing import audit, common_space, nearest
from reverie.auditing.encoding.texts import BITS, LEVELS, profiles
from reverie.auditing.facts import surroundings
from reverie.auditing.facts.closeness import closeness
from reverie.auditing.metrics.feature_metrics import frechet_distance
from reverie.auditing.metrics.principal import principal
from reverie.auditing.metrics.rates import authentic
from reverie.auditing.model.detection import auc_interval, placements
from reverie.auditing.nulls.saddlepoint import permutation_p, permutation_tail, saddlepoint_p
from reverie.auditing.nulls.subset_sums import exact_tail, simulated_tail
from reverie.data import Column, Dataset
from reverie.data.no_data import without_no_data
from reverie.data.times import date_numbers, dates_as_numbers, seconds_of
from reverie.errors import InputError


def table(numbers, *words):
    """Numbers (n, c) and columns of words (n,)."""
    fields = [Column(f"x{j}") for j in range(numbers.shape[1])]
    columns = list(np.asarray(numbers, float).T)
    for k, column in enumerate(words):
        categories, codes = np.unique(column, return_inverse=True)
        fields.append(Column(f"w{k}", "categorical", tuple(map(str, categories)), "string"))
        columns.append(codes.astype(float))
    names = tuple(field.name for field in fields)
    return Dataset(np.stack(columns, 1), "table", "t", columns=names, fields=tuple(fields))


# --- times -----------------------------------------------------------------------------------

FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %b %Y",
    "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%a, %d %b %Y", "%d %B %Y", "%m/%d/%y", "%Y%m%d",
)  # fmt: skip
CLOCKS = ("T%H:%M:%S", " %H:%M:%S", "T%H:%M:%SZ", " %I:%M:%S %p", " %H:%M:%S.000")


@pytest.mark.parametrize("form", FORMATS)
def test_every_common_date_is_read(form):
    """Against strftime, over days that leave the order of day and month in no doubt."""
    import datetime

    start = datetime.datetime(1999, 12, 20, 13, 14, 15)
    days = [start + datetime.timedelta(days=37 * k) for k in range(60)]
    for clock in ("", *CLOCKS) if form != "%Y%m%d" else ("",):
        texts = [day.strftime(form + clock) for day in days]
        seconds = seconds_of(texts, texts)
        assert seconds is not None, texts[0]
        assert np.allclose(np.diff(seconds), 37 * 86_400)
        first = start.replace(tzinfo=datetime.UTC)
        midnight = first.replace(hour=0, minute=0, second=0)
        assert seconds[0] == (first if clock else midnight).timestamp()


def test_zones_clocks_and_what_is_no_time():
    iso = ["2021-03-04T10:11:12+02:00", "2021-03-04T08:11:12Z", "2021-03-04 08:11:12"]
    assert len(set(seconds_of(iso, iso))) == 1
    clock = ["23:59", "00:00:01", "7:05"]
    assert seconds_of(clock, clock).tolist() == [86_340, 1, 25_500]
    for words in (["a", "b", "c"], ["2021-02-30"] * 3, ["12", "13", "14"], ["10:61"] * 3):
        assert seconds_of(words, words) is None
    assert np.isnan(seconds_of([*clock, "noon"], clock)).tolist() == [False] * 3 + [True]
    whole = np.array([20210228.0, 20210301, 20210302, np.nan])
    assert dates_as_numbers(whole)
    assert np.diff(date_numbers(whole))[:2].tolist() == [86_400, 86_400]
    assert not dates_as_numbers(np.array([20210230.0, 20210301, 20210302]))


@pytest.mark.parametrize(
    "form", ["%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"]
)
def test_a_date_column_is_compared_as_its_seconds(form):
    import datetime

    rng = np.random.default_rng(0)
    seconds = [rng.integers(0, 10**8, n) for n in (300, 300, 200)]
    seconds[2][:100] = seconds[0][:100] + rng.integers(-600, 600, 100)
    costs = [rng.gamma(2, 50, len(s)) for s in seconds]
    costs[2][:100] = costs[0][:100] + 0.1

    def text(moment):
        return datetime.datetime.fromtimestamp(int(moment), datetime.UTC).strftime(form)

    dated = [table(c[:, None], [text(s) for s in t]) for c, t in zip(costs, seconds, strict=True)]
    plain = [np.column_stack(pair) for pair in zip(costs, seconds, strict=True)]
    ours, theirs = common_space(*dated), common_space(*plain)
    for a, b in zip((ours.members, ours.drawn), (theirs.members, theirs.drawn), strict=True):
        assert np.allclose(a - ours.members[0], b - theirs.members[0], atol=1e-9)
    assert any("Compared as times: column w0" in note for note in ours.notes)
    assert audit(*dated, metrics=False).finding == audit(*plain, metrics=False).finding == "copies"


# --- text ------------------------------------------------------------------------------------


def words(rng, count, length=12):
    letters = np.array(list("abcdefghij"))
    return ["".join(word) for word in letters[rng.integers(10, size=(count, length))]]


def test_profiles_are_near_where_texts_are():
    """0 for equal texts, about 1 for unrelated ones, in between for a typing fault, never 0 for
    texts that differ; scalar products within 5 deviations of those of unhashed profiles."""
    texts = words(np.random.default_rng(0), 400)
    texts += [texts[0][:5] + "z" + texts[0][6:], texts[1].upper()]
    vectors = profiles(texts, np.arange(402) < 400)
    assert np.allclose((vectors**2).sum(1), 0.5)
    gap = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    unrelated = gap[:400, :400][np.triu_indices(400, 1)]
    assert abs(np.median(unrelated) - 1) < 0.05
    assert unrelated.min() > 0.6
    assert 0 < gap[0, 400] < 0.7
    assert 0 < gap[1, 401] < 0.2

    def triples(text):
        padded = f"\1\1{text}\2\2"
        return [padded[k : k + 3] for k in range(len(padded) - 2)]

    often = {}
    for text in texts[:400]:
        for gram in set(triples(text)):
            often[gram] = often.get(gram, 0) + 1

    def cosine(a, b):
        def weigh(text):
            found = {}
            for gram in triples(text):
                weight = max(math.log(401 / (1 + often.get(gram, 0))), 0.05)
                found[gram] = found.get(gram, 0) + weight
            return found

        x, y = weigh(a), weigh(b)
        dot = sum(x[g] * y.get(g, 0) for g in x)
        return dot / math.sqrt(sum(v * v for v in x.values()) * sum(v * v for v in y.values()))

    for i, j in [(0, 400), *itertools.combinations(range(12), 2)]:
        exact = 0.99 * cosine(texts[i], texts[j])
        assert abs(2 * vectors[i] @ vectors[j] - exact) < 5 / math.sqrt(BITS)


def test_many_levels_do_not_know_their_side():
    """No level is treated by how often it comes or where: sides swapped, the same coordinates."""
    rng = np.random.default_rng(0)
    sets = [table(rng.standard_normal((n, 1)), words(rng, n)) for n in (300, 200, 100)]
    straight, swapped = common_space(*sets), common_space(sets[1], sets[0], sets[2])
    assert straight.members.shape[1] == 1 + BITS + 1
    assert np.allclose(straight.members, swapped.held)
    assert np.allclose(straight.drawn, swapped.drawn)
    assert straight.smooth.tolist() == [True] + [False] * (BITS + 1)
    levels = [f"v{k % LEVELS}" for k in range(512)]
    few = [table(rng.standard_normal((512, 1)), levels) for _ in range(2)]
    assert common_space(*few).members.shape[1] == 1 + LEVELS  # exact as long as it can be


def test_copies_of_rows_with_text_are_found():
    """Verbatim, and with a letter changed, among 300 rows of unique text and two numbers."""
    rng = np.random.default_rng(0)
    names = [words(rng, 300) for _ in range(3)]
    numbers = [rng.standard_normal((300, 2)) for _ in range(3)]
    train, holdout, fresh = (table(x, w) for x, w in zip(numbers, names, strict=True))
    assert audit(train, holdout, train, metrics=False).finding == "copies"
    assert audit(train, holdout, fresh, metrics=False).finding in ("none", "inconclusive")
    typed = table(numbers[0], [w[:6] + "z" + w[7:] for w in names[0]])
    assert audit(train, holdout, typed, metrics=False).p_joint < 1e-6


# --- no data, constants, gaps ----------------------------------------------------------------


@pytest.mark.parametrize("code", [-9999.0, -3.4028235e38, -1.7976931348623157e308, 1e200])
def test_a_no_data_cell_hides_nothing_and_is_named(code):
    rng = np.random.default_rng(0)
    train, holdout = rng.standard_normal((2, 200, 4))
    samples = train[rng.permutation(200)]
    clean = audit(train, holdout, samples, metrics=False)
    train = train.copy()
    train[7, 2] = code
    marked = audit(train, holdout, samples, metrics=False)
    assert marked.finding == clean.finding == "copies"
    assert any("no data" in note and "column 2 (" in note for note in marked.notes)


def test_what_is_no_no_data():
    """Capital gains cut at 99,999 (Adult), plain negative numbers, and a lone far value."""
    gains = np.r_[np.zeros(90), np.linspace(0, 41_310, 9), 99_999.0]
    for values in (gains, np.r_[np.linspace(-12_000, 3, 99), -9999.0], np.r_[np.zeros(9), 1234.5]):
        assert without_no_data([values[:, None].copy()], np.array([0])) == {}
    assert without_no_data([np.r_[gains, -9999.0][:, None]], np.array([0])) == {0: [-9999.0]}


def test_a_constant_column_with_noise_in_the_samples_changes_nothing():
    rng = np.random.default_rng(0)
    train, holdout = rng.standard_normal((2, 200, 4))
    samples = train[rng.permutation(200)]
    wide = [np.column_stack([x, np.full(200, 7.0)]) for x in (train, holdout, samples)]
    wide[2][:, 4] += rng.standard_normal(200)
    plain, noisy = audit(train, holdout, samples), audit(*wide)
    assert noisy.finding == plain.finding == "copies"
    assert noisy.p_value == plain.p_value
    assert any("Constant over all real rows, and left out: column 4" in n for n in noisy.notes)


def test_an_array_with_nan_is_a_table_with_empty_cells(tmp_path):
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((60, 3)).round(6) for _ in range(3)]
    files = []
    for k, rows in enumerate(sets):
        rows[rng.random((60, 3)) < 0.1] = np.nan
        lines = [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows]
        files.append(tmp_path / f"{k}.csv")
        files[-1].write_text("a,b,c\n" + "\n".join(lines) + "\n")
    ours, theirs = common_space(*sets), common_space(*files)
    assert np.array_equal(ours.members, theirs.members)
    assert np.array_equal(ours.drawn, theirs.drawn)


def test_counts_that_repeat_by_chance_are_judged():
    """Poisson(2) in three columns is judged; the training set as held-out set is still refused."""
    rng = np.random.default_rng(0)
    for n in (100, 150, 200) * 10:
        train, holdout, samples = (rng.poisson(2.0, (k, 3)).astype(float) for k in (n, n, 500))
        common_space(train, holdout, samples)
    assert audit(train, holdout, samples, metrics=False).finding != "copies"
    spread = rng.standard_normal((n, 3))
    with pytest.raises(InputError, match="stand verbatim in the training set"):
        audit(spread, spread[::-1], samples)


# --- wide rows -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # a singular matrix
@pytest.mark.parametrize(("n", "m", "d"), [(8, 12, 20), (30, 6, 7), (40, 40, 7), (2, 2, 5)])
def test_the_frechet_distance_equals_the_formula_by_sqrtm(n, m, d):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), 1 + 2 * rng.standard_normal((m, d))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(linalg.sqrtm(a @ b))
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-5)  # sqrtm of a singular matrix


def test_principal_coordinates_of_wide_rows():
    """All of them keep every distance; the leading ones are the singular value decomposition's."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 300)), rng.standard_normal((15, 300))
    pool = np.concatenate([x, y])
    whole = np.concatenate(principal([x, y], 64, 2))
    gaps = np.linalg.norm(pool[:, None] - pool, axis=2)
    assert np.allclose(np.linalg.norm(whole[:, None] - whole, axis=2), gaps)
    few = np.concatenate(principal([x, y], 5, 2))
    u, s, _ = np.linalg.svd(pool - pool.mean(0), full_matrices=False)
    assert np.allclose(few @ few.T, (u[:, :5] * s[:5] ** 2) @ u[:, :5].T)


@pytest.mark.slow
def test_wide_rows_need_memory_by_rows():
    """25 rows a side of 15,000 columns: a matrix (d, d) would be 1.8 GB; 40 copies are 360 MB."""
    sets = list(np.random.default_rng(0).standard_normal((3, 25, 15_000)))
    tracemalloc.start()
    audit(*sets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 3 * sets[0].nbytes


def test_seventy_two_pictures_are_quick():
    sets = np.random.default_rng(0).integers(0, 256, (3, 24, 3, 32, 32)).astype(np.uint8)
    start = time.process_time()
    audit(*sets)
    assert time.process_time() - start < 6  # two threads at most: 3 s each


def test_authenticity_looks_up_few_rows_of_many_alike():
    rng = np.random.default_rng(0)
    real, drawn = rng.standard_normal((300, 3)), rng.standard_normal((20, 3))
    distance, index = nearest(drawn, real, 1)
    own = nearest(real, real, 1, skip_self=True)[0][index[:, 0], 0]
    assert np.array_equal(authentic(real, drawn), own < distance[:, 0])


def test_a_reference_knows_no_sides_and_hides_no_near_copy(monkeypatch):
    """Rows in another order get the same surroundings; where a sample is near, the nearest row of
    all is found, also among equal rows; copies are called so."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(surroundings, "LEAST", 64)
    monkeypatch.setattr(surroundings, "WORK", 0)
    pool = rng.standard_normal((400, 6))
    pool[399] = pool[0]
    drawn = np.concatenate([pool[:40] + 0.01, rng.standard_normal((60, 6))])
    to_samples = nearest(pool, drawn, 1)[0][:, 0]
    order = rng.permutation(400)
    spacing, index = surroundings.around(pool, np.arange(400), to_samples, 5)
    again, _ = surroundings.around(pool[order], np.arange(400), to_samples[order], 5)
    assert np.array_equal(spacing[order], again)
    rows = surroundings.reference_rows(pool)
    assert len(rows) == 64
    gap = np.linalg.norm(pool[:, None] - pool, axis=2)
    assert np.allclose(np.linalg.norm(pool[index] - pool[:, None], axis=2), spacing)
    gap[gap == 0] = np.inf
    near = to_samples < gap.min(1) / 3
    assert near[:40].sum() > 30
    assert np.allclose(spacing[near, 0], gap.min(1)[near])
    monkeypatch.setattr(surroundings, "ALL_PAIRS", 0)
    space = common_space(pool[:200], pool[200:399], drawn)
    assert closeness(space).reference == 64
    verdict = audit(pool[:200], pool[200:399], drawn)
    assert verdict.finding == "copies"
    assert any("64 chosen by their content" in note for note in verdict.notes)


# --- hubs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hubs", [1, 3, 4])
def test_a_few_hubs_have_their_exact_p_value(hubs):
    """All hubs are members: hypergeometric, about 2^-hubs; ties among hubs and weights alike."""
    scores = np.zeros(400)
    scores[:hubs] = 1.0
    member = np.arange(400) < 200
    exact = stats.hypergeom.pmf(hubs, 400, hubs, 200)
    assert permutation_p(scores, member) == pytest.approx(exact, rel=1e-9)
    assert permutation_p(7.3 * scores + 2, member) == pytest.approx(exact, rel=1e-9)
    assert permutation_tail(scores, member).how == "exact"


@pytest.mark.parametrize("seed", range(6))
def test_p_values_are_valid_over_all_relabellings(seed):
    """Every relabelling of 9 rows: the exact p is P(T >= t) by brute force, so super-uniform."""
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 0.0, 1.0, 2.5, 40.0], 9) if seed % 2 else rng.pareto(1.0, 9)
    labels = [np.isin(np.arange(9), chosen) for chosen in itertools.combinations(range(9), 4)]
    sums = np.array([scores[label].sum() for label in labels])
    for label, total in zip(labels, sums, strict=True):
        assert permutation_p(scores, label) == pytest.approx((sums >= total - 1e-9).mean())


def test_simulated_tails_agree_with_exact_ones_and_state_their_error():
    rng = np.random.default_rng(0)
    for scores in (np.r_[np.full(3, 50.0), rng.poisson(1, 60)], rng.pareto(1.5, 16)):
        for share in (0.25, 0.5):
            member = rng.permutation(len(scores)) < share * len(scores)
            exact = exact_tail(scores, member)
            p, error = simulated_tail(scores, member)
            assert exact is not None
            assert abs(p - exact) < 4 * error + 1e-3
    many = np.r_[np.full(3, 50.0) + rng.random(3), rng.random(400)]
    tail = permutation_tail(many, np.arange(403) < 200)
    assert tail.how == "simulated"
    assert f"standard error {tail.error:.2g}" in str(tail)


def test_simulated_p_values_are_super_uniform():
    """Pareto scores of 80 rows, 200 relabellings: at most 5% + 3 s.e. fall below 5%."""
    rng = np.random.default_rng(0)
    scores, member = rng.pareto(1.2, 80), np.arange(80) < 20
    p = [simulated_tail(rng.permutation(scores), member, 499)[0] for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_the_saddlepoint_takes_whole_scores_half_a_step_down():
    """50 rows of equal score among 400: within 4% of the hypergeometric tail."""
    scores = np.r_[np.full(50, 7.0), np.zeros(350)]
    for hits in (28, 31, 34):
        member = np.zeros(400, bool)
        member[:hits] = member[50 : 250 - hits] = True
        exact = stats.hypergeom.sf(hits - 1, 400, 50, 200)
        assert saddlepoint_p(scores, member) == pytest.approx(exact, rel=0.04)


# --- intervals of the AUC --------------------------------------------------------------------


def laws(auc):
    """Scores of one shape, exponential scores, and members spread three times as wide."""
    gap, wide = stats.norm.ppf(auc) * math.sqrt(2), stats.norm.ppf(auc) * math.sqrt(10)
    yield lambda g, n: (g.normal(-gap, 1, n), g.normal(0, 1, n))
    yield lambda g, n: (g.exponential((1 - auc) / auc, n), g.exponential(1, n))
    yield lambda g, n: (g.normal(-wide, 3, n), g.normal(0, 1, n))


def coverage(auc, n, law, replications, seed=0):
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(replications):
        x, y = law(rng, n)
        low, high = auc_interval(placements(x, y), 1 - placements(y, x))
        hits += low <= auc <= high
    return hits / replications


@pytest.mark.parametrize("auc", [0.9, 0.99, 0.998])
def test_auc_intervals_cover_with_100_rows(auc):
    for law in laws(auc):
        assert coverage(auc, 100, law, 300) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("auc", [0.9, 0.99, 0.998])
def test_auc_intervals_cover(auc, n):
    """Within 3 s.e. and a point of 95% from below; near 1 with few rows they are wider."""
    for law in laws(auc):
        found = coverage(auc, n, law, 1000)
        print(f"AUC {auc}, {n} rows: {found:.3f}")
        assert found > 0.94 - 3 * math.sqrt(0.95 * 0.05 / 1000)


def test_auc_intervals_turn_round_with_the_score_and_keep_delong():
    rng = np.random.default_rng(0)
    x, y = rng.normal(-1, 1, 300), rng.normal(0, 1, 300)
    wins, losses = placements(x, y), 1 - placements(y, x)
    low, high = auc_interval(wins, losses)
    mirrored = auc_interval(1 - wins, 1 - losses)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    auc, variance = wins.mean(), wins.var(ddof=1) / 300 + losses.var(ddof=1) / 300
    half = 1.96 * math.sqrt(variance) / (auc * (1 - auc))
    middle = math.log(auc / (1 - auc))
    assert low == pytest.approx(1 / (1 + math.exp(half - middle)))
    assert high == pytest.approx(1 / (1 + math.exp(-half - middle)))
    apart = auc_interval(np.ones(50), np.ones(40))
    assert apart[1] == 1
    assert 0.85 < apart[0] <= 0.025 ** (1 / 40)
