"""A phase diagram of linear theory against one draw of the simulation it replaces."""

import resource
import time

import numpy as np

from reverie.forecast import predict
from reverie.theory import LinearTheory, phase_diagram, power_law
from reverie.theory.equivalents import atoms
from timing import paired

DIM = 1024
N = np.geomspace(256, 8192, 20).round()
RIDGE, U = np.geomspace(1e-3, 1, 20), np.geomspace(1e-3, 1e3, 100)


def simulate(spectrum, seed=0):
    """Training and test rates of one draw per N: a covariance, its eigenvectors, every cell."""
    rng, train, test = np.random.default_rng(seed), [], []
    for n in N.astype(int):
        points = rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)
        values, basis = np.linalg.eigh(points.T @ points / n)
        overlap = spectrum @ basis**2
        kept = 1 / (1 + U[:, None] * (values + RIDGE[:, None, None]))
        through = ((1 - kept) ** 2).sum(-1) / U
        train.append(0.5 * (kept**2 @ values + through))
        test.append(0.5 * (kept**2 @ overlap + through))
    return np.array(train), np.array(test)


def main():
    spectrum = power_law(DIM, 1)
    law, seen = atoms(spectrum), {}

    def ours():
        seen["theory"] = phase_diagram(law, N, RIDGE, U)

    def theirs():
        seen["draw"] = simulate(spectrum)

    pair = paired(ours, theirs, repeats=1, warmup=0)
    error = np.abs(seen["draw"][1] / seen["theory"].test - 1)
    print(f"phase diagram, d = {DIM}, 40,000 cells, against one draw   {pair}")
    print(
        f"  test losses differ by {np.median(error):.1e} in the median, {error.max():.1e} at most"
    )
    wide = LinearTheory(power_law(3072, 1))
    pair = paired(lambda: wide.phase_diagram(N, RIDGE, U), lambda: None, repeats=3)
    print(f"phase diagram, d = 3072, 40,000 cells   {pair.ours:.2f} s")
    rng = np.random.default_rng(0)
    scale = np.sqrt(power_law(3072, 1)).astype(np.float32)
    data = rng.standard_normal((50_000, 3072), dtype=np.float32) * scale
    start = time.perf_counter()
    predict(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"predict, N = 50,000, d = 3,072   {time.perf_counter() - start:.0f} s, {peak:.1f} GiB")


if __name__ == "__main__":
    main()
