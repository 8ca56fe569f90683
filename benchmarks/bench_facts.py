"""Plain facts at scale: equal and near rows beside faiss's flat index, one thread.

`python bench_facts.py`: equal rows and rows that are equal in all but one column, among 1,000,000
samples and 100,000 training with 10,000 held-out rows at d = 64, whole; near rows on two slices of
the samples beside IndexFlatL2 on the same slice, with the slope to the million. `tables`: 1,000 +
1,000 + 2,000 rows in 8 columns. `pictures`: 60,000 + 9,840 + 160 of Fashion-MNIST (all facts, the
changes included). `whole`: every fact of the million, from arrays to counts, in one process (some
ten minutes).
"""

import resource
import sys
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from reverie.auditing.common_space import CommonSpace, common_space
from reverie.auditing.facts.counted import count_facts
from reverie.auditing.facts.near import Closest, Pool, near
from reverie.auditing.facts.row_keys import Keys, agreeing
from reverie.data import load
from reverie.data.idx import FASHION, read_idx
from timing import paired

SAMPLES, TRAIN, HELD, WIDTH = 1_000_000, 100_000, 10_000, 64
SLICES = (2000, 6000)
MOST_GIB = 4


def seconds(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def million():
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((TRAIN + HELD, WIDTH), dtype=np.float32)
    drawn = rng.standard_normal((SAMPLES, WIDTH), dtype=np.float32)
    drawn[:1000] = pool[:1000]
    drawn[1000:2000] = pool[1000:2000]
    drawn[1000:2000, 3] += 1
    for k, copied in ((0, 1000), (1, 2000)):
        spent, (found, alone, _) = seconds(
            lambda k=k: agreeing(Keys.of(pool, parts=k > 0), drawn, k)
        )
        assert (found >= 0).sum() == copied
        assert alone[:copied].all()
        print(f"equal in all but {k} columns, whole: {spent:.1f} s", flush=True)
    del found, alone
    rows = pool.astype(np.float64)
    around = Pool.of(CommonSpace(rows[:TRAIN], rows[TRAIN:], rows[:0]))
    spent, _ = seconds(lambda: around.fresh)
    print(f"rows taken out, once: {spent:.1f} s", flush=True)
    flat = flat_index(pool)
    times = []
    for size in SLICES:
        part = CommonSpace(rows[:TRAIN], rows[TRAIN:], drawn[:size].astype(np.float64))

        def ours(part=part, size=size):
            closest = Closest.of(part, around, np.zeros(size, bool))
            return near(part, around, closest)

        def theirs(size=size):
            return flat.search(drawn[:size], 1)

        pair = paired(ours, theirs, repeats=3, clock=time.process_time)
        times.append((pair.ours, pair.theirs))
        print(f"near, {size:,} samples, theirs faiss IndexFlatL2   {pair}", flush=True)
    slope = np.subtract(times[1], times[0]) / (SLICES[1] - SLICES[0])
    print("slope to the million: ours {:.0f} s, faiss {:.0f} s".format(*slope * SAMPLES))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def whole():
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((TRAIN + HELD, WIDTH), dtype=np.float32)
    drawn = rng.standard_normal((SAMPLES, WIDTH), dtype=np.float32)
    drawn[:1000] = pool[:1000]
    drawn[1000:2000] = pool[1000:2000] + 0.05 * drawn[1000:2000]
    space = common_space(pool[:TRAIN], pool[TRAIN:], drawn)
    spent, found = seconds(lambda: count_facts(space))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    counts = ", ".join(f"{fact.kind} {fact.samples:,}" for fact in found.facts if fact.samples)
    print(f"all facts of {SAMPLES:,} x {TRAIN:,}, d = {WIDTH}: {spent:.0f} s, {counts}")
    print(f"peak memory {peak:.2f} GiB, {'within' if peak < MOST_GIB else 'OVER'} {MOST_GIB} GiB")


def flat_index(points):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return index


def tables():
    rng = np.random.default_rng(0)
    train, held, drawn = (rng.standard_normal((n, 8)) for n in (1000, 1000, 2000))
    for name, samples in (
        ("fresh", drawn),
        ("noisy copies", train[:1].repeat(2000, 0) + drawn / 20),
    ):
        space = common_space(train, held, samples)
        count_facts(space)
        spent, found = seconds(lambda space=space: count_facts(space))
        print(f"1,000 + 1,000 + 2,000 in 8 columns, {name}: {spent:.2f} s, copies {found.copies}")


def pictures():
    train = load("fashion-mnist").values
    others = read_idx(FASHION.with_name("t10k-images-idx3-ubyte.gz")).values
    space = common_space(train, others[160:], others[:160])
    spent, found = seconds(lambda: count_facts(space))
    print(f"60,000 + 9,840 + 160 pictures of 28 x 28: {spent:.1f} s, copies {found.copies}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        {"tables": tables, "pictures": pictures, "whole": whole}.get(
            "".join(sys.argv[1:]), million
        )()
