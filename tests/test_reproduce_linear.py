"""The reproductions of linear generalisation and implicit regularisation."""

import json
import math

import numpy as np
import pytest
import torch

from reverie.reproduce import implicit_regularisation as implicit
from reverie.reproduce import linear_generalisation as linear
from reverie.theory import expected_kl


def test_simulated_law_does_not_know_the_spectrum():
    law = linear.kl_law(np.random.default_rng(0), 60)
    for k in linear.POWERS:
        for n, (mean, error) in law[k].items():
            assert abs(mean - float(expected_kl(n, 50)) / 50) < 4 * error


def test_reference_tables_are_reproduced():
    for row in (*linear._headline_rows(), *linear._floor_rows()):
        assert row.ours == pytest.approx(row.reference, rel=0.02)
    rows = linear._cell_rows(np.random.default_rng(1), 8)
    assert len(rows) == 24
    for row in rows:
        slack = 0.02 * row.reference + 3 * (row.stderr or 0)
        assert abs(row.ours - row.reference) < slack


@pytest.mark.slow
def test_linear_generalisation_writes_figure_and_table(tmp_path):
    table = linear.run(tmp_path, seed=3)
    assert json.loads((tmp_path / "table.json").read_text())["seed"] == 3
    assert {p.name for p in tmp_path.iterdir()} == {
        "figure.png",
        "figure.svg",
        "table.json",
        "table.txt",
    }
    known = [row for row in table["rows"] if row["reference"] is not None]
    assert len(known) > 70
    for row in known:
        slack = 0.065 * row["reference"] + 4 * (row["stderr"] or 0)
        assert abs(row["ours"] - row["reference"]) < slack, row["quantity"]


def test_network_has_the_published_size_and_copies_are_counted():
    assert sum(p.numel() for p in implicit.TimeMLP().parameters()) == implicit.PARAMETERS
    train = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    points = torch.tensor([[0.1, 0.0], [5.0, 1.0], [9.9, 0.0], [3.0, 0.0]])
    assert implicit.copied_share(points, train) == 0.5


def test_chance_copies_follow_the_null_rate(generator):
    """Fresh points in d = 2: P(d1/d2 < k) = k^d up to the density's curvature."""
    train = torch.rand(4000, 2, generator=generator)
    fresh = 0.1 + 0.8 * torch.rand(20_000, 2, generator=generator)
    share = implicit.copied_share(fresh, train)
    assert share == pytest.approx(1 / 9, abs=4 * math.sqrt(0.1 / 4000))


def test_times_are_read_off_a_history():
    step = np.array([100.0, 200.0, 400.0, 800.0])
    history = implicit.History(
        step, np.array([2.0, 1.04, 1.0, 3.0]), step, np.array([0.0, 0.0, 0.1, 0.3])
    )
    assert history.generalised() == 200
    assert history.memorised(0.2) == pytest.approx(400 * math.sqrt(2))
    assert math.isnan(history.memorised(0.5))


def test_training_is_reproducible_and_learns():
    first, second = (implicit.train(32, 120, seed=1, checks=2) for _ in range(2))
    assert (first.test == second.test).all()
    assert first.test[-1] < first.test[0]
    assert first.train[-1] < first.test[-1]
