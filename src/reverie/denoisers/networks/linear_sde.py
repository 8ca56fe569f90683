"""Networks of linear SDEs: states seen through their sufficient statistic, and hybrid scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import Network
from reverie.errors import InputError
from reverie.processes import CriticallyDamped, LinearSDE


class StateNetwork(Network):
    """`Network` for states of a linear SDE: the same preconditioning, with matrices.

    xhat = C M^T S^-1 X_t + C^(1/2) F((data_std^2 + Gamma^-1)^(-1/2) y, level), where
    C = (Gamma + 1/data_std^2)^-1; powers 1/2 are Cholesky factors. `body(y, level)` sees points.

    >>> import torch
    >>> from reverie.denoisers import ResidualMLP, StateNetwork
    >>> from reverie.processes import CriticallyDamped
    >>> network = StateNetwork(CriticallyDamped(), ResidualMLP((5,), width=16))
    >>> network(torch.zeros(3, 2, 5), torch.tensor(0.5)).shape  # a point from place and velocity
    torch.Size([3, 5])
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
    InputError where its answer has another shape.

    >>> import torch
    >>> from reverie.denoisers import HybridScore
    >>> from reverie.processes import CriticallyDamped
    >>> class Body(torch.nn.Module):
    ...     def forward(self, state, t):
    ...         return state[:, 1]  # the velocity, as a guess of its noise
    >>> HybridScore(Body(), CriticallyDamped())(torch.zeros(3, 2, 5), torch.tensor(0.5)).shape
    torch.Size([3, 5])
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
