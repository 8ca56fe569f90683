"""The exact program by halving against the quadratic one in NumPy, on the same nodes."""

import numpy as np

from reverie.staircase import best_knots
from timing import paired


def quadratic(clock, rate, steps):
    cost = rate @ clock.T - (rate * clock).sum(1)[:, None]
    cost[np.tri(len(clock), dtype=bool)] = np.inf
    value, choices = cost[0], []
    for _ in range(steps - 1):
        table = value[:, None] + cost
        choices.append(table.argmin(0))
        value = table.min(0)
    return value[-1]


def main():
    for nodes, steps in ((1000, 50), (3000, 50)):
        clock = np.exp(np.linspace(0, 12, nodes))[:, None]
        rate = 1 / (1 + clock)
        pair = paired(
            lambda c=clock, r=rate, k=steps: best_knots(c, r, k),
            lambda c=clock, r=rate, k=steps: quadratic(c, r, k),
            repeats=5,
        )
        print(f"exact program, {nodes} nodes, {steps} steps   {pair}")
    clock = np.exp(np.linspace(0, 12, 20_000))[:, None]
    pair = paired(lambda: best_knots(clock, 1 / (1 + clock), 250), lambda: None, repeats=3)
    print(f"exact program, 20,000 nodes, 250 steps   {pair.ours:.2f} s")


if __name__ == "__main__":
    main()
