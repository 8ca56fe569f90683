"""What is read off models and rows at risk: fates and AUCs on cases that are known."""

import numpy as np
import pytest
import torch

from reverie.auditing.model.risk import MEASURES, row_risk
from reverie.denoisers import Memoriser
from reverie.processes import EDM
from reverie.reproduce import early_memorisation, risk


def test_the_memorisers_rows_are_copied():
    """All of them, by 1,000 samples of 40 rows; divergence does not tell a memoriser's members,
    which pulls at held-out rows as strongly (-1 of either, by its closed form)."""
    draw = torch.Generator().manual_seed(5)
    train, held = (torch.randn(n, 6, generator=draw) for n in (40, 60))
    met = risk.fates(Memoriser(EDM(0.02, 20), train), train, held, 0)
    assert met["copied"].mean() > 0.8
    assert met["exposed"].mean() < 0.3
    assert met["stored"].sum() == pytest.approx(10, abs=1)


def test_a_measure_that_is_the_fate_predicts_it():
    found = row_risk(np.random.default_rng(0).normal(size=(200, 3)))
    fate = found.alone > np.quantile(found.alone, 0.8)
    told = risk.predicted(found, fate)
    assert set(told) == set(MEASURES)
    assert told["alone"][0] == 1
    assert told["coverage"][0] > 0.9  # sparse rows stand alone
    assert risk.predicted(found, np.zeros(200, bool)) == {}


def test_the_mixture_has_its_moments():
    rows = early_memorisation.mixture(4000, 0)
    assert rows.shape == (4000, 8)
    # variance 1/4 about a centre, 1 of the centres; errors of 4,000 rows are a few hundredths
    assert np.cov(rows.T) == pytest.approx(np.ones((8, 8)) + np.eye(8) / 4, abs=0.08)


@pytest.mark.slow
def test_copies_are_held_before_samples_show_them():
    """Digits: a checkpoint whose samples give at most `leans`, of which cycling extracts rows."""
    setting = early_memorisation.DIGITS
    data = early_memorisation.digit_rows(0)
    found, network, scaler = early_memorisation.checkpoints(setting, data, 0)
    late = found[-1]
    assert late.finding in ("leans", "none", "inconclusive")
    assert late.probe.looks[0].copies == 0
    assert late.probe.extracts
    assert not found[0].probe.extracts
    assert late.divergence.auc > 0.85
    low, high = late.null.interval
    assert low < 0.5 < high
    fresh = scaler.to_model(data[2 * setting.n :])
    assert early_memorisation.controls(setting, network, fresh, 0) == 0
