"""The memoriser against its two bare matrix products (N = 60,000, d = 784, batch 512), and its
extra memory at N and 3 N. Must: at least 80% of the products' speed; memory independent of N."""

import subprocess
import sys
from pathlib import Path

import torch

from reverie.denoisers import Memoriser
from reverie.processes import EDM
from timing import paired


def peak_extra(count):
    """Peak resident memory in MiB of one call above what stands, in a fresh process (Linux)."""
    code = f"import bench_memoriser; print(bench_memoriser.first_call({count}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.strip()


def first_call(count):
    process, t = EDM(), torch.tensor(0.5)
    data = torch.randn(count, 784)
    memoriser = Memoriser(process, data)
    state = process.corrupt(data[:512], t)
    memoriser.points.split(1)[0] @ memoriser.points[:1].T  # thread pools and libraries
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    memoriser(state, t)
    return f"{_status('VmHWM') - before:.0f} MiB"


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def main():
    torch.manual_seed(0)
    process, t = EDM(), torch.tensor(0.5)
    data = torch.randn(60_000, 784)
    memoriser = Memoriser(process, data)
    state = process.corrupt(data[:512], t)

    def products():
        for points in memoriser.points.split(memoriser.chunk):
            weights = state @ points.T
            weights @ points

    with torch.no_grad():
        pair = paired(lambda: memoriser(state, t), products)
        print(f"memoriser vs two products   {pair}   speed {1 / pair.ratio:.0%} of the limit")
    for count in (20_000, 60_000):
        print(f"  peak extra memory of a first call, N = {count:,}: {peak_extra(count)}")


if __name__ == "__main__":
    main()
