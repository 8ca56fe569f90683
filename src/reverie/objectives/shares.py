"""Two objectives for Wright-Fisher noise on the simplex, equal up to a constant.

The drawn types of lineages (their mean given the noised shares is what is asked for, so that no
series is needed), and the implicit objective.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.denoisers import Denoiser
from reverie.processes.wright_fisher import require_wright_fisher


def lineage_loss(
    denoiser: Denoiser, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Denoising loss (B,) in nats per e-fold of tau, of shares x (B, k) noised to t (B,).

    The target is made of the drawn types of the lineages. Their scatter adds to the loss a number
    that the network does not touch.
    """
    process = require_wright_fisher(denoiser.process, "this loss")
    state, types = process.with_types(x, t, generator=generator)
    tau = process.tau(t)
    target = process.guess(types, state.double(), tau).to(state)
    return process.cost(denoiser(state, t.to(x)), target, state) / tau.to(state)


def implicit_shares_loss(
    denoiser: Denoiser, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Implicit score matching (B,) in nats per e-fold of tau, of x (B, k) noised to t (B,)."""
    process = require_wright_fisher(denoiser.process, "this loss")
    state = process.corrupt(x, t, generator=generator)
    return process.tau(t).to(state) * process.implicit(denoiser, state, t)
