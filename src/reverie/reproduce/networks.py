"""What the reproductions share: the digits, and a plain training loop."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.denoisers import Network
from reverie.processes import GaussianProcess


def digits(generator: torch.Generator) -> Tensor:
    """The 1,797 digits of scikit-learn in random order: (1797, 1, 8, 8), values in [-1, 1]."""
    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return images[torch.randperm(len(images), generator=generator)]


def build_network(
    process: GaussianProcess, body: Callable[[], nn.Module], data: Tensor, seed: int
) -> Network:
    """A fresh preconditioned network, its weights drawn from `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(process, body(), float(data.std()))


def train(
    network: Network,
    data: Tensor,
    steps: int,
    *,
    generator: torch.Generator,
    batch_size: int = 128,
    rate: float = 1e-3,
    log_sigma: tuple[float, float] = (-1.0, 1.4),
) -> Network:
    """Adam with a cosine learning rate; ln(sigma / alpha) is normal with the given two moments."""
    process = network.process
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        x = data[torch.randint(len(data), (batch_size,), generator=generator)]
        level = torch.randn(len(x), generator=generator, dtype=torch.float64)
        t = process.time((log_sigma[0] + log_sigma[1] * level).mul(-2).exp())
        t = t.clamp(*process.t_range)
        guess = network(process.corrupt(x, t, generator=generator), t.to(x))
        loss = (network.loss_weight(t, x) * (guess - x).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()
