"""MaxCut on products of spheres: closed forms, brute force, certificates."""

from __future__ import annotations

import itertools
import json
import math

import networkx
import numpy as np
import pytest

from reverie.cli import main
from reverie.errors import InputError
from reverie.targets.graphs import cycle, graph_of, petersen, random_graph, toroidal
from reverie.targets.maxcut import certificate, langevin_gap, maxcut, rounded


@pytest.mark.parametrize("n", [5, 7, 9])
def test_odd_cycles(n):
    """n / 2 (1 + cos(pi / n)); the best cut leaves one edge."""
    found = maxcut(cycle(n), accuracy=1e-6)
    truth = n / 2 * (1 + math.cos(math.pi / n))
    assert found.value <= truth + 1e-9 <= found.bound + 2e-9
    assert found.gap < 1e-6
    assert found.cut == n - 1


def test_petersen():
    found = maxcut(petersen())
    assert found.value == pytest.approx(12.5, abs=1e-4)
    assert found.bound >= 12.5 - 1e-9
    assert found.cut == 12
    assert "best cut" in " ".join(found.sentences())


@pytest.mark.parametrize("seed", range(3))
def test_no_cut_is_above_the_bound_and_small_ones_are_best(seed):
    """Brute force over 2^11 cuts, with weights of both signs."""
    rng = np.random.default_rng(seed)
    edges = [(i, j, float(rng.normal())) for i, j in itertools.combinations(range(12), 2)]
    graph = graph_of(edges)
    sides = np.array(list(itertools.product([-1, 1], repeat=11)))
    best = graph.cut(np.c_[np.ones(len(sides)), sides].T).max()
    found = maxcut(graph, seed=seed)
    assert best <= found.bound + 1e-9
    assert found.cut == pytest.approx(best)
    assert graph.cut(found.sides) == pytest.approx(found.cut)


@pytest.mark.parametrize(
    "graph", [toroidal(6, 10), random_graph(80, 0.1)], ids=["torus", "random"]
)
def test_generated_graphs_are_certified(graph):
    found = maxcut(graph, roundings=50)
    assert 0 <= found.gap <= 1e-4
    assert found.cut <= found.bound


def test_the_certificate_holds_at_any_point():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 5))
    value, bound = certificate(
        petersen().laplacian(), x / np.linalg.norm(x, axis=1, keepdims=True)
    )
    assert value < 12.5 < bound
    assert rounded(petersen(), x, 20, rng)[1] <= 12


@pytest.mark.parametrize(
    ("graph", "optimum", "rank", "beta", "known", "theory"),
    [
        (petersen(), 12.5, 5, 100.0, 0.1501, 0.1500),
        (cycle(5), 2.5 * (1 + math.cos(math.pi / 5)), 3, 50.0, 0.0712, 0.0700),
    ],
)
def test_the_gibbs_gap(graph, optimum, rank, beta, known, theory):
    """d / (2 beta) to first order (30 and 7 directions); measured elsewhere at eta = .02.

    Within four standard errors, and 2% for that measurement's own error.
    """
    gap, error = langevin_gap(
        graph, optimum, rank=rank, beta=beta, eta=0.02, steps=1500, burn_in=1000, chains=48
    )
    assert gap == pytest.approx(known, abs=4 * error + 0.02 * known)
    assert gap == pytest.approx(theory, rel=0.06)


def test_files_and_networkx_say_the_same(tmp_path, capsys):
    graph = networkx.petersen_graph()
    nodes = {n: k + 1 for k, n in enumerate(graph.nodes)}
    lines = [f"{nodes[a]} {nodes[b]} 1" for a, b in graph.edges]
    (tmp_path / "g.txt").write_text("\n".join(["10 15", *lines]) + "\n")
    (tmp_path / "edges.csv").write_text(
        "# a comment\n" + "\n".join(f"v{a},v{b}" for a, b in graph.edges)
    )
    networkx.write_graphml(graph, tmp_path / "g.graphml")
    for source in (graph, *(tmp_path / name for name in ("g.txt", "edges.csv", "g.graphml"))):
        read = graph_of(source)
        assert (read.nodes, read.edges) == (10, 15)
    with pytest.raises(SystemExit) as left:
        main(["maxcut", str(tmp_path / "g.txt"), "--out", str(tmp_path / "c.json"), "--quiet"])
    assert left.value.code == 0
    assert "A cut of weight 12" in capsys.readouterr().out
    told = json.loads((tmp_path / "c.json").read_text())
    assert set(told["sides"].values()) == {-1, 1}
    with pytest.raises(InputError, match="undirected"):
        graph_of(networkx.DiGraph([(0, 1)]))
