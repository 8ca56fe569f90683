"""Learn a noise schedule with its denoiser: the ends by the evidence bound, the rest by variance.

The bound does not depend on the schedule between its ends, but the variance of its estimate does:
so the network and the ends descend the bound, and the interior descends the mean square of the
per-sample diffusion loss (Kingma et al. 2021, section 4.1 and appendix I.2). At the optimum
d log gamma / dt is inverse to the root mean square of the loss per unit of log gamma; for a scalar
Gaussian, equal times are equal information.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser
from reverie.objectives.weights import loss_weight
from reverie.processes.learned import require_learned
from reverie.processes.linear_sde import require_linear_sde


class VariationalFit:
    """Adam on the evidence bound of a network on a `Learned` process, one minibatch at a time.

    network: any denoiser on such a process; an exact one has nothing to learn but the schedule.
    values: the grid (V,) of discrete data, or None for a density. lr, schedule_lr: of the network
    and of the schedule. learn_ends: else only the interior is learned; a density's clean end has
    no optimum of its own where the data are rough. Raises InputError on another process.
    Source: Kingma et al. 2021, section 4.1 and appendix I.2.

    >>> import torch
    >>> from reverie.denoisers import Network, ResidualMLP
    >>> from reverie.objectives import VariationalFit
    >>> from reverie.processes import Learned
    >>> fit = VariationalFit(Network(Learned(), ResidualMLP((2,), width=16)))
    >>> fit.step(torch.zeros(8, 2), torch.Generator().manual_seed(0)).shape  # nats
    torch.Size([8])
    """

    def __init__(
        self,
        network: Denoiser,
        *,
        values: Tensor | None = None,
        lr: float = 1e-3,
        schedule_lr: float = 1e-2,
        learn_ends: bool = True,
    ) -> None:
        process = require_learned(network.process)
        self.network, self.process, self.values = network, process, values
        self.ends = process.ends if learn_ends else []
        theirs = {id(p) for p in process.parameters()}
        self.weights = [p for p in network.parameters() if id(p) not in theirs]
        groups = [dict(params=self.weights, lr=lr)] if self.weights else []
        groups.append(dict(params=[*process.interior, *self.ends], lr=schedule_lr))
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def step(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One step on clean points (B, *shape); their diffusion losses (B,) in nats, detached."""
        schedule = [*self.process.interior, *self.ends]
        for parameter in schedule:
            parameter.requires_grad_(True)
        diffusion = self.diffusion(x, generator)
        bound = diffusion.mean()
        if self.ends:
            bound = bound + self.process.prior_kl(x).mean()
            decoded = self.process.reconstruction(x, self.values, generator=generator)
            bound = bound + decoded.mean()
        self.optimiser.zero_grad(set_to_none=True)
        # relative to the mean, so that a learning rate suits any number of dimensions
        spread = diffusion.square().mean() / diffusion.detach().mean().square()
        spread.backward(inputs=self.process.interior, retain_graph=True)
        if self.weights or self.ends:
            bound.backward(inputs=[*self.weights, *self.ends])
            nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        for parameter in schedule:
            parameter.requires_grad_(False)
        return diffusion.detach()

    def diffusion(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Estimates (B,) in nats of the diffusion term, at times spread evenly over [0, 1]."""
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        t = (torch.arange(len(x), dtype=torch.float64) / len(x) + start) % 1
        guess = self.network(self.process.corrupt(x, t, generator=generator), t)
        weight = loss_weight("elbo", self.process, t, x)
        return (weight * (x - guess).square()).flatten(1).sum(1)


def state_bound(
    denoiser: Denoiser,
    x: Tensor,
    *,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Parts (B,) of an upper bound on -log p(x) in nats, differentiable in the process as well.

        1/2 x^T Gamma_1 x + int 1/2 e^T (-dGamma/dt) e dt + 1/2 (d log(2 pi e) - log det Gamma_0)

    with e = x - xhat, Gamma_0 at the cleanest level and Gamma_1 at the noisiest: the prior
    N(0, S), the path (unbiased), and the decoder N(y, Gamma_0^-1). Times are stratified over the
    batch, uniform in log t.
    """
    process = require_linear_sde(denoiser.process, "this bound")
    low, high = process.t_range
    kind, width = torch.float64, math.log(high / low)
    place = torch.rand(1, generator=generator, dtype=kind) + torch.arange(len(x), dtype=kind)
    order = torch.randperm(len(x), generator=generator)
    t = (width * (place[order] / len(x) - 1)).exp() * high
    off = x - denoiser(process.corrupt(x, t, generator=generator), t, condition)
    path = width * t.to(x) * process.quadratic(process.speed(t), off)
    clean, noisy = (process.precision(end)[1] for end in (low, high))
    groups = x[0].numel() // process.data_dims
    decoder = 0.5 * (x[0].numel() * math.log(2 * math.pi * math.e) - groups * clean.logdet())
    return process.quadratic(noisy, x), path, decoder.to(x).expand(len(x))
