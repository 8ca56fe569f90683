"""Subjects on both sides of a split by row: told by name, by repeats, and by what they fix."""

import math

import numpy as np
import pytest

from reverie.auditing import audit
from reverie.auditing.common_space import common_space
from reverie.auditing.fairness.comparison import fair_comparison
from reverie.auditing.fairness.subjects import NAMED, find_subjects
from reverie.data import load


def table(rng, name="patient", subjects=100, times=4):
    """Rows of subjects with a sex, a height (both their own) and a pulse (new each time)."""
    who = np.repeat(np.arange(subjects), times)
    sex, height = rng.integers(0, 2, subjects), rng.normal(170, 9, subjects).round(1)
    columns = [who, sex[who], height[who], rng.normal(70, 5, len(who)).round(1)]
    kinds = [(column, float) for column in (name, "sex", "height", "pulse")]
    return np.rec.fromarrays(columns, dtype=np.dtype(kinds))


def halves(rows, rng):
    order = rng.permutation(len(rows))
    return [load(rows[part], keys=True) for part in np.array_split(order, 2)]


def reasons(train, holdout, **options):
    space = common_space(train, holdout, **options)
    return fair_comparison(train, holdout, space=space).reasons


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "nr",
        "subject",
        "patient_id",
        pytest.param("Pig", marks=pytest.mark.slow),
        pytest.param("IdOfPatient", marks=pytest.mark.slow),
    ],
)
def test_subjects_split_by_row_are_unfair_and_their_column_is_named(name):
    rng = np.random.default_rng(0)
    sets = halves(table(rng, name), rng)
    first = reasons(*sets)[0]
    found = find_subjects(*sets)
    assert found is not None
    assert first.kind == "units"
    assert found.constant == ("sex", "height")
    held, train = (set(data.values[:, 0].astype(int)) for data in sets[::-1])
    assert found.straddling == len(held & train)
    assert first.count == np.isin(sets[1].values[:, 0], list(train)).sum()
    assert f"--group {name}" in first.remedy
    assert repr(name) in first.sentence


def test_subjects_split_as_a_whole_and_grouped_are_fair():
    rng = np.random.default_rng(1)
    rows = table(rng)
    whole = [load(rows[np.isin(rows.patient, part)], keys=True)
             for part in np.array_split(rng.permutation(100), 2)]  # fmt: skip
    found = find_subjects(*whole)
    assert found is not None
    assert found.straddling == 0
    assert not reasons(*whole, groups="patient")
    assert "units" not in {reason.kind for reason in reasons(*whole)}


def test_before_and_after_stand_on_one_side_each():
    """Each subject's first row is a training row and its second held out: no number repeats
    within a set, so that the column would be set apart."""
    rows = table(np.random.default_rng(2), "id", times=2)
    sets = [load(rows[k::2], keys=True) for k in (0, 1)]
    assert reasons(*sets)[0].kind == "units"


def test_an_audit_says_unfair():
    rng = np.random.default_rng(3)
    train, holdout, samples = (table(rng) for _ in range(3))
    both = np.concatenate([train, holdout])
    both["patient"][400:] += 100
    first, second = halves(both, rng)
    verdict = audit(first, second, load(samples, keys=True), metrics=False, power=False)
    assert verdict.finding == "unfair"


@pytest.mark.parametrize(
    "name", ["city", "zone", "model", "product_id", "state", "method", "name"]
)
def test_what_is_no_name_of_a_subject_is_none(name):
    """Cities lie in one country, models of cars have one number of cylinders: no subjects."""
    rng = np.random.default_rng(4)
    assert find_subjects(*halves(table(rng, name), rng)) is None
    assert not NAMED.fullmatch(name)


def test_numbers_dealt_at_random_are_no_subjects():
    """A number of that name that fixes nothing, and rows that stand twice, whole."""
    rng = np.random.default_rng(5)
    for _ in range(100):
        rows = table(rng, subjects=30, times=3)
        rows["patient"] = rng.permutation(rows["patient"])
        rows["sex"] = rng.random(90) < 0.02  # constant within most by chance
        assert find_subjects(*halves(rows, rng)) is None
    once = table(rng, subjects=200, times=1)
    assert find_subjects(*halves(np.concatenate([once, once]), rng)) is None


@pytest.mark.parametrize("rows", [40, 60, 200])
def test_the_chance_that_a_column_is_constant_within_all_pairs(rows):
    """Of two categories, one in r of N rows dealt over N / 2 pairs: C(N/2, r/2) / C(N, r) exactly,
    above q^(N/2) by at most sqrt(2 e) = 2.33 (Stirling, at r = N / 2)."""
    for some in range(2, rows // 2 + 1, 2):
        exact = math.comb(rows // 2, some // 2) / math.comb(rows, some)
        q = (some * (some - 1) + (rows - some) * (rows - some - 1)) / (rows * (rows - 1))
        assert exact <= 1.02 * math.sqrt(2 * math.e) * q ** (rows // 2)
