"""Plain facts: what copies must be found, and that honest generators are not accused."""

import csv
import gzip
import io
import json
import zipfile
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from conftest import ADULT
from reverie.auditing.common_space import common_space
from reverie.auditing.facts.changed_pictures import Pictures, search
from reverie.auditing.facts.counted import count_facts
from reverie.auditing.facts.crowds import crowds
from reverie.auditing.facts.expected_matches import expected_matches
from reverie.auditing.facts.fact import LEANING, LEVEL, REPEATS, Repeated, beyond_held
from reverie.auditing.facts.near import Pool
from reverie.auditing.facts.picture_changes import changes
from reverie.auditing.facts.row_keys import Keys, agreeing, repeated, subsets
from reverie.data import load
from reverie.errors import InputError


def facts(train, holdout, samples, **options):
    return count_facts(common_space(train, holdout, samples), **options)


def normal(rng, n, d=8):
    return rng.standard_normal((n, d))


def kinds(found):
    return {fact.kind for fact in found.facts if fact.beyond}


@pytest.mark.parametrize("k", [0, 1, 2])
def test_agreeing_rows_equal_brute_force(k):
    rng = np.random.default_rng(k)
    pool, asked = (rng.integers(0, 3, (n, 5)).astype(float) for n in (60, 90))
    pool[rng.random(pool.shape) < 0.05] = np.nan
    asked[rng.random(asked.shape) < 0.05] = np.nan
    same = (pool[:, None] == asked) | (np.isnan(pool[:, None]) & np.isnan(asked))
    near = same.sum(2) >= 5 - k
    found, alone, skipped = agreeing(Keys.of(pool), asked, k)
    assert ((found >= 0) == near.any(0)).all()
    assert (alone == (near.sum(0) == 1)).all()
    for j in np.flatnonzero(found >= 0):
        left_out = subsets(5, k)[skipped[j]]
        assert same[found[j], j, [c for c in range(5) if c not in left_out]].all()


def test_expected_matches_of_independent_columns():
    """Uniform columns of v values agree at 1 / v: S n / prod v; 4,000 rows tell it within 15%."""
    rng = np.random.default_rng(0)
    values = np.array([3, 5, 7, 4])
    train, held, fresh = (rng.integers(0, values, (4000, 4)) for _ in range(3))
    expected = expected_matches(train, held, fresh, 1000)
    assert expected.without([()])[0] == pytest.approx(1000 * 4000 / values.prod(), rel=0.15)
    assert expected.without([(2,)])[0] == pytest.approx(1000 * 4000 / 60, rel=0.15)


def test_expected_matches_count_twins_once():
    rng = np.random.default_rng(0)
    x, y, z = (rng.integers(0, 50, (2000, 1)) for _ in range(3))
    single = expected_matches(x, y, z, 100).whole
    twice = expected_matches(*(np.hstack([a, 2 * a + 1]) for a in (x, y, z)), 100).whole
    assert twice == pytest.approx(single, abs=0.1)


def test_ratio_of_rates_is_exact():
    """At a ratio of LEANING the rule holds in at most LEVEL of all hits, by its own binomial."""
    n, m, hits = 300, 100, 40
    share = LEANING * n / (LEANING * n + m)
    chance = sum(
        stats.binom.pmf(rows, hits, share)
        for rows in range(hits + 1)
        if beyond_held(rows, n, hits - rows, m)
    )
    assert 0 <= chance <= LEVEL
    assert not beyond_held(5, n, 0, 0)


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("copied", [1, 2, 3, 4, 5])
def test_all_samples_equal_a_few_rows(d, copied):
    rng = np.random.default_rng(copied)
    train, held = normal(rng, 600, d), normal(rng, 600, d)
    found = facts(train, held, train[rng.integers(copied, size=600)])
    assert found.copies
    assert found.sure
    assert found.train_rows.tolist() == list(range(copied))
    assert f"600 of 600 samples repeat {copied} training row" in found.sentences()[0]


