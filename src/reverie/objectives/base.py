"""What one minibatch asks of a denoiser.

For Gaussian noise, that gain * xhat(x_t) meets a target: a weighted regression whose conditional
mean is the same clean guess whatever the noising, so that a network trained on any of them is
sampled, measured and audited alike. For every other process, that the bound on -log p(x) falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, Network
from reverie.objectives.noise_law import BUMP, NoiseLaw
from reverie.objectives.weights import loss_weight
from reverie.processes import GaussianProcess
from reverie.processes.times import low_discrepancy


class Regression(NamedTuple):
    """State and target (B, *shape); gain broadcasts against their modes; what rows are told.

    >>> import torch
    >>> from reverie.objectives import Regression
    >>> from reverie.processes import VP
    >>> x = torch.zeros(2, 3)
    >>> drawn = Regression(x, target=x, gain=torch.ones(()), process=VP())
    >>> drawn.loss(guess=torch.ones(2, 3), scale=torch.ones(()))
    tensor([1., 1.])
    """

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


class Drawn(Protocol):
    """A noised minibatch: the states to guess from, what rows are told, and what a guess costs."""

    @property
    def state(self) -> Tensor: ...

    @property
    def condition(self) -> Any: ...

    def loss(self, guess: Tensor, scale: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Told:
    """A noised minibatch whose rows are told something."""

    drawn: Drawn
    condition: Any

    @property
    def state(self) -> Tensor:
        return self.drawn.state

    def loss(self, guess: Tensor, scale: Tensor) -> Tensor:
        return self.drawn.loss(guess, scale)


class Objective(Protocol):
    """What a fit lowers. Its tensors in `state` are saved with the weights.

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import Objective, build_objective
    >>> from reverie.processes import VP
    >>> data = torch.zeros(8, 2)
    >>> network = Network(VP(), ResidualMLP((2,), width=16))
    >>> objective: Objective = build_objective("standard", network, data, seed=0)
    >>> sorted(objective.state())
    ['square']
    """

    def losses(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of each row of a minibatch, (B,); rows (B,) are their places in the data."""
        ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class Noising(Protocol):
    """Noises a minibatch: rows (B,) are the places of x (B, *shape) in the training set.

    >>> import torch
    >>> from reverie.objectives import Noising, Standard
    >>> from reverie.processes import VP
    >>> noising: Noising = Standard(VP())  # any class with this `draw`
    >>> t, generator = torch.full((4,), 0.5), torch.Generator().manual_seed(0)
    >>> noising.draw(torch.arange(4), torch.zeros(4, 2), t, generator).state.shape
    torch.Size([4, 2])
    """

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Drawn:
        """States at times t (B,), and what the guess there should meet."""
        ...


class Standard:
    """Denoising score matching: xhat(x_t) is regressed on x (Vincent 2011).

    Points are (B, *shape), times (B,).

    >>> import torch
    >>> from reverie.objectives import Standard
    >>> from reverie.processes import VP
    >>> t, generator = torch.full((4,), 0.5), torch.Generator().manual_seed(0)
    >>> Standard(VP()).draw(torch.arange(4), torch.zeros(4, 2), t, generator).target.shape
    torch.Size([4, 2])
    """

    def __init__(self, process: GaussianProcess) -> None:
        self.process = process

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Regression:
        state = self.process.corrupt(x, t, generator=generator)
        return Regression(state, x, x.new_ones(()), self.process)


class Denoising:
    """Regression at noise levels that are drawn by importance.

    weight: one of `WEIGHTS`. "edm" weighs the levels as the law of times does; the others as their
    own loss for uniform times, of which each loss is then an estimate. bump: see `NoiseLaw`.

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import Denoising, Standard
    >>> from reverie.processes import VP
    >>> network = Network(VP(), ResidualMLP((2,), width=16))
    >>> objective, x = Denoising(network, Standard(VP())), torch.zeros(8, 2)
    >>> objective.losses(torch.arange(8), x, torch.Generator().manual_seed(0)).shape
    torch.Size([8])
    """

    def __init__(
        self,
        network: Network,
        noising: Noising,
        weight: str = "edm",
        bump: tuple[float, float] = BUMP,
    ) -> None:
        self.network, self.noising, self.weight = network, noising, weight
        self.law = NoiseLaw(network.process, network.data_std, bump)

    def losses(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        t, weight, bins = self.law.draw(len(x), generator)
        drawn = self.noising.draw(rows, x, t, generator)
        guess = self.network(drawn.state, t.to(x.device), drawn.condition)
        wide = torch.promote_types(guess.dtype, torch.float32)
        each = drawn.loss(guess.to(wide), self._scale(t, x))
        self.law.learn(bins, each.detach().cpu())
        return each * weight.to(each)

    def _scale(self, t: Tensor, x: Tensor) -> Tensor:
        if self.weight == "edm":
            return self.network.loss_weight(t, x)
        weight = loss_weight(self.weight, self.network.process, t, x, self.network.data_std)
        density = self.law.density(t).to(weight).reshape(-1, *(1,) * (weight.ndim - 1))
        return weight / density

    def state(self) -> dict[str, Tensor]:
        return self.law.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        self.law.restore(state)


class Bound:
    """The denoiser's own losses, at one time in each of B equal strata of t.

    losses: (B,) in nats per unit of t.

    >>> import torch
    >>> from reverie.denoisers import PosteriorHead, TokenMLP
    >>> from reverie.objectives import Bound
    >>> from reverie.processes import Masking
    >>> head = PosteriorHead(Masking(4, sites=3), TokenMLP(5, (3,), 4, width=16))
    >>> x = torch.zeros(8, 3, dtype=torch.int64)
    >>> Bound(head).losses(torch.arange(8), x, torch.Generator().manual_seed(0)).shape
    torch.Size([8])
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser

    def losses(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        t = low_discrepancy(len(x), self.denoiser.process.t_range, generator)
        return self.denoiser.losses(rows, x, t, generator=generator)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing is learned on the way."""


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
