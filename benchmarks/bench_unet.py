"""Our U-Net against diffusers' UNet2DModel of no more weights, on pictures of 32 x 32 x 3.

    python bench_unet.py [--seconds 90] [--threads 1,2] [--data PICTURES.npy]

Steps of training, in turn in one process; then the held-out area of both after equal wall time.
Both are trained by the same loop, and take a second or two by turns, so that a machine that drifts
moves both. Pictures are dead leaves (coloured discs that hide one another), unless given.
"""

import argparse
import time

import numpy as np
import torch

from reverie.curve import measure
from reverie.data import load
from reverie.denoisers import Network
from reverie.denoisers.networks.convolutional_unet import ConvolutionalUNet
from reverie.denoisers.networks.unet import UNet
from reverie.objectives import build_objective
from reverie.objectives.averaging import Average, learning_rate
from reverie.processes import EDM
from timing import paired

SIDE, LEAVES, PICTURES, HELD = 32, 40, 4000, 200
BATCH, WIDTHS = 32, (16, 32)  # of UNet2DModel's first level; 16 is the one that is trained
RATES = (1e-3, 2e-3)  # learning rates; each network is shown with its better one
TURN = 2.0  # seconds


def dead_leaves(count, seed=0):
    """Pictures (count, 3, SIDE, SIDE) of discs of random place, size and colour."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:SIDE, :SIDE]
    pictures = np.empty((count, 3, SIDE, SIDE), np.float32)
    for picture in pictures:
        for y, x, radius in rng.uniform([-4, -4, 2], [SIDE + 4, SIDE + 4, 12], (LEAVES, 3)):
            picture[:, (down - y) ** 2 + (right - x) ** 2 < radius**2] = rng.uniform(size=(3, 1))
        picture += 0.02 * rng.standard_normal(picture.shape)
    return pictures


def weights(module):
    return sum(p.numel() for p in module.parameters())


def rivals(width, shape):
    """UNet2DModel of that width, and ours of the least width that has as many weights or more."""
    theirs = UNet(shape, width)
    own = 16
    while weights(ConvolutionalUNet(shape, own)) < weights(theirs):
        own += 8
    return ConvolutionalUNet(shape, own), theirs


class Training:
    """A network in training: `step` is one step, `turn` as many as fit in some seconds."""

    def __init__(self, body, points, seconds, rate):
        self.network = Network(EDM(0.02, 40), body)
        self.points, self.seconds, self.rate = points, seconds, rate
        self.objective = build_objective("standard", self.network, points, 2)
        self.optimiser = torch.optim.AdamW(body.parameters(), rate, (0.9, 0.99), fused=True)
        self.average, self.steps, self.used = Average(self.network, 0.995), 0, 0.0
        self.generator = torch.Generator().manual_seed(0)

    def step(self):
        done = int(1000 * self.used / self.seconds)  # the schedule is one of time
        warm = min(1.0, (self.steps + 1) / 100)
        self.optimiser.param_groups[0]["lr"] = warm * learning_rate(done, 1000, self.rate)
        rows = torch.randint(len(self.points), (BATCH,), generator=self.generator)
        self.objective.losses(rows, self.points[rows], self.generator).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.steps)
        self.steps += 1

    def turn(self):
        """Train for TURN seconds; whether time is left."""
        start = time.perf_counter()
        while time.perf_counter() - start < TURN:
            self.step()
        self.used += time.perf_counter() - start
        return self.used < self.seconds

    def area(self, held):
        with torch.no_grad():
            noise = torch.Generator().manual_seed(1)
            return measure(self.average.put(), held, 24, generator=noise).area()


def compare_rates(points, threads):
    for width in WIDTHS:
        torch.manual_seed(0)
        ours, theirs = rivals(width, tuple(points.shape[1:]))
        steps = [Training(body, points, 1.0, 1e-3).step for body in (ours, theirs)]
        # one thread is timed by its own clock, which a busy machine does not disturb
        clock = time.thread_time if threads == 1 else time.perf_counter
        pair = paired(*steps, repeats=7, clock=clock)
        print(
            f"step of {BATCH}, {threads} thread(s), {weights(ours):,} weights against "
            f"{weights(theirs):,}   {pair}   steps per second x {1 / pair.ratio:.1f}",
            flush=True,
        )


def compare_areas(points, held, seconds, threads):
    best = {}
    for rate in RATES:
        torch.manual_seed(0)
        bodies = rivals(WIDTHS[0], tuple(points.shape[1:]))
        both = {
            name: Training(body, points, seconds, rate)
            for name, body in zip(("ours", "theirs"), bodies, strict=True)
        }
        left = True
        while left:
            left = min([training.turn() for training in both.values()])
        for name, training in both.items():
            area = training.area(held)
            best[name] = min(best.get(name, np.inf), area)
            print(f"{name:<7} lr {rate:g}: {training.steps:5d} steps, area {area:.1f} nats",
                  flush=True)  # fmt: skip
    print(
        f"held-out area after {seconds:g} s each, {threads} thread(s), better rate of each: ours "
        f"{best['ours']:.1f}, theirs {best['theirs']:.1f} nats",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--data", help="pictures (n, 32, 32, 3) or (n, 3, 32, 32)")
    given = parser.parse_args()
    values = dead_leaves(PICTURES) if given.data is None else load(given.data).values
    values = np.random.default_rng(0).permutation(values.astype(np.float32))
    values = torch.from_numpy((values - values.mean()) / values.std())
    held, points = values[:HELD], values[HELD:]
    counts = [int(text) for text in given.threads.split(",")]
    for threads in counts:
        torch.set_num_threads(threads)
        compare_rates(points, threads)
    compare_areas(points, held, given.seconds, counts[-1])


if __name__ == "__main__":
    main()