@pytest.mark.parametrize(("copied", "noise"), [(1, 0.1), (3, 0.05), (5, 0.1)])
def test_all_samples_near_a_few_rows(copied, noise):
    rng = np.random.default_rng(7)
    train, held = normal(rng, 1000), normal(rng, 1000)
    samples = train[rng.integers(copied, size=2000)] + noise * normal(rng, 2000)
    found = facts(train, held, samples)
    assert found.copies
    assert found.train_rows.tolist() == list(range(copied))
    assert len(found.sample_rows) > 1500


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("d", [2, 4, 8, 20])
def test_three_rows_hold_a_tenth_of_the_samples(d, noise):
    """At d = 2 and noise .1 a clump covers some twenty rows, and not each can be told apart."""
    caught = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        train, held, samples = normal(rng, 1000, d), normal(rng, 1000, d), normal(rng, 2000, d)
        samples[:200] = train[rng.integers(3, size=200)] + noise * normal(rng, 200, d)
        found = facts(train, held, samples)
        if d > 2 and found.copies:
            assert set(found.train_rows[:3]) <= {0, 1, 2}
            assert len(found.train_rows) <= 4  # one may lie near a sample by chance
        caught += found.copies
    assert caught >= (6 if d == 2 and noise == 0.1 else 10)


def test_ten_equal_rows_at_six_to_one():
    rng = np.random.default_rng(0)
    train, held, samples = normal(rng, 3000, 20), normal(rng, 500, 20), normal(rng, 480, 20)
    samples[-10:] = train[:10]
    found = facts(train, held, samples)
    assert kinds(found) == {"verbatim"}
    assert [(r.sample, r.train_row) for r in found.records] == [(470 + i, i) for i in range(10)]


@pytest.mark.parametrize("held_rows", [20, 50])
def test_a_handful_of_held_out_rows_suffices(held_rows):
    rng = np.random.default_rng(2)
    train, held, samples = normal(rng, 1000), normal(rng, held_rows), normal(rng, 1000)
    assert not facts(train, held, samples).copies
    noisy = samples.copy()
    noisy[:100] = train[:100] + 0.02 * normal(rng, 100)
    assert facts(train, held, noisy).sure
    samples[:1] = train[:1]
    found = facts(train, held, samples)
    assert found.sure
    assert found.train_rows.tolist() == [0]


def test_distinct_rows_with_noise():
    rng = np.random.default_rng(3)
    train, held, samples = normal(rng, 1000), normal(rng, 1000), normal(rng, 2000)
    samples[:200] = train[:200] + 0.05 * normal(rng, 200)
    found = facts(train, held, samples)
    assert kinds(found) == {"near"}
    assert set(found.train_rows) >= set(range(190))


def test_noise_on_a_constant_column_hides_nothing():
    rng = np.random.default_rng(4)
    train, held, samples = normal(rng, 400), normal(rng, 400), normal(rng, 400)
    samples[:40] = train[:40]
    with_constant = [
        np.hstack([rows, noise * rng.standard_normal((400, 1)) + 3])
        for rows, noise in ((train, 0), (held, 0), (samples, 5))
    ]
    found, plain = facts(*with_constant), facts(train, held, samples)
    assert kinds(found) == kinds(plain) == {"verbatim"}
    assert found.train_rows.tolist() == plain.train_rows.tolist() == list(range(40))


def adult(path, seed, rows=1000):
    with gzip.open(path, "rt") as file:
        table = sorted({tuple(line.split(", ")) for line in file.read().split("\n") if line})
    order = np.random.default_rng(seed).permutation(len(table))[: 3 * rows]
    return [[list(table[i]) for i in order[k * rows : (k + 1) * rows]] for k in range(3)]


def adult_facts(folder, sets, columns):
    for name, rows in zip(("train", "held", "samples"), sets, strict=True):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([ADULT[c] for c in columns])
            writer.writerows([["" if r[c] == "?" else r[c] for c in columns] for r in rows])
    return facts(*(str(folder / f"{name}.csv") for name in ("train", "held", "samples")))


def flipped(row):
    return [*row[:9], "Female" if row[9] == "Male" else "Male", *row[10:]]


