"""The exact program by halving against the quadratic one in NumPy, on the same nodes."""

import time

import numpy as np

from reverie.plan.staircase import best_knots
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
    for nodes, steps, most in ((1000, 50, 0.1), (20_000, 250, 2.0)):
        clock = np.exp(np.linspace(0, 12, nodes))[:, None]
        rate = 1 / (1 + clock)
        taken = min(timed(lambda c=clock, r=rate, k=steps: best_knots(c, r, k)) for _ in range(3))
        verdict = "within" if taken < most else "OVER"
        print(f"exact program, {nodes:,} nodes, {steps} steps   {taken:.3f} s, {verdict} {most} s")


def timed(call):
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
