"""Two objectives for a score on a manifold, equal up to a constant of the network's parameters.

Denoising: 1/2 |s - grad log p_tau(x_t | x)|^2. Implicit: 1/2 |s|^2 + div s (Hyvarinen 2005; on
manifolds De Bortoli et al. 2022, Table 2). Both are nats per unit of duration tau. Where the
kernel is not known the second is exact and the first, with Varadhan's log map for a target, is
not: a fit takes `Implicit` there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.processes.riemannian import require_manifold_noise
from reverie.processes.times import low_discrepancy
from reverie.spaces.divergence import divergence, probes


def denoising_loss(
    denoiser: Denoiser, x: Tensor, t: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Denoising score matching (B,) of points x (B, *shape) noised to times t (B,)."""
    process = require_manifold_noise(denoiser.process, "score matching")
    state = process.corrupt(x, t, generator=generator)
    off = denoiser(state, t.to(x)) - process.target(state, x, t)
    return 0.5 * process.space.inner(state, off, off)


def implicit_loss(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    *,
    directions: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Implicit score matching (B,) of points x (B, *shape) noised to times t (B,).

    directions: random directions of the divergence (Hutchinson 1989); None is exact.
    """
    process = require_manifold_noise(denoiser.process, "score matching")
    state = process.corrupt(x, t, generator=generator)
    return implicit_integrand(denoiser, state, t, directions=directions, generator=generator)


class Implicit:
    """Implicit score matching as a fit's objective: nats per unit of t, less a constant.

    One time in each of B equal strata of t, and one random direction of the divergence. The loss
    may be negative: it is lower than that of the score 0 by the squared length of the score.
    Raises InputError where the denoiser's process is no Brownian motion on a manifold.

    >>> import torch
    >>> from reverie.denoisers import TangentNetwork
    >>> from reverie.objectives import Implicit
    >>> from reverie.processes import Brownian
    >>> from reverie.spaces import Rotations
    >>> space, generator = Rotations(5), torch.Generator().manual_seed(0)
    >>> network = TangentNetwork(Brownian(space), width=8, depth=1)
    >>> rows = space.uniform(4, generator=generator).float()
    >>> Implicit(network).losses(torch.arange(4), rows, generator).shape
    torch.Size([4])
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.process = require_manifold_noise(denoiser.process, "implicit score matching")

    def losses(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B,): rows (B,) are not looked at."""
        process = self.process
        t = low_discrepancy(len(x), process.t_range, generator)
        each = implicit_loss(self.denoiser, x, t, directions=1, generator=generator)
        # d tau / dt = tau log(tau_max / tau_min)
        speed = process.tau(t) * math.log(process.tau_max / process.tau_min)
        return each * speed.to(each)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing is learned on the way."""


def implicit_integrand(
    denoiser: Denoiser,
    state: Tensor,
    t: Tensor,
    *,
    directions: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """1/2 |s|^2 + div s (B,) at states (B, *shape) and times t (B,)."""
    space = require_manifold_noise(denoiser.process, "score matching").space
    along = None
    if directions is not None:
        along = probes(space, state, directions, generator=generator)
    value, spread = divergence(space, lambda y: denoiser(y, t.to(y)), state, along)
    return 0.5 * space.inner(state, value, value) + spread
