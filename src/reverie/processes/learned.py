"""A variance-preserving process whose noise schedule is learned.

    log gamma(t) = clean + (noisy - clean) s(t),   s(t) = (f(t) - f(0)) / (f(1) - f(0))
    f(t) = a t + 1/K sum_k c_k sigmoid(b_k (t - m_k)),   a, b, c > 0
    alpha^2 = sigmoid(log gamma),  sigma^2 = sigmoid(-log gamma)

After variational diffusion models (Kingma, Salimans, Poole & Ho 2021, section 3.2 and appendix H:
a monotone network of positive weights between two ends); the form of f is ours.
`objectives.VariationalFit` learns it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.processes.base import Process
from reverie.processes.gaussian import VariancePreserving

STEEPNESS = 10.0  # of every sigmoid, before training
SHARE = 0.1  # of the rise that the sigmoids make, before training


class Learned(VariancePreserving):
    """Log signal-to-noise ratio from `clean` (t = 0) to `noisy` (t = 1), about linear at first.

    width: sigmoids of the monotone network. Its parameters ask for no gradient until they are
    learned (`interior`, `ends`), so that a network trained on this process leaves it alone. Raises
    InputError unless noisy < clean.
    Source: after Kingma, Salimans, Poole & Ho 2021, section 3.2 and appendix H; the form is ours.

    >>> from reverie.processes import Learned
    >>> process = Learned(noisy=-5, clean=13)
    >>> process.clock([0.0, 1.0]).log().round(decimals=3)
    tensor([13., -5.], dtype=torch.float64)
    """

    def __init__(
        self,
        noisy: float = -5.0,
        clean: float = 13.3,
        width: int = 32,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__((0.0, 1.0), shape)
        if not noisy < clean or width < 1:
            raise InputError(f"log ratios are {noisy}, {clean}; need noisy < clean, and width > 0")
        # float32 like any network's, or rows would take float64 from them; t makes it float64
        self.noisy = nn.Parameter(torch.tensor(float(noisy)))
        self.clean = nn.Parameter(torch.tensor(float(clean)))
        self.slope = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.full((width,), math.log(SHARE)))
        self.steepness = nn.Parameter(torch.full((width,), math.log(STEEPNESS)))
        self.middles = nn.Parameter((torch.arange(width) + 0.5) / width)
        self.requires_grad_(False)

    @property
    def ends(self) -> list[nn.Parameter]:
        """Parameters of the two ends."""
        return [self.noisy, self.clean]

    @property
    def interior(self) -> list[nn.Parameter]:
        """Parameters of the way between the ends."""
        return [self.slope, self.heights, self.steepness, self.middles]

    def _rise(self, t: Tensor) -> Tensor:
        """f(t) - f(0), (B,)."""
        steepness, middles = self.steepness.to(t).exp(), self.middles.to(t)
        start = torch.sigmoid(-steepness * middles)
        rise = torch.sigmoid(steepness * (t[:, None] - middles)) - start
        return self.slope.to(t).exp() * t + (self.heights.to(t).exp() * rise).mean(1)

    def log_gamma(self, t: Tensor) -> Tensor:
        share = self._rise(t) / self._rise(torch.ones_like(t[:1]))
        return self.clean.to(t) + (self.noisy - self.clean).to(t) * share


def require_learned(process: Process) -> Learned:
    """The process, if its schedule can be learned; else InputError."""
    if not isinstance(process, Learned):
        raise InputError("only a Learned process has a schedule to learn")
    return process
