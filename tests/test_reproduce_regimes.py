"""The reproductions' shared parts, and the quick runs against what was published."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from reverie.denoisers import ResidualMLP
from reverie.processes import EDM
from reverie.reproduce import (
    analytic_creativity,
    dynamical_regimes,
    implicit_regularisation,
    random_features,
)
from reverie.reproduce.networks import build_network, digits, train
from reverie.reproduce.tables import Row, write_table


def test_a_table_says_how_each_reference_is_known(tmp_path):
    rows = [
        Row("speed", 1.5, 1.4, "V", 0.1, "read off"),
        Row("depth", np.float64(2)),
        Row("never", math.inf),
    ]
    table = write_table(tmp_path / "new", "A title", rows, 3, dict(n=4))
    assert json.loads((tmp_path / "new" / "table.json").read_text()) == table
    assert table["rows"][2]["ours"] is None
    text = (tmp_path / "new" / "table.txt").read_text()
    assert "[V] read in the paper" in text
    assert "seed 3; n 4" in text
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"table.json", "table.txt"}


def test_training_lowers_the_loss_and_depends_on_the_seed_alone():
    data = digits(torch.Generator().manual_seed(0))[:64]

    def fitted(steps):
        network = build_network(EDM(), lambda: ResidualMLP((1, 8, 8), 32, 1), data, seed=1)
        return train(network, data, steps, generator=torch.Generator().manual_seed(2))

    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(3))
    state, t = data + 0.5 * noise, EDM().time(4.0).float()
    first, again, raw = (fitted(steps)(state, t).detach() for steps in (60, 60, 0))
    assert (first - data).square().mean() < 0.8 * (raw - data).square().mean()
    assert torch.equal(first, again)


def test_toy_network_has_the_published_number_of_weights():
    network = implicit_regularisation.ToyNetwork()
    assert sum(p.numel() for p in network.parameters()) == 102_024


def test_dates_of_memorisation_and_generalisation():
    history = implicit_regularisation.History(
        steps=[0, 10, 20, 40], test=[1.0, 0.55, 0.5, 0.8], sampled=[100, 200, 300],
        copies=[0.0, 0.1, 0.24],
    )  # fmt: skip
    assert history.memorised_at() == pytest.approx(250)
    assert history.generalised_at() == 10
    history.copies = [0.0, 0.1, 0.1]
    assert math.isinf(history.memorised_at())


def test_crossing_is_interpolated_on_a_log_axis():
    x, y = np.array([1.0, 10.0, 100.0]), np.array([0.0, 0.1, 0.3])
    assert random_features._crossing(x, y, 0.2) == pytest.approx(10**1.5)
    assert math.isinf(random_features._crossing(x, y, 0.5))


def test_squared_correlation_ignores_scale_and_offset():
    a = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert np.allclose(analytic_creativity.squared_correlation(a, 2 - 3 * a), 1)


def test_conv_net_sees_as_far_as_it_says():
    network = analytic_creativity.ConvNet(depth=2)
    torch.nn.init.normal_(network.leave.weight)
    x = torch.zeros(1, 1, 21, 21, requires_grad=True)
    network(x, torch.zeros(1))[0, 0, 10, 10].backward()
    assert x.grad is not None
    reached = x.grad[0, 0].abs().sum(0) > 0
    assert int(reached.sum()) == 2 * 2 + 5


@pytest.mark.slow
def test_dynamical_regimes_match_the_saved_values(tmp_path):
    table = dynamical_regimes.run(tmp_path)
    assert (tmp_path / "dynamical_regimes.png").stat().st_size > 0
    known = [row for row in table["rows"] if row["tag"] == "V"]
    assert len(known) == 13
    for row in known:
        rounding = 5e-3 if row["stderr"] else 6e-4  # the references have two or four digits
        error = 4 * (row["stderr"] or 0) * math.sqrt(2) + rounding
        assert abs(row["ours"] - row["reference"]) < error, row["quantity"]
