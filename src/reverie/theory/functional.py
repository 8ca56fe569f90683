"""What a Gaussian function costs to denoise on a grid: which losses survive its refinement."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.processes import Covariance
from reverie.spaces import Functions


def posterior_covariance(data: Tensor, noise: Tensor, gamma: float) -> Tensor:
    """Covariance (n, n) of x given alpha x + sigma xi: D (D + C/gamma)^-1 C/gamma.

    data, noise: covariance matrices D and C (n, n); gamma: alpha^2/sigma^2.
    """
    scaled = noise / gamma
    return data @ torch.linalg.solve(data + scaled, scaled)


def optimal_loss(
    data: Covariance, noise: Covariance, space: Functions, gamma: float = 1.0
) -> tuple[float, float]:
    """Least mean square error of a denoiser on a Gaussian law: (L2, Cameron-Martin).

    Half the second is the ideal rate in nats per unit of clock, Tr(C^-1 E)/2 with E of
    `posterior_covariance`. As the grid is refined the L2 error converges, and the other only where
    data are smoother than the noise; for equal operators it is n / (1 + gamma).
    """
    own, added = data.on(space), noise.on(space) / gamma
    both = own + added
    error = torch.linalg.solve(both, own)  # E = added error, so that Tr C^-1 E needs no C^-1
    square = (space.weights * (added * error.mT).sum(1)).sum()
    return float(square), float(error.trace()) / gamma
