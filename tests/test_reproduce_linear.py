"""The reproduction of linear generalisation."""

import json

import numpy as np
import pytest

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
