"""Fits on rows that stay on disk, against the same fit in memory: memory and time.

    python bench_stored.py array  --gib 8         one .npy of float32, 1024 numbers a row
    python bench_stored.py shards --rows 1000000  pictures of 16 x 16 in shards of 1,000
    python bench_stored.py shards --rows 1000000 --raw     the same as .npy members

Every fit runs in a process of its own, which tells its peak resident memory and the seconds per
step between two steps of the fit, set-up apart. The fit in memory has the same rows where they
fit (`--memory-rows` of them otherwise: a step costs the same). Everything is written below
`--folder`, and removed. `--lazy` decodes pictures batch by batch instead of unpacking them once.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

CHILD = """
import json, resource, sys, time
import numpy as np
import torch
from reverie import fit
from reverie.data import load
from reverie.data.stored import dataset
torch.set_num_threads(1)
said = json.loads(sys.argv[1])
if said["lazy"]:
    dataset.UNPACKED = 0
source, begun, marks = said["source"], time.perf_counter(), []
if said["memory"]:
    data = load(source, stored=True)
    source = data.take(np.arange(min(len(data), said["memory"]))).in_full()
else:
    source = load(source, stored=True)
def mark(event, trainer):
    if event.step in (said["from"], said["steps"]):
        marks.append((time.perf_counter(), time.process_time()))
fit(source, steps=said["steps"], out=said["out"], check_every=10**9, network=said["network"],
    width=said["width"], batch_size=128, on_event=mark, holdout=1000)
count = said["steps"] - said["from"]
print(json.dumps({
    "step_ms": 1e3 * (marks[1][0] - marks[0][0]) / count,
    "cpu_ms": 1e3 * (marks[1][1] - marks[0][1]) / count,
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "workers_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    "set_up_s": marks[0][0] - begun,
}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("array", "shards"))
    parser.add_argument("--gib", type=float, default=0.25)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--lazy", action="store_true")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, default=200_000)
    parser.add_argument("--folder", default=None)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        source = made(said, Path(folder))
        found = {"memory": [], "disk": []}
        for repeat in range(said.repeats):
            for side in found:
                found[side].append(measured(said, source, side, Path(folder), repeat))
    for side, runs in found.items():
        print(
            side,
            json.dumps({k: round(float(np.median([r[k] for r in runs])), 3) for k in runs[0]}),
        )
    for clock in ("step_ms", "cpu_ms"):
        ratios = [m[clock] / d[clock] for m, d in zip(found["memory"], found["disk"], strict=True)]
        print(f"throughput from disk over in memory, by {clock}: median {np.median(ratios):.2f} "
              f"[{min(ratios):.2f}, {max(ratios):.2f}]")  # fmt: skip


def measured(said, source, side, folder, repeat):
    told = dict(
        source=str(source), memory=said.memory_rows if side == "memory" else 0, lazy=said.lazy,
        steps=said.steps, out=str(folder / f"run-{side}-{repeat}"), network=said.network,
        width=said.width,
    ) | {"from": said.steps // 5}  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(told)], capture_output=True, text=True, env=env
    )
    if ran.returncode:
        sys.exit(ran.stderr)
    result = json.loads(ran.stdout.splitlines()[-1])
    print(side, {k: round(v, 3) for k, v in result.items()}, flush=True)
    return result


def made(said, folder):
    begun = time.perf_counter()
    source = array(said, folder) if said.what == "array" else shards(said, folder)
    print(f"{source}: made in {time.perf_counter() - begun:.0f} s", flush=True)
    return source


def array(said, folder):
    rows = int(said.gib * 2**30) // 4096
    rng, path = np.random.default_rng(0), folder / "rows.npy"
    with path.open("wb") as file:
        head = {"descr": "<f4", "fortran_order": False, "shape": (rows, 1024)}
        np.lib.format.write_array_header_1_0(file, head)
        for start in range(0, rows, 2**14):
            file.write(rng.standard_normal((min(2**14, rows - start), 1024), np.float32).tobytes())
    return path


def shards(said, folder):
    from PIL import Image

    rng, place = np.random.default_rng(0), folder / "shards"
    place.mkdir()
    for start in range(0, said.rows, 1000):
        count = min(1000, said.rows - start)
        base = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        images = base.repeat(4, 1).repeat(4, 2) // 2 + rng.integers(
            0, 128, (count, 16, 16), np.uint8
        )
        with tarfile.open(place / f"{start // 1000:06d}.tar", "w") as archive:
            for k, image in enumerate(images):
                file = io.BytesIO()
                np.save(file, image) if said.raw else Image.fromarray(image).save(file, "PNG")
                info = tarfile.TarInfo(f"{start + k:07d}.{'npy' if said.raw else 'png'}")
                info.size = file.tell()
                file.seek(0)
                archive.addfile(info, file)
    return place


if __name__ == "__main__":
    main()