@pytest.mark.parametrize(
    ("weight", "share"), [(True, 1.0), (True, 0.1), (True, 0.02), (False, 1.0)]
)
def test_one_cell_changed(real_data, tmp_path, weight, share):
    train, held, fresh = adult(real_data("adult/adult.data.gz"), 0)
    columns = [c for c in range(15) if weight or ADULT[c] != "fnlwgt"]
    count = round(share * len(train))
    found = adult_facts(
        tmp_path, (train, held, [flipped(row) for row in train[:count]] + fresh[count:]), columns
    )
    assert kinds(found) == {"all but k"}
    given = set(found.train_rows)
    assert len(given & set(range(count))) >= (0.95 if weight else 0.75) * count
    assert len(given - set(range(count))) <= 5
    assert any("sex changed" in line for line in found.sentences())
    assert not adult_facts(tmp_path, (train, held, fresh), columns).copies


def digits(seed=0):
    images = (load("digits").values / load("digits").values.max() * 255).astype(np.uint8)
    return images[np.random.default_rng(seed).permutation(len(images))]


def jpeg(images, quality):
    from PIL import Image

    out = []
    for image in images:
        file = io.BytesIO()
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        again = np.asarray(Image.open(file))
        out.append(again[None] if again.ndim == 2 else np.moveaxis(again, -1, 0))
    return np.stack(out)


def cropped(images, border):
    from PIL import Image

    side, out = images.shape[-1], []
    for image in images:
        picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
        box = (border, border, side - border, side - border)
        again = np.asarray(picture.crop(box).resize((side, side), Image.Resampling.BILINEAR))
        out.append(again[None] if again.ndim == 2 else np.moveaxis(again, -1, 0))
    return np.stack(out)


def bytes_of(values):
    return np.clip(values, 0, 255).round().astype(np.uint8)


CHANGED = {
    "brightness": lambda x, rng: bytes_of(x + 25.0),
    "contrast": lambda x, rng: bytes_of(0.8 * x),
    "noise of 2": lambda x, rng: bytes_of(x + rng.normal(0, 25, x.shape)),
    "noise of": lambda x, rng: bytes_of(x + rng.normal(0, 50, x.shape)),
    "mirrored": lambda x, rng: x[..., ::-1],
    "shifted by (1, -2)": lambda x, rng: np.roll(x, (1, -2), (-2, -1)),
    "turned by 90": lambda x, rng: np.rot90(x, 1, (-2, -1)),
    "inverted": lambda x, rng: 255 - x,
    "cropped by 2": lambda x, rng: cropped(x, 2),
    "JPEG": lambda x, rng: jpeg(x, 30),
}


@pytest.mark.parametrize("change", ["brightness", "mirrored", "turned by 90", "inverted"])
def test_changed_digits(change):
    rng, images = np.random.default_rng(0), digits()
    train, held, samples = images[:400], images[400:800], images[800:1200].copy()
    samples[:100] = CHANGED[change](train[:100], rng)
    found = facts(train, held, samples)
    assert "changed picture" in kinds(found)
    rows = found.of("changed picture")[0].train_rows
    assert len(set(rows) & set(range(100))) >= 90
    assert change in found.of("changed picture")[0].change


def test_fresh_digits_are_no_copies():
    images = digits(1)
    assert not facts(images[:500], images[500:1000], images[1000:]).copies


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGED)
def test_a_tenth_of_fashion_changed(change):
    try:
        images = load("fashion-mnist").values
    except InputError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(1)
    images = images[rng.permutation(len(images))[:4500]]
    train, held, samples = images[:2000], images[2000:4000], images[4000:].copy()
    samples[:50] = CHANGED[change](train[:50], rng)
    found = facts(train, held, samples)
    assert "changed picture" in kinds(found)
    fact = found.of("changed picture")[0]
    assert len(set(fact.train_rows) & set(range(50))) >= 35
    assert change in fact.change


