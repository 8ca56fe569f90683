"""Loss weights: what multiplies the squared error of a clean guess, by noise level.

For t uniform in the process's range, w (x - xhat)^2 is, with gamma = alpha^2 / sigma^2:

    elbo       w = -1/2 dgamma/dt                the evidence bound, in nats
    g2         w = -dgamma/dt                    g^2 |score error|^2 (likelihood weighting: Song,
                                                 Durkan, Murray & Ermon 2021); twice the bound
    simple     w = gamma                         |noise error|^2 (Ho, Jain & Abbeel 2020)
    min-snr    w = min(gamma, 5)                 Hang et al. 2023
    sigmoid    w = -1/2 dgamma/dt / (1 + gamma e^-2)          sigmoid(2 - log gamma) elbo
                                                 (Kingma & Gao 2023, section 3)
    edm        w = (gamma + 1 / std^2)           1 / c_out^2 (Karras et al. 2022, table 1)

The bound with weight w is an integral of the loss curve against a density in log gamma (Kingma &
Gao 2023, eq. 9), so that for elbo, g2 and sigmoid the schedule between its ends does not matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import GaussianProcess

WEIGHTS = ("edm", "elbo", "simple", "min-snr", "sigmoid", "g2")
MOST_SNR = 5.0
SIGMOID_CENTRE = 2.0  # log gamma at which the sigmoid weight is 1/2


def loss_weight(
    name: str, process: GaussianProcess, t: Tensor, like: Tensor, data_std: float = 1.0
) -> Tensor:
    """Weight (B, ...) at times t (B,), broadcasting against `like` (B, *shape): see above.

    Differentiable in the parameters of a learned process. InputError on a name not in WEIGHTS.
    """
    alpha, sigma = process.scales(t, like)
    gamma = (alpha / sigma).square()
    if name == "edm":
        return gamma + data_std**-2
    if name == "simple":
        return gamma
    if name == "min-snr":
        return gamma.clamp(max=MOST_SNR)
    if name not in WEIGHTS:
        raise InputError(f"no loss weight is called {name!r}; choose {', '.join(WEIGHTS)}")
    fall = -_slope(process, t, like)
    if name == "g2":
        return fall
    if name == "elbo":
        return 0.5 * fall
    return 0.5 * fall / (1 + gamma * math.exp(-SIGMOID_CENTRE))


def _slope(process: GaussianProcess, t: Tensor, like: Tensor) -> Tensor:
    """dgamma/dt by forward differentiation, shaped to broadcast against `like`."""
    time = t.to(torch.float64).reshape(-1).contiguous()  # an expanded tensor has no tangent
    slope: Tensor = torch.func.jvp(process.gamma, (time,), (torch.ones_like(time),))[1]  # type: ignore
    rest = like.shape[1:] if slope.ndim > 1 else (1,) * (like.ndim - 1)
    return slope.to(like).reshape(-1, *rest)
