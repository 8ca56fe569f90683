"""Exact nearest neighbours against faiss's flat index and scikit-learn's brute force.

20,000 queries among 20,000 points, one thread for each side, both from the same float64 arrays to
the answer (building the index included). `python bench_neighbours.py million` times a slice of
100,000 queries among 1,000,000 points instead, and prints the peak memory.
"""

import resource
import sys
import time

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from reverie.auditing import nearest
from timing import paired

COUNT = 20_000
CASES = ((64, 1), (64, 5), (784, 1), (784, 5))  # columns, neighbours
SLICE = 4000


def flat_index(points, queries, k):
    """A search with the exact flat index of faiss, or None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)

    def search():
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points.astype(np.float32))
        return index.search(queries.astype(np.float32), k)

    return search


def compare():
    rng = np.random.default_rng(0)
    for dim, k in CASES:
        points, queries = rng.standard_normal((2, COUNT, dim))

        def ours(q=queries, p=points, k=k):
            return nearest(q, p, k)

        def brute(q=queries, p=points, k=k):
            return NearestNeighbors(algorithm="brute").fit(p).kneighbors(q, k)

        repeats = 5 if dim < 100 else 3
        name = f"{k} nearest of {COUNT:,} among {COUNT:,}, d = {dim}"
        print(f"{name}, theirs scikit-learn   {paired(ours, brute, repeats)}", flush=True)
        flat = flat_index(points, queries, k)
        if flat is None:
            print(f"{name}, theirs faiss   skipped: faiss is not installed")
        else:
            print(f"{name}, theirs faiss          {paired(ours, flat, repeats)}", flush=True)


def million():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((1_000_000, 64), dtype=np.float32)
    queries = rng.standard_normal((SLICE, 64), dtype=np.float32)
    start = time.perf_counter()
    nearest(queries, points, 5)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"5 nearest of {SLICE:,} among 1,000,000, d = 64: {seconds:.1f} s, so "
        f"{seconds * 100_000 / SLICE / 60:.1f} min for 100,000; peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        million() if sys.argv[1:] == ["million"] else compare()
