"""The memoriser: the optimum of the training loss, an average over the training set itself.

    xhat(x_t) = sum_i w_i target(x_i),   w = softmax_i log p(x_t | x_i)

(Yi, Sun & Li 2023; Gu et al. 2023.) It streams over the training set in chunks with an online
softmax, so that memory does not grow with N. For Gaussian noise with one speed the logits are
gamma (y.x_i - |x_i|^2 / 2), y = x_t / alpha: two matrix products a chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.low_rank import Seen
from reverie.errors import InputError
from reverie.processes import Process
from reverie.processes.gaussian import require_gaussian

FLOAT32_LOGIT_ERROR = 1e-2  # above this bound on the logits' rounding error, work in float64
LEAST_LOG_WEIGHT = -60.0  # e^-60 is below rounding; smaller weights would be slow subnormals


class Memoriser(Denoiser):
    """Exact empirical optimum over `data` (N, *shape); `chunk` rows are in flight at a time.

    Raises InputError on fewer than one row or on values that are not finite.
    The guess is sum_i softmax(log p(x_t | x_i))_i target_i; densities are in nats.
    Source: Yi, Sun & Li 2023; Gu et al. 2023.

    >>> import torch
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> rows = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    >>> Memoriser(VP(), rows)(torch.tensor([[0.9, 0.3]]), torch.tensor(0.05)).round(decimals=4)
    tensor([[1., 0.]])
    """

    data: Tensor
    centre: Tensor
    points: Tensor
    half_norm: Tensor

    def __init__(self, process: Process, data: Tensor, chunk: int = 2048) -> None:
        super().__init__()
        if data.shape[0] == 0:
            raise InputError("the memoriser needs at least one training row")
        self.process = process
        self.chunk = chunk
        self.register_buffer("data", process.space.check(data), persistent=False)
        self._by_products = process.gaussian is not None and process.isotropic
        if self._by_products:
            self._prepare()

    @property
    def seen(self) -> Seen:  # type: ignore[override]
        return Seen(self.data)

    def _prepare(self) -> None:
        """Centred points and half their square norms, for the matrix products."""
        points = self.data.flatten(1)
        self.register_buffer("centre", points.mean(0), persistent=False)
        self.register_buffer("points", points - self.centre, persistent=False)
        half = torch.cat([0.5 * c.double().square().sum(1) for c in self.points.split(self.chunk)])
        self.register_buffer("half_norm", half, persistent=False)
        self._radius = math.sqrt(2 * float(half.max()))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Posterior mean of the target, (B, *shape), or (B, *sites, S) of symbols."""
        return self.average(state, t)[0]

    def average(self, state: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the prediction and log sum_i p(x_t | x_i) / N in nats, (B,)."""
        if torch.is_grad_enabled() and state.requires_grad:  # the stream below works in place
            mean, log_sum = self._generic(state.double(), torch.as_tensor(t))
            return mean.to(state.dtype), log_sum.to(state.dtype)
        if not self._by_products:
            return self._generic(state, torch.as_tensor(t))
        process = require_gaussian(self.process, "the memoriser by products", one_level=True)
        batch = state.shape[0]
        alpha, sigma = (level.reshape(-1).expand(batch) for level in process.scales(t, state))
        gamma = (alpha / sigma).double().square()
        query = state.flatten(1) / alpha[:, None] - self.centre
        size = query.norm(dim=1).double()
        # the products' rounding is about eps |y||x| relative to which gamma blows up at low noise
        error = gamma * self._radius * (size + self._radius) * 2.0**-24
        exact = (error > FLOAT32_LOGIT_ERROR) & (state.dtype != torch.float64)
        mean = torch.empty_like(query)
        log_sum = torch.empty(batch, dtype=torch.float64, device=state.device)
        for rows, kind in ((~exact, state.dtype), (exact, torch.float64)):
            if rows.any():
                part = slice(None) if rows.all() else rows
                out, total = self._stream(query[part].to(kind), gamma[part].to(kind))
                mean[part], log_sum[part] = out.to(query.dtype), total.double()
        volume = sigma.double().log() + 0.5 * math.log(2 * math.pi)
        log_sum = log_sum - 0.5 * gamma * size.square() - math.log(len(self.points))
        log_sum = log_sum - volume * query.shape[1]
        return (mean + self.centre).reshape(state.shape), log_sum.to(state.dtype)

    def _stream(self, query: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Online softmax over chunks: (weighted mean (B, d), log-sum-exp of the logits (B,))."""
        scaled = query * gamma[:, None]
        top = torch.full((len(query),), -torch.inf, dtype=query.dtype, device=query.device)
        total, mean = torch.zeros_like(top), torch.zeros_like(query)
        for points, half in zip(
            self.points.split(self.chunk), self.half_norm.split(self.chunk), strict=True
        ):
            points, half = points.to(query.dtype), half.to(query.dtype)
            logits = (scaled @ points.T).addcmul_(gamma[:, None], half, value=-1)
            higher = torch.maximum(top, logits.amax(1))
            decay = (top - higher).exp_()
            weights = logits.sub_(higher[:, None]).clamp_(min=LEAST_LOG_WEIGHT).exp_()
            total = total * decay + weights.sum(1)
            mean = torch.addmm(mean.mul_(decay[:, None]), weights, points)
            top = higher
        return mean.div_(total[:, None]), top + total.log()

    def _generic(self, state: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same average through `log_kernel` and `target`, for any process."""
        like = self.process.target(state, self.data[:1], t)
        mean = like.new_zeros(len(state), math.prod(like.shape[1:]))
        top = mean.new_full((len(state),), -torch.inf)
        total = torch.zeros_like(top)
        for points in self.data.split(self.chunk):
            points = points.to(state.dtype)
            logits = self.process.log_kernel(state, points, t)
            higher = torch.maximum(top, logits.amax(1))
            decay, weights = (top - higher).exp(), (logits - higher[:, None]).exp()
            pulled = self.process.average_target(weights, state, points, t)
            total = total * decay + weights.sum(1)
            mean = mean * decay[:, None] + pulled.flatten(1)
            top = higher
        log_sum = top + total.log() - math.log(len(self.data))
        return (mean / total[:, None]).reshape(-1, *like.shape[1:]), log_sum

    def log_density(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Exact log-density (B,) in nats of the noised training set at time t."""
        return self.average(state, t)[1]
