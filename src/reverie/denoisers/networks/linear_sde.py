"""Denoisers of linear SDEs: a Gaussian process's own, a network, and hybrid score networks.

A state of a linear SDE knows x only through y = x + N(0, Gamma^-1) (`LinearSDE.statistic`). Where
Gamma is a number, the best guess is that of any Gaussian process at the same signal-to-noise
ratio: velocities change the path of a sampler, not what there is to learn.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import Network
from reverie.errors import InputError
from reverie.processes import CriticallyDamped, GaussianProcess, LinearSDE


class Transferred(Denoiser):
    """The denoiser of a Gaussian process, asked about the states of a linear SDE: no training.

    Exact wherever `denoiser` is. Raises InputError where the SDE mixes coordinates, or reaches
    signal-to-noise ratios that the denoiser's process does not.
    """

    process: LinearSDE

    def __init__(self, denoiser: Denoiser, process: LinearSDE) -> None:
        super().__init__()
        known = denoiser.process
        if not isinstance(known, GaussianProcess) or known.columns > 1 or process.data_dims > 1:
            raise InputError(
                "a denoiser is transferred from a Gaussian process with one clock to a linear SDE "
                "that acts on every coordinate alike"
            )
        (low, high), (least, most) = (
            tuple(p.clock(torch.tensor(p.t_range[::-1])).tolist()) for p in (process, known)
        )
        if low < least or high > most:
            raise InputError(
                f"the process runs from signal-to-noise ratio {low:.3g} to {high:.3g}, but the "
                f"denoiser knows {least:.3g} to {most:.3g} only: widen its process's range"
            )
        self.denoiser, self.known, self.process = denoiser, known, process

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        y = self.process.statistic(state, t)
        time = self.known.time(self.process.clock(t))
        alpha, _ = self.known.levels(time, y)
        return self.denoiser(alpha * y, time.to(y).expand(len(y)), condition)


class StateNetwork(Network):
    """`Network` for states of a linear SDE: the same preconditioning, with matrices.

    xhat = C M^T S^-1 X_t + C^(1/2) F((data_std^2 + Gamma^-1)^(-1/2) y, level), where
    C = (Gamma + 1/data_std^2)^-1; powers 1/2 are Cholesky factors. `body(y, level)` sees points.
    """

    process: LinearSDE  # type: ignore[assignment]

    def __init__(self, process: LinearSDE, body: nn.Module, data_std: float = 1.0) -> None:
        super().__init__(process, body, data_std)  # type: ignore[arg-type]

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        process, variance = self.process, self.data_std**2
        reading, gamma, _ = process.precision(t)
        eye = torch.eye(process.data_dims).to(gamma)
        spread = torch.linalg.inv(gamma + eye / variance)
        total = torch.linalg.cholesky(variance * eye + torch.linalg.inv(gamma))
        view = torch.linalg.solve(total, torch.linalg.solve(gamma, reading))
        level = -gamma.logdet() / (8 * process.data_dims)  # 1/4 of the mean log deviation
        blocks = process.blocks(state)
        shape = process.readout(state).shape
        extra = () if condition is None else (condition,)
        seen = (view.to(state) @ blocks).reshape(shape)
        raw = self.body(seen, level.to(state).expand(len(state)), *extra)
        raw = raw.reshape(len(state), process.data_dims, -1)
        out = torch.linalg.cholesky(spread).to(state) @ raw
        return ((spread @ reading).to(state) @ blocks + out).reshape(shape)

    def loss_weight(self, t: Tensor, like: Tensor) -> Tensor:
        """tr(C^-1)/d (B, ...): where A acts on every coordinate alike, it gives the loss of F."""
        weight = self.process.clock(t).detach() + self.data_std**-2
        return weight.to(like).reshape(-1, *(1,) * (like.ndim - 1))


class HybridScore(Denoiser):
    """A critically damped model of others: `module(state, t)` answers e_v (B, *shape).

    The score of the velocity is -ell e_v (Dockhorn, Vahdat & Kreis 2022, eq. 8); read here as the
    clean guess, so that such a model has a curve, a plan and an audit.
    """

    process: CriticallyDamped

    def __init__(self, module: nn.Module, process: CriticallyDamped) -> None:
        super().__init__()
        self.module, self.process = module, process

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        extra = () if condition is None else (condition,)
        noise = self.module(state, t.to(state).expand(len(state)), *extra)
        if noise.shape != self.process.readout(state).shape:
            raise InputError(
                f"the module returned shape {tuple(noise.shape)} for states {tuple(state.shape)}; "
                "it must answer the velocity's noise only"
            )
        return self.process.clean_from_velocity_noise(noise, state, t)


def negative_elbo(
    denoiser: Denoiser, x: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """An unbiased upper bound on -log p(x) in nats (B,), differentiable in the process as well.

        1/2 x^T Gamma_1 x + int 1/2 e^T (-dGamma/dt) e dt + 1/2 (d log(2 pi e) - log det Gamma_0)

    with e = x - xhat, Gamma_0 at the cleanest level and Gamma_1 at the noisiest: the prior
    N(0, S), the path, and the decoder N(y, Gamma_0^-1). Times are stratified over the batch,
    uniform in log t.
    """
    process = denoiser.process
    if not isinstance(process, LinearSDE):
        raise InputError("negative_elbo is for linear SDEs")
    low, high = process.t_range
    kind, width = torch.float64, math.log(high / low)
    place = torch.rand(1, generator=generator, dtype=kind) + torch.arange(len(x), dtype=kind)
    order = torch.randperm(len(x), generator=generator)
    t = (width * (place[order] / len(x) - 1)).exp() * high
    off = x - denoiser(process.corrupt(x, t, generator=generator), t)
    path = width * t.to(x) * process.quadratic(process.speed(t), off)
    clean, noisy = (process.precision(end)[1] for end in (low, high))
    groups = x[0].numel() // process.data_dims
    decoder = 0.5 * (x[0].numel() * math.log(2 * math.pi * math.e) - groups * clean.logdet())
    return process.quadratic(noisy, x) + path + decoder.to(x)
