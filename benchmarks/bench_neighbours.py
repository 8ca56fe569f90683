"""Exact nearest neighbours against scikit-learn's brute force, 20,000 x 20,000."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from reverie.auditing import nearest
from timing import paired


def main():
    rng = np.random.default_rng(0)
    for dim, count in ((8, 20_000), (64, 20_000), (784, 8_000)):
        points, queries = rng.standard_normal((2, count, dim))
        index = NearestNeighbors(algorithm="brute").fit(points)
        pair = paired(
            lambda q=queries, p=points: nearest(q, p, 5),
            lambda q=queries, i=index: i.kneighbors(q, 5),
            repeats=3,
        )
        print(f"5 nearest of {count:,} among {count:,}, d = {dim}   {pair}")


if __name__ == "__main__":
    main()
