"""Rows at risk from their neighbours alone: closed forms, and that the riskiest are exposed."""

import math

import numpy as np
import pytest
import torch

from reverie import audit
from reverie.auditing.model.returning import reach_bound
from reverie.auditing.model.risk import NEIGHBOURS, row_risk
from reverie.forecast import predict


def cloud(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_alone_is_the_bound_of_returns():
    """A_i over all other rows, where NEIGHBOURS holds them; its mean is 1/2 by construction."""
    points = cloud(NEIGHBOURS + 1, 3)
    risk = row_risk(points)
    bound = reach_bound(torch.tensor(points), risk.spread**2).numpy()
    assert np.minimum(np.exp(-risk.alone), 1) == pytest.approx(bound, rel=1e-9)
    assert bound.mean() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_dimension_of_uniform_neighbours(d):
    risk = row_risk(np.random.default_rng(0).random((2000, d)))
    assert np.median(risk.dimension) == pytest.approx(d, rel=0.15)


def test_an_outlier_stands_alone_and_twins_are_counted():
    points = cloud(200, 2)
    points[17] = [40.0, 0.0]
    points[33] = points[34] = points[35]
    risk = row_risk(points)
    assert risk.riskiest[0] == 17
    assert risk.coverage.argmin() == 17
    assert risk.twins[[33, 34, 35]].min() >= 2
    assert {33, 34, 35}.isdisjoint(risk.riskiest)
    assert "17" in risk.sentence()
    assert math.isfinite(risk.rows()[0]["alone"])


def test_rows_that_are_too_few_or_equal_have_no_risk():
    assert row_risk(cloud(3, 2)) is None
    assert row_risk(np.ones((50, 2))) is None
    pairs = np.repeat(cloud(30, 2), 2, 0)  # every row twice
    assert np.isfinite(row_risk(pairs).alone).all()


def test_audit_and_forecast_list_them():
    data = cloud(300, 3)
    data[5] = 30
    verdict = audit(data[:150], data[150:250], cloud(100, 3, 1), power=False, metrics=False)
    assert verdict.risk.riskiest[0] == 5
    assert verdict.to_json()["risk"]["riskiest"][0]["row"] == 5
    assert "Training rows most at risk" in verdict.to_html()
    found = predict(data, n=200)
    assert found.risk.riskiest[0] == 5
    assert found.risk.sentence() in found.sentences()
    assert found.to_json()["risk"]["riskiest"][0]["row"] == 5
