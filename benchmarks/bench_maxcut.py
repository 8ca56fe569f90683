"""MaxCut programs of random graphs with 100 nodes: ours beside SCS, in one process.

    pip install scs; python benchmarks/bench_maxcut.py

Both to a relative 1e-6; CPU seconds of the second of two calls. Ours carries a certificate.
"""

from __future__ import annotations

import time

import numpy as np
import scs
from scipy import sparse

from reverie.targets.graphs import Graph, random_graph
from reverie.targets.maxcut import maxcut

NODES, SHARE, SEEDS, ACCURACY = 100, 0.1, 3, 1e-6


def by_scs(graph: Graph) -> float:
    """The program over the lower triangle of Z, column by column, off-diagonal times sqrt 2."""
    n = graph.nodes
    columns, rows = np.triu_indices(n)  # the lower triangle by columns, as SCS has it
    same = rows == columns
    cost = -0.25 * graph.laplacian().toarray()[rows, columns] * np.where(same, 1, np.sqrt(2))
    count, ones = len(rows), np.ones(n)
    unit = sparse.csc_matrix((ones, (range(n), np.flatnonzero(same))), shape=(n, count))
    data = dict(
        A=sparse.vstack([unit, -sparse.eye(count)], format="csc"),
        b=np.r_[ones, np.zeros(count)],
        c=cost,
    )
    cone = dict(z=n, s=[n])
    solver = scs.SCS(data, cone, verbose=False, eps_abs=ACCURACY, eps_rel=ACCURACY)
    return -solver.solve()["info"]["pobj"]


def main() -> None:
    print("seed        scs       ours  certificate   scs CPU s  ours CPU s")
    for seed in range(SEEDS):
        graph = random_graph(NODES, SHARE, seed)
        for _ in range(2):
            began = time.process_time()
            theirs = by_scs(graph)
            middle = time.process_time()
            ours = maxcut(graph, accuracy=ACCURACY, roundings=1)
            ended = time.process_time()
        print(
            f"{seed:>4} {theirs:>10.5f} {ours.value:>10.5f} {ours.bound:>12.5f} "
            f"{middle - began:>11.2f} {ended - middle:>11.2f}"
        )


if __name__ == "__main__":
    main()
