"""A step of training in other precisions and layouts, against the same step in float32.

    python bench_precision.py [--compile] [--device cuda]

Steps per second as a ratio, in turn in one process: the MLP on tables, the convolutional U-Net on
pictures of 32 x 32 x 3. A ratio below 1 is slower than float32. --compile adds torch.compile,
which takes a minute or two before its first step.
"""

import argparse
import time

import torch

from reverie.denoisers import network_for
from reverie.processes import EDM
from reverie.runs import FitConfig, Trainer
from reverie.runs.runtime import Runtime
from timing import paired

SHAPES = {"mlp": ((16,), 256, 128), "convolutional": ((3, 32, 32), 32, 32)}  # width, batch
ROWS = 2000


def trainer(network, precision, device, **runtime):
    shape, width, batch = SHAPES[network]
    torch.manual_seed(0)
    rows = torch.randn(ROWS, *shape)
    config = FitConfig(
        steps=10**6, batch_size=batch, check_every=10**6, precision=precision, device=device
    )
    body = network_for(EDM(0.02, 40), shape, network, width, 3)
    return Trainer(body, rows, None, config, runtime=Runtime(**runtime))


def compare(network, name, base, other, device, repeats):
    def step(one):
        def run():
            one._step()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    single = device == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if single else time.perf_counter
    pair = paired(step(other), step(base), repeats=repeats, clock=clock)
    print(f"{network:<14} {name:<14} {pair}   steps per second x {1 / pair.ratio:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for network in SHAPES:
        base = trainer(network, "float32", given.device)
        rivals = {
            name: trainer(network, name, given.device) for name in ("bf16", "fp16", "float64")
        }
        if network == "convolutional":
            rivals["channels last"] = trainer(network, "float32", given.device, channels_last=True)
        if given.compile:
            rivals["compiled"] = trainer(network, "float32", given.device, compile=True)
        for name, other in rivals.items():
            compare(network, name, base, other, given.device, given.repeats)


if __name__ == "__main__":
    main()
