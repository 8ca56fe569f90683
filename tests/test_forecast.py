import json
import math

import numpy as np
import pytest

from reverie.errors import InputError
from reverie.forecast import predict
from reverie.theory import power_law


def gaussian(n, spectrum, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "n",
    [pytest.param(100, marks=SLOW), pytest.param(400, marks=SLOW), pytest.param(1200, marks=SLOW)],
)
def test_digits_predicted_test_curve_lies_on_the_measured_one(n):
    """Mean over four random splits within 3% at every noise level."""
    ratio = []
    for seed in range(4):
        curves = predict("digits", n=n, seed=seed).curves
        ratio.append(curves["linear holdout"].rate / curves["theory test"].rate)
    assert np.abs(np.mean(ratio, axis=0) - 1).max() < 0.03


def test_gaussian_data_meet_their_own_theory():
    """5,000 rows of a known law, N = 300: gap predicted and measured within 5% of each other."""
    forecast = predict(gaussian(5000, power_law(40, 1.0)), n=300)
    assert forecast.measured_gap is not None
    assert abs(forecast.gap / forecast.measured_gap - 1) < 0.05
    assert forecast.error is not None
    assert forecast.error < 0.03


def test_the_need_is_where_the_curve_crosses_the_budget():
    forecast = predict(gaussian(2000, np.ones(20)), n=500, budget=0.05)
    need = forecast.needed["no ridge"]
    side = np.interp(math.log(need), np.log(forecast.sizes), np.log(forecast.kl_plain))
    assert abs(math.exp(side) / 0.05 - 1) < 0.1
    assert forecast.needed["best ridge"] <= need


def test_fewer_rows_than_dimensions():
    forecast = predict(gaussian(60, np.ones(50)), n=30)
    assert math.isinf(forecast.kl_now["no ridge"])
    assert "infinite" in " ".join(forecast.sentences())
    assert (
        json.loads(json.dumps(forecast.to_json(), allow_nan=False))["kl_now"]["no ridge"] is None
    )


def test_bad_forecasts_get_one_sentence():
    with pytest.raises(InputError, match="budget"):
        predict("digits", budget=-1)
    with pytest.raises(InputError, match="at least 3 rows"):
        predict("digits", n=2)
    with pytest.raises(InputError, match="constant"):
        predict(np.ones((30, 2)))