@pytest.mark.slow
@pytest.mark.parametrize("change", ["brightness", "noise of", "mirrored", "cropped by 2", "JPEG"])
def test_a_tenth_of_colour_photographs_changed(real_data, change):
    from PIL import Image

    with zipfile.ZipFile(real_data("clothing/clothing128.zip")) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".jpg", ".png")))
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:900]]
        pictures = [Image.open(archive.open(n)).convert("RGB").resize((40, 40)) for n in names]
        images = np.stack([np.moveaxis(np.asarray(picture), 2, 0) for picture in pictures])
    train, held, samples = images[:350], images[350:700], images[700:].copy()
    samples[:40] = CHANGED[change](train[:40], np.random.default_rng(2))
    found = facts(train, held, samples)
    rows = found.of("changed picture")[0].train_rows
    assert "changed picture" in kinds(found)
    assert len(set(rows) & set(range(40))) >= 32
    assert not facts(train, held, images[700:]).copies


def test_pairs_of_changes_on_request():
    images = digits()
    pool, asked = images[:400], np.roll(images[:60, :, :, ::-1], 1, -1)
    pictures = Pictures.of(pool)
    single, double = (
        search(pictures, pool, asked, changes(images.shape[1:], products=products))
        for products in (False, True)
    )
    assert (double.row == np.arange(60)).mean() > 0.8 > (single.row == np.arange(60)).mean()


def test_changes_are_undone():
    image = np.arange(200.0).reshape(2, 1, 10, 10)
    for change in changes((1, 10, 10), products=True):
        if not change.lossy:
            assert np.allclose(
                change.undo(change.apply(image))[..., 2:-2, 2:-2], image[..., 2:-2, 2:-2]
            )


def histogram(rng, rows, levels, epsilon, m):
    """Counts of all cells with Laplace noise: epsilon-differentially private by construction."""
    cells = int(np.prod(levels))
    count = np.bincount(np.ravel_multi_index(rows.astype(int).T, levels), minlength=cells)
    noisy = np.maximum(count + rng.laplace(0, 1 / epsilon, cells), 0)
    return cell_rows(rng, noisy / noisy.sum(), m, levels)


def cell_rows(rng, law, n, levels):
    return np.stack(np.unravel_index(rng.choice(len(law), n, p=law), levels), 1).astype(float)


def copula(rng, train, m):
    """A Gaussian copula with the empirical margins."""
    n, d = train.shape
    scores = stats.norm.ppf((train.argsort(0).argsort(0) + 0.5) / n)
    rank = stats.norm.cdf(rng.multivariate_normal(np.zeros(d), np.corrcoef(scores.T), m))
    return np.take_along_axis(np.sort(train, 0), np.minimum((rank * n).astype(int), n - 1), 0)


def scott(rng, rows, m):
    n, d = rows.shape
    noise = rng.multivariate_normal(np.zeros(d), np.atleast_2d(np.cov(rows.T)), m)
    return rows[rng.integers(n, size=m)] + n ** (-1 / (d + 4)) * noise


def gaussian(rng, rows, m):
    return rng.multivariate_normal(rows.mean(0), np.atleast_2d(np.cov(rows.T)), m)


def mixture(rng, rows, m):
    from sklearn.mixture import GaussianMixture

    fits = [GaussianMixture(k, random_state=0).fit(rows) for k in (1, 2, 3, 5)]
    best = min(fits, key=lambda fit: fit.bic(rows))
    best.random_state = int(rng.integers(2**31))
    return best.sample(m)[0]


def correlated(rng, n, d):
    return rng.multivariate_normal(np.zeros(d), 0.5 * np.eye(d) + 0.5, n)


def clusters(rng, n, d):
    centres = 3 * np.random.default_rng(5).standard_normal((30, d))
    return centres[rng.integers(30, size=n)] + 0.02 * rng.standard_normal((n, d))


