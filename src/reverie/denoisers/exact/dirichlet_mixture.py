"""The exact denoiser of a mixture of Dirichlet laws under Wright-Fisher noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import WrightFisher
from reverie.processes.lineages import draw_dirichlet


class DirichletMixture(Denoiser):
    """The exact denoiser of data from sum_c weights_c Dirichlet(parameters_c).

    parameters: (C, k), weights: (C,), positive; weights are normalised. Raises InputError on
    parameters that are not, or of another number of shares.

    >>> import torch
    >>> from reverie.denoisers import DirichletMixture
    >>> from reverie.processes import WrightFisher
    >>> process = WrightFisher([1.0, 1.0, 1.0])
    >>> exact = DirichletMixture(process, torch.tensor([[8.0, 2.0, 2.0]]), torch.ones(1))
    >>> exact.draw(5, torch.Generator().manual_seed(0)).sum(1).round(decimals=6)
    tensor([1., 1., 1., 1., 1.], dtype=torch.float64)
    """

    process: WrightFisher

    def __init__(self, process: WrightFisher, parameters: Tensor, weights: Tensor) -> None:
        super().__init__()
        if parameters.ndim != 2 or parameters.shape[1:] != process.space.shape:
            raise InputError(
                f"parameters have shape {tuple(parameters.shape)}, not (C, "
                f"{process.space.shape[0]})"
            )
        if len(weights) != len(parameters) or not (weights > 0).all():
            raise InputError("weights must be positive, one per row of parameters")
        if not (parameters > 0).all():
            row = int((parameters <= 0).any(1).nonzero()[0, 0])
            raise InputError(f"row {row} of the parameters is not positive")
        self.process, self.components = process, parameters.double()
        self.shares = (weights / weights.sum()).double()

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        log_parts, lineages = self._parts(state, t)
        share = log_parts.softmax(1)[..., None]
        tau = self.process.tau(t).expand(len(state))
        return self.process.guess((share * lineages).sum(1), state.double(), tau).to(state)

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Exact log-density (B,) in nats of the noised data, of the first k - 1 shares."""
        log_parts, _ = self._parts(state, torch.as_tensor(t))
        return torch.logsumexp(log_parts, 1) + self.process.log_prior(state.double())

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n clean points (n, k), float64."""
        part = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        return draw_dirichlet(self.components[part], generator)

    def _parts(self, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.process.given_dirichlet(state, row, t) for row in self.components]
        ratios, lineages = (torch.stack(columns, 1) for columns in zip(*parts, strict=True))
        return self.shares.log() + ratios, lineages
