"""Fidelity tests against closed forms, loops and known levels, and on census records."""

import csv
import gzip
import math

import numpy as np
import pytest
from scipy import stats

from reverie.auditing.metrics.fidelity import (
    classifier_two_sample,
    energy_distance,
    energy_test,
    fidelity,
    fidelity_sentence,
)
from reverie.errors import InputError


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_energy_distance_by_loops_and_in_closed_form(monkeypatch):
    from reverie.auditing.metrics import fidelity as module

    x, y = normal(40, 3), normal(25, 3, 1) + 0.5
    d = np.linalg.norm(np.concatenate([x, y])[:, None] - np.concatenate([x, y])[None], axis=2)
    expected = 2 * d[:40, 40:].mean() - d[:40, :40].sum() / (40 * 39)
    expected -= d[40:, 40:].sum() / (25 * 24)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)
    # N(0, 1) and N(1, 1): E|N(m, 2)| = sqrt(2) [2 phi(a) + a (2 Phi(a) - 1)], a = m / sqrt(2)
    a = 1 / math.sqrt(2)
    far = math.sqrt(2) * (2 * stats.norm.pdf(a) + a * (2 * stats.norm.cdf(a) - 1))
    truth = 2 * far - 2 * 2 / math.sqrt(math.pi)
    found = [energy_distance(normal(500, 1, s), normal(500, 1, s + 50) + 1) for s in range(20)]
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / math.sqrt(20)


def test_energy_test_has_its_level_and_its_power():
    """Exact: P(p <= .1) = .1 over 150 draws with R = 99 (4 standard errors); and sees a shift."""
    p = [energy_test(normal(25, 2, s), normal(30, 2, s + 999), s, 99)[1] for s in range(150)]
    assert abs(np.mean(np.array(p) <= 0.1) - 0.1) < 4 * math.sqrt(0.09 / 150)
    assert energy_test(normal(300, 4), normal(300, 4, 1) + 0.3, permutations=199)[1] == 1 / 200
    cells = np.zeros((40, 2))
    assert energy_test(cells, cells, permutations=19) == (0.0, 1.0)


def test_classifier_is_at_chance_on_equal_laws_and_above_on_others():
    fair = classifier_two_sample(normal(400, 3), normal(500, 3, 1))
    assert fair.count == 400
    assert abs(fair.accuracy - 0.5) < 4 * 0.5 / math.sqrt(400)
    assert fair.p_value > 1e-3
    told = classifier_two_sample(normal(400, 3), 2 * normal(400, 3, 1))
    assert told.accuracy > 0.6
    assert told.p_value < 1e-6
    # the p-value is Fisher's exact test of guesses against labels
    x, y = normal(60, 1), normal(60, 1, 1) + 0.8
    result = classifier_two_sample(x, y)
    assert result.interval[0] < result.accuracy < result.interval[1]


def test_fidelity_needs_rows():
    with pytest.raises(InputError, match="at least 20"):
        fidelity(normal(30, 2), normal(10, 2))


def adult(path, rows):
    """Columns as numbers (categories as codes), and which are categories."""
    with gzip.open(path, "rt") as file:
        table = [line for line in csv.reader(file, skipinitialspace=True) if len(line) == 15]
    table = [table[i] for i in np.random.default_rng(0).permutation(len(table))[:rows]]
    columns = list(zip(*table, strict=True))
    numeric = {0, 2, 4, 10, 11, 12}
    codes = [
        np.array(c, float) if i in numeric else np.unique(c, return_inverse=True)[1].astype(float)
        for i, c in enumerate(columns)
    ]
    return np.stack(codes, 1), [i not in numeric for i in range(15)]


def encoded(rows, pool, categories):
    """Numbers over their deviation; categories one-hot over sqrt 2, so that two differ by 1."""
    parts = []
    for column, is_category in enumerate(categories):
        if is_category:
            levels = np.unique(pool[:, column])
            parts.append((rows[:, column, None] == levels) / math.sqrt(2))
        else:
            parts.append(rows[:, [column]] / pool[:, column].std())
    return np.concatenate(parts, 1)


def gaussian_copula(rows, count, seed):
    """Rows with the margins of `rows` and the dependence of a Gaussian fitted to their ranks."""
    rng = np.random.default_rng(seed)
    ranks = np.stack([np.lexsort((rng.random(len(c)), c)).argsort() for c in rows.T], 1)
    scores = stats.norm.ppf((ranks + 0.5) / len(rows))
    draw = rng.multivariate_normal(np.zeros(rows.shape[1]), np.corrcoef(scores.T), count)
    place = (stats.norm.cdf(draw) * len(rows)).astype(int).clip(0, len(rows) - 1)
    return np.take_along_axis(np.sort(rows, axis=0), place, axis=0)


def test_a_gaussian_copula_is_told_from_a_true_sample_of_census_records(real_data):
    rows, categories = adult(real_data("adult/adult.data.gz"), 4500)
    train, held, true = np.split(rows, 3)
    copula = gaussian_copula(train, 1500, seed=1)
    held_out, honest, synthetic = (encoded(r, rows, categories) for r in (held, true, copula))
    good, bad = fidelity(held_out, honest), fidelity(held_out, synthetic)
    assert min(row.p_value for row in good if row.p_value is not None) > 0.025
    assert "could not be told" in fidelity_sentence(good)
    p_values = {row.statistic: row.p_value for row in bad}
    assert p_values["told apart by a classifier"] < 1e-6
    assert "can be told from" in fidelity_sentence(bad)
