"""The fourteen scenarios of the audit's findings, each on three data sets, as a user gives them.

The tables are those that the benchmark of verdicts shows to every tool: a mixture, breast cancer
and Adult (where it is there), pictures of digits and of clothes. The fast tests hold
one case of a scenario and data set; the slow ones all cases of several seeds, at the rates stated.
"""

import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from bench_verdicts import cell, is_right, summary
from privacy_tools import Said, Tool, tools
from reverie.auditing.common_space import common_space
from reverie.auditing.facts.counted import count_facts
from scenarios import MAKERS, TITLES, Case, every
from tables import Table

SEEDS = range(1, 6)


# what does not reach its finding, and why: 32 samples about three rows, beside 250 real rows of 30
# columns, are no clump that 250 rows could not explain; 133 persons of three rows each, in whole
# numbers, are beside 800 rows too few near-twins
@pytest.fixture(scope="module")
def reverie():
    return tools()[-1]


def one_each(scenario, *names):
    """The first case of each data set, or those whose name holds one of `names`."""
    seen, found = set(), []
    for case in every(0, [scenario]):
        source = case.name.split(",")[0]
        if any(n in case.name for n in names) if names else source not in seen:
            found.append(case)
        seen.add(source)
    return found


FAST = {
    2: ("mixture, 10% equal 3 rows +", "cancer, 10% equal 3 rows", "Adult, 100% equal 1 rows"),
    3: ("cancer, 10 of 120", "mixture, 10% with 20"),
    4: ("10%,",),
    6: (),
    11: (),
    12: ("cancer, copies, a no-data", "mixture, fresh, a no-data"),
    13: ("Poisson",),
}


@pytest.mark.parametrize("scenario", FAST)
def test_scenario(scenario, reverie):
    cases = one_each(scenario, *FAST[scenario])
    assert len(cases) >= 2
    for case in cases:
        said = reverie(case)
        assert is_right(case, said), (case.name, said)


def test_hub_rows_have_their_exact_share_p(reverie):
    """k rows hold all samples: C(400, k) / C(800, k), drawn labels within 3%."""
    for case, k in zip(every(0, [14]), (1, 3, 4), strict=True):
        exact = np.prod([(400 - i) / (800 - i) for i in range(k)])
        p = float(reverie(case).detail.split("share p ")[1])
        assert p == pytest.approx(exact, rel=0.03)


def test_one_row_given_many_times_is_one_chance():
    """2,000 samples that equal one row of Adult-like categories: sure, however many there are."""
    rng = np.random.default_rng(0)
    values = np.array([2, 3, 5, 7, 9, 40, 200, 70])
    train, held = (rng.integers(0, values, (400, 8)).astype(float) for _ in range(2))
    for count in (20, 2000, 20_000):
        found = count_facts(common_space(train, held, train[:1].repeat(count, 0)))
        assert found.sure
        assert found.train_rows.tolist() == [0]


def mixtures(law, d, seeds):
    """(components' rows (k,), train, held, samples, their components) of BIC mixtures."""
    from sklearn.mixture import GaussianMixture

    for seed in seeds:
        rng = np.random.default_rng((seed, d))
        n = int(rng.choice([100, 200, 500]))
        train, held = law(rng, n, d), law(rng, int(rng.choice([20, 100, 500])), d)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits = [GaussianMixture(k, random_state=0).fit(train) for k in range(1, 6)]
        best = min(fits, key=lambda fit: fit.bic(train))
        best.random_state = seed
        drawn, part = best.sample(int(rng.choice([200, 1000, 3000])))
        held_by = np.bincount(best.predict(train), minlength=best.n_components)
        yield held_by, train, held, drawn, part


def accusers(law, d, seeds):
    """Of accused mixtures the rows of the largest component that made an accused sample."""
    found, total = [], 0
    for held_by, train, held, drawn, part in mixtures(law, d, seeds):
        facts = count_facts(common_space(train, held, drawn))
        total += 1
        if facts.copies:
            found.append(int(held_by[part[facts.sample_rows]].max()))
    return found, total


def heavy(df):
    return lambda rng, n, d: rng.standard_t(df, (n, d))


def test_mixtures_are_accused_of_their_components_of_single_rows_only():
    """A component of d rows or fewer has a singular covariance and repeats its rows to a
    thousandth: that is copying, and the only copying of mixtures that is found."""
    found, total = accusers(heavy(1.5), 8, range(8))
    assert total == 8
    assert len(found) >= 4
    assert max(found) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("df", [1.5, 3.0, 30.0])
@pytest.mark.parametrize("d", [2, 3, 8])
def test_mixtures_of_any_tail(df, d):
    """At most 1 in 100 is accused of anything else."""
    found, total = accusers(heavy(df), d, range(100))
    assert sum(rows > d for rows in found) <= 0.01 * total


@pytest.mark.slow
def test_every_scenario_reaches_its_finding(reverie):
    """Copies in 95 of 100, `copies` on honest sets in at most 1 in 100, all others in 95."""
    right, of, missed = Counter(), Counter(), []
    for seed in SEEDS:
        for case in every(seed):
            said = reverie(case)
            key = (case.scenario, case.truth)
            of[key] += 1
            right[key] += is_right(case, said)
            if not is_right(case, said):
                missed.append((seed, case.scenario, case.name, said))
    assert {scenario for scenario, _ in of} == set(TITLES) == set(MAKERS)
    honest = [key for key in of if key[1] == "honest"]
    wrong = sum(of[key] - right[key] for key in honest)
    assert wrong <= 0.01 * sum(of[key] for key in honest), missed
    for key in of:
        assert right[key] >= 0.95 * of[key] - 1, (key, missed)


def test_the_table_counts_what_is_right():
    case = next(iter(every(0, [13])))
    copied = Case(2, "x", "copies", case.train, case.holdout, case.train)
    calls = {"quiet": lambda _: Said("silent", ""), "loud": lambda _: Said("accuses", "")}
    columns = [Tool(name, "", run) for name, run in calls.items()] + [Tool("none", "", None)]
    found = {(c.scenario, t.name): [(c, t(c))] for c in (case, copied) for t in columns}
    first, second, total = (line.split() for line in summary(found, columns)[1:])
    assert first[-6:] == ["no", "0/1", "yes", "1/1", "not", "installed"]  # copies
    assert second[-6:] == ["yes", "1/1", "no", "0/1", "not", "installed"]
    assert total[-9:] == ["1", "of", "2", "1", "of", "2", "0", "of", "2"]
    assert cell([(copied, Said("-", ""))]) == "-"


def test_a_tool_that_fails_or_takes_no_pictures_says_so():
    pictures = Table.of(np.zeros((4, 1, 8, 8), np.uint8))
    case = Case(5, "x", "copies", pictures, pictures, pictures)
    assert Tool("x", "", lambda _: 1 / 0)(case).word == "-"
    assert Tool("x", "", lambda _: 1 / 0, pictures=True)(case).detail == "ZeroDivisionError"
