"""Graphs: read from a file or from NetworkX, or generated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from reverie.errors import InputError

BY_NETWORKX = {".graphml": "read_graphml", ".gml": "read_gml", ".gexf": "read_gexf"}


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected weighted graph: weights (n, n), symmetric, no diagonal; nodes' names."""

    weights: sparse.csr_array
    names: tuple[str, ...]
    loops: int = 0  # edges from a node to itself, left out: no cut counts them

    @property
    def nodes(self) -> int:
        return len(self.names)

    @property
    def edges(self) -> int:
        return self.weights.nnz // 2

    def laplacian(self) -> sparse.csr_array:
        """diag(W 1) - W."""
        degree = np.asarray(self.weights.sum(1)).ravel()
        return sparse.csr_array(sparse.diags_array(degree) - self.weights)

    def cut(self, sides: np.ndarray) -> float:
        """Weight between the sides (n,) of -1 and 1, or (n, m) for m cuts: then (m,)."""
        sides = np.asarray(sides, dtype=np.float64)
        value = 0.25 * (sides * (self.laplacian() @ sides)).sum(0)
        return float(value) if sides.ndim == 1 else value


def graph_of(source: Any) -> Graph:
    """A graph from a file, a `Graph`, a NetworkX graph, or pairs (a, b) or (a, b, weight).

    Weights of an edge that stands twice are added. InputError on what is no graph.
    """
    if isinstance(source, Graph):
        return source
    if isinstance(source, str | Path):
        return _read(Path(source))
    if hasattr(source, "edges") and hasattr(source, "nodes"):
        if getattr(source, "is_directed", lambda: False)():
            raise InputError("a cut is of an undirected graph: give graph.to_undirected()")
        edges = [(a, b, told.get("weight", 1.0)) for a, b, told in source.edges(data=True)]
        return _built(edges, [str(node) for node in source.nodes], "the graph")
    return _built(list(source), None, "the edges")


def _read(path: Path) -> Graph:
    if path.suffix.lower() in BY_NETWORKX:
        return _by_networkx(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    lines = [line.replace(",", " ").split() for line in text.splitlines()]
    lines = [line for line in lines if line and line[0][0] not in "#%"]
    if not lines:
        raise InputError(f"{path} has no edges")
    first, rest = lines[0], lines[1:]
    whole = len(first) == 2 and all(word.isdigit() for word in first)
    if whole and int(first[1]) == len(rest) and all(_within(line, int(first[0])) for line in rest):
        names = [str(k) for k in range(1, int(first[0]) + 1)]  # the form of the G-set
        return _built(rest, names, str(path))
    return _built(lines, None, str(path))


def _within(line: list[str], nodes: int) -> bool:
    return all(word.isdigit() and 1 <= int(word) <= nodes for word in line[:2])


def _by_networkx(path: Path) -> Graph:
    try:
        import networkx
    except ImportError as error:
        raise InputError(f"{path}: this kind of file needs networkx (pip install it)") from error
    try:
        return graph_of(networkx.Graph(getattr(networkx, BY_NETWORKX[path.suffix.lower()])(path)))
    except InputError:
        raise
    except Exception as error:  # its readers raise what they like
        raise InputError(f"{path} cannot be read: {error}") from error


def _built(edges: Iterable[Any], names: list[str] | None, where: str) -> Graph:
    index = {} if names is None else {name: k for k, name in enumerate(names)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    loops = 0
    for count, edge in enumerate(edges):
        words = list(edge)
        if len(words) not in (2, 3):
            raise InputError(
                f"{where}, edge {count + 1}: {len(words)} words; give a, b and weight"
            )
        ends = [index.setdefault(str(word), len(index)) for word in words[:2]]
        try:
            weight = float(words[2]) if len(words) == 3 else 1.0
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where}, edge {count + 1}: weight {words[2]!r} is no number"
            ) from error
        if not np.isfinite(weight):
            raise InputError(f"{where}, edge {count + 1}: the weight is {weight}")
        if ends[0] == ends[1]:
            loops += 1
            continue
        rows += ends
        columns += ends[::-1]
        values += [weight, weight]
    n = len(index)
    if not values:
        raise InputError(f"{where} has no edges between two nodes")
    weights = sparse.csr_array(sparse.coo_array((values, (rows, columns)), shape=(n, n)))
    weights.eliminate_zeros()
    return Graph(weights, tuple(index), loops)


def petersen() -> Graph:
    """The Petersen graph: its program's optimum is 12.5, its cut 12."""
    outer = [(k, (k + 1) % 5) for k in range(5)]
    inner = [(5 + k, 5 + (k + 2) % 5) for k in range(5)]
    return graph_of([*outer, *inner, *((k, k + 5) for k in range(5))])


def cycle(n: int) -> Graph:
    """The cycle of n nodes: for odd n the optimum is n / 2 (1 + cos(pi / n))."""
    return graph_of([(k, (k + 1) % n) for k in range(n)])


def toroidal(rows: int, columns: int, seed: int = 0) -> Graph:
    """A grid on a torus with weights -1 and 1 at random, as the G-set's G11 is."""
    rng = np.random.default_rng(seed)
    edges = []
    for i in range(rows):
        for j in range(columns):
            edges.append(((i, j), ((i + 1) % rows, j), int(rng.choice([-1, 1]))))
            edges.append(((i, j), (i, (j + 1) % columns), int(rng.choice([-1, 1]))))
    return graph_of(edges)


def random_graph(n: int, share: float, seed: int = 0) -> Graph:
    """Every pair of n nodes is an edge with probability `share`, of weight 1."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(n, 1)
    kept = rng.random(len(first)) < share
    return _built(
        zip(first[kept].tolist(), second[kept].tolist(), strict=True),
        [str(k) for k in range(n)], "the graph",
    )  # fmt: skip
