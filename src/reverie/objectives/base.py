"""What one minibatch asks of a denoiser: that gain * xhat(x_t) meets a target.

Every objective here is a weighted regression whose conditional mean is the same clean guess, so
that a network trained on any of them is sampled, measured and audited alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from reverie.denoisers import Network
from reverie.noise_law import NoiseLaw
from reverie.processes import GaussianProcess


class Regression(NamedTuple):
    """State and target (B, *shape); gain broadcasts against their modes; what rows are told."""

    state: Tensor
    target: Tensor
    gain: Tensor
    process: GaussianProcess
    condition: Any = None

    def loss(self, guess: Tensor, scale: Tensor) -> Tensor:
        """scale * (gain * guess - target)^2, the mean over modes, per sample (B,)."""
        to_modes = self.process.to_modes
        missed = self.gain * to_modes(guess) - to_modes(self.target)
        return (scale * missed.square()).flatten(1).mean(1)


class Objective(Protocol):
    """Noises a minibatch: rows (B,) are the places of x (B, *shape) in the training set."""

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Regression:
        """States at times t (B,), and what the guess there should meet."""
        ...


class Standard:
    """Denoising score matching: xhat(x_t) is regressed on x (Vincent 2011)."""

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Regression:
        state = self.process.corrupt(x, t, generator=generator)
        return Regression(state, x, x.new_ones(()), self.process)


class DenoisingFit:
    """Adam on denoising score matching, one minibatch at a time, for loops that own their data."""

    def __init__(self, network: Network, lr: float) -> None:
        self.network, self.law = network, NoiseLaw(network.process, network.data_std)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99))

    def step(self, x: Tensor, generator: torch.Generator, condition: Any = None) -> None:
        """One step on clean points (B, *shape), with what the network is told of them."""
        network = self.network.train()
        t, weight, bins = self.law.draw(len(x), generator)
        state = network.process.corrupt(x, t, generator=generator)
        drawn = Regression(state, x, x.new_ones(()), network.process)
        each = drawn.loss(network(state, t.to(x), condition), network.loss_weight(t, x))
        self.law.learn(bins, each.detach())
        self.optimiser.zero_grad(set_to_none=True)
        (each * weight.to(each)).mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimiser.step()
