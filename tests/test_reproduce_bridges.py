"""Pieces of the reproductions of first hitting and of bridges into domains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reverie.reproduce.constrained_bridges import POINTS, SIDE, adult, clouds, roughness
from reverie.reproduce.first_hitting import (
    GAPS,
    ExitMixture,
    apart,
    graph_counts,
    graphs,
    joins,
    kernel_means,
    maps,
)


@pytest.mark.slow
def test_exit_laws_are_densities_and_their_draws_lean_by_the_radius() -> None:
    """Over a Gauss-Legendre grid of cosines the mass is 1; the mean cosine is the radius."""
    row = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(4000)
    x = torch.from_numpy(np.stack([np.sqrt(1 - nodes**2), 0 * nodes, nodes], 1))
    mass = torch.from_numpy(weights) @ kernel_means(row, x).exp() / 2
    wide = torch.tensor(GAPS) > 5e-3  # narrower ones fall between the nodes
    assert torch.allclose(mass[wide], torch.ones(int(wide.sum())).double(), atol=1e-6)
    for k in (5, 8, 11):
        model = ExitMixture(row, torch.eye(len(GAPS), dtype=torch.float64)[k])
        drawn = model.draw(20_000, torch.Generator().manual_seed(0))
        assert torch.allclose(drawn.norm(dim=1), torch.ones(20_000).double())
        assert float(drawn[:, 2].mean()) == pytest.approx(1 - GAPS[k], abs=0.02)


def test_of_uniform_places_the_mixture_costs_the_uniform_laws_nats() -> None:
    draw = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(1500, 3, generator=draw).double(), dim=1)
    model = ExitMixture.fit(points[:500], points[500:1000])
    assert float(model.nats(points[1000:]).mean()) == pytest.approx(
        math.log(4 * math.pi), abs=0.03
    )


def test_counts_of_graphs_maps_and_clouds() -> None:
    whole = torch.ones(1, 45, dtype=torch.float64)
    edges, triangles = graph_counts(whole)
    assert (float(edges), float(triangles)) == (45.0, 120.0)
    assert graphs(20, 0).shape == (20, 45)
    assert float(joins(torch.zeros(1, 36))) == 60
    assert set(maps(50, 0).unique().tolist()) == {0, 1, 2}
    rows = clouds(200, 0)
    assert rows.shape == (200, 2 * POINTS)
    assert 0 <= float(rows.min()) <= float(rows.max()) <= SIDE - 1
    assert 0.1 < roughness(rows) < 0.45  # rounding moves a point by at most .71
    assert apart(edges.expand(50), edges.expand(50)) == 0


def test_a_table_like_adult_is_made_without_the_data(monkeypatch) -> None:
    monkeypatch.delenv("REVERIE_DATA", raising=False)
    table = adult(0, 300)
    assert table.columns == ("age", "class", "gain", "hours", "sex", "income")
    assert len(table) == 300
    assert {f.name for f in table.fields if f.kind == "categorical"} == {"class", "sex", "income"}
