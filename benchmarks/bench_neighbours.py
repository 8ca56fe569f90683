"""Exact nearest neighbours against faiss's flat index and scikit-learn's brute force.

20,000 queries among 20,000 points, one thread for each side, both from the same float64 arrays to
the answer (building the index included). `python bench_neighbours.py million` times a slice of
100,000 queries among 1,000,000 points instead, and prints the peak memory.

`python bench_neighbours.py disk --points 10000000 --queries 100000` reads the points (float32,
d = 64) from a file in pieces, as an audit of rows on disk does, and times faiss's flat index on a
slice (`--slice` points, all queries) in the same process. With fewer points or queries it gives
the slope: the time is that of the pairs.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from reverie.auditing import nearest
from reverie.data import load
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


def disk(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--slice", type=int, default=200_000)
    parser.add_argument("--folder", default=None)
    said = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((said.queries, 64), dtype=np.float32)
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        path = Path(folder) / "points.npy"
        with path.open("wb") as file:
            head = {"descr": "<f4", "fortran_order": False, "shape": (said.points, 64)}
            np.lib.format.write_array_header_1_0(file, head)
            for start in range(0, said.points, 2**16):
                count = min(2**16, said.points - start)
                file.write(rng.standard_normal((count, 64), dtype=np.float32).tobytes())
        found = {}
        for name, points in (
            ("rows on disk", load(path, stored=True).values),
            ("mapped", np.load(path, mmap_mode="r")),
        ):
            begun = time.thread_time()
            index = nearest(queries, points, 1)[1]
            seconds = time.thread_time() - begun
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            pairs = said.points * said.queries
            print(f"{name}: {said.queries:,} among {said.points:,}, d = 64: {seconds:.1f} CPU s, "
                  f"{pairs / seconds / 1e6:.0f} million pairs a second, so "
                  f"{1e12 / (pairs / seconds) / 3600:.2f} h for 100,000 among 10,000,000; "
                  f"peak memory {peak:.2f} GiB", flush=True)  # fmt: skip
            found[name] = index
        assert (found["rows on disk"] == found["mapped"]).all()
        some = np.array(np.load(path, mmap_mode="r")[: said.slice])
    flat = flat_index(some, queries, 1)
    if flat is not None:
        begun = time.thread_time()
        flat()
        seconds = time.thread_time() - begun
        rate = len(some) * said.queries / seconds / 1e6
        print(f"faiss flat: {said.queries:,} among {len(some):,}: {seconds:.1f} CPU s, "
              f"{rate:.0f} million pairs a second")  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if sys.argv[1:2] == ["disk"]:
            disk(sys.argv[2:])
        else:
            million() if sys.argv[1:] == ["million"] else compare()
