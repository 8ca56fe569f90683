"""The exact denoiser of a law of numbers beside symbols: finitely many rows of symbols, and given
each a Gaussian law of the numbers.

    p(z, c_k) = w_k N(z; m_k, C_k)

Of a noised row (y, s), y = alpha z + sigma e, the posterior weight of row k is w_k p(s | c_k)
N(y; alpha m_k, alpha^2 C_k + sigma^2), and given k the mean of z is Kalman's,
m_k + alpha C_k (alpha^2 C_k + sigma^2)^-1 (y - alpha m_k). With C_k = 0 the law is finite: the
memoriser with weights. Everything is float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.processes import ProductProcess
from reverie.processes.gaussian import require_gaussian


class MixedMixture(Denoiser):
    """Exact guess under the law of `weights` (K,), `symbols` (K, sites) and Gaussian numbers.

    process: a product of Gaussian noise of one level on d numbers, and of noise on symbols. means:
    (K, d). covariances: (K, d, d), or None for numbers that are known given the symbols.
    Raises InputError on another process, and on weights that are not positive.

    >>> import torch
    >>> from reverie.denoisers import MixedMixture
    >>> from reverie.processes import VP, Masking, ProductProcess
    >>> process = ProductProcess(VP(shape=(1,)), Masking(2, sites=1))
    >>> symbols, means = torch.tensor([[0], [1]]), torch.tensor([[-1.0], [1.0]])
    >>> exact = MixedMixture(process, torch.ones(2), symbols, means)
    >>> exact(torch.tensor([[-1.0, 2.0]]), torch.tensor(0.3)).round(decimals=2)  # x, two symbols
    tensor([[-1.,  1.,  0.]], dtype=torch.float64)
    """

    process: ProductProcess

    def __init__(
        self,
        process: ProductProcess,
        weights: Tensor,
        symbols: Tensor,
        means: Tensor,
        covariances: Tensor | None = None,
    ) -> None:
        super().__init__()
        if len(process.parts) != 2:
            raise InputError("this law is of numbers and of symbols: a product of two parts")
        require_gaussian(process.parts[0], "the first part", one_level=True)
        if not (weights > 0).all():
            raise InputError("every weight must be positive")
        self.process = process
        self.log_weights = (weights / weights.sum()).double().log()
        self.symbols = process.parts[1].space.check(symbols)
        self.means = means.double()
        if covariances is None:
            covariances = torch.zeros(*means.shape, means.shape[1])
        self.variances, self.axes = torch.linalg.eigh(covariances.double())

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        weights, numbers = self._posterior(state, t)
        _, of_symbols = self.process.parts
        known = self.process.space.split(state)[1]
        time = self.process.part_times(t)[1]
        share = of_symbols.average_target(weights, known, self.symbols, time)
        return self.process.join([(weights[..., None] * numbers).sum(1), share], numbers)

    def _posterior(self, state: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Weights (B, K) of the rows, and the mean (B, K, d) of the numbers given each."""
        logs, numbers = self._parts(state, t)
        return logs.softmax(1), numbers

    def _parts(self, state: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        times = self.process.part_times(t)
        noise, of_symbols = self.process.parts
        assert noise.gaussian is not None
        y, known = self.process.space.split(state.double())
        alpha, sigma = (level.reshape(-1, 1, 1) for level in noise.gaussian.scales(times[0], y))
        spread = alpha.square() * self.variances + sigma.square()  # (B or 1, K, d)
        off = torch.einsum("kij,bki->bkj", self.axes, y[:, None] - alpha * self.means)
        logs = -0.5 * (off.square() / spread + spread.log() + math.log(2 * math.pi)).sum(2)
        logs = logs + self.log_weights + of_symbols.log_kernel(known, self.symbols, times[1])
        moved = torch.einsum("kij,bkj->bki", self.axes, alpha * self.variances / spread * off)
        return logs, self.means + moved

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """log p(x_t) (B,) in nats: a density of the numbers, a probability of the symbols."""
        return self._parts(state, t)[0].logsumexp(1)