LAWS = {
    "correlated": correlated,
    "heavy": lambda rng, n, d: rng.standard_t(3, (n, d)),
    "clusters": clusters,
    "ties": lambda rng, n, d: np.round(
        correlated(rng, n, d + 2) * (rng.random((n, d + 2)) < 0.7), 1
    ),
    "counts": lambda rng, n, d: rng.poisson(2.0, (n, d + 3)).astype(float),
    "one-hot": lambda rng, n, d: np.hstack(
        [correlated(rng, n, d), np.eye(4)[rng.integers(4, size=n)]]
    ),
}
HONEST = {
    "fresh": lambda rng, law, train, m, d: law(rng, m, d),
    "gaussian": lambda rng, law, train, m, d: gaussian(rng, train, m),
    "mixture": lambda rng, law, train, m, d: mixture(rng, train, m),
    "kernel": lambda rng, law, train, m, d: scott(rng, train, m),
    "copula": lambda rng, law, train, m, d: copula(rng, train, m),
    "third set": lambda rng, law, train, m, d: scott(rng, law(rng, len(train), d), m),
}


def accused(laws, generators, seeds):
    """(law, generator, seed) of the audits that say `copies`, and how many audits there were."""
    found, total = [], 0
    for law in laws:
        for generator in generators:
            for seed in seeds:
                rng = np.random.default_rng([seed, len(law), len(generator)])
                d, n, m, s = (int(rng.choice(a)) for a in _SIZES)
                train, held = LAWS[law](rng, n, d), LAWS[law](rng, m, d)
                samples = HONEST[generator](rng, LAWS[law], train, s, d)
                total += 1
                if facts(train, held, samples).copies:
                    found.append((law, generator, seed))
    return found, total


_SIZES = ((2, 3, 8), (100, 200, 500), (20, 100, 500), (200, 1000, 3000))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_honest_generators_are_not_accused():
    found, total = accused(("correlated", "one-hot"), HONEST, range(2))
    assert total == 24
    assert found == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_honest_generators_are_accused_at_most_once_in_a_hundred():
    found, total = accused(LAWS, HONEST, range(10, 22))
    assert len(found) <= 0.01 * total, found


@pytest.mark.parametrize(("levels", "n"), [((3, 3, 3), 500), ((4, 4, 4, 4), 1000)])
@pytest.mark.parametrize("epsilon", [1.0, 0.3, 0.1])
def test_private_histograms_are_not_accused(levels, n, epsilon):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        law = rng.dirichlet(np.ones(int(np.prod(levels))))
        train, held = (cell_rows(rng, law, n, levels) for _ in range(2))
        assert not facts(train, held, histogram(rng, train, levels, epsilon, 5 * n)).copies


@pytest.mark.parametrize("k", [0, 1, 2])
def test_repeated_rows_equal_brute_force(k):
    rows = np.random.default_rng(k).integers(0, 3, (60, 5)).astype(float)
    sets = subsets(5, k)
    met, alone = repeated(Keys.of(rows), sets)
    for i in range(60):
        classes = [
            np.flatnonzero((np.delete(rows, s, 1) == np.delete(rows[i], s)).all(1)) for s in sets
        ]
        assert met[i] == any(c[0] < i for c in classes)
        assert alone[i] == any(len(c) == 2 and c[1] == i for c in classes)


@pytest.mark.parametrize("pairs", [1, 3, 10, 40])
def test_repeats_of_the_source_keep_their_level(pairs):
    """Pairs of equal records dealt among three parts: given how many are of two different parts,
    those of samples and training rows are binomial, which is summed exactly."""
    for n, m, samples in ((400, 400, 400), (1200, 200, 480), (60, 600, 60)):
        share = samples * n / (samples * (n + m) + m * (n + (m - 1) / 2))
        size = sum(
            stats.binom.pmf(rows, pairs, share)
            for rows in range(pairs + 1)
            if not Repeated(10**9, pairs - rows, n, m).explains(rows, 0, samples)
        )
        assert size <= REPEATS
    assert Repeated(0, 0, 400, 400).explains(3, 0, 400)
    assert not Repeated(0, 0, 400, 400).explains(4, 0, 400)
    assert not Repeated(0, 0, 400, 400).explains(1, 0, 1)
    assert not Repeated(0, 0, 400, 400).explains(1, 0, 400, 1, True)


