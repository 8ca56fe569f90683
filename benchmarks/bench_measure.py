"""Measuring a curve against the bare network calls it cannot do without, and an audit's time."""

import numpy as np
import torch

from reverie.auditing import audit
from reverie.curve import measure
from reverie.denoisers import Network, ResidualMLP
from reverie.processes import EDM
from timing import paired


def main():
    torch.manual_seed(0)
    data = torch.randn(1000, 64)
    network = Network(EDM(), ResidualMLP((64,), 256, 3)).eval()
    times = torch.linspace(0.05, 0.95, 64)

    @torch.no_grad()
    def calls():
        both = torch.cat([data, data])
        for t in times:
            network(both, t.expand(2000))

    pair = paired(lambda: measure(network, data), calls, repeats=5)
    print(f"curve of 64 levels on 1,000 rows vs its network calls   {pair}")
    train, holdout, more, again = np.random.default_rng(0).standard_normal((4, 1000, 8))
    samples = np.concatenate([more, again])
    pair = paired(lambda: audit(train, holdout, samples), lambda: None, repeats=5)
    print(f"audit of 1,000 + 1,000 + 2,000 rows, d = 8   {pair.ours:.2f} s")


if __name__ == "__main__":
    main()
