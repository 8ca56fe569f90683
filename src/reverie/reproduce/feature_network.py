"""Features of images for a Frechet distance: a small network that learnt to tell rotations.

No labels and no downloaded weights: the network is trained on the training images themselves to
say by which of four right angles an image was turned (Gidaris, Singh & Komodakis 2018), and the
activations before its last layer are the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 24


class Features(nn.Module):
    """Images (B, C, H, W) to features (B, 2 WIDTH)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((channels, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 2 * WIDTH)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(2 * WIDTH, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def train_features(images: Tensor, seed: int, steps: int = 400, batch_size: int = 128) -> Features:
    """Train on rotations of `images` (n, C, H, W); square images only."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Features(images.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (batch_size,), generator=generator)]
        turns = torch.randint(4, (batch_size,), generator=generator)
        turned = torch.stack(
            [torch.rot90(x, int(k), (1, 2)) for x, k in zip(batch, turns, strict=True)]
        )
        loss = nn.functional.cross_entropy(network.head(network(turned)), turns)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)