def twice(rng, rows, pairs, changed):
    """A table of whole numbers and categories in which `pairs` records stand twice, the second
    time with `changed` cells altered."""
    sizes = np.array([2, 3, 4, 13, 25, 75, 130] + [70] * changed)
    table = rng.integers(0, sizes, (rows, len(sizes)))
    table[-pairs:] = table[:pairs]
    if changed:
        table[-pairs:, 3] = (table[:pairs, 3] + 1) % 13
    return rng.permutation(table).astype(float)


@pytest.mark.parametrize(("pairs", "changed"), [(5, False), (6, True)])
def test_records_that_stand_twice_are_no_copies(pairs, changed):
    """As in birthwt (five births) and mpg (a car of two years): thirds of one table. Held to the
    entropy of its columns alone, one deal in three would accuse; copies are found all the same."""
    accused = 0
    for seed in range(60):
        rows = twice(np.random.default_rng(seed), 189, pairs, changed)
        found = facts(rows[:63], rows[63:126], rows[126:])
        accused += found.copies
    assert accused <= 1
    rows[126:138] = rows[:12]
    assert {0, 5, 11} <= set(facts(rows[:63], rows[63:126], rows[126:]).train_rows)


def test_words_and_json():
    rng = np.random.default_rng(0)
    train, held, samples = normal(rng, 300), normal(rng, 300), normal(rng, 300)
    found = facts(train, held, samples)
    assert found.nothing
    assert found.sentences()[0].startswith("No copies were found")
    samples[:3] = train[5:8]
    steps = []
    found = facts(train, held, samples, progress=lambda done, total: steps.append((done, total)))
    assert not found.nothing
    assert not any(line.startswith("No copies") for line in found.sentences())
    told = json.loads(json.dumps(found.to_json()))
    assert told["copies"]
    assert told["facts"][0]["train_rows"] == [5, 6, 7]
    assert told["facts"][0]["held_rows"] == 0
    assert steps[-1] == (5, 5)
    with pytest.raises(InputError, match="no samples"):
        count_facts(common_space(train, held))


def test_a_row_met_again_and_again_is_held_against_the_crowds_of_samples():
    """30 of 300 samples about three of 125 rows in 30 columns, told by crowds alone; a generator
    that repeats draws of its own has as many crowds, at no row."""
    rng = np.random.default_rng(1)
    train, held, fresh, own = (normal(rng, n, 30) for n in (125, 125, 270, 3))
    crowded = np.repeat(train[:3], 10, 0) + 0.1 * normal(rng, 30, 30)
    samples = np.concatenate([fresh, crowded])
    assert crowds(samples, lambda asked: np.ones(len(asked))) == 3
    found = facts(train, held, samples)
    (fact,) = (f for f in found.facts if f.kind == "near")
    assert fact.sure
    assert fact.train_rows.tolist() == [0, 1, 2]
    repeated = np.repeat(own, 10, 0) + 0.1 * normal(rng, 30, 30)
    assert not facts(train, held, np.concatenate([fresh, repeated])).copies


def test_groups_surround_their_own_rows():
    """Ten rows a person lie close together: a person's row is no room for another person's."""
    rng = np.random.default_rng(0)
    persons = normal(rng, 60, 4)
    rows = np.repeat(persons, 10, 0) + 0.01 * normal(rng, 600, 4)
    person = np.repeat(np.arange(60), 10)
    space = common_space(
        rows[:300], rows[300:], normal(rng, 200, 4), groups=(person[:300], person[300:])
    )
    pool = Pool.of(space)
    full = np.linalg.norm(pool.points[:, None] - pool.points[None], axis=2)
    full[pool.group[:, None] == pool.group[None]] = np.inf
    assert np.allclose(pool.spacing(np.arange(600)), full.min(1))
    assert pool.units(np.arange(15)) == 2
    assert pool.units(pool.train & ~pool.held) == 30


def test_every_choice_of_columns():
    assert subsets(4, 2) == list(combinations(range(4), 2))
