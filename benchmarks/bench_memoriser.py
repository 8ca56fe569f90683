"""The memoriser against its two bare matrix products (N = 60,000, d = 784, batch 512), and its
extra memory at N and 3 N. Must: at least 80% of the products' speed; memory independent of N."""

import torch

from reverie.denoisers import Memoriser
from reverie.processes import EDM
from timing import paired


def peak_extra(call):
    """Peak resident memory in MiB above what stands, on Linux; None elsewhere."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    except OSError:
        return None


def _status(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) / 1024


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
            small = Memoriser(process, data[:count])
            small(state, t)
            print(
                f"  peak extra memory, N = {count:,}: {peak_extra(lambda m=small: m(state, t))} MiB"
            )


if __name__ == "__main__":
    main()
